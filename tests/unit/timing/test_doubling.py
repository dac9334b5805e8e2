"""Waits that double."""

from __future__ import annotations

from itertools import accumulate, repeat

from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.doubling import Doubling


class DoublingTests(SynchronousTestCase):
    """Issue 13: one rule for waits that grow, wherever something is tried again."""

    def waits(self, first: float, most: float, count: int) -> list[float]:
        after = Doubling(first, most).after
        return list(accumulate(repeat(0.0, count), lambda wait, _: after(wait), initial=0.0))[1:]

    def test_twice_as_long_up_to_the_most(self) -> None:
        self.assertEqual(self.waits(0.5, 3.0, 5), [0.5, 1.0, 2.0, 3.0, 3.0])

    def test_never_above_the_most(self) -> None:
        """Not the first one either."""
        self.assertEqual(self.waits(2.0, 1.0, 3), [1.0, 1.0, 1.0])

    def test_none_at_all(self) -> None:
        """A first wait of 0 stays 0: somebody wants to be tried again at once."""
        self.assertEqual(self.waits(0.0, 30.0, 3), [0.0, 0.0, 0.0])
        self.assertEqual(self.waits(1.0, 0.0, 3), [0.0, 0.0, 0.0])

    def test_failures_without_end(self) -> None:
        """More of them than there are powers of two in a float."""
        self.assertEqual(self.waits(1.0, 30.0, 2000)[-1], 30.0)
