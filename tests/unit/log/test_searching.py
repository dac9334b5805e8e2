"""The position of a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Entry, LogBounds
from kupool.log.searching import position_since


class PositionSinceTests(SynchronousTestCase):
    """Q-17: found by a few reads, also where positions are missing."""

    def find(self, entries: list[Entry], bounds: LogBounds, at: float) -> tuple[int, int]:
        """Return the position, and how often an entry was read."""
        reads = 0

        async def following(after: int) -> Entry | None:
            nonlocal reads
            reads += 1
            return next((entry for entry in entries if entry.position > after), None)

        found = Deferred.fromCoroutine(position_since(bounds, at, following))
        return self.successResultOf(found), reads

    @given(
        st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=30), st.integers(-1, 100)
    )
    def test_the_first_that_is_not_earlier(self, steps: list[tuple[int, int]], at: int) -> None:
        entries: list[Entry] = []
        position = seconds = 0
        for gap, later in steps:
            position, seconds = position + gap, seconds + later
            entries.append(Entry(position, "e", float(seconds), b""))
        bounds = LogBounds(entries[0].position if entries else 1, position, 0)
        wanted = [entry.position for entry in entries if entry.appended_at >= at]
        found, reads = self.find(entries, bounds, at)
        self.assertEqual(found, wanted[0] if wanted else position + 1)
        self.assertLessEqual(reads, (position + 1).bit_length())

    def test_a_clock_that_was_set_back(self) -> None:
        """It is one of those that follow an earlier entry."""
        times = [1.0, 2.0, 9.0, 3.0, 4.0, 9.5]
        entries = [Entry(n, "e", at, b"") for n, at in enumerate(times, 1)]
        self.assertIn(self.find(entries, LogBounds(1, 6, 0), 5.0)[0], (3, 6))
