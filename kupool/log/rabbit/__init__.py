"""The log in RabbitMQ: a durable queue for counting, and a stream for reading again.

An entry is published once, to an exchange that copies it to the queue of each group and to the
stream. :class:`kupool.log.rabbit.log.RabbitLog` connects the parts, over the connections of
:mod:`kupool.amqp`.
"""

from __future__ import annotations

from kupool.amqp import BrokerError, BrokerRefused
from kupool.log.rabbit.failures import LogBrokerUnreachable

__all__ = ["BrokerError", "BrokerRefused", "LogBrokerUnreachable"]
