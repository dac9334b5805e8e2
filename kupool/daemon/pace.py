"""How often a session may ask for something: a step in front of methods."""

from __future__ import annotations

from math import ceil
from typing import Any

from kupool.errors import ErrorText
from kupool.net.routing.guards import RateLimit
from kupool.session.connection import Connection


class RequestPace:
    """Lets ``rate`` requests a second of a session through, one second's of them at once.

    ``rate`` may be set while the daemon runs; with 0 there is no limit.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        self._limit = RateLimit(rate, max(1, ceil(rate))) if rate else None

    def __call__(self, connection: Connection, request: Any) -> ErrorText | None:
        """Answer a request that is one too many."""
        return None if self._limit is None else self._limit(connection, request)


__all__ = ["RequestPace"]
