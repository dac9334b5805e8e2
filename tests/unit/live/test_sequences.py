"""The sequences of devices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.sequences import MOST_GAPS, DeviceSequences, SequenceFault, SequenceFinding


class DeviceSequenceTests(SynchronousTestCase):
    """W-52: gaps and inversions are detected."""

    def setUp(self) -> None:
        self.sequences = DeviceSequences(3)

    def take(self, *numbers: int, device: str = "d") -> list[tuple[str, int, int]]:
        found = [self.sequences.take(device, number) for number in numbers]
        return [(each.fault.value, each.first, each.last) for each in found if each is not None]

    def test_in_order(self) -> None:
        self.assertEqual(self.take(7, 8, 9), [])

    def test_a_gap_and_what_fills_it(self) -> None:
        self.assertEqual(self.take(1, 5), [("gap", 2, 4)])
        self.assertEqual(self.take(3), [("late", 3, 3)])
        self.assertEqual(self.sequences.missing("d"), [(2, 2), (4, 4)])
        self.assertEqual(self.take(3, 5), [("inversion", 3, 3), ("inversion", 5, 5)])
        self.assertEqual(self.take(2, 4, 6), [("late", 2, 2), ("late", 4, 4)])
        self.assertEqual(self.sequences.missing("d"), [])

    def test_a_device_that_begins_anew(self) -> None:
        self.assertEqual(self.take(8, 9, 1, 2, 4), [("gap", 3, 3)])

    def test_merged_ones_are_not_missing(self) -> None:
        self.take(1)
        self.assertIsNone(self.sequences.take("d", 4, 2))
        found = self.sequences.take("d", 9, 2)
        self.assertEqual(found, SequenceFinding(SequenceFault.GAP, 5, 6))

    def test_numbers_that_the_channel_gives(self) -> None:
        self.assertEqual([self.sequences.next("d") for _ in range(3)], [1, 2, 3])
        self.assertEqual(self.take(4), [])
        self.sequences.learn("d", 2)
        self.assertEqual(self.sequences.next("d"), 5)
        self.sequences.learn("e", 41)
        self.assertEqual(self.sequences.next("e"), 42)

    def test_numbers_that_were_not_published(self) -> None:
        """They come again, and that is no fault."""
        self.take(1, 2)
        self.assertFalse(self.sequences.withdraw("d", 2))
        self.assertEqual(self.take(2, 3), [])
        self.assertTrue(self.sequences.withdraw("d", 2))
        self.assertEqual(self.take(2), [("late", 2, 2)])
        self.take(1, device="e")
        self.sequences.withdraw("e", 1)
        self.assertEqual(len(self.sequences), 1)
        self.assertFalse(self.sequences.withdraw("nobody", 1))

    def test_memory_is_bounded(self) -> None:
        for device in "abc":
            self.take(1, device=device)
        self.take(2, device="a")
        self.take(1, device="d")
        self.assertEqual([self.sequences.last(each) for each in "abcd"], [2, 0, 1, 1])
        self.take(*range(3, 203, 2), device="a")
        self.assertEqual(len(self.sequences.missing("a")), MOST_GAPS)

    @given(st.permutations(range(2, 12)))
    def test_any_order_ends_with_nothing_missing(self, numbers: list[int]) -> None:
        """However they come, each number is missing until it is there."""
        sequences = DeviceSequences(1)
        sequences.take("d", 1)
        seen = {1}
        for number in numbers:
            sequences.take("d", number)
            seen.add(number)
            missing = {n for a, b in sequences.missing("d") for n in range(a, b + 1)}
            self.assertEqual(missing, set(range(1, max(seen))) - seen)
