"""The other nodes and their subscribers, and who waits for them to have taken a change."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import Taken
from kupool.bus.messages import Message, Model
from kupool.bus.rabbit.directory import Acknowledgements, Directory, KnownNode
from kupool.bus.rabbit.items import NodeCall, SubscriberEntry


class Broker:
    """Notes what it is told: the subscribers of other nodes, and which of them are gone."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, None]] = {}
        self.deliver: dict[str, Any] = {}
        self.since: dict[str, float] = {}
        #: The subscribers that are gone, and for how many seconds they stay members.
        self.gone: list[tuple[str, float]] = []

    def subscribe(
        self, name: str, topics: Any, deliver: Any, keys: Any, *, since: float, elsewhere: bool
    ) -> tuple[str, ...]:
        assert elsewhere
        self.deliver[name], self.since[name] = deliver, since
        self.topics.setdefault(name, {}).update(dict.fromkeys(topics))
        return tuple(self.topics[name])

    def unsubscribe(self, name: str, topics: Any) -> tuple[str, ...]:
        for topic in list(self.topics[name]) if topics is None else topics:
            self.topics[name].pop(topic, None)
        return tuple(self.topics[name])

    def remove(self, name: str, linger: float) -> None:
        self.gone.append((name, linger))
        del self.topics[name]


class Outgoing:
    """Notes what is sent to other nodes."""

    def __init__(self) -> None:
        self.no_room = False
        self.sent: list[tuple[Any, ...]] = []

    def full(self, size: int) -> bool:
        return self.no_room

    def tell(self, *what: Any) -> None:
        self.sent.append(what)

    def add(self, *what: Any) -> None:
        self.sent.append(what)


class DirectoryTests(SynchronousTestCase):
    """A-03, A-62: the subscribers of other nodes, as their states and changes say."""

    def setUp(self) -> None:
        self.broker, self.outgoing = Broker(), Outgoing()
        self.directory = Directory(cast(Any, self.broker), cast(Any, self.outgoing))

    def install(
        self, *entries: SubscriberEntry, address: str = "a.1", version: int = 1, **lost: float
    ) -> KnownNode:
        return self.directory.install(
            "a", address, version, entries=entries, lost=lost, heard=float(version)
        )

    def entry(self, name: str, *topics: str) -> SubscriberEntry:
        return SubscriberEntry(name, 7.0, list(topics), [])

    def test_a_state(self) -> None:
        """It replaces the one before; who is gone stays a member as long as that says."""
        entries = [self.entry("s1", "t", "u"), self.entry("s1", "v"), self.entry("s2", "t")]
        first = self.install(*entries, self.entry("s3", "t"))
        self.assertEqual(self.broker.topics["a/s1"], dict.fromkeys("tuv"))
        self.assertEqual((self.broker.since["a/s1"], first.version, first.heard), (7.0, 1, 1.0))
        again = self.install(self.entry("s1", "u", "w"), version=2, s2=2.5)
        self.assertIs(again, first)
        self.assertEqual((again.version, again.heard), (2, 2.0))
        self.assertEqual(self.broker.topics, {"a/s1": dict.fromkeys("uw")})
        self.assertEqual(self.broker.gone, [("a/s2", 2.5), ("a/s3", 0.0)])
        self.assertEqual(first.subscribers, {"s1": ("u", "w")})

    def test_another_address(self) -> None:
        """The node has lost its connection: nothing is left of the one before."""
        first = self.install(self.entry("s1", "t"), self.entry("s2", "t"))
        second = self.install(self.entry("s1", "u"), address="a.2", s2=2.5)
        self.assertEqual(self.broker.gone, [("a/s1", 0.0), ("a/s2", 2.5)])
        self.assertEqual(self.broker.topics, {"a/s1": {"u": None}})
        self.assertTrue(first.gone)
        self.assertIs(self.directory.at("a.2"), second)
        self.assertIs(self.directory.node("a"), second)
        self.assertIsNone(self.directory.at("a.1"))
        self.directory.forget(first, 1.0)
        self.assertEqual(len(self.directory), 1)

    def test_changes(self) -> None:
        peer = self.install(self.entry("s1", "t", "u"), self.entry("s2", "t"))
        self.directory.remove(peer, "s1", ["t"], None)
        self.assertEqual((self.broker.gone, peer.subscribers["s1"]), ([], ("u",)))
        self.directory.remove(peer, "s1", None, None)
        self.directory.remove(peer, "s2", None, 1.5)
        self.directory.remove(peer, "s2", None, 1.5)
        self.assertEqual((self.broker.gone, peer.subscribers), ([("a/s2", 1.5)], {}))

    def test_a_node_that_is_gone(self) -> None:
        """Its subscribers stay members for a while."""
        peer = self.install(self.entry("s1", "t"), self.entry("s2", "t"))
        self.directory.forget(peer, 3.5)
        self.assertEqual(self.broker.gone, [("a/s1", 3.5), ("a/s2", 3.5)])
        self.assertEqual((len(self.directory), list(self.directory)), (0, []))

    def test_names_that_cannot_be(self) -> None:
        """Nobody is added."""
        peer = self.install()
        for name in ("\n", "x" * 256):
            with self.assertRaisesRegex(ValueError, "^subscriber: .* is not printable text"):
                self.directory.add(peer, self.entry(name, "t"))
        self.assertEqual((self.broker.topics, peer.subscribers), ({}, {}))

    def test_what_is_delivered(self) -> None:
        """A call expires with its time; a node that is gone or busy takes nothing."""
        peer = self.install(self.entry("s1", "t"))
        deliver = self.broker.deliver["a/s1"]
        message = Message("id", "t", b"x", Model.RELIABLE_RANDOM, {}, "", 1.5)
        self.assertIs(deliver(message, 5), Taken.YES)
        self.assertIs(deliver(message, None), Taken.YES)
        call = NodeCall(5, "s1", message)
        self.assertEqual(self.outgoing.sent, [("a.1", call, 1.5), ("a.1", "a", "s1", message)])
        self.outgoing.no_room = True
        self.assertIs(deliver(message, 6), Taken.FULL)
        peer.gone = True
        self.assertIs(deliver(message, 6), Taken.GONE)
        self.assertEqual(len(self.outgoing.sent), 2)


class AcknowledgementsTests(SynchronousTestCase):
    """A-03: a subscription waits for the other nodes, and no longer than it has to."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.acknowledgements = Acknowledgements(self.clock, 2.0)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [], "no timer is left")

    def test_nobody_to_wait_for(self) -> None:
        self.successResultOf(self.acknowledgements.wait(0, []))

    def test_all_have_to_take_it(self) -> None:
        done = self.acknowledgements.wait(3, ["a", "b"])
        self.acknowledgements.took("a", 3)
        self.acknowledgements.took("b", 2)
        self.assertNoResult(done)
        self.acknowledgements.took("b", 4)
        self.successResultOf(done)

    def test_one_that_has_taken_it_before(self) -> None:
        """It is not waited for: it says so once."""
        self.acknowledgements.took("a", 3)
        self.successResultOf(self.acknowledgements.wait(3, ["a"]))
        later = self.acknowledgements.wait(4, ["a"])
        self.assertNoResult(later)
        self.acknowledgements.took("a", 4)
        self.successResultOf(later)

    def test_the_first_version_of_all(self) -> None:
        """One that has taken nothing yet has not taken that either."""
        done = self.acknowledgements.wait(0, ["a"])
        self.assertNoResult(done)
        self.acknowledgements.took("a", 0)
        self.successResultOf(done)

    def test_one_that_is_gone(self) -> None:
        """It is not waited for; and whoever has its address next has taken nothing."""
        self.acknowledgements.took("a", 3)
        done = self.acknowledgements.wait(4, ["a"])
        self.acknowledgements.gone("a")
        self.successResultOf(done)
        again = self.acknowledgements.wait(3, ["a"])
        self.assertNoResult(again)
        self.acknowledgements.took("a", 3)
        self.successResultOf(again)

    def test_all_are_gone(self) -> None:
        """The connection is lost: nobody waits, and what was taken is forgotten."""
        self.acknowledgements.took("a", 3)
        waiting = [self.acknowledgements.wait(4, ["a", "b"]) for _ in range(2)]
        self.acknowledgements.clear()
        for done in waiting:
            self.successResultOf(done)
        again = self.acknowledgements.wait(3, ["a"])
        self.assertNoResult(again)
        self.acknowledgements.clear()

    def test_one_that_takes_too_long(self) -> None:
        done = self.acknowledgements.wait(1, ["a"])
        self.clock.advance(1.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.successResultOf(done)
        self.acknowledgements.took("a", 1)
