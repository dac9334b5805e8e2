"""Connections to RabbitMQ: addresses, channels, and links that come back for ever.

pika's Twisted adapter is behind :mod:`kupool.amqp.wire`; nothing else of KuPool touches it.
"""

from __future__ import annotations

from kupool.amqp.failures import BrokerError, BrokerRefused, BrokerUnreachable

__all__ = ["BrokerError", "BrokerRefused", "BrokerUnreachable"]
