"""Where in the log the batches of a minute are."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.stats import BatchCounts
from kupool.stats.positions import NOWHERE, Span, spans

MINUTE = 1_800_000_000


def batch(
    position: int, minute: int = MINUTE, earlier: bool = False, usernames: tuple[str, ...] = ("a",)
) -> BatchCounts:
    return BatchCounts(f"b{position}", b"", minute, list(usernames), position, earlier)


class SpanTests(SynchronousTestCase):
    """K-77: a minute is counted again from all of its batches, and from no others."""

    def test_one_batch(self) -> None:
        self.assertEqual(spans([batch(7)], 100), {MINUTE: Span(6, 7)})

    def test_several_batches(self) -> None:
        """From before the first to the last, in whatever order they come."""
        for positions in ((5, 6, 9), (9, 6, 5), (6, 9, 5)):
            self.assertEqual(spans(map(batch, positions), 100), {MINUTE: Span(4, 9)})

    def test_several_minutes(self) -> None:
        found = spans([batch(5), batch(6, MINUTE + 60), batch(7)], 100)
        self.assertEqual(found, {MINUTE: Span(4, 7), MINUTE + 60: Span(5, 6)})

    def test_a_batch_without_a_position(self) -> None:
        """It is above what the store has counted."""
        self.assertEqual(spans([batch(0)], 100), {MINUTE: Span(100, 101)})
        self.assertEqual(spans([batch(5), batch(0)], 100), {MINUTE: Span(4, 101)})

    def test_a_batch_of_an_earlier_epoch(self) -> None:
        """No log may hold it, so that its minute cannot be counted again."""
        self.assertEqual(spans([batch(7, earlier=True)], 100), {MINUTE: Span(NOWHERE, 7)})
        self.assertEqual(spans([batch(5), batch(7, earlier=True)], 100), {MINUTE: Span(NOWHERE, 7)})
        self.assertLess(NOWHERE, 0)

    def test_a_batch_without_submissions(self) -> None:
        self.assertEqual(spans([batch(7, usernames=())], 100), {})
        self.assertEqual(spans([batch(7, usernames=()), batch(8)], 100), {MINUTE: Span(7, 8)})
