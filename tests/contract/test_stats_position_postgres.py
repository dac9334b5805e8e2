"""The place in the log, for the store in PostgreSQL."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from kupool.log import Gap, Mark, Plan
from kupool.stats import postgres_writes
from kupool.stats.postgres import PostgresStats
from kupool.storage.postgres import PostgresDatabase
from tests.contract.test_stats_position import ONE, TWO, PositionContract, at
from tests.contract.test_stats_store import HOUR, T
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres


class PostgresPositionTests(PositionContract, TestCase):
    """Issue 11, points 1 and 3, for the store in PostgreSQL."""

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

    def spans(self) -> dict[int, tuple[int, int]]:
        rows = self.sql("SELECT minute, after_position, to_position FROM counted_minutes")
        return {minute: (after, to) for minute, after, to in rows}

    async def test_spans(self) -> None:
        """Each minute knows between which positions its batches are."""
        store = await self.make_store()
        await store.identify(Plan(ONE, 0, 0, True))
        await store.apply([at(4), at(9), at(7, minute=T + 60)], {}, Mark(9, "b9"))
        await store.apply([at(3), at(0, "q", minute=T + 120)], {})
        self.assertEqual(self.spans(), {T: (2, 9), T + 60: (6, 7), T + 120: (9, 10)})
        # What was counted after position 8 is in no log any more.
        await store.identify(Plan(TWO, 8, 8, False))
        self.assertEqual(self.spans(), {T: (-1, 9), T + 60: (6, 7), T + 120: (-1, 10)})
        await store.apply([at(501)], {})
        self.assertEqual(self.spans()[T], (-1, 501))

    async def test_positions_of_batches(self) -> None:
        """A batch has its own position, and one from a queue the mark that it is above."""
        store = await self.make_store()
        await store.apply([at(1), at(2)], {}, Mark(2, "b2"))
        await store.apply([at(0, "q"), at(4)], {})
        self.assertEqual(
            self.sql("SELECT batch_id, position FROM applied_batches ORDER BY batch_id"),
            [("b1", 1), ("b2", 2), ("b4", 4), ("q", 2)],
        )

    async def test_rolled_up_minutes_are_dropped(self) -> None:
        store = await self.make_store()
        await store.apply([at(1), at(2, minute=T + HOUR)], {})
        await store.roll_up(T + HOUR, 0)
        self.assertEqual(list(self.spans()), [T + HOUR])

    async def test_few_marks_are_kept(self) -> None:
        """The newest, and one for a thousand positions: one each second would be half a million in
        a week.
        """
        store = await self.make_store()
        for position in (1, 500, 999, 1000, 1001, 1002, 2001, 2002):
            await store.apply([], {}, Mark(position, "x"))
        rows = self.sql("SELECT position FROM log_marks ORDER BY 1")
        self.assertEqual(rows, [(1,), (1001,), (2001,), (2002,)])

    async def test_marks_before_what_the_log_dropped(self) -> None:
        """They are dropped with the ids that they were kept for."""
        store = await self.make_store()
        for position in (1000, 2000, 3000, 4000):
            await store.apply([], {}, Mark(position, "x"))
        await store.forget_batches(3001)
        rows = self.sql("SELECT position FROM log_marks ORDER BY 1")
        self.assertEqual(rows, [(2000,), (3000,), (4000,)])

    async def test_rows_of_others(self) -> None:
        """A table that held rows before us keeps them: they are ahead of what we count."""
        store = await self.make_store()
        self.sql("INSERT INTO submissions VALUES ('old', '2020-01-01 00:00:30', 5)")
        self.assertIs((await store.state()).holds_data, False)
        await store.identify(Plan(ONE, 0, 0, True))
        before = [(1577836860,)]
        self.assertEqual(self.sql("SELECT taken_over_before FROM pool_identity"), before)
        await store.apply([at(1)], {}, Mark(1, "b1"))
        await store.identify(Plan(TWO, 1, 1, True))
        self.assertEqual(self.sql("SELECT taken_over_before FROM pool_identity"), before)

    async def test_a_long_reason(self) -> None:
        """As much of it is kept as its column holds."""
        store = await self.make_store()
        await store.identify(Plan(ONE, 2, 2, True, gap=Gap(1, 2), text="x" * 300))
        self.assertEqual(list(await store.gaps()), [(Gap(1, 2), "x" * 255)])

    async def test_outlives_the_process(self) -> None:
        store = await self.make_store()
        await store.identify(Plan(TWO, 0, 0, True))
        await store.apply([at(1)], {}, Mark(1, "b1"))
        await store.keep_retention_time(1.8e9)
        state = await store.state()
        await store.close()
        again = await self.reopen()
        self.assertEqual(await again.state(), state)
        self.assertEqual(await again.retention_time(), 1.8e9)

    async def test_ids_of_the_release_before(self) -> None:
        """They have no position; they are forgotten with the first that do."""
        self.patch(postgres_writes, "ROLL_CHUNK", 2)
        store = await self.make_store()
        await store.apply([at(1), at(2), at(3)], {}, Mark(3, "b3"))
        self.sql("UPDATE applied_batches SET position = NULL")
        await store.apply([at(5000)], {}, Mark(5000, "b5000"))
        self.assertEqual(await store.forget_batches(5000), 0)
        self.assertEqual(await store.forget_batches(5001), 3)
        self.assertEqual(list(await store.unapplied(["b1", "b5000"])), ["b1"])

    async def test_jobs_that_cannot_be_kept(self) -> None:
        """No later start takes over jobs whose nonces could not be known once."""
        store = await self.make_store()
        self.sql(
            "INSERT INTO job_history (job_id, server_nonce, created_at, log_position) "
            "VALUES (1, 'n', 0, 7), (2, 'm', 0, NULL)"
        )
        await store.identify(Plan(ONE, 7, 7, True))
        query = "SELECT log_position FROM job_history ORDER BY job_id"
        self.assertEqual(self.sql(query), [(7,), (None,)])
        await store.identify(Plan(TWO, 7, 7, False))
        self.assertEqual(self.sql(query), [(-1,), (-1,)])

    async def test_dropped_tables_come_back(self) -> None:
        """A rebuild helps where one table was dropped, whatever the others are."""
        store = await self.make_store()
        for table in ("log_marks", "counted_minutes", "job_history", "applied_batches"):
            self.sql(f"DROP TABLE {table}")
            await store.revive()
            await store.apply([at(2)], {}, Mark(2, "b2"))
        columns = self.sql(
            "SELECT count(*) FROM information_schema.columns "
            "WHERE table_name = 'job_history' AND column_name IN ('boot_id', 'boot_seconds')"
        )
        self.assertEqual(columns, [(2,)])
