"""The exceptions of broker connections."""

from __future__ import annotations


class BrokerError(Exception):
    """The broker, or the network connection to it, failed.

    ``code`` is AMQP's reply code, 0 if there is none.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class BrokerRefused(BrokerError):
    """The broker refused the request permanently: a retry alone does not help."""


class BrokerUnreachable(Exception):
    """No broker answered in time."""


__all__ = ["BrokerError", "BrokerRefused", "BrokerUnreachable"]
