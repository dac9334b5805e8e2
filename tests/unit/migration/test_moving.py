"""Issue 11, 8: what a move does with positions, tables, entries and notes."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Entry, Epoch
from kupool.migration import CannotMove
from kupool.migration import progress as phases
from kupool.migration.left_behind import LeftBehind, look
from kupool.migration.log_copy import check_log, copy_log
from kupool.migration.notes import AWAY, INTO, LOG, MOVED, MOVING, UNDONE, MoveNote, refusal
from kupool.migration.positions import MapBuilder, PositionMap, Run, Unmoved, mapped_marks
from kupool.migration.progress import MoveProgress, decode
from kupool.migration.tables import EPOCHS, LEFT, POOL, TABLES, named
from kupool.storage.database import Database, connect

#: Entries at 11 to 13 and 20 to 21 of the source; a repeated one lies between in the target.
PLACES = PositionMap(11, 100, (Run(11, 101, 3), Run(20, 105, 2)))


class PositionTests(SynchronousTestCase):
    def test_positions_of_entries_are_those_of_the_same_entries(self) -> None:
        self.assertEqual([PLACES(n) for n in (11, 12, 13, 20, 21)], [101, 102, 103, 105, 106])

    def test_a_bound_stays_true(self) -> None:
        """Between entries, and after the last, it is the entry before."""
        self.assertEqual([PLACES(n) for n in (10, 14, 19, 22, 99)], [100, 103, 103, 106, 106])

    def test_what_no_log_reaches_back_to_stays_there(self) -> None:
        self.assertEqual([PLACES(n) for n in (-1, 0, 9)], [-1, 0, 9])
        self.assertTrue(all(PLACES(n) < 100 for n in (-1, 0, 9)))

    def test_positions_keep_their_order(self) -> None:
        mapped = [PLACES(n) for n in range(-1, 40)]
        self.assertEqual(mapped, sorted(mapped))

    def test_an_empty_log_maps_to_what_the_epoch_begins_after(self) -> None:
        empty = PositionMap(31, 30)
        self.assertEqual([empty(n) for n in (5, 29, 30, 31)], [5, 29, 30, 30])
        self.assertEqual(empty.last, 30)

    def test_the_database_computes_the_same(self) -> None:
        with closing(sqlite3.connect(":memory:")) as base:
            for positions in (PLACES, PositionMap(31, 30), Unmoved()):
                for number in (None, *range(-1, 40)):
                    query = f"SELECT {positions.sql('n')} FROM (SELECT ? AS n)"
                    (found,) = base.execute(query, (number,)).fetchone()
                    self.assertEqual(found, None if number is None else positions(number))

    def test_pairs_of_positions_become_runs(self) -> None:
        builder = MapBuilder(11, 100)
        for pair in ((11, 101), (12, 102), (13, 103), (20, 105), (21, 106)):
            builder.add(*pair)
        self.assertEqual(builder.build(), PLACES)

    def test_of_marks_that_become_one_the_last_stays(self) -> None:
        marks = [(3, "a"), (10, "b"), (13, "c"), (15, "d"), (21, "e")]
        self.assertEqual(
            mapped_marks(PLACES, marks), [(3, "a"), (100, "b"), (103, "d"), (106, "e")]
        )

    def test_the_columns_with_positions_change_and_no_other(self) -> None:
        table = named("applied_batches")
        row = ("id", b"d", "2026-11-29 10:00:00", "2026-11-29 10:00:01", 12)
        self.assertEqual(PLACES.row(table, row), (*row[:-1], 102))
        self.assertEqual(PLACES.row(table, (*row[:-1], None)), (*row[:-1], None))
        gap = (12, 13, 0, "lost")
        self.assertEqual(PLACES.row(named("log_gaps"), gap), gap)


class TableTests(SynchronousTestCase):
    def test_every_column_of_a_store_is_moved(self) -> None:
        """A column that a later schema adds has to be described as well."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "store.sqlite"
        Database(None, path, "store").check()
        with closing(connect(path)) as store:
            names = store.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            found = {
                name: {row[1] for row in store.execute(f"PRAGMA table_info({name})").fetchall()}
                for (name,) in names
                if name not in LEFT
            }
        self.assertEqual({t.name: set(t.names) for t in (*TABLES, POOL, EPOCHS)}, found)


class FakeLog:
    """An ``ILog`` of which only entries are read."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        return succeed([entry for entry in self.entries if entry.position > after][:limit])


class FakeTarget:
    """A log that entries are moved to; it takes ``room`` of them, and then fails."""

    shown = "there"

    def __init__(self, entries: Sequence[Entry] = (), room: int = 1000) -> None:
        self.entries = list(entries)
        self.room = room

    async def landed(self) -> AsyncIterator[Sequence[Entry]]:
        yield list(self.entries)

    async def append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if len(self.entries) >= self.room:
                raise ConnectionError
            self.entries.append(entry._replace(position=100 + len(self.entries)))


class Quiet:
    """Is told how far a move is, and says nothing."""

    def begin(self, text: str, total: int) -> None:
        pass

    def advance(self, steps: int) -> None:
        pass


def entry(position: int, name: str = "") -> Entry:
    return Entry(position, name or f"e{position}", position / 8, b"body %d" % position)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = FakeLog([entry(n) for n in range(11, 31)])

    def copy(self, target: Any) -> None:
        copying = Deferred.fromCoroutine(
            copy_log(self.log, target, 11, 100, total=20, report=Quiet())
        )
        self.successResultOf(copying)

    def check(self, target: Any) -> Any:
        checking = check_log(self.log, target, 11, 100, total=20, report=Quiet())
        return self.successResultOf(Deferred.fromCoroutine(checking))

    def test_a_copy_goes_on_after_the_last_entry_that_is_there(self) -> None:
        target = FakeTarget(room=7)
        failing: Any = copy_log(self.log, target, 11, 100, total=20, report=Quiet())  # type: ignore[arg-type]
        self.failureResultOf(Deferred.fromCoroutine(failing), ConnectionError)
        self.assertEqual(len(target.entries), 7)
        target.room = 1000
        self.copy(target)
        positions, compared = self.check(target)
        self.assertEqual((len(target.entries), compared.number), (20, 20))
        self.assertEqual(positions.runs, (Run(11, 100, 20),))

    def test_an_entry_that_is_there_twice_is_passed_over(self) -> None:
        twice = [*self.log.entries[:5], *self.log.entries[3:5]]
        target = FakeTarget([e._replace(position=100 + n) for n, e in enumerate(twice)])
        self.copy(target)
        positions, compared = self.check(target)
        self.assertEqual(compared.number, 20)
        self.assertEqual(positions.runs, (Run(11, 100, 5), Run(16, 107, 15)))

    def test_a_missing_or_altered_entry_is_found(self) -> None:
        changes: Sequence[dict[str, Any]] = (
            {"body": b"other"},
            {"entry_id": "other"},
            {"appended_at": 99.0},
        )
        for change in changes:
            target = FakeTarget(self.log.entries)
            target.entries[4] = target.entries[4]._replace(**change)
            checking: Any = check_log(self.log, target, 11, 100, total=20, report=Quiet())  # type: ignore[arg-type]
            failure = self.failureResultOf(Deferred.fromCoroutine(checking), CannotMove)
            self.assertIn("'e15' at position 15", failure.getErrorMessage())


class NoteTests(SynchronousTestCase):
    def refusal(self, direction: str, state: str, progress: str = "", mq: str = "sqlite") -> str:
        names = '{"source":"a.yaml","target":"b.yaml"}'
        note = MoveNote(direction, "the other side", state, progress or names, 0)
        return refusal([note], {"mq": mq})

    def test_half_of_a_pool_names_the_command_that_goes_on(self) -> None:
        for direction in (INTO, AWAY):
            reason = self.refusal(direction, MOVING)
            self.assertIn("'kupool migrate --from a.yaml --to b.yaml'", reason)
            self.assertIn("the other side", reason)

    def test_a_pool_that_went_away_names_the_settings_and_the_way_back(self) -> None:
        reason = self.refusal(AWAY, MOVED)
        self.assertIn("start with --config b.yaml", reason)
        self.assertIn("'kupool migrate --from a.yaml --to b.yaml --undo'", reason)

    def test_what_is_left_of_an_undone_move_is_not_used(self) -> None:
        self.assertIn("undone", self.refusal(INTO, UNDONE))

    def test_a_store_is_not_used_with_the_log_that_it_had(self) -> None:
        kind = '{"mq":"rabbit","queue":"q"}'
        self.assertIn("its log was moved to", self.refusal(LOG, MOVED, kind))
        note = MoveNote(LOG, "there", MOVED, kind, 0)
        self.assertEqual(refusal([note], {"mq": "rabbit", "queue": "q"}), "")
        self.assertNotEqual(refusal([note], {"mq": "rabbit", "queue": "other"}), "")

    def test_a_pool_that_came_here_whole_is_used(self) -> None:
        self.assertEqual(self.refusal(INTO, MOVED), "")
        self.assertEqual(refusal([], {"mq": "sqlite"}), "")


class ProgressTests(SynchronousTestCase):
    def test_progress_is_kept_whole(self) -> None:
        kept = MoveProgress(
            source="a",
            target="b",
            pool_id="p",
            epochs=[("e1", 0)],
            first=1,
            last=9,
            mark=9,
            epoch="e2",
            base=9,
            phase=phases.TABLES,
            runs=[(1, 10, 9)],
            table="submissions",
            key=["alice", "2026-11-29 10:00:00"],
        )
        self.assertEqual(decode(kept.encode()), kept)
        self.assertEqual(kept.identity.epochs, (Epoch("e1", 0), Epoch("e2", 9)))
        self.assertEqual(kept.positions(5), 14)


class LeftBehindTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.files = [self.folder / f"{name}.sqlite" for name in ("store", "log", "spool")]

    def make(self, name: str, statement: str) -> None:
        path = self.folder / f"{name}.sqlite"
        Database(None, path, name).check()
        with closing(connect(path)) as connection:
            connection.execute(statement)

    def test_an_empty_folder_holds_nothing(self) -> None:
        self.assertEqual(look(*self.files), LeftBehind(False, False, 0))
        self.make("store", "SELECT 1")
        self.make("log", "SELECT 1")
        self.assertEqual(look(*self.files), LeftBehind(False, False, 0))
        self.files[2].write_bytes(b"no database at all, but some bytes all the same" * 50)
        self.assertEqual(look(*self.files), LeftBehind(False, False, 0))

    def test_data_is_found(self) -> None:
        self.make("store", "INSERT INTO job_history VALUES (1, 'n', 0.0, NULL, NULL, NULL)")
        self.make("log", "INSERT INTO entries VALUES (1, 'e', 0, x'00')")
        self.make("spool", "INSERT INTO spooled VALUES (1, 'e', 0, x'00')")
        self.assertEqual(look(*self.files), LeftBehind(True, True, 1))

    def test_what_was_moved_away_is_not_left_behind(self) -> None:
        self.make("store", "INSERT INTO job_history VALUES (1, 'n', 0.0, NULL, NULL, NULL)")
        with closing(connect(self.files[0])) as store:
            store.execute("INSERT INTO migration VALUES ('away', 'x', 'moved', '', 0)")
        self.assertEqual(look(*self.files), LeftBehind(False, False, 0))
