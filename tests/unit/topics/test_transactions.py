"""Transactions, on topics in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import (
    RecordTooLarge,
    TooManyTransactions,
    TopicsUnavailable,
    TransactionsUnsupported,
    TransactionTooLarge,
    UnknownPartition,
    UnknownTopic,
    UnknownTransaction,
)
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings
from kupool.topics.transactions import TopicTransactions, TransactionLimits
from tests.fakes.topics import topics_in_memory


class TransactionTests(SynchronousTestCase):
    """Q-53."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics = topics_in_memory(self.clock)
        self.engine: Any = self.topics.engine
        for name in ("a", "b"):
            self.settle(self.topics.create(name, TopicSettings(partitions=2, max_record=10)))
        self.transactions = self.make()

    def make(self, **limits: Any) -> TopicTransactions:
        transactions = TopicTransactions(self.topics, self.clock, TransactionLimits(**limits))
        self.addCleanup(transactions.close)
        return transactions

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def add(self, transaction: int, topic: str, *values: bytes, partition: int = 0) -> None:
        records = [NewRecord(value) for value in values]
        self.transactions.add(transaction, topic, records, partition=partition)

    def values(self, topic: str, partition: int = 0) -> list[bytes]:
        fetched = self.settle(self.topics.fetch(Partition(topic, partition), 0))
        return [record.value for record in fetched.records]

    def test_all_is_written_by_the_commit(self) -> None:
        one = self.transactions.begin()
        self.add(one, "a", b"1", b"2")
        self.add(one, "b", b"3", partition=1)
        self.add(one, "a", b"4")
        self.add(one, "a")
        self.assertEqual((self.values("a"), self.values("b", 1)), ([], []))
        written = self.settle(self.transactions.commit(one))
        self.assertEqual(
            [[(w.partition, w.offset) for w in each] for each in written],
            [[(0, 0), (0, 1)], [(1, 0)], [(0, 2)]],
        )
        self.assertEqual((self.values("a"), self.values("b", 1)), ([b"1", b"2", b"4"], [b"3"]))
        self.failureResultOf(self.transactions.commit(one), UnknownTransaction)
        self.assertEqual((len(self.transactions), self.clock.getDelayedCalls()), (0, []))

    def test_one_append_for_all(self) -> None:
        """So a reader sees all or none."""
        appends: list[int] = []
        append = self.engine.append

        def noted(what: Any) -> Any:
            appends.append(len(what))
            return append(what)

        self.patch(self.engine, "append", noted)
        one = self.transactions.begin()
        for topic in ("a", "b"):
            self.add(one, topic, b"x")
        self.settle(self.transactions.commit(one))
        self.assertEqual(appends, [2])

    def test_one_that_fails_writes_nothing(self) -> None:
        one = self.transactions.begin()
        self.add(one, "a", b"1")
        self.add(one, "b", b"2")
        self.settle(self.topics.delete("b"))
        self.failureResultOf(self.transactions.commit(one), UnknownTopic)
        self.assertEqual(self.values("a"), [])
        two = self.transactions.begin()
        self.add(two, "a", b"1")
        self.patch(self.engine, "append", lambda _: fail(TopicsUnavailable("full")))
        self.failureResultOf(self.transactions.commit(two), TopicsUnavailable)
        self.assertEqual(len(self.transactions), 0)

    def test_an_empty_one(self) -> None:
        self.assertEqual(self.settle(self.transactions.commit(self.transactions.begin())), [])

    def test_abort(self) -> None:
        one = self.transactions.begin()
        self.add(one, "a", b"1")
        self.transactions.abort(one)
        self.assertEqual((self.values("a"), self.clock.getDelayedCalls()), ([], []))
        with self.assertRaisesRegex(UnknownTransaction, "transaction 1 is not under way"):
            self.transactions.abort(one)
        with self.assertRaises(UnknownTransaction):
            self.add(one, "a", b"1")

    def test_one_that_is_not_committed_in_time(self) -> None:
        self.transactions = self.make(timeout=30)
        one = self.transactions.begin()
        self.add(one, "a", b"1")
        self.clock.advance(29.9)
        self.assertEqual(len(self.transactions), 1)
        self.clock.advance(0.1)
        self.failureResultOf(self.transactions.commit(one), UnknownTransaction)
        self.assertEqual(self.values("a"), [])

    def test_what_is_wrong_is_said_when_it_is_added(self) -> None:
        one = self.transactions.begin()
        self.add(one, "a", b"1")
        with self.assertRaises(UnknownTopic):
            self.add(one, "no", b"1")
        with self.assertRaises(UnknownPartition):
            self.add(one, "a", b"1", partition=2)
        with self.assertRaises(RecordTooLarge):
            self.add(one, "a", b"x" * 11)
        self.settle(self.transactions.commit(one))
        self.assertEqual(self.values("a"), [b"1"])

    def test_limits(self) -> None:
        self.transactions = self.make(transactions=2, records=3, size=10)
        one, _ = self.transactions.begin(), self.transactions.begin()
        with self.assertRaisesRegex(TooManyTransactions, "2 transactions are under way"):
            self.transactions.begin()
        self.add(one, "a", b"1", b"2")
        with self.assertRaisesRegex(TransactionTooLarge, "takes 3 records of together 10 bytes"):
            self.add(one, "a", b"3", b"4")
        with self.assertRaises(TransactionTooLarge):
            self.add(one, "a", b"x" * 9)
        self.add(one, "a", b"x" * 8)
        self.settle(self.transactions.commit(one))
        self.assertEqual(len(self.values("a")), 3)
        self.transactions.begin()

    def test_an_engine_that_has_none(self) -> None:
        """Q-38."""
        self.patch(self.engine, "capabilities", self.engine.capabilities._replace(atomic=False))
        with self.assertRaisesRegex(TransactionsUnsupported, "this engine has no transactions"):
            self.transactions.begin()
