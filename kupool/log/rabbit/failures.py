"""Exceptions of the log in RabbitMQ."""

from __future__ import annotations

from kupool.log import LogUnavailable


class LogBrokerUnreachable(LogUnavailable):
    """No broker answered at a start that requires one."""


__all__ = ["LogBrokerUnreachable"]
