"""What can go wrong with the log in RabbitMQ, by name."""

from __future__ import annotations

from kupool.log import LogUnavailable


class LogBrokerUnreachable(LogUnavailable):
    """No broker answered, at a start that needs one."""


__all__ = ["LogBrokerUnreachable"]
