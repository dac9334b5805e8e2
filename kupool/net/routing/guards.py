"""Guards for routes: rate limits and permissions."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from kupool.errors import FORBIDDEN, TOO_MANY_REQUESTS, ErrorText
from kupool.ranges import check, number, whole
from kupool.session.connection import Connection
from kupool.timing.buckets import Bucket

_EXPECTED = {"rate": number(above=True), "burst": whole(1)}


class RateLimit:
    """Limits each connection to ``rate`` messages a second, and bursts of ``burst``.

    Pass it in ``guards`` of a route or a group. A message over the limit is answered ``too
    many requests``. Routes and groups that share one object share one allowance. Raises
    :class:`ValueError` for a rate or burst that is not above 0.
    """

    def __init__(self, rate: float, burst: int = 1) -> None:
        check(_EXPECTED, rate=rate, burst=burst)
        self._rate = rate
        self._burst = burst
        # A bucket is removed with its connection.
        self._buckets: WeakKeyDictionary[Connection, Bucket] = WeakKeyDictionary()

    def __call__(self, connection: Connection, *message: object) -> ErrorText | None:
        """Return an error for a message over the limit, else None."""
        now = connection.around.now()
        bucket = self._buckets.get(connection)
        if bucket is None:
            bucket = self._buckets[connection] = Bucket(self._rate, self._burst, now)
        return None if bucket.spend(now) else TOO_MANY_REQUESTS


def allow(
    says: Callable[[Connection], bool], refusal: ErrorText = FORBIDDEN
) -> Callable[..., object]:
    """Return a guard that answers ``refusal`` unless ``says(connection)`` is true."""

    def guard(connection: Connection, *message: object) -> ErrorText | None:
        return None if says(connection) else refusal

    return guard


__all__ = ["RateLimit", "allow"]
