"""The temporary file in which counts and their log are compared."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Mark
from kupool.stats import BatchCounts, MinuteCount
from kupool.stats.side_by_side import Coverage, Difference, SideBySide
from kupool.stats.snapshot import MinuteSpan, Snapshot

T = 1_800_000_000
SNAPSHOT = Snapshot(None, Mark(1), 0, 0, 0, [], 0)


class FileTests(SynchronousTestCase):
    def test_nothing_is_left(self) -> None:
        """Point 6: the file has no name, so that not even a kill leaves it behind."""
        folder = Path(self.mktemp())
        folder.mkdir()
        both = SideBySide(folder)
        self.addCleanup(both.close)
        self.assertEqual(list(folder.iterdir()), [])

    def test_no_place(self) -> None:
        self.assertRaises(OSError, SideBySide, Path(self.mktemp()))


class SnapshotTests(SynchronousTestCase):
    def test_a_store_that_begins_again(self) -> None:
        """Point 6: what was shown before a connection was lost is forgotten."""
        both = SideBySide(None)
        self.addCleanup(both.close)
        for count in (7, 2):
            both.begin(SNAPSHOT)
            both.spans([MinuteSpan(T, 0, 1)])
            both.batches(["b1"])
            both.counts([MinuteCount("alice", "", T, count)])
        both.logged([BatchCounts("b1", b"", T, ["alice"], 1)])
        list(both.compare(0, 2**40, Coverage(0, 1, True)))
        self.assertEqual(list(both.difference_rows()), [Difference("alice", "", T, 1, 2)])
