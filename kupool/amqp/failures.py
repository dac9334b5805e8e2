"""What can go wrong with a broker, by name."""

from __future__ import annotations


class BrokerError(Exception):
    """The broker, or the way to it, failed.

    ``code`` is the reply code of AMQP, 0 where there is none.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class BrokerRefused(BrokerError):
    """The broker will not have us, or not like this: trying again alone does not help."""


class BrokerUnreachable(Exception):
    """No broker answered in time."""


__all__ = ["BrokerError", "BrokerRefused", "BrokerUnreachable"]
