"""What every store of counts does, whatever engine it has.

An engine is added by a subclass of :class:`StatsContract` that makes stores.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.log import Epoch, Gap, Identity, Mark, Plan
from kupool.stats import BatchCounts, IStatsStore, MinuteCount, Rejection
from kupool.stats.memory import MemoryStats
from kupool.stats.snapshot import Snapshot, Superseded
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database, DatabaseUnusable
from kupool.storage.reading import ReadOnlyDatabase
from tests.fakes.snapshots import Gathered, rows_of, shown
from tests.servers.reactor import the_reactor

DAY = 86400
HOUR = 3600
#: Midnight, UTC.
T = 1_800_057_600
EVER = (0, 2**62)


def batch(batch_id: str, minute: int, *usernames: str, content: str = "") -> BatchCounts:
    digest = sha256(f"{batch_id}{minute}{usernames}{content}".encode()).digest()
    return BatchCounts(batch_id, digest, minute, list(usernames))


class StatsContract:
    """K-74: the suite; mixed into a TestCase by each engine."""

    durable = False

    async def make_store(self) -> Any:
        """Return a store that is open and empty."""
        raise NotImplementedError

    async def test_interface(self) -> None:
        store = await self.make_store()
        verifyObject(IStatsStore, store)
        self.assertIs(store.persistent, self.durable)  # type: ignore[attr-defined]

    async def test_empty(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        equal(await store.count("alice", T), 0)
        equal(await store.total(*EVER), 0)
        for found in (
            await store.series("alice", *EVER),
            await store.workers("alice", *EVER),
            await store.top(10, *EVER),
            await store.minutes(*EVER),
            await store.rejections(*EVER),
            await rows_of(store),
            await store.unapplied([]),
        ):
            equal(list(found), [])
        equal(await store.rolled_up_before(), 0)
        equal(await store.apply([], {}), (0, 0, []))
        equal(await store.apply([], {Rejection("alice", 23, T): 1}), (0, 0, []))

    async def test_ten_thousand_in_a_minute(self) -> None:
        """K-68: stored value plus delta, again and again: 10,000 are 10,000."""
        store = await self.make_store()
        for n in range(100):
            await store.apply([batch(f"b{n}", T, *["alice"] * 100)], {})
        self.assertEqual(await store.count("alice", T), 10_000)  # type: ignore[attr-defined]

    async def test_once(self) -> None:
        """K-53: a batch that comes again, in the same call or a later one, counts once."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        one, two = batch("b1", T, "alice", "bob"), batch("b2", T, "alice")
        equal(await store.apply([one, one, two], {}), (2, 1, []))
        equal(await store.apply([two, one], {}), (0, 2, []))
        equal(await store.count("alice", T), 2)
        equal(await store.count("bob", T), 1)
        equal(list(await store.unapplied(["b1", "b3", "b2", "b4"])), ["b3", "b4"])

    async def test_conflict(self) -> None:
        """K-80: a batch of a known id with other content is not counted, and is named."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        good, bad = batch("b1", T, "alice"), batch("b1", T, "mallory")
        applied = await store.apply([good, bad], {})
        equal((applied.new, applied.repeated), (1, 0))
        equal(list(applied.conflicts), [("b1", bad.digest)])
        applied = await store.apply([good, bad, batch("b2", T, "bob")], {})
        equal((applied.new, applied.repeated), (1, 1))
        equal(list(applied.conflicts), [("b1", bad.digest)])
        equal(await store.count("mallory", T), 0)
        equal(await store.total(*EVER), 2)

    async def fill(self, store: Any) -> None:
        await store.apply(
            [
                batch("b1", T, "alice.rig1", "alice.rig2", "alice.rig1", "bob"),
                batch("b2", T + 60, "alice", "bob", "bob", "carol.x"),
                batch("b3", T + 3600, "alice.rig1"),
            ],
            {},
        )

    async def test_queries(self) -> None:
        """K-73, K-18: by minute, range, worker, rank, and in total."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await self.fill(store)
        equal(await store.count("alice", T), 3)
        equal(await store.count("alice", T, "rig1"), 2)
        equal(await store.count("alice", T, "rig9"), 0)
        equal(await store.count("alice.rig1", T), 0)
        equal(await store.count("alice", T + 120), 0)
        for name, worker, known in (
            ("alice", "", True),
            ("alice", "rig2", True),
            ("alice", "rig9", False),
            ("alice.rig1", "", False),
            ("nobody", "", False),
        ):
            equal(await store.counted(name, worker), known)
        equal([await store.counted(name) for name in ("alice", "rig2")], [True, False])
        equal(list(await store.series("alice", *EVER)), [(T, 3), (T + 60, 1), (T + 3600, 1)])
        equal(list(await store.series("alice", T, T + 60)), [(T, 3)])
        equal(list(await store.series("alice", *EVER, "rig1")), [(T, 2), (T + 3600, 1)])
        equal(list(await store.workers("alice", *EVER)), [("rig1", 3), ("rig2", 1)])
        equal(list(await store.workers("alice", T, T + 60)), [("rig1", 2), ("rig2", 1)])
        equal(list(await store.workers("bob", *EVER)), [])
        equal(list(await store.top(10, *EVER)), [("alice", 5), ("bob", 3), ("carol", 1)])
        equal(list(await store.top(1, T + 60, T + 120)), [("bob", 2)])
        equal(list(await store.top(2, T + 60, T + 120)), [("bob", 2), ("alice", 1)])
        equal(list(await store.top(0, *EVER)), [])
        equal(list(await store.top(10, T, T + 60)), [("alice", 3), ("bob", 1)])
        equal(list(await store.minutes(T, T + 60)), [(T, 2, 4)])
        equal(list(await store.workers("alice", T, T + 3600)), [("rig1", 2), ("rig2", 1)])
        equal(await store.worker_total("alice", "rig1", T, T + 3600), 2)
        equal(
            list(await store.minutes(T, T + 3601)),
            [(T, 2, 4), (T + 60, 3, 4), (T + 3600, 1, 1)],
        )
        equal(list(await store.workers("alice", *EVER, 1)), [("rig1", 3)])
        equal(await store.names(*EVER), 3)
        equal(await store.names(T, T + 60), 2)
        equal(await store.names(*EVER, "alice"), 2)
        equal(await store.names(*EVER, "bob"), 0)
        equal(await store.worker_total("alice", "rig1", *EVER), 3)
        equal(await store.worker_total("alice", "rig1", T, T + 60), 2)
        equal(await store.worker_total("alice", "rig9", *EVER), 0)
        equal(await store.total(*EVER), 9)
        equal(await store.total(T, T + 60), 4)
        equal(await store.total(*EVER, "bob"), 3)
        equal(await store.total(*EVER, "nobody"), 0)
        equal(
            list(await rows_of(store, T + 60, T + 3601)),
            [
                MinuteCount("alice", "", T + 60, 1),
                MinuteCount("alice", "", T + 3600, 1),
                MinuteCount("alice", "rig1", T + 3600, 1),
                MinuteCount("bob", "", T + 60, 2),
                MinuteCount("carol", "", T + 60, 1),
                MinuteCount("carol", "x", T + 60, 1),
            ],
        )

    async def test_strange_ranges(self) -> None:
        """K-73: before the epoch and after the end of time there is nothing, and no error."""
        store = await self.make_store()
        await self.fill(store)
        equal = self.assertEqual  # type: ignore[attr-defined]
        equal(await store.total(-(10**30), 10**30), 9)
        equal(await store.total(10**15, 10**30), 0)
        equal(await store.total(T + 60, T), 0)
        equal(await store.count("alice", 10**30), 0)
        equal(await store.count("alice", -1), 0)

    async def test_ranks_of_equal_counts(self) -> None:
        """K-73: they are in the order of their names, and of the codes."""
        store = await self.make_store()
        rejected = (("zoe", 23), ("bob", 26), ("bob", 23))
        await store.apply(
            [batch("b1", T, "zoe.b", "zoe.a", "bob", "bob")],
            {Rejection(name, code, T): 1 for name, code in rejected},
        )
        equal = self.assertEqual  # type: ignore[attr-defined]
        equal(list(await store.top(10, *EVER)), [("bob", 2), ("zoe", 2)])
        equal(list(await store.workers("zoe", *EVER)), [("a", 1), ("b", 1)])
        equal(list(await store.rejections(*EVER)), [("bob", 23, 1), ("bob", 26, 1), ("zoe", 23, 1)])

    async def test_the_first_and_the_last_second(self) -> None:
        """K-73: they are counted as any other, and a range may begin and end there."""
        store = await self.make_store()
        last = 253_402_300_799  # of the year 9999
        await store.apply([batch("b1", 0, "alice"), batch("b2", last, "alice", "alice")], {})
        equal = self.assertEqual  # type: ignore[attr-defined]
        equal([await store.count("alice", at) for at in (0, 1, last)], [1, 0, 2])
        equal(await store.total(0, 1), 1)
        one, two = MinuteCount("alice", "", 0, 1), MinuteCount("alice", "", last, 2)
        for start, end, rows in (
            (0, last + 1, [one, two]),
            (0, last, [one]),
            (1, last + 1, [two]),
            (1, last, []),
        ):
            equal(await rows_of(store, start, end), rows)

    async def test_names(self) -> None:
        """K-70: a name is a value, whatever is in it."""
        store = await self.make_store()
        names = [
            "'; DROP TABLE submissions;--",
            '"; DELETE FROM submissions;--',
            "%",
            "_",
            "?",
            ":username",
            "名前",
            "a" * 255,
            "alice'.rig'1",
        ]
        await store.apply([batch("b1'", T, *names)], {Rejection(names[0], 23, T): 1})
        equal = self.assertEqual  # type: ignore[attr-defined]
        for name in names[:-1]:
            equal(await store.count(name, T), 1, name)
        equal(await store.count("alice'", T, "rig'1"), 1)
        equal(await store.total(*EVER), len(names))
        equal(list(await store.rejections(*EVER, names[0])), [(names[0], 23, 1)])
        equal(list(await store.unapplied(["b1'", "' OR 1=1"])), ["' OR 1=1"])
        equal(len(await store.top(100, *EVER)), len(names))

    async def test_utc(self) -> None:
        """K-69: minutes are UTC, wherever the server stands."""
        zone = os.environ.get("TZ")
        equal = self.assertEqual  # type: ignore[attr-defined]
        try:
            store = await self.make_store()
            for n, name in enumerate(("Asia/Kathmandu", "America/St_Johns", "Europe/Berlin")):
                os.environ["TZ"] = name
                time.tzset()
                await store.apply([batch(f"b{n}", T + 60 * n, "alice")], {})
                equal(await store.count("alice", T), 1)
            equal(
                list(await store.series("alice", T, T + 180)), [(T, 1), (T + 60, 1), (T + 120, 1)]
            )
            await self.check_utc(store)
        finally:
            os.environ.pop("TZ", None)
            if zone is not None:
                os.environ["TZ"] = zone
            time.tzset()

    async def check_utc(self, store: Any) -> None:
        """Look at what is stored, where that can be seen."""

    async def test_rejections(self) -> None:
        """K-75: per user and reason, over a range."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.apply(
            [],
            {Rejection("alice", 23, T): 5, Rejection("alice", 26, T): 2, Rejection("b", 23, T): 5},
        )
        await store.apply([], {Rejection("alice", 23, T): 1, Rejection("alice", 23, T + 60): 1})
        equal(
            list(await store.rejections(*EVER)), [("alice", 23, 7), ("b", 23, 5), ("alice", 26, 2)]
        )
        equal(
            list(await store.rejections(T, T + 60, "alice")), [("alice", 23, 6), ("alice", 26, 2)]
        )
        equal(list(await store.rejection_codes(*EVER)), [(23, 12), (26, 2)])
        equal(list(await store.rejection_codes(T, T + 60, "alice")), [(23, 6), (26, 2)])
        await store.apply([], {Rejection("c", 26, T + 120): 3, Rejection("c", 23, T + 120): 3})
        equal(list(await store.rejection_codes(T + 120, T + 180)), [(23, 3), (26, 3)])
        equal(await store.total(*EVER), 0)

    async def test_roll_up(self) -> None:
        """K-76: minutes become hours, and hours days; the totals stay."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        for day in range(3):
            for minute in range(0, 1440, 30):
                at = T + day * DAY + minute * 60
                await store.apply([batch(f"b{at}", at, "alice.rig1", "bob")], {})
        equal(await store.total(*EVER), 3 * 48 * 2)
        equal(await store.roll_up(0, 0), 0)
        self.assertGreater(await store.roll_up(T + 2 * DAY, 0), 0)  # type: ignore[attr-defined]
        equal(await store.rolled_up_before(), T + 2 * DAY)
        equal(await store.total(*EVER), 3 * 48 * 2)
        equal(await store.total(*EVER, "bob"), 3 * 48)
        equal(await store.total(T + HOUR, T + 2 * HOUR), 4)
        equal(await store.count("bob", T), 0)
        equal(await store.count("bob", T + 2 * DAY), 1)
        equal(len(await store.minutes(*EVER)), 48)
        self.assertGreater(await store.roll_up(T + 2 * DAY, T + DAY), 0)  # type: ignore[attr-defined]
        equal(await store.total(*EVER), 3 * 48 * 2)
        equal(await store.total(T, T + DAY), 96)
        equal(await store.roll_up(T + 2 * DAY, T + DAY), 0)
        # One that comes late is counted, and rolled up with the others next time.
        await store.apply([batch("late", T + 60, "bob")], {})
        equal(await store.total(T, T + DAY), 97)
        await store.roll_up(T + 2 * DAY, T + DAY)
        equal(await store.total(T, T + DAY), 97)
        equal(len(await store.minutes(*EVER)), 48)

    async def test_roll_up_within_the_hour(self) -> None:
        """K-76: only whole hours and days are rolled up."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await self.fill(store)
        equal(await store.roll_up(T + HOUR - 1, 0), 0)
        equal(await store.rolled_up_before(), T)
        equal(await store.count("alice", T), 3)

    async def test_forget_rejections(self) -> None:
        """K-76: rejections older than a minute are forgotten, and no others."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        old, new = Rejection("alice", 22, T), Rejection("alice", 22, T + 60)
        await store.apply([], {old: 3, new: 4})
        equal(await store.forget_rejections(T + 60), 1)
        equal(list(await store.rejections(*EVER)), [("alice", 22, 4)])

    async def test_snapshot(self) -> None:
        """Point 6: a store shows all that it is compared by."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        seen = await shown(store)
        equal(seen.snapshot, Snapshot(None, Mark(0), 0, 0, 0, [], 0))
        equal((seen.all_spans, seen.batch_ids, seen.rows), ([], [], []))
        identity = Identity("pool", (Epoch("one", 0),))
        await store.identify(Plan(identity, 4, 4, False, gap=Gap(1, 4), text="lost"))
        await self.fill(store)  # at no known positions
        at = [batch(f"p{n}", T + 60 * n, "alice")._replace(position=n) for n in range(5, 9)]
        await store.apply(at, {}, Mark(8, "p8"))
        seen = await shown(store)
        equal(
            seen.snapshot,
            Snapshot(identity, Mark(8, "p8"), 0, 0, 0, [(Gap(1, 4), "lost")], 0),
        )
        equal(
            sorted(seen.all_spans),
            [
                (T, 4, 5),
                (T + 60, 4, 5),
                *((T + 60 * n, n - 1, n) for n in range(5, 9)),
                (T + 3600, 4, 5),
            ],
        )
        # Those of a queue are above the mark of then, which is not the newest any more.
        equal(sorted(seen.batch_ids), ["b1", "b2", "b3", "p5", "p6", "p7", "p8"])
        equal(len(seen.rows), 10 + 4)
        await store.apply([], {}, Mark(2000))
        await store.apply([batch("late", T, "alice")._replace(position=2001)], {})
        equal((await shown(store)).batch_ids.count("late"), 1)
        await store.apply([], {}, Mark(4000))
        equal((await shown(store)).batch_ids, ["late"])

    async def test_snapshot_in_pieces(self) -> None:
        """Point 6: a store on disk shows 2,000 rows at a time."""
        store = await self.make_store()
        await store.apply([batch("b1", T, *(f"u{n}" for n in range(2001)))], {})
        pieces: list[int] = []

        class Pieces(Gathered):
            def counts(self, rows: Sequence[MinuteCount]) -> None:
                pieces.append(len(rows))

        await store.snapshot(Pieces(), *EVER)
        expected = [2000, 1] if self.durable else [2001]
        self.assertEqual(pieces, expected)  # type: ignore[attr-defined]

    async def test_snapshot_of_a_range(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await self.fill(store)
        equal({row.minute for row in await rows_of(store, T + 60, T + 3600)}, {T + 60})
        equal(await rows_of(store, T + 61, T + 3600), [])

    async def test_correct(self) -> None:
        """Point 6: rows are added to, whatever was counted meanwhile; one of nothing is gone."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await self.fill(store)
        before = {row[:3]: row for row in await rows_of(store)}
        await store.apply([batch("meanwhile", T, "alice.rig1")], {})
        serial = await store.correct(
            [
                MinuteCount("alice", "", T, 5),
                MinuteCount("alice", "rig1", T, -2),
                MinuteCount("bob", "", T + 60, -2),
                MinuteCount("nobody", "", T, -7),
                MinuteCount("zoe", "", T + 60, 3),
                MinuteCount("zoe", "x", T + 60, 3),
            ],
            0,
        )
        equal(serial, 1)
        after = {row[:3]: row for row in await rows_of(store)}
        expected = {
            **before,
            ("alice", "", T): MinuteCount("alice", "", T, before["alice", "", T][3] + 6),
            ("alice", "rig1", T): MinuteCount("alice", "rig1", T, 1),
            ("zoe", "", T + 60): MinuteCount("zoe", "", T + 60, 3),
            ("zoe", "x", T + 60): MinuteCount("zoe", "x", T + 60, 3),
        }
        del expected["bob", "", T + 60]
        equal(after, expected)
        for name, worker, known in (("zoe", "", True), ("zoe", "x", True), ("nobody", "", False)):
            equal(await store.counted(name, worker), known)

    async def test_correct_by_one(self) -> None:
        """Point 6: the least that can be missing."""
        store = await self.make_store()
        row = MinuteCount("alice", "rig1", T, 1)
        await store.correct([row], 0)
        self.assertEqual(await rows_of(store), [row])  # type: ignore[attr-defined]

    async def test_superseded(self) -> None:
        """Point 6: of two that looked at the same, the second corrects nothing."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await self.fill(store)
        equal(await store.correct([MinuteCount("alice", "", T, 5)], 0), 1)
        before = await rows_of(store)
        with self.assertRaises(Superseded):  # type: ignore[attr-defined]
            await store.correct([MinuteCount("alice", "", T, 5)], 0)
        equal(await rows_of(store), before)
        seen = await shown(store)
        assert seen.snapshot is not None
        equal(seen.snapshot.serial, 1)
        equal(await store.correct([MinuteCount("alice", "", T, -5)], 1), 2)

    async def test_correct_spares_what_is_rolled_up(self) -> None:
        """K-76, K-77: what has been rolled up is not counted a second time."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.apply([batch("old", T, "alice"), batch("new", T + HOUR, "alice")], {})
        await store.roll_up(T + HOUR, 0)
        rows = [MinuteCount("alice", "", T, 1), MinuteCount("alice", "", T + HOUR, 1)]
        await store.correct(rows, 0)
        equal(await store.total(*EVER), 3)
        equal(await store.count("alice", T), 0)

    async def test_close(self) -> None:
        """K-85: may be closed twice."""
        store = await self.make_store()
        await store.close()
        await store.close()


class MemoryStatsTests(StatsContract, TestCase):
    """The contract, for the store in memory."""

    async def make_store(self) -> MemoryStats:
        store = MemoryStats()
        await store.open()
        return store


class SqliteStatsTests(StatsContract, TestCase):
    """The contract, for the store in a SQLite file."""

    durable = True

    async def make_store(self) -> SqliteStats:
        self.path = Path(self.mktemp())
        return await self.reopen()

    async def reopen(self) -> SqliteStats:
        store = SqliteStats(
            Database(the_reactor(), self.path, "store"),
            ReadOnlyDatabase(the_reactor(), self.path, "store"),
        )
        await store.open()
        self.addCleanup(store.close)
        return store

    async def query(self, store: SqliteStats, sql: str) -> list[Any]:
        return await store._database.run(lambda c: c.execute(sql).fetchall())

    async def check_utc(self, store: SqliteStats) -> None:
        rows = await self.query(store, "SELECT timestamp FROM submissions ORDER BY timestamp")
        self.assertEqual(rows[0], ("2027-01-16 00:00:00",))

    async def test_table(self) -> None:
        """K-67: the table is there, with exactly these columns and this key."""
        store = await self.make_store()
        found = await self.query(store, "PRAGMA table_info(submissions)")
        self.assertEqual(
            [(name, kind, key) for _, name, kind, _, _, key in found],
            [
                ("username", "VARCHAR(255)", 1),
                ("timestamp", "TIMESTAMP", 2),
                ("submission_count", "INT", 0),
            ],
        )

    async def test_queries_do_not_wait_for_the_counting(self) -> None:
        """Issue 15, build 5: queries have a connection of their own."""
        store = await self.make_store()
        await self.fill(store)
        go_on = Event()
        held = store._database.run(lambda _: go_on.wait(10), alone=True)
        try:
            self.assertEqual(await store.total(*EVER), 9)
            self.assertEqual(await store.rolled_up_before(), 0)
            self.assertNoResult(held)
        finally:
            go_on.set()
            await held

    async def test_without_a_connection_for_queries(self) -> None:
        """It counts and answers by one connection then, as a command does."""
        store = SqliteStats(Database(the_reactor(), Path(self.mktemp()), "store"))
        await store.open()
        self.addCleanup(store.close)
        await self.fill(store)
        self.assertEqual(await store.total(*EVER), 9)

    async def test_reopen(self) -> None:
        """K-72, K-53: counts and the ids of batches outlive the process."""
        store = await self.make_store()
        await self.fill(store)
        rows = await rows_of(store)
        await store.close()
        again = await self.reopen()
        self.assertEqual(await rows_of(again), rows)
        applied = await again.apply(
            [batch("b1", T, "alice.rig1", "alice.rig2", "alice.rig1", "bob")], {}
        )
        self.assertEqual(applied, (0, 1, []))
        self.assertEqual(await again.total(*EVER), 9)

    async def test_one_transaction(self) -> None:
        """K-71: what is applied together is written in one transaction, a row at a time
        for each user and minute, and creates no table.
        """
        store = await self.make_store()
        statements: list[str] = []
        await store._database.run(lambda c: c.set_trace_callback(statements.append))
        await store.apply(
            [batch(f"b{n}", T, *["alice"] * 50, *["bob"] * 50) for n in range(20)], {}
        )
        await store._database.run(lambda c: c.set_trace_callback(None))
        begun = [s for s in statements if s.startswith("BEGIN")]
        counted = [s for s in statements if s.startswith("INSERT INTO submissions")]
        self.assertEqual(len(begun), 2)  # the other is for turning the trace off
        self.assertEqual(len(counted), 2)
        self.assertEqual([s for s in statements if s.startswith(("CREATE", "ALTER"))], [])

    async def test_a_transaction_of_its_own(self) -> None:
        """K-72: what writes the counts shares no transaction, so that no failure undoes it."""
        store = await self.make_store()
        statements: list[str] = []
        await store._database.run(lambda c: c.set_trace_callback(statements.append))
        plan = Plan(Identity("pool", (Epoch("one", 0),)), 0, 0, True)
        for position in (1000, 2000, 3000):
            await store.apply([], {}, Mark(position, "x"))
        for writes in (
            lambda: store.identify(plan),
            lambda: store.apply([batch("b1", T, "alice")], {}),
            lambda: store.correct([MinuteCount("alice", "", T, 1)], 0),
            store.revive,
            lambda: store.roll_up(T + HOUR, 0),
            lambda: store.forget_batches(2001),
            lambda: store.forget_rejections(T),
        ):
            statements.clear()
            go_on = Event()
            held = store._database.run(lambda _, go_on=go_on: go_on.wait(10))  # type: ignore[misc]
            work = [held, writes(), store.gaps()]
            go_on.set()
            for done in work:
                await done
            of_gaps = [
                transaction.split("\n")[1:-1]
                for transaction in "\n".join(statements).split("\nBEGIN")
                if "FROM log_gaps" in transaction
            ]
            self.assertEqual([len(transaction) for transaction in of_gaps], [1], of_gaps)

    async def test_failure_leaves_nothing(self) -> None:
        """K-72: what cannot be committed is not counted in part."""
        store = await self.make_store()
        await store._database.run(lambda c: c.execute("PRAGMA max_page_count=40").fetchone())
        large = batch("large", T, *[f"{n:0200}" for n in range(5000)])
        with self.assertRaises(DatabaseUnusable):
            await store.apply([batch("small", T, "alice"), large], {})
        self.assertEqual(await store.total(*EVER), 0)
        self.assertEqual(len(await store.unapplied(["small", "large"])), 2)
        await store._database.run(lambda c: c.execute("PRAGMA max_page_count=100000").fetchone())
        await store.apply([batch("small", T, "alice"), large], {})
        self.assertEqual(await store.total(*EVER), 5001)

    async def test_dropped_table_comes_back(self) -> None:
        """K-77: a rebuild also helps where a table was lost, whichever it is."""
        store = await self.make_store()
        await self.fill(store)
        query = "SELECT name, sql FROM sqlite_master WHERE tbl_name = '{}' ORDER BY name"
        for table in ("submissions", "worker_submissions", "applied_batches", "counted_minutes"):
            made = await self.query(store, query.format(table))
            await self.query(store, f"DROP TABLE {table}")
            await store.revive()
            self.assertEqual(
                [name for name, _ in await self.query(store, query.format(table))],
                [name for name, _ in made],
            )
            columns = await self.query(store, f"SELECT * FROM {table}")
            self.assertEqual(columns, [])
        await self.fill(store)
        self.assertEqual(await store.count("bob", T + 60), 2)

    async def test_dropped_table_is_named(self) -> None:
        """Point 6: an audit says which table is gone, and what makes it again."""
        store = await self.make_store()
        await self.query(store, "DROP TABLE worker_submissions")
        with self.assertRaisesRegex(DatabaseUnusable, "no such table: worker_submissions; 'kup"):
            await shown(store)

    async def test_rows_that_no_daemon_writes(self) -> None:
        """Point 6: whatever somebody put into the table is shown."""
        store = await self.make_store()
        await self.query(store, "INSERT INTO submissions VALUES ('mallory', 'never', 3)")
        await self.query(store, "INSERT INTO submissions VALUES ('mallory', '', 'many')")
        await self.query(
            store, f"INSERT INTO worker_submissions VALUES ('m', 'x', '{'9' * 30}', 1)"
        )
        self.assertEqual(
            await rows_of(store),
            [
                MinuteCount("m", "x", 0, 1),
                MinuteCount("mallory", "", 0, 0),
                MinuteCount("mallory", "", 0, 3),
            ],
        )

    async def test_snapshot_beside_counting(self) -> None:
        """Point 6: what is shown is of one moment, while counting goes on."""
        store = await self.make_store()
        await self.fill(store)
        path = self.path

        class Slow(Gathered):
            def begin(self, snapshot: Snapshot) -> None:
                super().begin(snapshot)
                with closing(sqlite3.connect(path)) as counter, counter:
                    counter.execute("UPDATE submissions SET submission_count = 77")
                    counter.execute("DELETE FROM worker_submissions")

        before, slow = await rows_of(store), Slow()
        await store.snapshot(slow, *EVER)
        self.assertEqual(sorted(slow.rows), before)
        self.assertEqual(await store.count("alice", T), 77)

    def results(self, store: SqliteStats) -> list[Any]:
        """Return a list that gets the result of each transaction from now on."""
        results: list[Any] = []
        run = store._database.run

        def running(*of: Any, **named: Any) -> Any:
            return run(*of, **named).addCallback(noted)

        def noted(result: Any) -> Any:
            results.append(result)
            return result

        self.patch(store._database, "run", running)
        return results

    async def test_how_many_rows_are_rolled_up_at_once(self) -> None:
        """K-76: 5,000 in a transaction, so that counting waits for moments only."""
        store = await self.make_store()
        await store.apply([batch("b1", T, *(f"u{n}" for n in range(5001)))], {})
        results = self.results(store)
        self.assertEqual(await store.roll_up(T + HOUR, 0), 5001)
        self.assertEqual(results, [5000, 1, 0])  # users, and no workers

    async def test_how_many_ids_are_forgotten_at_once(self) -> None:
        """K-76: as many as rows that are rolled up."""
        store = await self.make_store()
        batches = [batch(f"b{n}", T, "alice")._replace(position=n) for n in range(1, 5002)]
        await store.apply(batches, {}, Mark(5001, "b5001"))
        await store.apply([], {}, Mark(7000, "x"))
        results = self.results(store)
        self.assertEqual(await store.forget_batches(7001), 5001)
        self.assertEqual(results[1:], [5000, 1])

    async def test_times_of_rolled_up_rows(self) -> None:
        """K-76: they are written as the minutes are."""
        store = await self.make_store()
        await store.apply([batch("b1", T + HOUR + 60, "alice")], {})
        await store.roll_up(T + DAY, 0)
        hours = await self.query(store, "SELECT timestamp FROM submissions_hour")
        self.assertEqual(hours, [("2027-01-16 01:00:00",)])
        await store.roll_up(T + DAY, T + DAY)
        days = await self.query(store, "SELECT timestamp FROM submissions_day")
        self.assertEqual(days, [("2027-01-16 00:00:00",)])

    async def test_roll_up_in_chunks(self) -> None:
        """K-76: a large roll-up takes several transactions, and loses nothing."""
        from kupool.stats import sqlite

        self.patch(sqlite, "ROLL_CHUNK", 7)
        await self.test_roll_up()
