"""The log in RabbitMQ: a durable queue to count from, and a stream to read again.

An entry is published once, to an exchange that copies it into the queue of each group and
into the stream. :class:`kupool.log.rabbit.log.RabbitLog` puts the parts together.
"""

from __future__ import annotations

from kupool.log import LogUnavailable


class BrokerError(Exception):
    """The broker, or the way to it, failed.

    ``code`` is the reply code of AMQP, 0 where there is none.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class BrokerRefused(BrokerError):
    """The broker will not have us, or not like this: trying again alone does not help."""


class BrokerUnreachable(LogUnavailable):
    """No broker answered, at a start that needs one."""


__all__ = ["BrokerError", "BrokerRefused", "BrokerUnreachable"]
