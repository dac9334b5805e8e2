"""The contract of the stores of counts, for the one in PostgreSQL, and what is its own."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from typing import Any

import psycopg2
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from kupool.log import Mark
from kupool.stats import BatchCounts, MinuteCount, Rejection, postgres_writes
from kupool.stats import postgres as postgres_stats
from kupool.stats.fold import fold_rows
from kupool.stats.postgres import PostgresStats
from kupool.stats.snapshot import Snapshot
from kupool.storage.postgres import DatabaseUnavailable, PostgresDatabase, database
from tests.contract.test_stats_store import DAY, EVER, StatsContract, T, batch
from tests.fakes.snapshots import Gathered, rows_of
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres

#: A minute after T, in SQL.
M1 = "2027-01-16 00:01:00"


class PostgresStatsTests(StatsContract, TestCase):
    """K-74: the contract, for the store in PostgreSQL."""

    durable = True

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

    def traced(self) -> list[str]:
        """Return the list that every statement from now on is added to."""
        from kupool.storage.postgres.link import WatchedCursor

        statements: list[str] = []
        self.traced_values: list[Any] = []
        execute = WatchedCursor.execute

        def traced(cursor: Any, query: str, values: Any = None) -> Any:
            statements.append(query)
            self.traced_values.append(values)
            return execute(cursor, query, values)

        self.patch(WatchedCursor, "execute", traced)
        return statements

    async def check_utc(self, store: PostgresStats) -> None:
        """K-69: what psql shows is UTC, too."""
        rows = self.sql("SELECT timestamp::text FROM submissions ORDER BY timestamp")
        self.assertEqual(rows[0], ("2027-01-16 00:00:00",))

    async def test_zone_of_the_database(self) -> None:
        """K-69: minutes are UTC whatever zone the database and the role are set to."""
        store = await self.make_store()
        (name,) = self.sql("SELECT current_database()")[0]
        self.sql(f"ALTER DATABASE {name} SET timezone TO 'Asia/Kathmandu'")
        self.sql(f"ALTER DATABASE {name} SET datestyle TO 'German'")
        again = await self.reopen()
        for n, one in enumerate((store, again)):
            await one.apply([batch(f"b{n}", T, "alice")], {Rejection("alice", 23, T): 1})
            self.assertEqual(await one.count("alice", T), n + 1)
        self.assertEqual(self.sql("SHOW timezone"), [("Asia/Kathmandu",)])
        rows = self.sql("SELECT to_char(timestamp, 'YYYY-MM-DD HH24:MI:SS') FROM submissions")
        self.assertEqual(rows, [("2027-01-16 00:00:00",)])
        rows = self.sql(
            "SELECT abs(extract(epoch FROM applied_at - (now() AT TIME ZONE 'UTC'))) < 600 "
            "FROM applied_batches"
        )
        self.assertEqual(rows, [(True,), (True,)])
        await again.roll_up(T + DAY, 0)
        self.assertEqual(await store.rolled_up_before(), T + DAY)
        self.assertEqual(await store.total(T, T + 3600), 2)

    async def test_table(self) -> None:
        """K-67: the table is there, with exactly these columns and this key."""
        await self.make_store()
        found = self.sql(
            "SELECT column_name, data_type, character_maximum_length FROM "
            "information_schema.columns WHERE table_name = 'submissions' ORDER BY ordinal_position"
        )
        self.assertEqual(
            found,
            [
                ("username", "character varying", 255),
                ("timestamp", "timestamp without time zone", None),
                ("submission_count", "integer", None),
            ],
        )
        keys = self.sql(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = 'submissions'::regclass AND contype = 'p'"
        )
        self.assertEqual(keys, [('PRIMARY KEY (username, "timestamp")',)])

    async def test_ten_thousand_in_psql(self) -> None:
        """K-68: 10,000 submissions of one user in one minute are 10,000 in the table."""
        store = await self.make_store()
        for n in range(20):
            await store.apply([batch(f"b{n}", T + n, *["alice"] * 500)._replace(minute=T)], {})
        self.assertEqual(
            self.sql("SELECT username, timestamp::text, submission_count FROM submissions"),
            [("alice", "2027-01-16 00:00:00", 10_000)],
        )

    async def test_order_of_names(self) -> None:
        """K-73: ranks are in the same order on every engine, whatever the collation."""
        store = await self.make_store()
        names = ["a", "B", "ä", "Z", "z", "_", "名", "a.ä", "a.B", "a.b"]
        await store.apply([batch("b", T, *names)], {})
        top = [name for name, count in await store.top(10, *EVER) if count == 1]
        self.assertEqual(top, sorted(top))

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
        """K-71: what is applied together is written in one transaction, with a statement for
        each table, and creates no table.
        """
        store = await self.make_store()
        statements = self.traced()
        await store.apply(
            [batch(f"b{n}", T, *["alice"] * 50, *["bob.x"] * 50) for n in range(20)],
            {Rejection("alice", 23, T): 1},
            Mark(20, "b19"),
        )
        self.assertEqual([s for s in statements if s in ("BEGIN", "COMMIT")], ["BEGIN", "COMMIT"])
        tables = [s.split()[2] for s in statements if s.startswith("INSERT INTO")]
        self.assertEqual(
            tables,
            [
                "applied_batches",
                "counted_minutes",
                "submissions",
                "worker_submissions",
                "log_marks",
                "rejection_flushes",
                "rejections",
                "daily_users",
                "daily_workers",
            ],
        )
        self.assertEqual([s for s in statements if s.startswith(("CREATE", "ALTER"))], [])

    async def test_parameters(self) -> None:
        """K-70: no statement has a value in its text."""
        store = await self.make_store()
        statements = self.traced()
        await store.apply(
            [batch("batch'id", T, "some'user.rig")], {Rejection("some'user", 23, T): 1}
        )
        await store.count("some'user", T, "rig")
        await store.series("some'user", *EVER)
        await store.workers("some'user", *EVER)
        await store.total(*EVER, "some'user")
        await store.rejections(*EVER, "some'user")
        await store.unapplied(["batch'id"])
        self.assertGreater(len(statements), 20)
        self.assertEqual([s for s in statements if "some" in s or "batch'" in s or str(T) in s], [])

    async def test_failure_leaves_nothing(self) -> None:
        """K-72: what cannot be committed is not counted in part, and is when it can be."""
        store = await self.make_store()
        self.sql("ALTER TABLE worker_submissions RENAME TO hidden")
        both = [batch("one", T, "alice"), batch("two", T, "bob.rig")]
        with self.assertRaises(DatabaseUnavailable):
            await store.apply(both, {Rejection("alice", 23, T): 1})
        self.assertEqual(await store.total(*EVER), 0)
        self.assertEqual(len(await store.unapplied(["one", "two"])), 2)
        self.sql("ALTER TABLE hidden RENAME TO worker_submissions")
        applied = await store.apply(both, {Rejection("alice", 23, T): 1})
        self.assertEqual(applied, (2, 0, []))
        self.assertEqual(await store.total(*EVER), 2)
        self.assertEqual(list(await store.rejections(*EVER)), [("alice", 23, 1)])

    async def test_a_commit_whose_answer_is_lost(self) -> None:
        """K-75: its rejections come again, and count once; the same ones later count again."""
        store = await self.make_store()
        count = store._database.count

        async def lost(work: Any) -> Any:
            await count(work)
            raise DatabaseUnavailable("the answer was lost")

        rejected = {Rejection("alice", 23, T): 2}
        for counted in (2, 4, 6):
            store._database.count = lost  # type: ignore[method-assign, assignment]
            with self.assertRaises(DatabaseUnavailable):
                await store.apply([], rejected)
            store._database.count = count  # type: ignore[method-assign]
            await store.apply([], rejected)
            self.assertEqual(list(await store.rejections(*EVER)), [("alice", 23, counted)])

    async def test_rejections_behind_a_lost_answer(self) -> None:
        """K-75: those that came meanwhile count as well."""
        store = await self.make_store()
        count = store._database.count

        async def lost(work: Any) -> Any:
            await count(work)
            raise DatabaseUnavailable("the answer was lost")

        one = Rejection("alice", 23, T)
        store._database.count = lost  # type: ignore[method-assign, assignment]
        with self.assertRaises(DatabaseUnavailable):
            await store.apply([], {one: 2})
        store._database.count = count  # type: ignore[method-assign]
        await store.apply([], {one: 3, Rejection("bob", 23, T): 1})
        await store.apply([], {one: 5})
        self.assertEqual(list(await store.rejections(*EVER)), [("alice", 23, 8), ("bob", 23, 1)])

    async def test_rows_that_no_daemon_writes(self) -> None:
        """Point 6: whatever somebody put into the table is shown, if it has a time at all."""
        store = await self.make_store()
        self.sql(
            "INSERT INTO submissions VALUES ('mallory', '1969-12-31 23:59:00', 3), "
            "('mallory', 'infinity', 4), ('mallory', '-infinity', 5) RETURNING 1"
        )
        self.assertEqual(await rows_of(store), [MinuteCount("mallory", "", -60, 3)])

    async def test_old_processes_are_forgotten(self) -> None:
        """K-76: what was kept for a process that is long gone is dropped with the rejections."""
        store = await self.make_store()
        await store.apply([], {Rejection("alice", 23, T): 1})
        self.sql(
            "INSERT INTO rejection_flushes VALUES ('old', 1, now() - interval '31 days') "
            "RETURNING 1"
        )
        await store.forget_rejections(T)
        self.assertEqual(self.sql("SELECT serial FROM rejection_flushes"), [(1,)])

    async def test_dropped_table_comes_back(self) -> None:
        """K-77: a rebuild also helps where a table was lost, whichever it is."""
        store = await self.make_store()
        await self.fill(store)
        for table in ("submissions", "worker_submissions", "applied_batches", "counted_minutes"):
            columns = (
                "SELECT column_name, data_type FROM information_schema.columns "
                f"WHERE table_name = '{table}' ORDER BY column_name"
            )
            made = self.sql(columns)
            self.sql(f"DROP TABLE {table}")
            await store.revive()
            self.assertEqual(self.sql(columns), made)
            self.assertEqual(self.sql(f"SELECT count(*) FROM {table}"), [(0,)])
        await self.fill(store)
        self.assertEqual(await store.count("bob", T + 60), 2)

    async def test_in_chunks(self) -> None:
        """K-76: what takes several statements or transactions loses nothing."""
        self.patch(postgres_writes, "ROLL_CHUNK", 7)
        self.patch(postgres_writes, "CHUNK", 3)
        await self.test_roll_up()
        await self.test_forget_rejections()
        await self.test_correct()
        await self.test_queries()
        await self.test_conflict()

    async def test_how_much_is_in_a_statement_and_in_a_transaction(self) -> None:
        """K-76: 2,000 rows are written by a statement, and 5,000 rolled up in a transaction."""
        store = await self.make_store()
        names = [f"u{n}" for n in range(5000)]
        statements = self.traced()
        await store.apply([batch("b1", T, *names)], {})
        self.assertEqual(len([s for s in statements if s.startswith("INSERT INTO sub")]), 3)
        await store.apply([batch("b2", T, *names[:2001])], {})
        self.assertEqual(len([s for s in statements if s.startswith("INSERT INTO sub")]), 5)
        statements.clear()
        self.assertEqual(await store.roll_up(T + 3600, 0), 5000)
        # Twice for the users, once for the workers.
        self.assertEqual(len([s for s in statements if s.startswith("WITH old")]), 3)

    async def test_what_excludes_what(self) -> None:
        """K-76, K-77: no process rolls up or corrects beside another, nor counts while one
        corrects. Releases that run side by side take the same lock.
        """
        store = await self.make_store()
        statements = self.traced()
        values = self.traced_values
        await store.roll_up(T + DAY, 0)
        await store.correct([], 0)
        taken = [
            (statement, of)
            for statement, of in zip(statements, values, strict=True)
            if statement.startswith(("SELECT pg_advisory", "LOCK"))
        ]
        lock = ("SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(b"kupool\x01"),))
        tables = ("applied_batches", "submissions", "worker_submissions")
        locked = [(f"LOCK TABLE {table} IN EXCLUSIVE MODE", None) for table in tables]
        self.assertEqual(taken, [lock, lock, lock, *locked])

    async def test_where_names_are_counted(self) -> None:
        """K-71: 5,000 on the reactor, and more in a thread beside it."""
        store = await self.make_store()
        threads: list[int] = []

        def folding(batches: Sequence[BatchCounts]) -> Any:
            threads.append(get_ident())
            return fold_rows(batches)

        self.patch(postgres_stats, "fold_rows", folding)
        for names in (5000, 5001):
            await store.apply([batch(f"b{names}", T, *["alice"] * names)], {})
        self.assertEqual([thread == get_ident() for thread in threads], [True, False])

    async def test_many_names(self) -> None:
        """K-71: a commit of more names than are folded at once is as any other."""
        store = await self.make_store()
        names = [f"user{n % 3000}.rig{n % 7}" for n in range(12_000)]
        await store.apply([batch("b1", T, *names[:6000]), batch("b2", T, *names[6000:])], {})
        self.assertEqual(await store.total(*EVER), 12_000)
        self.assertEqual(await store.count("user5", T), 4)
        self.assertEqual(len(await rows_of(store)), 3000 + len(set(names)))

    async def test_two_stores(self) -> None:
        """K-53: two processes that count the same batches at the same time count them once,
        and never in a circle of locks.
        """
        self.patch(database, "TRIES", 1)
        one = await self.make_store()
        two = await self.reopen()
        groups = [
            [
                batch(f"b{n}", T + 60 * (n % 3), "alice.x", f"u{n % 997}.y")
                for n in range(at, at + 1500)
            ]
            for at in range(0, 4500, 500)
        ]
        rejected = {Rejection(f"u{n}", 23, T): 1 for n in range(500)}
        backwards = dict(reversed(rejected.items()))
        applied: Any = await gatherResults(
            [one.apply(group, rejected) for group in groups]
            + [two.apply(group[::-1], backwards) for group in groups]
        )
        await gatherResults(
            [store.apply([], way) for store, way in ((one, rejected), (two, backwards)) * 20]
        )
        total = 5500
        self.assertEqual(sum(a.new for a in applied), total)
        self.assertEqual(sum(a.repeated for a in applied), 2 * 9 * 1500 - total)
        self.assertEqual(await one.total(*EVER), 2 * total)
        self.assertEqual(
            sum(n for *_, n in await two.rejections(*EVER)), 500 * (2 * len(groups) + 40)
        )

    async def test_tidying_waits_for_nobody(self) -> None:
        """K-76: rows that a daemon is counting into are left for the next time."""
        store = await self.make_store()
        for n in range(3):
            counts = batch(f"b{n}", T + 60 * n, "alice")._replace(position=n + 1)
            await store.apply([counts], {Rejection("a", 23, T + n): 1})
        for position in (3, 4):
            await store.apply([], {}, Mark(position, "x"))
        holder = psycopg2.connect(self.dsn)
        self.addCleanup(holder.close)
        with holder.cursor() as cursor:
            cursor.execute(
                "UPDATE submissions SET submission_count = 5 WHERE timestamp = %s", (M1,)
            )
            cursor.execute("DELETE FROM applied_batches WHERE minute = %s", (M1,))
            cursor.execute(
                "UPDATE rejections SET rejection_count = 5 WHERE code = 23 AND "
                "timestamp = (SELECT min(timestamp) FROM rejections)"
            )
        self.assertEqual(await store.roll_up(T + DAY, 0), 2)
        self.assertEqual(await store.forget_batches(5), 2)
        self.assertEqual(await store.forget_rejections(T + DAY), 2)
        holder.commit()
        self.assertEqual(await store.roll_up(T + DAY, 0), 1)
        self.assertEqual(await store.forget_batches(5), 0)
        self.assertEqual(await store.forget_rejections(T + DAY), 1)
        self.assertEqual(await store.total(*EVER), 7)

    async def test_rolling_up_beside_counting(self) -> None:
        """K-76: two daemons roll up what two others are counting, and nothing is lost."""
        self.patch(postgres_writes, "ROLL_CHUNK", 5)
        one = await self.make_store()
        two = await self.reopen()
        work = []
        for n in range(60):
            for store, name in ((one, "x"), (two, "y")):
                counts = batch(f"{name}{n}", T + 60 * (n % 5), "alice.rig", f"u{n % 11}", "bob")
                work.append(store.apply([counts], {Rejection("alice", 23, T): 1}))
            if n % 4 == 0:
                work += [one.roll_up(T + DAY, T + DAY), two.roll_up(T + DAY, T + DAY)]
                work += [one.forget_rejections(T + 60), two.forget_rejections(T + 60)]
        await gatherResults(work)
        self.assertEqual(await one.total(*EVER), 360)
        await one.roll_up(T + DAY, T + DAY)
        self.assertEqual(await one.total(T, T + 1), 360)
        self.assertEqual(
            self.sql("SELECT sum(submission_count) FROM worker_submissions_day"), [(120,)]
        )

    async def test_correcting_beside_counting(self) -> None:
        """K-77: what others count while rows are corrected is in them as well."""
        one = await self.make_store()
        two = await self.reopen()
        counting = gatherResults(
            [one.apply([batch(f"b{n}", T, "alice", "bob.x")], {}) for n in range(40)]
        )
        rows = [MinuteCount("alice", "", T, 1), MinuteCount("bob", "x", T, 1)]
        for serial in range(5):
            self.assertEqual(await two.correct(rows, serial), serial + 1)
        await counting
        self.assertEqual(await two.count("alice", T), 45)
        self.assertEqual(await two.count("bob", T, "x"), 45)

    async def test_snapshot_beside_counting(self) -> None:
        """Point 6: what is shown is of one moment, and keeps nobody from counting."""
        store = await self.make_store()
        await self.fill(store)
        counter = psycopg2.connect(self.dsn)
        self.addCleanup(counter.close)

        class Slow(Gathered):
            def begin(self, snapshot: Snapshot) -> None:
                super().begin(snapshot)
                with counter, counter.cursor() as cursor:
                    cursor.execute("UPDATE submissions SET submission_count = 77")
                    cursor.execute("DELETE FROM worker_submissions")

        before, slow = await rows_of(store), Slow()
        await store.snapshot(slow, *EVER)
        self.assertEqual(sorted(slow.rows), before)
        self.assertEqual(await store.count("alice", T), 77)
