"""What every store of topics in RabbitMQ does.

A store is added by a subclass of :class:`TopicStoreContract` that makes stores.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase
from kupool.topics.errors import TopicExists, UnknownTopic
from kupool.topics.partition import Partition
from kupool.topics.rabbit import once_statements, statements
from kupool.topics.rabbit.once_statements import ClaimedElsewhere, OnceClaim
from kupool.topics.rabbit.statements import Fence, LeaseLost, StoredPlace
from kupool.topics.rabbit.store import (
    ITopicStore,
    PostgresStatementCursor,
    PostgresTopicStore,
    SqliteTopicStore,
    run_at_once,
)
from kupool.topics.records import Stamp
from kupool.topics.settings import TopicSettings
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres

P0 = Partition("t", 0)


class TopicStoreContract:
    """Q-38: the suite; mixed into a TestCase by each store."""

    def make_store(self) -> Any:
        """Return a store, on the same place each time."""
        raise NotImplementedError

    async def open(self) -> Any:
        """Return an open store with a topic ``t``."""
        self.store = self.make_store()
        await self.store.open()
        self.addCleanup(self.store.close)
        self.topic = await self.do(statements.create, name="t", settings=TopicSettings())
        self.assertTrue(await self.do(statements.made, key=self.topic.key))
        self.place = StoredPlace(self.topic.key, 0)
        return self.store

    def do(self, statement: Any, **values: Any) -> Any:
        return self.store.run_in_order(partial(statement, **values))

    async def age(self, sql: str) -> None:
        """Change a time in the store, as if it had passed."""

        async def work(cursor: Any) -> None:
            await cursor.execute(sql)
            return

        await self.store.run(work)

    async def test_interface(self) -> None:
        store = await self.open()
        self.assertTrue(verifyObject(ITopicStore, store))
        self.assertEqual(store.problem(), "")

    async def test_a_topic_is_seen_when_it_is_made(self) -> None:
        """Q-26, Q-27: not before, and not while it is deleted; its key is never used again."""
        await self.open()
        made = await self.do(statements.create, name="u", settings=TopicSettings(partitions=2))
        self.assertEqual([t.name for t in await self.do(statements.topics)], ["t"])
        for name in ("t", "u"):
            with self.assertRaises(TopicExists):
                await self.do(statements.create, name=name, settings=TopicSettings())
        await self.do(statements.made, key=made.key)
        self.assertEqual([t.name for t in await self.do(statements.topics)], ["t", "u"])
        await self.do(statements.delete, topic=made)
        with self.assertRaises(UnknownTopic):
            await self.do(statements.delete, topic=made)
        self.assertEqual([t.name for t in await self.do(statements.topics)], ["t"])
        await self.do(statements.deleted, key=made.key)
        again = await self.do(statements.create, name="u", settings=TopicSettings())
        self.assertGreater(again.key, made.key)

    async def test_what_a_node_left_undone(self) -> None:
        """Q-26: a topic half made or half deleted is handed to one node, after a while."""
        await self.open()
        half = await self.do(statements.create, name="u", settings=TopicSettings(partitions=2))
        self.assertEqual(await self.do(statements.abandoned), [])
        await self.age("UPDATE log_topics SET changed_at = changed_at - 61")
        (found,) = await self.do(statements.abandoned)
        self.assertEqual((found.key, found.name, found.settings.partitions), (half.key, "u", 2))
        self.assertEqual(await self.do(statements.abandoned), [])
        self.assertFalse(await self.do(statements.made, key=half.key))

    async def test_positions_of_a_group_that_is_led_here(self) -> None:
        """Q-46: a node that another one has followed saves nothing."""
        await self.open()
        take = partial(self.do, statements.take_lease, group="g", seconds=10)
        commit = partial(self.do, statements.commit_positions, group="g")
        first = await take(node="a", address="a:1")
        self.assertEqual((first.node, first.address), ("a", "a:1"))
        self.assertEqual(await take(node="b", address="b:1"), first)
        await commit(positions={P0: 5}, fence=Fence("a", first.term))
        with self.assertRaises(LeaseLost):
            await commit(positions={P0: 6}, fence=Fence("b", first.term))
        await self.age("UPDATE log_group_leases SET expires_at = expires_at - 11")
        second = await take(node="b", address="b:1")
        self.assertEqual((second.node, second.term), ("b", first.term + 1))
        for late in (statements.commit_positions, statements.forget_group):
            values = {"positions": {P0: 7}} if late is statements.commit_positions else {}
            with self.assertRaises(LeaseLost):
                await self.do(late, group="g", fence=Fence("a", first.term), **values)
        self.assertEqual(await self.do(statements.committed, group="g"), {P0: 5})
        await commit(positions={P0: 8}, fence=Fence("b", second.term))
        self.assertEqual(await self.do(statements.committed, group="g"), {P0: 8})
        self.assertEqual(await self.do(statements.leader, group="g"), "b:1")

    async def test_leases_are_kept_and_dropped(self) -> None:
        """Q-36, Q-46."""
        await self.open()
        take = partial(self.do, statements.take_lease, seconds=10)
        mine = await take(group="g", node="a", address="a:1")
        await take(group="h", node="b", address="b:1")
        terms = {"g": mine.term, "h": 1}
        kept = await self.do(statements.keep_leases, node="a", terms=terms, seconds=10)
        self.assertEqual(kept, {"g"})
        await self.do(statements.drop_leases, node="a", groups=["g", "h"])
        self.assertEqual((await take(group="g", node="b", address="b:1")).term, mine.term + 1)
        self.assertEqual((await take(group="h", node="a", address="a:1")).node, "b")

    async def test_a_commit_for_a_topic_that_is_gone(self) -> None:
        """Q-27, Q-45: all or none."""
        await self.open()
        with self.assertRaises(UnknownTopic):
            positions = {P0: 1, Partition("gone", 0): 2}
            await self.do(statements.commit_positions, group="g", positions=positions)
        self.assertEqual(await self.do(statements.committed, group="g"), {})

    async def test_a_claimed_batch_is_published_by_one_node(self) -> None:
        """Q-52: and by another one if that does not finish, which learns where to look."""
        await self.open()
        (delay_id,) = await self.do(statements.delay, rows=[(self.place, 2, b"x")], due=5)
        due = partial(self.do, statements.due, now=5, limit=10)
        claim = partial(self.do, statements.claim, seconds=60)
        ((found),) = await due()
        self.assertEqual((found.delay_id, found.claimed_from), (delay_id, None))
        self.assertEqual(await claim(positions={delay_id: 7}), {delay_id})
        self.assertEqual(await claim(positions={delay_id: 8}), set())
        self.assertEqual(await due(), [])
        self.assertFalse(await self.do(statements.cancel, topic=self.topic, delay_id=delay_id))
        await self.age("UPDATE log_delays SET claimed_until = claimed_until - 61")
        ((found),) = await due()
        self.assertEqual(found.claimed_from, 7)
        self.assertEqual(await claim(positions={delay_id: 9}), {delay_id})
        await self.do(statements.unclaim, delay_ids=[delay_id])
        self.assertEqual(await claim(positions={delay_id: 10}), {delay_id})
        await self.do(statements.published, delay_ids=[delay_id])
        self.assertIs(await self.do(statements.next_due), None)

    async def test_a_batch_is_claimed_once(self) -> None:
        """Q-24: another node waits, and goes on from where the first one was."""
        await self.open()
        claim = OnceClaim(Stamp("p", 1), None, "id-1", 1000, 7, 65_536, 60.0)
        claims = partial(self.do, once_statements.claim_once, place=self.place)
        first = await claims(claim=claim)
        self.assertEqual((first.base, first.message_id, first.claimed_from), (None, "id-1", None))
        other = claim._replace(message_id="id-2", position=9)
        with self.assertRaises(ClaimedElsewhere):
            await claims(claim=other)
        await self.age("UPDATE log_once SET claimed_until = claimed_until - 61")
        second = await claims(claim=other)
        self.assertEqual((second.base, second.message_id, second.claimed_from), (None, "id-1", 7))
        await self.do(once_statements.unclaim_once, place=self.place, claim=other)
        self.assertEqual((await claims(claim=other)).claimed_from, 7)
        await self.do(once_statements.settle_once, place=self.place, claim=other, base=65_536)
        self.assertEqual((await claims(claim=claim)).base, 65_536)

    async def test_work_that_fails_does_not_concern_other_work(self) -> None:
        """What is asked for at once shares a transaction, and each has its own outcome."""
        await self.open()
        outcomes: list[Any] = []
        running = [
            self.do(statements.create, name=name, settings=TopicSettings()).addBoth(outcomes.append)
            for name in ("a", "b", "a", "c")
        ]
        await gatherResults(running)
        names = [getattr(each, "name", None) for each in outcomes]
        self.assertEqual(names, ["a", "b", None, "c"])
        outcomes[2].trap(TopicExists)


class SqliteTopicStoreTests(TopicStoreContract, TestCase):
    """The store in a file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def make_store(self) -> SqliteTopicStore:
        self.database = Database(the_reactor(), self.path, "topics_rabbit")
        return SqliteTopicStore(self.database)

    async def test_positions_in_the_transaction_of_what_is_derived(self) -> None:
        """Q-47: both are saved, or neither."""
        await self.open()

        def derive(connection: Any, fails: bool, offset: int) -> None:
            connection.execute("CREATE TABLE IF NOT EXISTS sums (total INTEGER)")
            connection.execute("INSERT INTO sums VALUES (1)")
            positions = {P0: offset}
            run_at_once(
                connection,
                partial(statements.commit_positions, group="sums", positions=positions),
            )
            if fails:
                raise ValueError

        await self.database.run(lambda connection: derive(connection, False, 3))
        with self.assertRaises(ValueError):
            await self.database.run(lambda connection: derive(connection, True, 9))
        self.assertEqual(await self.do(statements.committed, group="sums"), {P0: 3})


class PostgresTopicStoreTests(TopicStoreContract, TestCase):
    """The store in PostgreSQL."""

    def setUp(self) -> None:
        self.dsn = postgres().new_database()

    def make_store(self) -> PostgresTopicStore:
        self.database = PostgresDatabase(the_reactor(), self.dsn)
        return PostgresTopicStore(self.database)

    async def test_positions_in_the_transaction_of_what_is_derived(self) -> None:
        """Q-47: both are saved, or neither."""
        await self.open()

        async def derive(cursor: Any, fails: bool, offset: int) -> None:
            await cursor.execute("CREATE TABLE IF NOT EXISTS sums (total INTEGER)")
            await cursor.execute("INSERT INTO sums VALUES (1)")
            await statements.commit_positions(PostgresStatementCursor(cursor), "sums", {P0: offset})
            if fails:
                raise ValueError

        await self.database.run(lambda cursor: derive(cursor, False, 3))
        with self.assertRaises(ValueError):
            await self.database.run(lambda cursor: derive(cursor, True, 9))
        self.assertEqual(await self.do(statements.committed, group="sums"), {P0: 3})

    async def test_a_new_leader_waits_for_the_commit_of_the_one_before(self) -> None:
        """Q-46: what it then reads is the last that the other one saves."""
        await self.open()
        lease = await self.do(statements.take_lease, group="g", node="a", address="a:1", seconds=-1)
        order: list[str] = []

        async def slow(cursor: Any) -> None:
            fence = Fence("a", lease.term)
            await statements.commit_positions(PostgresStatementCursor(cursor), "g", {P0: 5}, fence)
            await cursor.execute("SELECT pg_sleep(0.3)")
            order.append("committed")

        running = self.database.run(slow)
        await self.database.query("SELECT pg_sleep(0.1)")
        taken = await self.store.run(
            partial(statements.take_lease, group="g", node="b", address="b:1", seconds=10)
        )
        order.append(f"led by {taken.node}")
        await running
        self.assertEqual(order, ["committed", "led by b"])
        self.assertEqual(await self.do(statements.committed, group="g"), {P0: 5})
