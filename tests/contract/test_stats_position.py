"""What every store knows of its place in the log, whatever engine it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from kupool.log import Epoch, Gap, Identity, Mark, Plan, StoreState
from kupool.stats import BatchCounts
from kupool.stats.memory import MemoryStats
from kupool.stats.positions import NOWHERE
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from tests.contract.test_stats_store import HOUR, T, batch
from tests.fakes.snapshots import shown
from tests.servers.reactor import the_reactor

ONE = Identity("pool", (Epoch("one", 0),))
TWO = ONE.with_epoch("two", 500)


def at(position: int, name: str = "", minute: int = T) -> BatchCounts:
    return batch(name or f"b{position}", minute, "alice.rig")._replace(position=position)


class PositionContract:
    """The mark moves with the counts, and decides what may be forgotten."""

    async def make_store(self) -> Any:
        """Return a store that is open and empty."""
        raise NotImplementedError

    async def test_empty(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        equal(await store.state(), StoreState(None, Mark(0), 0, False))
        equal(list(await store.gaps()), [])
        equal(await store.retention_time(), None)
        equal(await store.forget_batches(1000), 0)

    async def test_identity(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        await store.identify(Plan(TWO, 7, 7, True))
        equal(await store.state(), StoreState(TWO, Mark(7), 0, False))

    async def test_mark_moves_with_the_counts(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        await store.apply([at(1), at(2)], {}, Mark(2, "b2"))
        equal(await store.state(), StoreState(ONE, Mark(2, "b2"), 0, True))
        # Without a mark, and with an older one, it stays.
        await store.apply([at(0, "q1")], {})
        await store.apply([at(1)], {}, Mark(1, "b1"))
        equal((await store.state()).mark, Mark(2, "b2"))
        await store.apply([], {}, Mark(9, "b9"))
        equal((await store.state()).mark, Mark(9, "b9"))
        # An entry at the same position does not replace the one that was counted.
        await store.apply([], {}, Mark(9, "other"))
        equal((await store.state()).mark, Mark(9, "b9"))

    async def test_a_plan_sets_the_mark(self) -> None:
        store = await self.make_store()
        await store.identify(Plan(ONE, 0, 0, True))
        await store.apply([at(n) for n in range(1, 10)], {}, Mark(9, "b9"))
        await store.identify(Plan(TWO, 4, 4, False, gap=Gap(5, 6), text="lost"))
        state = await store.state()
        self.assertEqual(state, StoreState(TWO, Mark(4), 0, True))  # type: ignore[attr-defined]

    async def test_a_store_that_counted_before_it_knew_its_log(self) -> None:
        """Its rows are its own, and not those of others."""
        store = await self.make_store()
        await store.apply([at(1)], {})
        await store.identify(Plan(ONE, 0, 0, True, adopt=True))
        seen = await shown(store)
        assert seen.snapshot is not None
        self.assertEqual(seen.snapshot.taken_over_before, 0)  # type: ignore[attr-defined]

    async def test_a_plan_that_goes_back(self) -> None:
        """The marks above it say no more what may be forgotten."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        for n in range(1, 7):
            await store.apply([at(n * 1000)], {}, Mark(n * 1000, f"b{n * 1000}"))
        await store.identify(Plan(TWO, 2000, 2000, False))
        equal((await store.state()).mark.position, 2000)
        equal(await store.forget_batches(9999), 1)
        equal(list(await store.unapplied(["b1000", "b2000"])), ["b1000"])

    async def test_gaps(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 30, 30, True, gap=Gap(21, 30), text="lost"))
        await store.identify(Plan(ONE, 40, 40, True, gap=Gap(35, 40), text="again"))
        equal(list(await store.gaps()), [(Gap(21, 30), "lost"), (Gap(35, 40), "again")])
        equal(await store.forget_gaps(), 2)
        equal(list(await store.gaps()), [])

    async def test_forget_what_the_log_dropped(self) -> None:
        """Ids are known for as long as the log may bring them again, and not longer."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        for n in range(1, 7):
            await store.apply([at(n * 1000)], {}, Mark(n * 1000, f"b{n * 1000}"))
        equal(await store.forget_batches(2000), 0)
        equal((await store.state()).forgotten, 0)
        # Two marks of margin: 3000 and 4000 are below 4001, so ids up to 3000 go.
        equal(await store.forget_batches(4001), 3)
        equal((await store.state()).forgotten, 3000)
        names = [f"b{n * 1000}" for n in range(1, 7)]
        equal(list(await store.unapplied(names)), names[:3])
        equal(await store.forget_batches(4001), 0)
        equal((await store.state()).mark, Mark(6000, "b6000"))
        # One that comes late is forgotten the next time.
        await store.apply([at(2500)], {})
        equal(await store.forget_batches(4001), 1)

    async def test_nothing_is_forgotten_without_two_marks(self) -> None:
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        await store.apply([at(0, "q"), at(1)], {})
        equal(await store.forget_batches(1000), 0)
        equal(list(await store.unapplied(["q", "b1"])), [])

    async def test_ids_from_a_queue_wait_for_two_marks(self) -> None:
        """What has no position is above the mark of its time, and below the second after."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        for n in range(1, 5):
            await store.apply([at(0, f"q{n}")], {})  # above the mark before this one
            await store.apply([], {}, Mark(n * 2000, "x"))
        equal(await store.forget_batches(4001), 2)  # marks 2000 and 4000 are below
        equal(list(await store.unapplied(["q1", "q2", "q3", "q4"])), ["q1", "q2"])

    async def test_what_a_lost_log_had_above_the_mark(self) -> None:
        """K-85: what a queue brought is no difference where the log it was in was lost."""
        store = await self.make_store()
        equal = self.assertEqual  # type: ignore[attr-defined]
        await store.identify(Plan(ONE, 0, 0, True))
        await store.apply([at(4), at(9)], {}, Mark(9, "b9"))
        await store.apply([at(0, "q", minute=T + 60)], {})
        await store.identify(Plan(ONE, 9, 9, True))  # the same log
        equal(sorted((await shown(store)).all_spans)[1], (T + 60, 9, 10))
        await store.identify(Plan(ONE.with_epoch("new", 9), 9, 9, False))
        equal(sorted((await shown(store)).all_spans), [(T, 3, 9), (T + 60, NOWHERE, 10)])

    async def test_cover(self) -> None:
        """Minutes of the release before: what is known already stays."""
        store = await self.make_store()
        await store.identify(Plan(ONE, 10, 10, True, adopt=True))
        await store.cover({T: 3, T + 60: 5, T + 120: 15})
        await store.cover({T: 9})
        await store.apply([at(12, minute=T)], {}, Mark(12, "b12"))
        self.assertEqual(  # type: ignore[attr-defined]
            sorted((await shown(store)).all_spans),
            [(T, 3, 12), (T + 60, 5, 10), (T + 120, 15, 15)],
        )

    async def test_retention_time(self) -> None:
        store = await self.make_store()
        for seconds in (1.8e9, 1.7e9 + 0.5):
            await store.keep_retention_time(seconds)
            equal = self.assertEqual  # type: ignore[attr-defined]
            equal(await store.retention_time(), seconds)


class MemoryPositionTests(PositionContract, TestCase):
    async def make_store(self) -> MemoryStats:
        return MemoryStats()


class SqlitePositionTests(PositionContract, TestCase):
    async def make_store(self) -> SqliteStats:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.database = Database(the_reactor(), self.path / "store.sqlite", "store")
        store = SqliteStats(self.database)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def spans(self) -> dict[int, tuple[int, int]]:
        rows: Any = await self.database.run(
            lambda c: c.execute("SELECT * FROM counted_minutes").fetchall()
        )
        return {minute: (after, to) for minute, after, to in rows}

    async def test_spans(self) -> None:
        """Each minute knows between which positions its batches are."""
        store = await self.make_store()
        await store.identify(Plan(ONE, 0, 0, True))
        await store.apply([at(4), at(9), at(7, minute=T + 60)], {}, Mark(9, "b9"))
        await store.apply([at(3), at(0, "q", minute=T + 120)], {})
        self.assertEqual(await self.spans(), {T: (2, 9), T + 60: (6, 7), T + 120: (9, 10)})
        # What was counted after position 8 is in no log any more.
        await store.identify(Plan(TWO, 8, 8, False))
        self.assertEqual(await self.spans(), {T: (-1, 9), T + 60: (6, 7), T + 120: (-1, 10)})
        await store.apply([at(501)], {})
        self.assertEqual((await self.spans())[T], (-1, 501))

    async def test_rolled_up_minutes_are_dropped(self) -> None:
        store = await self.make_store()
        await store.apply([at(1), at(2, minute=T + HOUR)], {})
        await store.roll_up(T + HOUR, 0)
        self.assertEqual(list(await self.spans()), [T + HOUR])

    async def test_few_marks_are_kept(self) -> None:
        """The newest, and one for a thousand positions: one each second would be half a million in
        a week.
        """
        store = await self.make_store()
        for position in (1, 500, 999, 1000, 1001, 1002, 2001, 2002):
            await store.apply([], {}, Mark(position, "x"))
        rows: Any = await self.database.run(
            lambda c: c.execute("SELECT position FROM log_marks ORDER BY 1").fetchall()
        )
        self.assertEqual(rows, [(1,), (1001,), (2001,), (2002,)])

    async def test_marks_before_what_the_log_dropped(self) -> None:
        """They are dropped with the ids that they were kept for."""
        store = await self.make_store()
        for position in (1000, 2000, 3000, 4000):
            await store.apply([], {}, Mark(position, "x"))
        await store.forget_batches(3001)
        rows: Any = await self.database.run(
            lambda c: c.execute("SELECT position FROM log_marks ORDER BY 1").fetchall()
        )
        self.assertEqual(rows, [(2000,), (3000,), (4000,)])

    async def test_rows_of_others(self) -> None:
        """A table that held rows before us keeps them: they are ahead of what we count."""
        store = await self.make_store()
        await self.database.run(
            lambda c: c.execute("INSERT INTO submissions VALUES ('old', '2020-01-01 00:00:30', 5)")
        )
        await store.identify(Plan(ONE, 0, 0, True))
        rows: Any = await self.database.run(
            lambda c: c.execute("SELECT taken_over_before FROM pool_identity").fetchall()
        )
        self.assertEqual(rows, [(1577836860,)])
