"""The log in RabbitMQ: a durable queue to count from, and a stream to read again.

An entry is published once, to an exchange that copies it into the queue of each group and
into the stream. :class:`kupool.log.rabbit.log.RabbitLog` puts the parts together, on the
connections of :mod:`kupool.amqp`.
"""

from __future__ import annotations

from kupool.amqp import BrokerError, BrokerRefused
from kupool.log.rabbit.failures import LogBrokerUnreachable

__all__ = ["BrokerError", "BrokerRefused", "LogBrokerUnreachable"]
