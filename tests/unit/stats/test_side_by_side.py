"""The temporary file in which counts and their log are compared."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Mark
from kupool.stats import BatchCounts, MinuteCount
from kupool.stats.side_by_side import Coverage, Difference, SideBySide, Skipped
from kupool.stats.snapshot import MinuteSpan, Snapshot

T = 1_800_000_000
SNAPSHOT = Snapshot(None, Mark(1), 0, 0, 0, [], 0)


class Case(SynchronousTestCase):
    def make(self, folder: Path | None = None) -> SideBySide:
        both = SideBySide(folder)
        self.addCleanup(both.close)
        return both

    def connections(self) -> list[sqlite3.Connection]:
        """Return a list that gets each connection that is made from now on."""
        made: list[sqlite3.Connection] = []
        connect = sqlite3.connect

        def connected(*of: Any, **named: Any) -> sqlite3.Connection:
            made.append(connect(*of, **named))
            return made[-1]

        self.patch(sqlite3, "connect", connected)
        return made


class FileTests(Case):
    def test_nothing_is_left(self) -> None:
        """Point 6: the file has no name, so that not even a kill leaves it behind."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.make(folder)
        self.assertEqual(list(folder.iterdir()), [])

    def test_no_descriptor_is_left(self) -> None:
        before = len(os.listdir("/dev/fd"))
        both = SideBySide(None)
        both.close()
        self.assertEqual(len(os.listdir("/dev/fd")), before)

    def test_a_file_that_cannot_be_removed(self) -> None:
        """It does as well, and its name says whose it is."""

        def refused(path: object) -> None:
            raise PermissionError

        folder = Path(self.mktemp())
        folder.mkdir()
        self.patch(os, "unlink", refused)
        self.assertEqual(self.make(folder).differences(), 0)
        (file,) = folder.iterdir()
        self.assertRegex(file.name, r"^kupool-\w+\.sqlite$")

    def test_how_it_is_used(self) -> None:
        """Point 6: nothing waits for a disk, and 8 MiB are kept in memory."""
        made = self.connections()
        self.make()
        found = {
            name: made[0].execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "locking_mode", "cache_size")
        }
        self.assertEqual(
            found,
            {
                "journal_mode": "off",
                "synchronous": 0,
                "locking_mode": "exclusive",
                "cache_size": -8192,
            },
        )

    def test_how_many_names_are_in_memory(self) -> None:
        """Point 6: from 50,000 names of minutes on, they are in the file."""
        made = self.connections()
        both = self.make()
        both.begin(SNAPSHOT._replace(mark=Mark(10)))
        names = [f"u{n}" for n in range(25_000)]
        sizes = []
        for position, minute, usernames in (
            (1, T, names),
            (2, T, names),
            (3, T + 60, names[1:]),
            (4, T + 60, names[:1]),
        ):
            both.logged([BatchCounts(f"b{position}", b"", minute, usernames, position)])
            sizes += made[0].execute("SELECT count(*) FROM logged").fetchone()
        self.assertEqual(sizes, [0, 0, 0, 50_000])

    def test_no_place(self) -> None:
        self.assertRaises(OSError, SideBySide, Path(self.mktemp()))


class CompareTests(Case):
    def compare(self, both: SideBySide, start: int, coverage: Coverage) -> list[Difference]:
        list(both.compare(start, 2**40, coverage))
        return list(both.difference_rows())

    def test_why_minutes_are_not_compared(self) -> None:
        """Point 6: an operator is told of each minute that is left out, and why."""
        both = self.make()
        both.begin(SNAPSHOT._replace(rolled_up_before=T, taken_over_before=T + 60))
        both.spans(
            [
                MinuteSpan(T - 60, 0, 11),
                MinuteSpan(T, 0, 12),
                MinuteSpan(T + 60, 9, 12),
                MinuteSpan(T + 120, -1, 12),
                MinuteSpan(T + 240, 10, 12),
            ]
        )
        both.counts([MinuteCount("mallory", "", T + 180, 1)])
        for by_retention, before in (
            (True, "before the log begins, dropped by its retention"),
            (False, "in no log any more"),
        ):
            self.assertEqual(self.compare(both, 0, Coverage(10, 20, by_retention)), [])
            self.assertEqual(both.compared().minutes, 1)
            reasons = {
                minute: skipped.reason
                for skipped in both.skipped()
                for minute in (skipped.first_minute, skipped.last_minute)
            }
            self.assertEqual(
                reasons,
                {
                    T - 60: "rolled up into hours",
                    T: "in the table before KuPool was",
                    T + 60: before,
                    T + 120: "in no log any more",
                    T + 180: "before the log begins",
                },
            )

    def test_a_log_without_its_first_entry(self) -> None:
        """Point 6: what was before it is not known, and is no difference."""
        both = self.make()
        both.begin(SNAPSHOT)
        both.spans([MinuteSpan(T, 1, 2)])
        both.counts([MinuteCount("mallory", "", T - 60, 1)])
        self.assertEqual(self.compare(both, 0, Coverage(1, 2, True)), [])
        self.assertEqual(both.skipped(), [Skipped("before the log begins", 1, T - 60, T - 60)])

    def test_up_to_the_mark(self) -> None:
        """Point 6: everything up to the mark is counted; what is above it is so by its id."""
        both = self.make()
        both.begin(SNAPSHOT)
        both.batches(["b3"])
        both.logged([BatchCounts(f"b{n}", b"", T, ["alice"], n) for n in (1, 2, 3)])
        self.assertEqual(both.waiting_ids("", 10), ["b2"])

    def test_ranges_from_the_epoch_on(self) -> None:
        """Point 6: a range from 0 has no start, and one from a later second has."""
        both = self.make()
        both.begin(SNAPSHOT)
        both.counts([MinuteCount("alice", "", minute, 1) for minute in (-60, 0, 60)])
        for start, minutes in ((0, [0, 60]), (1, [60]), (0, [0, 60])):
            found = self.compare(both, start, Coverage(0, 0, True))
            self.assertEqual([row.minute for row in found], minutes)
            skipped = [-60] if start == 0 else []  # no minute of KuPool's
            self.assertEqual([minutes.first_minute for minutes in both.skipped()], skipped)


class SnapshotTests(Case):
    def test_a_store_that_begins_again(self) -> None:
        """Point 6: what was shown before a connection was lost is forgotten."""
        both = self.make()
        for count in (7, 2):
            both.begin(SNAPSHOT)
            both.spans([MinuteSpan(T, 0, 1)])
            both.batches(["b1"])
            both.counts([MinuteCount("alice", "", T, count)])
        both.logged([BatchCounts("b1", b"", T, ["alice"], 1)])
        list(both.compare(0, 2**40, Coverage(0, 1, True)))
        self.assertEqual(list(both.difference_rows()), [Difference("alice", "", T, 1, 2)])
