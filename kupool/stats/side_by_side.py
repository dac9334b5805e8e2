"""Compares the counts of a log and of a store in a temporary file.

Memory does not grow with the log: the data is in a SQLite file that is unlinked at once, so that it
vanishes with the process in any case. Rows are compared minute by minute.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kupool.stats import BatchCounts, MinuteCount
from kupool.stats.snapshot import MinuteSpan, Snapshot
from kupool.wire.messages import split_username

#: Size in KiB of the file's page cache.
CACHE = 8192

#: The most names of a minute that are kept in memory before they are written to the file.
GATHERED = 50_000

#: Minutes compared at once.
MINUTES_AT_ONCE = 60

#: A time before every row: a range from 0 has no start.
_OLDEST = -(2**62)

_TABLES = """
CREATE TABLE logged (minute INT, username TEXT, worker TEXT, n INT,
    PRIMARY KEY (minute, username, worker)) WITHOUT ROWID;
CREATE TABLE counted (minute INT, username TEXT, worker TEXT, n INT,
    PRIMARY KEY (minute, username, worker)) WITHOUT ROWID;
CREATE TABLE minutes (minute INT PRIMARY KEY, batches INT, submissions INT,
    first_position INT, last_position INT) WITHOUT ROWID;
CREATE TABLE spans (minute INT PRIMARY KEY, after INT, upto INT) WITHOUT ROWID;
CREATE TABLE holes (first INT PRIMARY KEY, last INT) WITHOUT ROWID;
CREATE TABLE applied (batch_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE seen (batch_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE waiting (batch_id TEXT PRIMARY KEY, position INT, submissions INT) WITHOUT ROWID;
CREATE TABLE scope (minute INT PRIMARY KEY, reason TEXT) WITHOUT ROWID;
CREATE TABLE differences (username TEXT, worker TEXT, minute INT, logged INT, counted INT);
"""

#: Reasons why minutes are not compared.
ROLLED_UP = "rolled up into hours"
TAKEN_OVER = "in the table before KuPool was"
TRIMMED = "before the log begins, dropped by its retention"
LOST = "in no log any more"
UNKNOWN = "before the log begins"


class Difference(NamedTuple):
    """A row with different counts: 0 if the row is missing."""

    username: str
    worker: str
    minute: int
    logged: int
    counted: int


class Coverage(NamedTuple):
    """The range that a log covers: everything above one position, up to another.

    ``by_retention`` says that earlier entries were dropped by the retention.
    """

    after: int
    last: int
    by_retention: bool


class ComparedRange(NamedTuple):
    """The compared range. Positions and minutes are 0 if there were none."""

    minutes: int
    batches: int
    submissions: int
    first_position: int
    last_position: int
    first_minute: int
    last_minute: int


class Skipped(NamedTuple):
    """Minutes that were not compared, and the reason."""

    reason: str
    minutes: int
    first_minute: int
    last_minute: int


class UncountedBatches(NamedTuple):
    """Batches that are acknowledged and not counted; ``spooled`` of them are in the spool."""

    batches: int
    submissions: int
    spooled: int


class SideBySide:
    """A visitor of a store that is then shown the batches of the log as well.

    The store comes first, then the log, in order. ``folder`` is the folder of the temporary file;
    raises :class:`OSError` if it cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        handle, name = tempfile.mkstemp(prefix="kupool-", suffix=".sqlite", dir=folder)
        os.close(handle)
        try:
            connection = sqlite3.connect(name, isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE}"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.executescript(_TABLES)
        finally:
            with suppress(OSError):
                os.unlink(name)
        self._connection = connection
        self._gathered: dict[int, Counter[str]] = {}
        self._size = 0
        self.snapshot: Snapshot | None = None

    def close(self) -> None:
        """Remove the temporary file."""
        self._connection.close()

    # -- the store

    def begin(self, snapshot: Snapshot) -> None:
        """Start with a store, and discard everything from before."""
        self.snapshot = snapshot
        for table in ("counted", "spans", "applied"):
            self._connection.execute(f"DELETE FROM {table}")

    def spans(self, spans: Sequence[MinuteSpan]) -> None:
        """Add minutes that have been counted."""
        self._many("INSERT INTO spans VALUES (?, ?, ?)", spans)

    def batches(self, batch_ids: Sequence[str]) -> None:
        """Add the ids of counted batches that may be above the mark."""
        self._many("INSERT OR IGNORE INTO applied VALUES (?)", ((name,) for name in batch_ids))

    def counts(self, rows: Sequence[MinuteCount]) -> None:
        """Add per-minute rows."""
        self._many(
            "INSERT INTO counted VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            ((row.minute, row.username, row.worker, row.submissions) for row in rows),
        )

    # -- the log

    def spooled(self, batches: Sequence[BatchCounts]) -> None:
        """Add batches that are in the spool before the log."""
        self._wait((batch, 0) for batch in batches)

    def logged(self, batches: Sequence[BatchCounts]) -> None:
        """Add batches of the log, with their positions.

        Those that the store has counted, by its mark or by their ids, are added up. A repeated
        batch is skipped.
        """
        assert self.snapshot is not None
        mark = self.snapshot.mark.position
        connection = self._connection
        connection.execute("BEGIN")
        waiting = []
        minutes: dict[int, list[int]] = {}
        for batch in batches:
            if not connection.execute(
                "INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (batch.batch_id,)
            ).rowcount:
                continue
            if batch.position > mark and not self._has("applied", batch.batch_id):
                waiting.append((batch, batch.position))
                continue
            names = self._gathered.setdefault(batch.minute, Counter())
            before = len(names)
            names.update(batch.usernames)
            self._size += len(names) - before
            figures = minutes.setdefault(batch.minute, [0, 0, batch.position, batch.position])
            figures[0] += 1
            figures[1] += len(batch.usernames)
            figures[3] = batch.position
        connection.executemany(
            "INSERT INTO minutes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "batches = batches + excluded.batches, "
            "submissions = submissions + excluded.submissions, "
            "last_position = excluded.last_position",
            ((minute, *figures) for minute, figures in minutes.items()),
        )
        connection.execute("COMMIT")
        self._wait(waiting)
        if self._size >= GATHERED:
            self._put_gathered()

    def _put_gathered(self) -> None:
        gathered, self._gathered, self._size = self._gathered, {}, 0
        for minute, names in sorted(gathered.items()):
            rows: Counter[tuple[str, str]] = Counter()
            for name, count in names.items():
                user, worker = split_username(name)
                rows[user, ""] += count
                if worker:
                    rows[user, worker] += count
            self._many(
                "INSERT INTO logged VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET n = n + excluded.n",
                ((minute, *key, count) for key, count in sorted(rows.items())),
            )

    def hole(self, first: int, last: int) -> None:
        """Add positions between entries of the log where entries are missing."""
        self._connection.execute("INSERT OR REPLACE INTO holes VALUES (?, ?)", (first, last))

    # -- waiting batches

    def _wait(self, batches: Iterable[tuple[BatchCounts, int]]) -> None:
        self._many(
            # A batch in both the log and the spool is taken as one in the log.
            "INSERT INTO waiting VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
            "position = excluded.position",
            ((batch.batch_id, position, len(batch.usernames)) for batch, position in batches),
        )

    def waiting_ids(self, after: str, limit: int) -> list[str]:
        """Return ids of batches that wait to be counted, in order, after one of them."""
        found = self._connection.execute(
            "SELECT batch_id FROM waiting WHERE batch_id > ? ORDER BY batch_id LIMIT ?",
            (after, limit),
        )
        return [batch_id for (batch_id,) in found]

    def is_waiting(self, batch_id: str) -> bool:
        """Return whether a batch waits to be counted."""
        return self._has("waiting", batch_id)

    def counted_since(self, batch_ids: Iterable[str]) -> None:
        """Record that batches have been counted meanwhile."""
        self._many("DELETE FROM waiting WHERE batch_id = ?", ((name,) for name in batch_ids))

    def waiting_positions(self) -> tuple[int, int]:
        """Return the first and the last position of a waiting batch in the log; 0 if there is
        none.
        """
        first, last = self._connection.execute(
            "SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM waiting "
            "WHERE position > 0"
        ).fetchone()
        return first, last

    def waiting(self) -> UncountedBatches:
        """Return how many batches wait to be counted."""
        row = self._connection.execute(
            "SELECT count(*), coalesce(sum(submissions), 0), coalesce(sum(position = 0), 0) "
            "FROM waiting"
        ).fetchone()
        return UncountedBatches(*row)

    # -- both

    def compare(self, start: int, end: int, coverage: Coverage) -> Iterator[float]:
        """Compare the minutes of a range as far as possible.

        Each step yields the part of the work that is done, from 0 to 1.
        """
        self._put_gathered()
        self._connection.execute("DELETE FROM differences")
        self._choose(start if start > 0 else _OLDEST, end, coverage)
        total, done = self._number("SELECT count(*) FROM scope WHERE reason = ''"), 0
        after = _OLDEST
        while True:
            chosen = self._connection.execute(
                "SELECT minute FROM scope WHERE reason = '' AND minute > ? ORDER BY minute LIMIT ?",
                (after, MINUTES_AT_ONCE),
            ).fetchall()
            if not chosen:
                return
            self._compare(chosen[0][0], chosen[-1][0])
            after = chosen[-1][0]
            done += len(chosen)
            yield done / total

    def _choose(self, start: int, end: int, coverage: Coverage) -> None:
        """Record for each minute of the range why it is not compared; empty if it is."""
        assert self.snapshot is not None
        connection = self._connection
        connection.execute("DELETE FROM scope")
        # A row of a minute that was never counted is an extra row, if the log covers the minute.
        oldest = _OLDEST
        if coverage.after > 0:
            oldest = connection.execute(
                "SELECT coalesce(min(minute), 9e18) FROM spans WHERE after >= ?",
                (coverage.after,),
            ).fetchone()[0]
        connection.execute(
            "INSERT INTO scope SELECT minute, CASE "
            "WHEN minute < :rolled_up THEN :rolled_up_text "
            "WHEN minute < :taken_over THEN :taken_over_text "
            "WHEN after < 0 OR upto > :last THEN :lost_text "
            "WHEN after < :least THEN :before_text "
            "WHEN EXISTS (SELECT 1 FROM holes WHERE after < last AND upto >= first) "
            "THEN :lost_text "
            "WHEN after IS NULL AND minute < :oldest THEN :unknown_text "
            "ELSE '' END FROM (SELECT minute FROM spans UNION SELECT minute FROM counted "
            "UNION SELECT minute FROM minutes) LEFT JOIN spans USING (minute) "
            "WHERE minute >= :start AND minute < :end",
            {
                "rolled_up": self.snapshot.rolled_up_before,
                "rolled_up_text": ROLLED_UP,
                "taken_over": self.snapshot.taken_over_before,
                "taken_over_text": TAKEN_OVER,
                "lost_text": LOST,
                "least": coverage.after,
                "last": coverage.last,
                "before_text": TRIMMED if coverage.by_retention else LOST,
                "oldest": oldest,
                "unknown_text": UNKNOWN,
                "start": start,
                "end": end,
            },
        )

    def _compare(self, first: int, last: int) -> None:
        """Find the rows that differ in the selected minutes from one to another."""
        self._connection.execute(
            "INSERT INTO differences SELECT username, worker, minute, l.n, coalesce(c.n, 0) "
            "FROM logged AS l LEFT JOIN counted AS c USING (minute, username, worker) "
            "WHERE minute BETWEEN ? AND ? AND l.n <> coalesce(c.n, 0) "
            "AND EXISTS (SELECT 1 FROM scope AS s WHERE s.minute = l.minute AND reason = '') "
            "UNION ALL SELECT username, worker, minute, 0, n FROM counted AS c "
            "WHERE minute BETWEEN ? AND ? "
            "AND EXISTS (SELECT 1 FROM scope AS s WHERE s.minute = c.minute AND reason = '') "
            "AND NOT EXISTS (SELECT 1 FROM logged AS l WHERE l.minute = c.minute "
            "AND l.username = c.username AND l.worker = c.worker)",
            (first, last) * 2,
        )

    def compared(self) -> ComparedRange:
        """Return the compared range."""
        row = self._connection.execute(
            "SELECT count(*), coalesce(sum(batches), 0), coalesce(sum(submissions), 0), "
            "coalesce(min(first_position), 0), coalesce(max(last_position), 0), "
            "coalesce(min(minute), 0), coalesce(max(minute), 0) "
            "FROM scope LEFT JOIN minutes USING (minute) WHERE reason = ''"
        ).fetchone()
        return ComparedRange(*row)

    def skipped(self) -> list[Skipped]:
        """Return the minutes that could not be compared."""
        rows = self._connection.execute(
            "SELECT reason, count(*), min(minute), max(minute) FROM scope WHERE reason <> '' "
            "GROUP BY reason ORDER BY min(minute)"
        )
        return [Skipped(*row) for row in rows]

    def differences(self) -> int:
        """Return how many rows differ."""
        return self._number("SELECT count(*) FROM differences")

    def difference_rows(self, limit: int = -1) -> Iterator[Difference]:
        """Return the rows that differ, sorted by user, worker and minute; at most ``limit``."""
        rows = self._connection.cursor().execute(
            "SELECT * FROM differences ORDER BY username, worker, minute LIMIT ?", (limit,)
        )
        return map(Difference._make, rows)

    def _has(self, table: str, batch_id: str) -> bool:
        found = self._connection.execute(f"SELECT 1 FROM {table} WHERE batch_id = ?", (batch_id,))
        return found.fetchone() is not None

    def _number(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])

    def _many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")


__all__ = ["ComparedRange", "Coverage", "Difference", "SideBySide", "Skipped", "UncountedBatches"]
