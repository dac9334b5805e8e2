"""Backoff of clients: the close policy, and the growing wait between attempts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from random import random as _random

from kupool.errors import Announced, after_close
from kupool.ranges import check, number, whole
from kupool.timing.doubling import Doubling

#: Seconds over which immediate reconnects are spread, so that not all come at once.
SPREAD = 0.25

_EXPECTED = {"first": number(), "most": number(), "steady": number(), "places": whole(1)}


class Backoff:
    """Counts failures, and returns how long to wait.

    The upper limit of the wait doubles with each failed round of ``places`` places, from
    ``first`` to ``most`` seconds. The wait is a random fraction of it: ``random`` returns a
    number from 0 to 1. Only a session that lasted ``steady`` seconds resets the limit.
    Raises :class:`ValueError` for a number that is out of its range.
    """

    def __init__(
        self,
        first: float,
        most: float,
        *,
        steady: float,
        places: int = 1,
        random: Callable[[], float] = _random,
    ) -> None:
        check(_EXPECTED, first=first, most=most, steady=steady, places=places)
        self._ceilings = Doubling(first, most)
        self._ceiling = 0.0
        self._steady = steady
        self._places = places
        self._random = random
        self._hurried = False
        #: Consecutive failed attempts and sessions that were not steady.
        self.failures = 0
        #: The index of the place to try now, below ``places``.
        self.place = 0

    def after(self, close: Announced | None, stood: float = 0.0) -> float | None:
        """Choose the next place; returns the seconds until the next attempt, None for never.

        ``close`` is the announced close, if any. ``stood`` is how many seconds the session
        lasted, 0 for a failed attempt.
        """
        if stood >= self._steady:
            self.failures, self._ceiling, self._hurried = 0, 0.0, False
        what = after_close(close)
        if not what.returns:
            return None
        if what.elsewhere:
            self.place = (self.place + 1) % self._places
        if what.at_once and not self._hurried:
            # Only once before a steady session: otherwise clients of a server that ends
            # every session at once would flood it.
            self._hurried = True
            return self._random() * SPREAD
        if self.failures % self._places == 0:
            self._ceiling = self._ceilings.after(self._ceiling)
        self.failures += 1
        return what.wait + self._random() * self._ceiling


__all__ = ["SPREAD", "Backoff"]
