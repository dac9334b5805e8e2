"""How long a client stays away: the close policy, and a wait that grows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from random import random as _random

from kupool.errors import Announced, after_close
from kupool.ranges import check, number, whole
from kupool.timing.doubling import Doubling

#: Seconds over which clients spread that come back at once: not all in one millisecond.
SPREAD = 0.25

_EXPECTED = {"first": number(), "most": number(), "steady": number(), "places": whole(1)}


class Backoff:
    """Counts what failed, and says how long to wait.

    The ceiling of the wait doubles with each failed round of ``places`` places, from
    ``first`` to ``most`` seconds; the wait is a part of it that ``random``, which returns
    a number from 0 to 1, chooses. Only a session that stood for ``steady`` seconds
    starts over. Raises :class:`ValueError` for a number that is out of its range.
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
        #: Attempts in a row that failed, and sessions that were not steady.
        self.failures = 0
        #: The place to try now: a number from 0 to below ``places``.
        self.place = 0

    def after(self, close: Announced | None, stood: float = 0.0) -> float | None:
        """Choose the next place; returns the seconds until then, None for never.

        ``close`` is what was announced, if anything was; ``stood`` is how many seconds the
        session stood, 0 for an attempt that failed.
        """
        if stood >= self._steady:
            self.failures, self._ceiling, self._hurried = 0, 0.0, False
        what = after_close(close)
        if not what.returns:
            return None
        if what.elsewhere:
            self.place = (self.place + 1) % self._places
        if what.at_once and not self._hurried:
            # Only once before a steady session: a server that ends every session at once
            # must not be met with a storm.
            self._hurried = True
            return self._random() * SPREAD
        if self.failures % self._places == 0:
            self._ceiling = self._ceilings.after(self._ceiling)
        self.failures += 1
        return what.wait + self._random() * self._ceiling


__all__ = ["SPREAD", "Backoff"]
