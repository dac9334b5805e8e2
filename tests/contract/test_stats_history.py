"""What every store of counts answers about days and months, whatever engine it has."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.log import Mark
from kupool.stats import MinuteCount, Rejection
from kupool.stats.history import IHistory, Rank, RolledUp, WorkerQuery, WorkerRow
from kupool.stats.memory import MemoryStats
from kupool.stats.positions import Span
from kupool.stats.postgres import PostgresStats
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.storage.migrations import available
from kupool.storage.postgres import PostgresDatabase
from kupool.storage.reading import ReadOnlyDatabase
from tests.contract.test_stats_store import DAY, HOUR, T, batch
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres

#: Four days from T on.
DAYS = (T, T + 4 * DAY)

#: Rows of a release that kept no days, as (table, name, time, count).
OLD = (
    ("submissions", ("alice",), "2027-01-18 00:01:00", 5),
    ("submissions", ("bob",), "2027-01-18 00:01:00", 4),
    ("worker_submissions", ("alice", "rig1"), "2027-01-18 00:01:00", 3),
    ("submissions_hour", ("alice",), "2027-01-17 05:00:00", 10),
    ("worker_submissions_hour", ("alice", "rig1"), "2027-01-17 05:00:00", 10),
    ("submissions_day", ("alice",), "2027-01-16 00:00:00", 100),
    ("worker_submissions_day", ("alice", "rig2"), "2027-01-16 00:00:00", 60),
)


def old_rows() -> list[str]:
    """Return the statements that make these rows."""
    statements = []
    for table, names, at, count in OLD:
        values = ", ".join(f"'{value}'" for value in (*names, at))
        columns = "username, worker" if len(names) == 2 else "username"
        statements.append(
            f"INSERT INTO {table} ({columns}, timestamp, submission_count) "
            f"VALUES ({values}, {count})"
        )
    statements.append(
        "INSERT INTO rejections (username, code, timestamp, rejection_count) "
        "VALUES ('alice', 23, '2027-01-18 00:02:00', 7)"
    )
    return statements


def row(name: str, accepted: int, rejected: int = 0, last: int | None = None) -> WorkerRow:
    user, _, worker = name.partition(".")
    return WorkerRow(user, worker, accepted, rejected, last)


class HistoryContract:
    """Issue 18, build 2: history for each worker over months; mixed into a TestCase."""

    assertEqual: Callable[..., None]

    async def make_store(self) -> Any:
        """Return a store that is open and empty."""
        raise NotImplementedError

    async def workers(self, store: Any, start: int, end: int, **more: Any) -> list[WorkerRow]:
        page = await store.history.workers(WorkerQuery(start, end, **more))
        return list(page.rows)

    async def test_interface_of_history(self) -> None:
        store = await self.make_store()
        verifyObject(IHistory, store.history)

    async def test_no_history(self) -> None:
        """Issue 18, bad input: a worker with no data has empty answers."""
        history = (await self.make_store()).history
        for step in ("minute", "hour", "day"):
            for worker in ("", "rig"):
                self.assertEqual(list(await history.series("a", worker, step, DAYS)), [])
        self.assertEqual(list(await history.rejection_codes("a", "rig", *DAYS)), [])
        self.assertEqual(await history.workers(WorkerQuery(*DAYS)), (0, []))
        self.assertEqual(await history.rank("a", *DAYS), Rank(0, 0, 0))
        self.assertEqual(await history.rolled_up(), RolledUp(0, 0))
        self.assertEqual(await history.batch("b"), None)
        self.assertEqual(await history.span(*DAYS), None)

    async def fill(self, store: Any) -> None:
        await store.apply(
            [
                batch("b1", T, "alice.rig1", "alice.rig2", "alice.rig1", "bob", "alice"),
                batch("b2", T + HOUR + 60, "alice.rig1", "bob", "bob.x"),
                batch("b3", T + DAY, "alice.rig1", "alice.rig1"),
            ],
            {
                Rejection("alice", 23, T, "rig1"): 3,
                Rejection("alice", 22, T, "rig1"): 1,
                Rejection("alice", 23, T): 2,
                Rejection("bob", 23, T + DAY, "y"): 4,
                Rejection("", 23, T): 9,
            },
        )

    async def test_workers(self) -> None:
        """Each worker of a range with both counts, and what came without a worker's name."""
        store = await self.make_store()
        await self.fill(store)
        alice = [row("alice.rig1", 3, 4, T + HOUR + 60), row("alice.rig2", 1, 0, T)]
        nameless = row("alice", 1, 2, T)
        bob = [row("bob", 2, 0, T + HOUR + 60), row("bob.x", 1, 0, T + HOUR + 60)]
        self.assertEqual(
            await self.workers(store, T, T + DAY), [alice[0], bob[0], nameless, alice[1], bob[1]]
        )
        self.assertEqual(
            await self.workers(store, T, T + DAY, user="alice"), [alice[0], nameless, alice[1]]
        )
        self.assertEqual(
            await self.workers(store, T, T + 2 * DAY, user="alice", limit=1),
            [row("alice.rig1", 5, 4, T + DAY)],
        )
        self.assertEqual(
            await self.workers(store, T + DAY, T + 2 * DAY),
            [row("alice.rig1", 2, 0, T + DAY), row("bob.y", 0, 4)],
        )

    async def test_search_sort_and_pages_of_workers(self) -> None:
        store = await self.make_store()
        await self.fill(store)
        both = (T, T + 2 * DAY)
        names = ["alice", "alice.rig1", "alice.rig2", "bob", "bob.x", "bob.y"]

        async def listed(**query: Any) -> list[str]:
            found = await self.workers(store, *both, **query)
            return [f"{r.username}.{r.worker}".rstrip(".") for r in found]

        self.assertEqual(await listed(sort="user", descending=False), names)
        self.assertEqual(await listed(sort="user"), names[::-1])
        self.assertEqual(
            await listed(sort="worker", descending=False),
            ["alice", "bob", "alice.rig1", "alice.rig2", "bob.x", "bob.y"],
        )
        self.assertEqual(
            await listed(sort="last"),
            ["alice.rig1", "bob", "bob.x", "alice", "alice.rig2", "bob.y"],
        )
        self.assertEqual((await listed(sort="last", descending=False))[-1], "bob.y")
        self.assertEqual(await listed(search="E.RIG"), ["alice.rig1", "alice.rig2"])
        self.assertEqual(await listed(search="%"), [])
        page = await store.history.workers(
            WorkerQuery(*both, sort="user", descending=False, limit=2, offset=3)
        )
        self.assertEqual((page.total, [r.username for r in page.rows]), (6, ["bob", "bob"]))
        page = await store.history.workers(WorkerQuery(*both, offset=100))
        self.assertEqual(page, (6, []))

    async def test_workers_that_are_present(self) -> None:
        """Who is connected is listed without counts, and nobody twice."""
        store = await self.make_store()
        await self.fill(store)
        present = [("alice", "rig1"), ("carol", "'x'"), ("bob", "")]
        page = await store.history.workers(WorkerQuery(T, T + DAY, present=present))
        self.assertEqual(page.total, 6)
        self.assertEqual(page.rows[0], row("alice.rig1", 3, 4, T + HOUR + 60))
        self.assertEqual(page.rows[-1], WorkerRow("carol", "'x'", 0, 0, None))
        page = await store.history.workers(WorkerQuery(T, T + DAY, user="bob", present=present))
        self.assertEqual((page.total, page.rows[0].accepted), (2, 2))

    async def test_rank(self) -> None:
        """Issue 18, build 8: the place among all, and of how many."""
        store = await self.make_store()
        await self.fill(store)
        await store.apply([batch("b4", T, "carol", "carol.x", "carol")], {})
        rank = store.history.rank
        self.assertEqual(await rank("alice", T, T + DAY), Rank(1, 3, 5))
        self.assertEqual(await rank("bob", T, T + DAY), Rank(2, 3, 3))
        self.assertEqual(await rank("carol", T, T + DAY), Rank(2, 3, 3))
        self.assertEqual(await rank("nobody", T, T + DAY), Rank(0, 3, 0))
        self.assertEqual(await rank("alice", T, T + 2 * DAY), Rank(1, 3, 7))
        self.assertEqual(await rank("bob", T + DAY, T + 2 * DAY), Rank(0, 1, 0))

    async def test_rejections_of_a_worker(self) -> None:
        """Issue 18, build 4: by reason, of a user and of one worker; forgotten with the others."""
        store = await self.make_store()
        await self.fill(store)
        codes = store.history.rejection_codes
        self.assertEqual(list(await codes("alice", "rig1", T, T + DAY)), [(23, 3), (22, 1)])
        self.assertEqual(list(await codes("alice", "", T, T + DAY)), [(23, 5), (22, 1)])
        self.assertEqual(list(await store.rejection_codes(T, T + DAY, "alice")), [(23, 5), (22, 1)])
        await store.forget_rejections(T + 60)
        self.assertEqual(list(await codes("alice", "rig1", T, T + DAY)), [])
        self.assertEqual(list(await codes("bob", "y", *DAYS)), [(23, 4)])
        # The days go on to know how many there were.
        (found,) = await self.workers(store, T, T + DAY, search="rig1")
        self.assertEqual(found.rejected, 4)

    async def test_series_through_roll_ups(self) -> None:
        """Issue 18, build 2: hours and days of a worker are exact whatever is rolled up."""
        store = await self.make_store()
        await self.fill(store)
        series = store.history.series
        hours = [(T, 2), (T + HOUR, 1), (T + DAY, 2)]
        days = [(T, 3), (T + DAY, 2)]

        async def check(minutes: list[tuple[int, int]]) -> None:
            for step, wanted in (("minute", minutes), ("hour", hours), ("day", days)):
                self.assertEqual(list(await series("alice", "rig1", step, DAYS)), wanted)
            self.assertEqual(list(await series("alice", "", "day", DAYS)), [(T, 5), (T + DAY, 2)])
            found = await self.workers(store, T, T + DAY)
            self.assertEqual(found[0], row("alice.rig1", 3, 4, T + HOUR + 60))

        await check([(T, 2), (T + HOUR + 60, 1), (T + DAY, 2)])
        await store.roll_up(T + DAY, 0)
        self.assertEqual(await store.history.rolled_up(), RolledUp(T + DAY, 0))
        await check([(T + DAY, 2)])
        await store.roll_up(T + 2 * DAY, T + DAY)
        self.assertEqual(await store.history.rolled_up(), RolledUp(T + 2 * DAY, T + DAY))
        hours = [(T + DAY, 2)]
        await check([])
        # One that comes late counts in its day, and is rolled up with the others.
        await store.apply([batch("late", T + 120, "alice.rig1")], {})
        days = [(T, 4), (T + DAY, 2)]
        self.assertEqual(list(await series("alice", "rig1", "day", DAYS)), days)
        await store.roll_up(T + 2 * DAY, T + DAY)
        self.assertEqual(list(await series("alice", "rig1", "day", DAYS)), days)

    async def test_days_of_corrected_minutes(self) -> None:
        """K-77: a rebuild corrects the days with the minutes."""
        store = await self.make_store()
        await self.fill(store)
        rows = [
            MinuteCount("alice", "", T, -2),
            MinuteCount("alice", "rig1", T, -2),
            MinuteCount("bob", "", T, -1),
            MinuteCount("bob", "", T + HOUR + 60, -2),
            MinuteCount("bob", "x", T + HOUR + 60, -1),
            MinuteCount("dora", "", T, 4),
            MinuteCount("dora", "new", T, 3),
        ]
        await store.correct(rows, 0)
        self.assertEqual(
            await self.workers(store, T, T + DAY),
            [
                row("dora.new", 3, 0, T),
                row("alice", 1, 2, T),
                row("alice.rig1", 1, 4, T + HOUR + 60),
                row("alice.rig2", 1, 0, T),
                row("dora", 1, 0, T),
            ],
        )
        self.assertEqual(await store.history.rank("alice", T, T + DAY), Rank(2, 2, 3))
        self.assertEqual(await store.history.rank("bob", T, T + DAY), Rank(0, 2, 0))

    async def test_batches_and_spans(self) -> None:
        """Issue 18, build 5: where a batch is in the log, and since when it counts."""
        store = await self.make_store()
        await store.apply(
            [
                batch("b1", T, "alice")._replace(position=4),
                batch("b2", T, "alice")._replace(position=9),
                batch("b3", T + 60, "alice")._replace(position=7),
            ],
            {},
            Mark(9, "b2"),
        )
        found = await store.history.batch("b2")
        self.assertEqual((found.minute, found.position), (T, 9))
        self.assertGreater(found.counted_at, 1_700_000_000)  # type: ignore[attr-defined]
        self.assertEqual(await store.history.batch("b9"), None)
        self.assertEqual(await store.history.span(T, T + 60), Span(3, 9))
        self.assertEqual(await store.history.span(T + 60, T + 120), Span(6, 7))
        self.assertEqual(await store.history.span(T, T + HOUR), Span(3, 9))
        self.assertEqual(await store.history.span(T + 120, T + HOUR), None)

    async def test_everything_at_random(self) -> None:
        """Issue 18, build 2: counts of any range equal a plain sum, through any roll-ups."""
        store = await self.make_store()
        chance = random.Random(18)
        model: Counter[tuple[str, str, int]] = Counter()
        rejected: Counter[tuple[str, str, int]] = Counter()
        names = ["a", "a.x", "a.y", "b.x", "b", "c.x"]
        for n in range(40):
            minute = T + chance.randrange(4 * 1440) * 60
            chosen = [chance.choice(names) for _ in range(chance.randrange(1, 6))]
            refused = chance.choice(names)
            for name in chosen:
                user, _, worker = name.partition(".")
                model[user, worker, minute] += 1
            user, _, worker = refused.partition(".")
            rejected[user, worker, minute] += 2
            await store.apply(
                [batch(f"b{n}", minute, *chosen)], {Rejection(user, 23, minute, worker): 2}
            )
            if n % 10 == 9:
                await store.roll_up(T + n * 2 * HOUR, T + n * HOUR)
            start = T + chance.randrange(4) * DAY
            await self.compare(
                store, model, rejected, (start, start + chance.randrange(1, 4) * DAY)
            )

    async def compare(
        self,
        store: Any,
        model: Counter[tuple[str, str, int]],
        rejected: Counter[tuple[str, str, int]],
        span: tuple[int, int],
    ) -> None:
        start, end = span
        counted: Counter[tuple[str, str]] = Counter()
        users: Counter[str] = Counter()
        for (user, worker, at), count in model.items():
            if start <= at < end:
                counted[user, worker] += count
                users[user] += count
        refused: Counter[tuple[str, str]] = Counter()
        for (user, worker, at), count in rejected.items():
            if start <= at < end:
                refused[user, worker] += count
        found = await self.workers(store, start, end)
        self.assertEqual(
            {(r.username, r.worker): (r.accepted, r.rejected) for r in found},
            {name: (counted[name], refused[name]) for name in {*counted, *refused}},
        )
        for user in "abc":
            more = sum(count > users[user] for count in users.values())
            wanted = Rank(more + 1 if users[user] else 0, len(users), users[user])
            self.assertEqual(await store.history.rank(user, start, end), wanted)


class MemoryHistoryTests(HistoryContract, TestCase):
    """The contract, for the store in memory."""

    async def make_store(self) -> MemoryStats:
        return MemoryStats()


class TakenOver:
    """Issue 18, build 2: a store of the last release has days, too, after its first start."""

    assertEqual: Callable[..., None]

    async def check_taken_over(self, store: Any) -> None:
        history = store.history
        page = await history.workers(WorkerQuery(*DAYS, sort="user", descending=False))
        hour, newest = T + DAY + 5 * HOUR, T + 2 * DAY + 60
        self.assertEqual(
            [r[:4] for r in page.rows],
            [
                ("alice", "", 42, 0),
                ("alice", "rig1", 13, 0),
                ("alice", "rig2", 60, 0),
                ("bob", "", 4, 0),
            ],
        )
        self.assertEqual([r.last for r in page.rows[1:]], [newest, T, newest])
        self.assertEqual(await history.rank("alice", *DAYS), Rank(1, 2, 115))
        self.assertEqual(
            list(await history.series("alice", "", "day", DAYS)),
            [(T, 100), (T + DAY, 10), (T + 2 * DAY, 5)],
        )
        self.assertEqual(
            list(await history.series("alice", "rig1", "hour", DAYS)),
            [(hour, 10), (T + 2 * DAY, 3)],
        )
        self.assertEqual((await history.rolled_up()).hours, T + DAY)
        self.assertEqual(await self.rejected_users(), [("alice", 7)])
        # What is counted from now on adds to it.
        await store.apply([batch("b1", T + 2 * DAY, "alice.rig1")], {})
        self.assertEqual((await history.rank("alice", *DAYS)).accepted, 116)

    async def rejected_users(self) -> list[Any]:
        """Return the rejections of the days of users."""
        raise NotImplementedError


class SqliteHistoryTests(HistoryContract, TakenOver, TestCase):
    """The contract, for the store in SQLite."""

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

    def sql(self, statements: Sequence[str]) -> list[Any]:
        rows: list[Any] = []
        connection = sqlite3.connect(self.path)
        try:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            connection.commit()
        finally:
            connection.close()
        return rows

    async def rejected_users(self) -> list[Any]:
        return self.sql(["SELECT username, rejected FROM daily_users WHERE rejected > 0"])

    async def test_taken_over(self) -> None:
        self.path = Path(self.mktemp())
        connection = sqlite3.connect(self.path)
        for _, script in available("store")[:2]:
            connection.executescript(script)
        connection.executescript(
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_at TIMESTAMP "
            "NOT NULL DEFAULT CURRENT_TIMESTAMP); "
            "INSERT INTO schema_version (version) VALUES (1), (2);"
        )
        connection.close()
        self.sql(old_rows())
        await self.check_taken_over(await self.reopen())

    async def test_tables_that_were_dropped(self) -> None:
        """K-77: days that are made again agree with the counts that there are."""
        store = await self.make_store()
        await self.fill(store)
        before = await self.workers(store, *DAYS)
        self.sql(["DROP TABLE daily_users", "DROP TABLE daily_workers"])
        await store.revive()
        found = await self.workers(store, *DAYS)
        wanted = [r._replace(rejected=0) for r in before if r.accepted]
        self.assertEqual([r[:4] for r in found], [r[:4] for r in wanted])
        self.assertEqual((await store.history.rank("alice", *DAYS)).accepted, 7)


class PostgresHistoryTests(HistoryContract, TakenOver, TestCase):
    """The contract, for the store in PostgreSQL."""

    async def make_store(self) -> PostgresStats:
        self.dsn = postgres().new_database()
        return await self.reopen()

    async def reopen(self) -> PostgresStats:
        store = PostgresStats(PostgresDatabase(the_reactor(), self.dsn))
        await store.open()
        self.addCleanup(store.close)
        return store

    def sql(self, statement: str) -> list[Any]:
        return postgres().execute(statement, dsn=self.dsn)

    async def rejected_users(self) -> list[Any]:
        return self.sql("SELECT username, rejected::int FROM daily_users WHERE rejected > 0")

    async def test_taken_over(self) -> None:
        self.dsn = postgres().new_database()
        for number, script in available("postgres")[:4]:
            self.sql(script)
            if number == 1:
                self.sql(
                    "CREATE TABLE schema_version (version INT PRIMARY KEY, applied_at TIMESTAMP "
                    "NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'))"
                )
            self.sql(f"INSERT INTO schema_version (version) VALUES ({number})")
        for statement in old_rows():
            self.sql(statement)
        await self.check_taken_over(await self.reopen())

    async def test_tables_that_were_dropped(self) -> None:
        """K-77: days that are made again agree with the counts that there are."""
        store = await self.make_store()
        await self.fill(store)
        before = await self.workers(store, *DAYS)
        self.sql("DROP TABLE daily_users, daily_workers")
        await store.revive()
        found = await self.workers(store, *DAYS)
        wanted = [r._replace(rejected=0) for r in before if r.accepted]
        self.assertEqual([r[:4] for r in found], [r[:4] for r in wanted])
        self.assertEqual((await store.history.rank("alice", *DAYS)).accepted, 7)

    async def test_days_of_two_daemons(self) -> None:
        """K-72: two that count the same users at once add up, and do not block each other."""
        from twisted.internet.defer import gatherResults

        one, two = await self.make_store(), await self.reopen()
        work = []
        for n in range(40):
            for store, name in ((one, "x"), (two, "y")):
                names = [f"u{(n * 7 + k) % 13}.{name}" for k in range(6)]
                refused = {Rejection(f"u{(n + k) % 13}", 23, T, "z"): 1 for k in range(3)}
                work.append(store.apply([batch(f"{name}{n}", T, *names)], refused))
        await gatherResults(work)
        rows = self.sql("SELECT sum(accepted)::int, sum(rejected)::int FROM daily_workers")
        self.assertEqual(rows, [(480, 240)])
        rows = self.sql("SELECT sum(accepted)::int, sum(rejected)::int FROM daily_users")
        self.assertEqual(rows, [(480, 240)])
