"""Connections to RabbitMQ: addresses, channels, and links that reconnect indefinitely.

Only :mod:`kupool.amqp.wire` uses pika's Twisted adapter.
"""

from __future__ import annotations

from kupool.amqp.failures import BrokerError, BrokerRefused, BrokerUnreachable

__all__ = ["BrokerError", "BrokerRefused", "BrokerUnreachable"]
