"""A limit on the requests of a session: a step before methods."""

from __future__ import annotations

from math import ceil
from typing import Any

from kupool.errors import ErrorText
from kupool.net.routing.guards import RateLimit
from kupool.session.connection import Connection


class RequestPace:
    """Allows a session ``rate`` requests a second, and one second's worth at once.

    ``rate`` may be set while the daemon runs; 0 means no limit.
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
        """Refuse a request above the limit."""
        return None if self._limit is None else self._limit(connection, request)


__all__ = ["RequestPace"]
