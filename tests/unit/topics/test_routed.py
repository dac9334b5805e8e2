"""An engine that gives some topics to sources, and everything else to the main engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.topics.errors import TopicExists
from kupool.topics.interfaces import Append, ITopicEngine, PartitionExtent, StoredBatch
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.records import Record
from kupool.topics.routed import ITopicSource, RoutedTopics
from kupool.topics.settings import TopicSettings

THERE, HERE = Partition("there", 0), Partition("here", 0)


@implementer(ITopicSource)
class OneBatch:
    """A source of one batch, which notes what is asked of it."""

    settings = TopicSettings(retention_time=5)

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.told: list[Callable[[], object]] = []

    def open(self) -> Deferred[None]:
        self.calls.append("open")
        return succeed(None)

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        self.calls.append((partition, offset, max_bytes))
        return succeed([StoredBatch(3, 1, 0, b"x")])

    def decode(self, body: bytes, base: int) -> tuple[str, list[Record]]:
        return "b", []

    def extent(self) -> Deferred[PartitionExtent]:
        return succeed(PartitionExtent(3, 4, 1))

    def find(self, at: int) -> Deferred[int]:
        return succeed(at)

    def watch(self, told: Callable[[], object]) -> None:
        self.told.append(told)

    def close(self) -> Deferred[None]:
        self.calls.append("close")
        return succeed(None)


class RoutedTests(SynchronousTestCase):
    """Issue 16, build 6."""

    def setUp(self) -> None:
        self.source = OneBatch()
        self.main = MemoryTopics(Clock().seconds)
        self.engine = RoutedTopics(self.main, {"there": self.source})
        self.done(self.engine.open())
        self.done(self.engine.create("here", TopicSettings(partitions=2)))

    def done(self, call: Deferred[Any]) -> Any:
        return self.successResultOf(call)

    def test_the_source_is_asked_about_its_topic(self) -> None:
        self.assertEqual(self.done(self.engine.read(THERE, 3, 9)), [StoredBatch(3, 1, 0, b"x")])
        self.assertEqual(self.source.calls, ["open", (THERE, 3, 9)])
        self.assertEqual(self.done(self.engine.extents("there")), [PartitionExtent(3, 4, 1)])
        self.assertEqual(self.done(self.engine.find(THERE, 77)), 77)
        self.assertEqual(self.engine.topic("there"), self.source.settings)
        self.assertEqual(self.engine.decoders, {"there": self.source.decode})

    def test_everything_else_goes_to_the_main_engine(self) -> None:
        """Also what an engine gets to know later: the methods are those of the interface."""
        self.assertEqual(self.done(self.engine.append([Append(HERE, 1, b"y")])), [0])
        self.assertEqual(
            self.done(self.engine.read(HERE, 0, 9)), self.done(self.main.read(HERE, 0, 9))
        )
        self.assertEqual(
            self.done(self.engine.extents("here")), self.done(self.main.extents("here"))
        )
        self.assertEqual(self.done(self.engine.find(HERE, 0)), 0)
        self.assertEqual(self.engine.capabilities, self.main.capabilities)
        self.assertEqual(self.done(self.engine.next_generation("g")), 1)
        self.assertEqual(self.engine.problem(), "")
        self.assertEqual(set(self.engine.topics()), {"here", "there"})
        (delay_id,) = self.done(self.engine.delay([Append(HERE, 1, b"z")], 5000))
        self.assertEqual(self.done(self.engine.delayed("here"))[0].delay_id, delay_id)
        self.assertEqual(self.done(self.engine.drop_below(HERE, 1)), 1)
        self.done(self.engine.change("here", TopicSettings(partitions=3)))
        self.done(self.engine.delete("here"))
        for name in ITopicEngine.names(all=True):
            self.assertTrue(hasattr(self.engine, name), name)

    def test_positions_of_both(self) -> None:
        """Q-45: all or none, in the main engine, which makes a place for them once."""
        self.assertIs(self.main.topic("there"), None)
        for offset in (3, 4):
            self.done(self.engine.commit("g", {THERE: offset, HERE: 0}))
        self.assertEqual(self.done(self.engine.committed("g")), {THERE: 4, HERE: 0})
        self.assertEqual(self.main.topic("there"), self.source.settings)
        self.assertEqual(self.engine.topic("there"), self.source.settings)

    def test_two_who_make_that_place(self) -> None:
        """As on two nodes: the other one was faster."""

        def create(name: str, settings: TopicSettings) -> Deferred[None]:
            made = made_by_the_other(name, settings)
            return made.addCallback(lambda _: _raise(TopicExists(name)))

        made_by_the_other = self.main.create
        self.patch(self.main, "create", create)
        self.done(self.engine.commit("g", {THERE: 3}))
        self.assertEqual(self.done(self.engine.committed("g")), {THERE: 3})

    def test_those_who_wait_are_told(self) -> None:
        """Q-04."""
        told: list[Partition] = []
        self.engine.watch(told.append)
        for each in self.source.told:
            each()
        self.assertEqual(told, [THERE])

    def test_close(self) -> None:
        self.done(self.engine.close())
        self.assertEqual(self.source.calls, ["open", "close"])


def _raise(error: Exception) -> None:
    raise error
