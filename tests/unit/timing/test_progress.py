"""How far the records of a partition are processed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.progress import ContiguousProgress


class ContiguousProgressTests(SynchronousTestCase):
    """Q-45, Q-49: only what is processed without a gap is committed."""

    def test_in_any_order(self) -> None:
        progress = ContiguousProgress(5)
        for offset in (5, 6, 7, 8):
            progress.add(offset)
        found = []
        for offset in (7, 5, 5, 99, 6, 8):
            progress.settle((offset,))
            found.append((progress.position, len(progress)))
        self.assertEqual(found, [(5, 4), (6, 3), (6, 3), (6, 3), (8, 1), (9, 0)])

    def test_gaps_between_offsets(self) -> None:
        """Q-38: engines whose offsets are not dense."""
        progress = ContiguousProgress(0)
        progress.add(10)
        progress.add(65_536)
        self.assertEqual(progress.position, 0)
        progress.settle((10,))
        self.assertEqual(progress.position, 65_536)
        progress.settle((65_536,))
        self.assertEqual(progress.position, 65_537)

    def test_what_was_dropped_is_passed(self) -> None:
        progress = ContiguousProgress(5)
        progress.skip_to(8)
        self.assertEqual(progress.position, 8)
        progress.skip_to(7)
        self.assertEqual(progress.position, 8)
        progress.add(8)
        progress.skip_to(20)
        self.assertEqual(progress.position, 8)
        progress.settle((8,))
        self.assertEqual(progress.position, 20)
        with self.assertRaisesRegex(ValueError, "19 was added before, the next is 20"):
            progress.add(19)
        progress.add(20)
        self.assertEqual(progress.position, 20)

    @given(st.permutations(range(12)))
    def test_the_position_is_the_first_that_is_open(self, order: list[int]) -> None:
        progress = ContiguousProgress(0)
        for offset in range(12):
            progress.add(offset)
        for count, offset in enumerate(order, 1):
            progress.settle((offset,))
            left = set(range(12)) - set(order[:count])
            self.assertEqual(progress.position, min(left, default=12))
