"""The bus across nodes in memory: nodes that come, lose touch, freeze, and are gone."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Answer, BusError, BusSettings, Kind, Message, NotMine
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.rabbit.bus import MeshBus, RabbitBus
from kupool.bus.rabbit.items import (
    Added,
    AskState,
    Beat,
    NodeCall,
    NodeState,
    Removed,
    SubscriberEntry,
    TellAll,
    Took,
    encode,
    make_state,
    pack,
    unpack,
)
from kupool.bus.rabbit.settings import MeshSettings
from tests.fakes.bus_exchange import Exchange, MemoryCarrier

#: A call is offered to another only where the first is gone, never for being slow.
PATIENT = BusSettings(share=1.0)


class Node:
    """A bus with its carrier, and a handler that notes what it gets."""

    def __init__(self, bus: MeshBus, carrier: MemoryCarrier) -> None:
        self.bus = bus
        self.carrier = carrier
        self.heard: list[Message] = []
        self.answers: list[Deferred[bytes]] = []

    def answer(self, message: Message) -> bytes:
        self.heard.append(message)
        return b"answer"

    def hold(self, message: Message) -> Deferred[bytes]:
        self.heard.append(message)
        self.answers.append(Deferred())
        return self.answers[-1]


class _Suite(SynchronousTestCase):
    settings = PATIENT
    mesh = MeshSettings()

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = Exchange(self.clock)

    def node(self, name: str = "", waits: bool = True, **limits: Any) -> Node:
        carrier = MemoryCarrier(self.exchange)
        bus = MeshBus(
            self.clock,
            carrier,
            BusSettings(share=1.0, **limits) if limits else self.settings,
            wall=self.clock.seconds,
            node=name,
            mesh=self.mesh,
            random=Random(20170103),
        )
        connected = bus.connect()
        self.settle()
        if waits:
            self.successResultOf(connected)
        return Node(bus, carrier)

    def nodes(self, count: int) -> list[Node]:
        return [self.node() for _ in range(count)]

    def settle(self, seconds: float = 0) -> None:
        end = self.clock.seconds() + seconds
        for _ in range(30):
            self.clock.advance(0)
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(0.01)
            for _ in range(5):
                self.clock.advance(0)

    def listen(self, node: Node, handler: Any = None, *topics: str, **more: Any) -> Any:
        done = node.bus.subscribe(topics or ("t",), handler or node.answer, **more)
        self.settle()
        return self.successResultOf(done)

    def outcome(self, deferred: Any) -> Any:
        self.settle()
        return self.successResultOf(deferred)

    def items(self) -> list[Any]:
        """Return what nodes have sent since the last call; None is a message without items."""
        sent = [list(unpack(body)) or [None] for _, _, body in self.exchange.sent]
        self.exchange.sent.clear()
        return [item for found in sent for item in found]

    def subscribers(self, node: Node) -> set[str]:
        return {s.id for s in self.successResultOf(node.bus.status()).subscribers}


class GivenUpTests(_Suite):
    """Issue 13: a message is checked against the topics of its handler."""

    def test_a_topic_that_was_given_up(self) -> None:
        one, other = self.nodes(2)
        self.listen(other, None, "pay", "mail.*")
        one.bus.publish_reliable_random(b"", "pay", 1.0)
        one.bus.publish_unreliable_all(b"", "pay")
        other.bus.unsubscribe(other.answer, ["pay"])
        self.settle()
        self.assertEqual(other.heard, [])
        outcome = self.outcome(one.bus.publish_reliable_random(b"", "mail.a"))
        self.assertEqual(outcome.data, b"answer")


class KnowingTests(_Suite):
    """A-03, A-05: every node knows who listens where."""

    def test_newcomer(self) -> None:
        """A-31: who has connected knows those that were there, and reaches them all."""
        old = self.nodes(3)
        for node in old:
            self.listen(node)
        new = self.node("new")
        self.assertTrue(new.bus.node.startswith("new-"))
        self.assertEqual(set(new.bus.nodes), {node.bus.node for node in old})
        sent = self.outcome(new.bus.publish_unreliable_all(b"x", "t"))
        self.assertEqual(sent.receivers, 3)
        for node in old:
            self.assertEqual([m.data for m in node.heard], [b"x"])

    def test_connecting_waits_for_the_others(self) -> None:
        """A-31: also where they take their time; but not for ever."""
        (silent,) = self.nodes(1)
        silent.carrier.frozen = True
        carrier = MemoryCarrier(self.exchange)
        bus = MeshBus(self.clock, carrier, wall=self.clock.seconds)
        connected = bus.connect()
        self.settle(0.9)
        self.assertNoResult(connected)
        refused = self.successResultOf(bus.publish_unreliable_all(b"", "t"))
        self.assertEqual((refused.kind, refused.reason), (Kind.REFUSED, "not connected"))
        self.settle(0.2)
        self.successResultOf(connected)
        self.assertEqual(self.outcome(bus.publish_unreliable_all(b"", "t")).kind, Kind.SENT)

    def test_subscribing_waits_for_the_others(self) -> None:
        """A-03: until they have taken it, or are gone, or have had time to."""
        one, two = self.nodes(2)
        two.carrier.frozen = True
        late = one.bus.subscribe(["t"], one.answer)
        self.settle(1.5)
        self.assertNoResult(late)
        self.settle(0.6)
        self.successResultOf(late)
        two.carrier.thaw()
        self.settle(1.1)
        self.assertEqual(len(self.subscribers(two)), 1)
        two.carrier.frozen = True
        gone = one.bus.subscribe(["u"], one.answer)
        two.carrier.vanish()
        self.settle(1.1)
        self.successResultOf(gone)

    def test_an_acknowledgement_that_was_lost(self) -> None:
        """A-03: it comes again with the state of the other node, if that is asked for."""
        one, two = self.nodes(2)
        took = pack([encode(Took(1))])
        self.exchange.loses = lambda sender, to, body: body == took
        waiting = one.bus.subscribe(["t"], one.answer)
        self.settle()
        self.assertNoResult(waiting)
        self.exchange.loses = lambda *sent: False
        question = pack([encode(AskState())])
        two.carrier.put(one.bus.node, one.carrier.address, question, 99.0)
        self.settle()
        self.successResultOf(waiting)

    def test_the_connection_is_lost_while_subscribing(self) -> None:
        """A-03: nobody can take it then, so it is not waited for."""
        one, two = self.nodes(2)
        two.carrier.frozen = True
        waiting = one.bus.subscribe(["t"], one.answer)
        self.settle(0.1)
        self.assertNoResult(waiting)
        self.assertTrue(one.bus.connected)
        one.carrier.cut()
        self.successResultOf(waiting)
        self.assertFalse(one.bus.connected)

    def test_subscribing_again_is_quick(self) -> None:
        """A-04: what the others know already they are not waited for."""
        one, two = self.nodes(2)
        self.listen(one, None, "t")
        two.carrier.frozen = True
        self.listen(one, None, "t")
        self.outcome(one.bus.unsubscribe(one.hold))

    def test_subscriptions_survive(self) -> None:
        """A-05: the connections of both are lost; meanwhile topics come and go."""
        one, two = self.nodes(2)
        self.listen(two, None, "a", "b.*", "old")
        one.carrier.cut()
        two.carrier.cut()
        self.assertEqual(self.subscribers(one), set())
        self.listen(two, None, "c")
        self.outcome(two.bus.unsubscribe(two.answer, ["old"]))
        self.settle(1.1)
        self.assertTrue(one.bus.connected and two.bus.connected)
        for topic in ("a", "b.x", "c"):
            waiting = one.bus.publish_reliable_random(b"", topic)
            self.assertEqual(self.outcome(waiting).data, b"answer")
        waiting = one.bus.publish_reliable_random(b"", "old", 0.1)
        self.settle(0.2)
        self.assertEqual(self.successResultOf(waiting).kind, Kind.NO_SUBSCRIBER)

    def test_many_topics_and_keys(self) -> None:
        """A-30: however many there are, to those that are there and to those that come."""
        topics = [f"direct.{n}." + "x" * 200 for n in range(900)]
        keys = [f"k{n}" * 20 for n in range(1100)]
        one, two = self.nodes(2)
        self.listen(two, None, *topics, keys=keys)
        three = self.node()
        largest = max(len(body) for _, _, body in self.exchange.sent)
        self.assertLess(largest, 2 * self.mesh.max_batch)
        for node in (one, three):
            (subscriber,) = self.successResultOf(node.bus.status()).subscribers
            self.assertEqual(set(subscriber.topics), set(topics))
            waiting = node.bus.publish_reliable_specific(b"", topics[-1], key=keys[-1])
            self.assertEqual(self.outcome(waiting).kind, Kind.ANSWERED)

    def test_what_was_missed(self) -> None:
        """A-03: a change that got lost is noticed by the next, or by the next beat."""
        one, two = self.nodes(2)
        self.exchange.loses = lambda sender, to, body: b"lost" in body
        for topic, wait in (("lost.1", 1.1), ("lost.2", 1.1)):
            two.bus.subscribe([topic], two.answer)
            self.settle()
            self.exchange.loses = lambda *sent: False
            self.settle(wait)
            waiting = one.bus.publish_reliable_random(b"", topic)
            self.assertEqual(self.outcome(waiting).data, b"answer")
            self.exchange.loses = lambda sender, to, body: b"lost.2" in body
        self.exchange.loses = lambda sender, to, body: b"lost.3" in body
        two.bus.subscribe(["lost.3"], two.answer)
        self.settle()
        self.exchange.loses = lambda *sent: False
        two.bus.subscribe(["next"], two.answer)
        self.settle()
        for topic in ("lost.3", "next"):
            waiting = one.bus.publish_reliable_random(b"", topic)
            self.assertEqual(self.outcome(waiting).data, b"answer")

    def test_farewells_that_were_missed(self) -> None:
        """A-03: who has left, or left some topics, is not asked when that is known."""
        one, two = self.nodes(2)
        other = Node(two.bus, two.carrier)
        self.listen(two, None, "a", "b")
        self.listen(other, None, "a")
        self.exchange.loses = lambda *sent: True
        two.bus.unsubscribe(two.answer, ["a"])
        two.bus.unsubscribe(other.answer)
        self.settle()
        self.exchange.loses = lambda *sent: False
        self.assertEqual(len(self.subscribers(one)), 2)
        self.settle(1.1)
        (subscriber,) = self.successResultOf(one.bus.status()).subscribers
        self.assertEqual(subscriber.topics, ("b",))

    def test_changes_in_their_order(self) -> None:
        """A-03, A-62: each has the next number, and nobody has to ask for the whole state."""
        one = self.node()
        states = [item for item in self.items() if isinstance(item, NodeState)]
        self.assertEqual([(state.version, state.reply) for state in states], [(0, True)])
        two = self.node()
        self.items()
        self.listen(two, None, "a")
        self.listen(two, None, "b", "c")
        self.outcome(two.bus.unsubscribe(two.answer, ["b"]))
        self.outcome(two.bus.unsubscribe(two.answer))
        items = self.items()
        changes = [item.version for item in items if isinstance(item, Added | Removed)]
        self.assertEqual(changes, [1, 2, 3, 4])
        self.assertEqual([item.version for item in items if isinstance(item, Took)], changes)
        self.settle(2.1)
        items = self.items()
        self.assertEqual({item.version for item in items if isinstance(item, Beat)}, {0, 4})
        self.assertEqual([item for item in items if not isinstance(item, Beat)], [])
        self.assertEqual(self.subscribers(one), set())

    def test_a_question_that_was_lost(self) -> None:
        """A-03: it is asked again at the next beat."""
        one, two = self.nodes(2)
        question = pack([encode(AskState())])
        self.exchange.loses = lambda sender, to, body: b"missed" in body or body == question
        two.bus.subscribe(["missed"], two.answer)
        self.settle(1.1)
        self.exchange.loses = lambda *sent: False
        self.assertEqual(self.subscribers(one), set())
        self.settle(1.0)
        self.assertEqual(len(self.subscribers(one)), 1)

    def test_one_question_at_a_time(self) -> None:
        """A-15: however many changes do not fit, a node is asked once between two beats."""
        one = self.node()
        self.items()
        entry = SubscriberEntry("x", 0.0, ["t"], [])
        for version in range(5, 10):
            one.carrier.put("stranger", "nowhere", pack([encode(Added(version, entry))]), 99.0)
        self.settle()
        self.assertEqual(self.items(), [AskState()])

    def test_the_state_is_sent_before_nodes_are_counted(self) -> None:
        """A-31: every node that is counted gets it, and answers."""
        carrier = MemoryCarrier(self.exchange)
        sent: list[int] = []

        def count() -> Deferred[int]:
            sent.append(len(self.exchange.sent))
            return MemoryCarrier.count(carrier)

        self.patch(carrier, "count", count)
        MeshBus(self.clock, carrier, wall=self.clock.seconds).connect()
        self.assertEqual(sent, [1])

    def test_since(self) -> None:
        """A-37: a subscriber has been there since it came, whoever is asked, and when."""
        one = self.node()
        self.listen(one)
        self.settle(5.0)
        two = self.node()
        for node in (one, two):
            (subscriber,) = self.successResultOf(node.bus.status()).subscribers
            self.assertLess(subscriber.since, 1.0)

    def test_users_of_the_broker(self) -> None:
        """A-61: those who subscribe at the broker of a node take part on all nodes; a call
        in the hands of one that is gone is for another.
        """
        one, two = self.nodes(2)
        taken: list[tuple[Message, int | None]] = []

        def deliver(message: Message, number: int | None) -> Taken:
            taken.append((message, number))
            return Taken.YES

        broker = two.bus.broker
        broker.subscribe("3/0", ["t"], deliver)
        self.settle()
        self.assertEqual(self.subscribers(one), {f"{two.bus.node}/3/0"})
        waiting = one.bus.publish_reliable_random(b"x", "t")
        self.settle()
        ((message, number),) = taken
        assert number is not None
        self.assertEqual(message.data, b"x")
        broker.answer("3/0", number, Response(CallVerdict.ANSWER, b"y", 7))
        broker.answer("3/0", number, Response(CallVerdict.ANSWER, b"z"))
        outcome = self.outcome(waiting)
        self.assertEqual((outcome.data, outcome.status), (b"y", 7))
        self.assertEqual(outcome.subscriber, f"{two.bus.node}/3/0")
        waiting = one.bus.publish_reliable_random(b"x", "t")
        self.settle()
        self.listen(one)
        broker.remove("3/0")
        self.assertEqual(self.outcome(waiting).subscriber, f"{one.bus.node}/1")
        self.assertTrue(one.heard[0].redelivered)

    def test_a_subscriber_that_comes_back_under_its_name(self) -> None:
        """A-20: it gets the call that it had before again, for it knows nothing of it."""
        one, two = self.nodes(2)
        taken: list[Message] = []

        def deliver(message: Message, number: int | None) -> Taken:
            taken.append(message)
            return Taken.YES

        for count in (1, 2):
            two.bus.broker.subscribe("3/0", ["t"], deliver)
            if count == 1:
                self.settle()
                one.bus.publish_reliable_random(b"x", "t")
            self.settle()
            self.assertEqual(len(taken), count)
            two.bus.broker.remove("3/0")
            self.settle()
        self.assertEqual([message.redelivered for message in taken], [False, True])

    def test_subscribers_that_do_not_take_it(self) -> None:
        """A-20, A-13: one that has enough to do, or is about to go, leaves it to others."""
        one, two = self.nodes(2)
        for taken, kind in ((Taken.FULL, Kind.REFUSED), (Taken.GONE, Kind.TIMEOUT)):
            two.bus.broker.subscribe("3/0", ["t"], lambda *_, taken=taken: taken)
            self.settle()
            waiting = one.bus.publish_reliable_random(b"x", "t", 0.5)
            self.settle(0.51)
            self.assertEqual(self.successResultOf(waiting).kind, kind)
            both = one.bus.publish_reliable_specific(b"x", "t", 0.5)
            self.listen(one)
            self.assertEqual(self.outcome(both).data, b"answer")
            self.outcome(one.bus.unsubscribe(one.answer))
            two.bus.broker.remove("3/0")
            self.settle()

    def test_a_fault_of_ours(self) -> None:
        """A-16: costs one message, is logged, and counted."""
        one, two = self.nodes(2)

        def broken(message: Message, number: int | None) -> Taken:
            raise RuntimeError("a fault")

        two.bus.broker.subscribe("3/0", ["broken"], broken)
        self.listen(two)
        one.bus.publish_unreliable_all(b"", "broken")
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.successResultOf(two.bus.status()).counts["unreadable"], 1)
        waiting = one.bus.publish_reliable_random(b"", "t")
        self.assertEqual(self.outcome(waiting).data, b"answer")


class LosingTests(_Suite):
    """A-20, A-21, A-22: a call in the hands of a node that is lost."""

    def held(self, topic: str = "t") -> tuple[Node, Node, Node, Any]:
        """Three nodes, and a call of the first that the second has in hand."""
        one, two, three = self.nodes(3)
        self.listen(two, two.hold, topic)
        waiting = one.bus.publish_reliable_random(b"x", topic, 10.0)
        self.settle()
        self.assertEqual(len(two.heard), 1)
        self.listen(three, None, topic)
        return one, two, three, waiting

    def test_gone(self) -> None:
        """A-20: it is missed within a beat, and the call goes to another."""
        one, two, three, waiting = self.held()
        two.carrier.vanish()
        self.settle(1.1)
        self.assertEqual(self.outcome(waiting).subscriber, f"{three.bus.node}/1")
        self.assertTrue(three.heard[0].redelivered)
        self.assertEqual(one.bus.nodes, (three.bus.node,))
        self.assertEqual(self.successResultOf(one.bus.status()).counts["lost nodes"], 1)

    def test_gone_when_called(self) -> None:
        """A-20: a message that comes back says so at once."""
        one, two, three = self.nodes(3)
        self.listen(two)
        two.carrier.vanish()
        waiting = one.bus.publish_reliable_random(b"x", "t")
        self.settle()
        three.bus.subscribe(["t"], three.answer)
        self.assertEqual(self.outcome(waiting).data, b"answer")
        self.assertLess(self.clock.seconds(), 0.5)

    def test_closed(self) -> None:
        """A-03, A-20: one that ends in order is missed at once."""
        one, two, three, waiting = self.held()
        self.outcome(two.bus.close())
        self.assertEqual(self.outcome(waiting).data, b"answer")
        self.assertEqual(one.bus.nodes, (three.bus.node,))

    def test_frozen(self) -> None:
        """A-20: one that is silent counts as gone; when it goes on it is known again."""
        one, two, _, waiting = self.held()
        two.carrier.frozen = True
        self.settle(3.5)
        self.assertNoResult(waiting)
        self.settle(1.6)
        self.assertEqual(self.outcome(waiting).data, b"answer")
        two.carrier.thaw()
        self.settle(1.1)
        self.assertEqual(len(self.subscribers(one)), 2)
        two.answers[0].callback(b"too late")
        self.settle()
        self.assertEqual(len(two.heard), 1)

    def test_frozen_alone(self) -> None:
        """A-20: its call comes to it again, is handled once, and answered."""
        one, two = self.nodes(2)
        self.listen(two, two.hold)
        waiting = one.bus.publish_reliable_random(b"x", "t", 30.0)
        self.settle()
        two.carrier.frozen = True
        self.settle(6.0)
        self.assertEqual(self.subscribers(one), set())
        two.carrier.thaw()
        self.settle(2.1)
        self.assertEqual(len(self.subscribers(one)), 1)
        two.answers[0].callback(b"at last")
        self.assertEqual(self.outcome(waiting).data, b"at last")
        self.assertEqual(len(two.heard), 1)

    def test_lost_connections(self) -> None:
        """A-20, A-22: with the publisher's, or the subscriber's, or both lost, a call is
        handled once, and answered: also where that was while nobody could be told.
        """
        for cuts, early in (((0,), 0), ((1,), 0), ((0, 1), 0), ((0,), 1), ((1,), 1), ((0, 1), 1)):
            one, two = self.nodes(2)
            topic = f"t.{cuts}{early}".replace(" ", "")
            self.listen(two, two.hold, topic)
            waiting = one.bus.publish_reliable_random(b"x", topic, 10.0)
            self.settle()
            for n in cuts:
                (one, two)[n].carrier.cut()
            if early:
                two.answers[0].callback(b"done")
            self.settle(3.1)
            if not early:
                self.assertNoResult(waiting)
                two.answers[0].callback(b"done")
            self.assertEqual(self.outcome(waiting).data, b"done", topic)
            self.assertEqual(len(two.heard), 1)

    def test_held_up_itself(self) -> None:
        """A-20: a node that could not listen for long does not take that for others' silence."""
        one, two = self.nodes(2)
        self.listen(two)
        self.clock.advance(30.0)
        self.assertEqual(one.bus.nodes, (two.bus.node,))
        self.settle(2.0)
        self.assertEqual(one.bus.nodes, (two.bus.node,))

    def test_held_up_for_more_than_two_beats(self) -> None:
        """A-20: that is long enough to hear nobody; who stays silent after that is lost."""
        one, two = self.nodes(2)
        two.carrier.frozen = True
        self.settle(2.0)
        self.clock.advance(2.5)
        self.assertEqual(one.bus.nodes, (two.bus.node,))
        self.settle(3.9)
        self.assertEqual(one.bus.nodes, (two.bus.node,))
        self.settle(1.2)
        self.assertEqual(one.bus.nodes, ())

    def test_it_is_logged(self) -> None:
        """A-37: which node is gone, and why."""
        said: list[Any] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        _, two, three = self.nodes(3)
        two.carrier.vanish()
        self.settle(1.1)
        three.carrier.frozen = True
        self.settle(5.1)
        lines = {e["log_format"].format(**e) for e in said if "is gone" in str(e.get("log_format"))}
        gone = f"Node {two.bus.node} of the bus is gone: its queue is gone"
        silent = f"Node {three.bus.node} of the bus is gone: it is silent"
        self.assertEqual({gone, silent} - lines, set())

    def test_a_beat_that_fails(self) -> None:
        """A-20: others would take this node for gone, so it connects anew."""
        (one,) = self.nodes(1)

        def count() -> Deferred[int]:
            del one.carrier.count  # type: ignore[method-assign]
            raise RuntimeError("a fault")

        one.carrier.count = count  # type: ignore[method-assign]
        self.settle(1.1)
        self.assertEqual(one.carrier.drops, ["a beat failed"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.settle(1.0)
        self.assertTrue(one.bus.connected)

    def test_nodes_that_cannot_be_counted(self) -> None:
        """A-20: it is tried again at the next beat."""
        one, two = self.nodes(2)
        one.carrier.count = lambda: fail(BusError("away"))  # type: ignore[method-assign]
        two.carrier.vanish()
        self.settle(1.1)
        self.assertEqual(one.bus.nodes, (two.bus.node,))
        del one.carrier.count  # type: ignore[method-assign]
        self.settle(1.0)
        self.assertEqual(one.bus.nodes, ())

    def test_left_meanwhile(self) -> None:
        """A-24: a call that crosses a farewell is as if there had been no subscriber."""
        one, two = self.nodes(2)
        self.listen(two)
        two.bus.unsubscribe(two.answer)
        waiting = one.bus.publish_reliable_random(b"x", "t", 2.0)
        self.settle(0.5)
        self.assertNoResult(waiting)
        self.listen(two, two.hold)
        two.answers[0].callback(b"back")
        self.assertEqual(self.outcome(waiting).data, b"back")

    def test_still_answers(self) -> None:
        """A-03: who has unsubscribed may still answer what is in its hands."""
        one, two = self.nodes(2)
        self.listen(two, two.hold)
        waiting = one.bus.publish_reliable_random(b"x", "t")
        self.settle()
        self.outcome(two.bus.unsubscribe(two.hold))
        two.answers[0].callback(b"late")
        self.assertEqual(self.outcome(waiting).data, b"late")


class HeardTests(_Suite):
    """Issue 13, A-62: a node whose beats do not come back assumes that nobody hears it."""

    def watch(self, node: Node) -> list[Any]:
        told: list[Any] = []
        node.bus.watch("t", told.append)
        self.settle()
        return told

    def test_none_comes_back(self) -> None:
        """It has three seconds from its connection on."""
        self.clock.advance(100.0)
        self.exchange.loses = lambda *sent: True
        told = self.watch(self.node(waits=False))
        self.settle(2.9)
        self.assertEqual(told, [()])
        self.settle(0.2)
        self.assertEqual(told, [(), None])
        self.exchange.loses = lambda *sent: False
        self.settle(1.1)
        self.assertEqual(told, [(), None, ()])

    def test_a_new_connection(self) -> None:
        """It gives no more time: others count from the last beat that they have heard."""
        one = self.node()
        told = self.watch(one)
        self.settle(2.1)
        self.exchange.loses = lambda *sent: True
        self.settle(1.4)
        one.carrier.cut()
        self.settle(1.1)
        self.assertTrue(one.bus.connected)
        self.assertEqual(told, [()])
        self.settle(0.5)
        self.assertEqual(told, [(), None])

    def test_a_new_connection_in_time(self) -> None:
        """It beats at once: it is heard before the time of the beat before is over."""
        one = self.node()
        told = self.watch(one)
        self.settle(2.1)
        self.exchange.loses = lambda *sent: True
        self.settle(1.4)
        self.exchange.loses = lambda *sent: False
        one.carrier.cut()
        self.settle(3.0)
        self.assertEqual(told, [()])


class NewConnectionTests(_Suite):
    """A-05, A-22: nothing of the connection before reaches the next one."""

    def reconnect(self, node: Node) -> None:
        node.carrier.cut()
        self.settle(1.0)
        self.assertTrue(node.bus.connected)

    def test_what_waited(self) -> None:
        """It is not sent: calls are offered anew, other messages are lost."""
        one, two = self.nodes(2)
        self.listen(two)
        one.carrier.writable = False
        sent = one.bus.publish_unreliable_all(b"x", "t")
        self.assertEqual(self.outcome(sent).receivers, 1)
        one.carrier.writable = True
        self.reconnect(one)
        self.settle(1.1)
        self.assertEqual(two.heard, [])

    def parts(self) -> list[bytes]:
        """Return the messages of a state in two parts."""
        entry = SubscriberEntry("x", 0.0, [f"u{n}" for n in range(300)], [])
        first, last = (pack([encode(part)]) for part in make_state(1, [entry], False))
        return [first, last]

    def test_parts_of_a_state(self) -> None:
        """They do not make a whole over two connections, or with a node that was gone."""
        for new in (True, False):
            one = self.node()
            first, last = self.parts()
            one.carrier.put("stranger", "nowhere", first, 99.0)
            self.settle()
            if new:
                self.reconnect(one)
            else:
                one.carrier.came_back(one.carrier.address, "nowhere")
            self.items()
            one.carrier.put("stranger", "nowhere", last, 99.0)
            self.settle()
            self.assertEqual(self.items(), [AskState()])
            self.assertEqual(self.known(one), 0)
            for body in (first, last):
                one.carrier.put("stranger", "nowhere", body, 99.0)
            self.settle()
            self.assertEqual(self.known(one), 1)
            one.bus.close()

    def known(self, node: Node) -> int:
        """Return how many strangers were known: each is lost at once, for it has no queue."""
        return self.successResultOf(node.bus.status()).counts.get("lost nodes", 0)

    def test_questions(self) -> None:
        """They are asked again."""
        one = self.node()
        added = pack([encode(Added(5, SubscriberEntry("x", 0.0, ["t"], [])))])
        for _ in range(2):
            self.items()
            one.carrier.put("stranger", "nowhere", added, 99.0)
            self.settle()
            self.assertEqual(self.items(), [AskState()])
            self.reconnect(one)


class AwayTests(_Suite):
    """A-06, A-24, A-31: RabbitMQ is away."""

    def test_first_failure(self) -> None:
        """A-06: is reported, and nothing goes on."""
        self.exchange.up = False
        bus = MeshBus(self.clock, MemoryCarrier(self.exchange), wall=self.clock.seconds)
        self.failureResultOf(bus.connect(), BusError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_published_meanwhile(self) -> None:
        """A-24, A-31: what is reliable waits, what is not is refused."""
        one, two = self.nodes(2)
        self.listen(two)
        self.exchange.fall()
        waiting = one.bus.publish_reliable_random(b"", "t")
        short = one.bus.publish_reliable_specific(b"", "t", 0.5)
        refused = self.successResultOf(one.bus.publish_unreliable_all(b"", "t"))
        self.assertEqual((refused.kind, refused.reason), (Kind.REFUSED, "not connected"))
        self.settle(0.45)
        self.assertNoResult(short)
        self.settle(0.06)
        self.assertEqual(self.successResultOf(short).kind, Kind.NO_SUBSCRIBER)
        self.exchange.up = True
        self.settle(1.1)
        self.assertEqual(self.outcome(waiting).data, b"answer")
        self.assertFalse(two.heard[0].redelivered)

    def test_handlers_of_this_node(self) -> None:
        """A-24, A-28: answer all the same; but what they say is not the whole truth."""
        one, two = self.nodes(2)
        self.listen(one, None, "here")
        self.exchange.fall()
        waiting = one.bus.publish_reliable_random(b"", "here")
        self.assertEqual(self.outcome(waiting).data, b"answer")

        def stranger(message: Message) -> bytes:
            raise NotMine

        self.listen(one, stranger, "t")
        self.listen(two, None, "t")
        waiting = one.bus.publish_reliable_specific(b"", "t", 5.0)
        nobody = one.bus.publish_reliable_specific(b"", "t", 0.5)
        self.settle(0.6)
        self.assertNoResult(waiting)
        self.assertEqual(self.successResultOf(nobody).kind, Kind.TIMEOUT)
        self.exchange.up = True
        self.settle(1.1)
        self.assertEqual(self.outcome(waiting).data, b"answer")
        self.outcome(two.bus.unsubscribe(two.answer, ["t"]))
        waiting = one.bus.publish_reliable_specific(b"", "t", 5.0)
        self.assertEqual(self.outcome(waiting).kind, Kind.NO_SUBSCRIBER)

    def test_subscribing_meanwhile(self) -> None:
        """A-05: is acknowledged at once, and known when there is a connection."""
        one, two = self.nodes(2)
        self.exchange.fall()
        self.listen(two)
        self.exchange.up = True
        self.settle(1.1)
        self.assertEqual(len(self.subscribers(one)), 1)

    def test_close(self) -> None:
        """A-22: ends timers, and what waits; harmless when repeated, or never connected."""
        for away in (False, True):
            one, two = self.nodes(2)
            self.listen(two, two.hold)
            waiting = one.bus.publish_reliable_random(b"", "t")
            self.settle()
            if away:
                self.exchange.fall()
            for node in (one, two):
                self.outcome(node.bus.close())
                self.outcome(node.bus.close())
            self.assertEqual(self.successResultOf(waiting).kind, Kind.REFUSED)
            self.settle(1.0)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            with self.assertRaises(ValueError):
                one.bus.subscribe(["t"], one.answer)
            self.exchange.up = True
        self.outcome(MeshBus(self.clock, one.carrier, wall=self.clock.seconds).close())


class BoundTests(_Suite):
    """A-13, A-15: bounded everywhere."""

    mesh = MeshSettings(max_unsent=10_000, max_remembered=5)

    def test_nothing_is_taken(self) -> None:
        """A-13: while RabbitMQ takes nothing calls wait and the rest is refused."""
        one, two = self.nodes(2)
        self.listen(two)
        one.carrier.writable = False
        sent = [one.bus.publish_unreliable_all(b"x" * 1000, "t") for _ in range(20)]
        kinds = Counter(self.outcome(s).kind for s in sent)
        self.assertEqual(kinds, {Kind.SENT: 8, Kind.REFUSED: 12})
        calls = [one.bus.publish_reliable_random(b"x" * 1000, "t", 0.5) for _ in range(3)]
        self.settle(0.3)
        one.carrier.resume()
        self.settle()
        self.assertEqual(len(two.heard), 8)
        self.settle(0.3)
        self.assertEqual({self.outcome(call).kind for call in calls}, {Kind.TIMEOUT})
        self.assertEqual(self.outcome(one.bus.publish_reliable_random(b"", "t")).data, b"answer")

    def test_not_even_answers(self) -> None:
        """A-13: what cannot be refused is bounded by the connection itself."""
        one, two = self.nodes(2)
        self.listen(two, lambda message: b"x" * 1000)
        two.carrier.writable = False
        calls = [one.bus.publish_reliable_random(b"", "t") for _ in range(30)]
        self.settle()
        self.assertEqual(two.carrier.drops, ["RabbitMQ accepts no data on this connection"])
        two.carrier.writable = True
        self.settle(1.1)
        self.assertEqual({self.outcome(call).kind for call in calls}, {Kind.ANSWERED})

    def test_calls_of_others(self) -> None:
        """A-13: those that a node has in hand are bounded, whoever calls."""
        callers = self.nodes(3)
        worker = self.node(max_calls=4)
        self.listen(worker, worker.hold)
        calls = [node.bus.publish_reliable_random(b"", "t") for node in callers for _ in range(2)]
        self.settle()
        self.assertEqual(len(worker.heard), 4)
        for answer in worker.answers:
            answer.callback(b"")
        self.settle()
        outcomes = Counter((o := self.outcome(call)).kind.value + o.reason for call in calls)
        self.assertEqual(outcomes, {"answered": 4, "refusedthe subscriber has enough to do": 2})
        calls = [callers[0].bus.publish_reliable_random(b"", "t", 0.5) for _ in range(4)]
        self.settle(2.5)
        self.assertEqual({self.outcome(call).kind for call in calls}, {Kind.TIMEOUT})
        waiting = callers[0].bus.publish_reliable_random(b"", "t")
        self.settle()
        worker.answers[-1].callback(b"room again")
        self.assertEqual(self.outcome(waiting).data, b"room again")

    def test_odd_answers(self) -> None:
        """A-16, A-25: what cannot be sent is a failure of its own, and of nothing else."""
        one, two = self.nodes(2)
        for answer in (Answer(b"", 1 << 70), Answer("text"), Answer(b"", None)):  # type: ignore[arg-type]
            self.listen(two, lambda message, answer=answer: answer)
            outcome = self.outcome(one.bus.publish_reliable_random(b"", "t"))
            self.assertEqual(outcome.kind, Kind.REFUSED)
            self.assertIn("cannot be sent", outcome.reason)
            for own in list(two.bus.broker.status().subscribers):
                two.bus.broker.remove(own.id)
            self.settle()


class CarryingTests(_Suite):
    """A-62: direct and fanout, and few messages."""

    def test_fanout(self) -> None:
        """A-31, A-62: one message for all, where most nodes have somebody; in order."""
        one, *others = self.nodes(5)
        for node in others:
            self.listen(node, None, "all")
        for node in others[:2]:
            self.listen(node, None, "few")
        self.exchange.sent.clear()
        for n in range(50):
            one.bus.publish_unreliable_all(b"%d" % n, "all" if n % 3 else "few")
        self.settle()
        for node in others[:2]:
            self.assertEqual([m.data for m in node.heard], [b"%d" % n for n in range(50)])
        items = [item for _, _, body in self.exchange.sent for item in unpack(body)]
        self.assertEqual(len([item for item in items if isinstance(item, TellAll)]), 50)
        self.assertEqual(len(self.exchange.sent), 1)

    def test_packing(self) -> None:
        """A-62: what leaves in one turn leaves in few messages, each of a bounded size."""
        one, two = self.nodes(2)
        self.listen(two)
        self.exchange.sent.clear()
        for _ in range(100):
            one.bus.publish_reliable_random(b"x" * 50, "t")
        self.settle()
        self.assertEqual(len(self.exchange.sent), 2)
        self.assertEqual(len(two.heard), 100)


class PoisonTests(_Suite):
    """A-09, A-16: what cannot be read is dropped and counted, and costs nobody else."""

    def test_poison(self) -> None:
        one, two = self.nodes(2)
        self.listen(two)
        good = encode(NodeCall(1, f"{two.bus.node}/1", _message(b"good")))
        bodies = [
            b"",
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            pack([b"\xc1"]),
            pack([encode(SubscriberEntry("", 0.0, [], []))]),
            pack([b"\x92\x08\x01"]),
            pack([encode(Added(1, SubscriberEntry("x", 0.0, [".."], [])))]),
            pack([encode(NodeState(9, 0, 1, False, [SubscriberEntry("\n", 0.0, ["t"], [])]))]),
        ]
        address, node = one.carrier.address, one.bus.node
        said: list[Any] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for body in bodies:
            two.carrier.put(node, address, body, 99.0)
        for sender, reply_to in (("", address), (node, ""), (two.bus.node, "elsewhere")):
            two.carrier.put(sender, reply_to, pack(()), 99.0)
        self.settle(1.1)
        counted = self.successResultOf(two.bus.status()).counts["unreadable"]
        self.assertGreaterEqual(counted, len(bodies) + 1)
        self.assertEqual(sum("cannot be read" in str(e.get("log_format")) for e in said), 1)
        two.carrier.put(node, address, pack([b"\xc0", good, b"\x91\x07"]), 99.0)
        self.settle(1.1)
        self.assertEqual([m.data for m in two.heard], [b"good"])
        waiting = one.bus.publish_reliable_random(b"", "t")
        self.assertEqual(self.outcome(waiting).data, b"answer")

    def test_each_is_counted_once(self) -> None:
        """A-37: also a fault of ours."""
        (one,) = self.nodes(1)

        def broken(message: Message, number: int | None) -> Taken:
            raise RuntimeError("a fault")

        one.bus.broker.subscribe("s", ["t"], broken)
        good = encode(NodeCall(1, "s", _message(b"x")))
        for count, body in enumerate((b"", pack([b"\xc1"]), pack([good])), 1):
            one.carrier.put("other", "other.1", body, 99.0)
            self.settle()
            self.assertEqual(self.successResultOf(one.bus.status()).counts["unreadable"], count)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_strangers(self) -> None:
        """A-22: replies, parts and changes that nobody asked for change nothing."""
        (one,) = self.nodes(1)
        self.listen(one)
        parts = make_state(1, [SubscriberEntry("x", 0.0, [f"u{n}" for n in range(500)], [])], False)
        self.assertEqual(len(parts), 3)
        for items in ([parts[1]], [parts[0], parts[2]], [Added(7, parts[0].entries[0])]):
            one.carrier.put("stranger", "nowhere", pack(map(encode, items)), 99.0)
        self.settle(2.1)
        self.assertEqual(one.bus.nodes, ())
        self.assertEqual(len(self.subscribers(one)), 1)
        asked = [to for _, to, body in self.exchange.sent if body == pack([encode(AskState())])]
        self.assertLessEqual(len(asked), 3)

    def test_arguments(self) -> None:
        """A-06: what cannot be right is said at once, and no password with it."""
        for arguments in (
            {"url": "http://u:s3cret@host"},
            {"prefix": ""},
            {"prefix": "a b"},
            {"prefix": "x" * 101},
            {"node": "\n"},
        ):
            with self.assertRaises(ValueError) as caught:
                RabbitBus(self.clock, **{"url": "amqp://host"} | arguments, wall=self.clock.seconds)
            self.assertNotIn("s3cret", str(caught.exception))
        with self.assertRaises(ValueError):
            MeshSettings(beat=2.0, silence=1.0)


class KillTests(_Suite):
    """A-20..A-22: connections are cut, nodes frozen and killed at random; every call has
    exactly one outcome, by its deadline and 100 ms, and no handler sees one twice.
    """

    settings = BusSettings()
    mesh = MeshSettings(beat=0.2, silence=0.9)

    def test_random_faults(self) -> None:
        random = Random(62)
        publisher = self.node()
        seen: Counter[tuple[int, str]] = Counter()
        workers: list[Node] = []
        started = 0

        def start() -> None:
            nonlocal started
            started += 1
            worker = self.node(waits=False)

            def handler(message: Message, number: int = started) -> Any:
                seen[number, message.id] += 1
                return Deferred() if random.random() < 0.1 else b"done"

            worker.bus.subscribe(["t"], handler)
            workers.append(worker)

        for _ in range(4):
            start()
        outcomes: dict[int, list[tuple[float, Kind]]] = {}
        deadlines: dict[int, float] = {}
        for n in range(1500):
            timeout = random.choice([0.1, 0.5, 2.0])
            deadlines[n], outcomes[n] = self.clock.seconds() + timeout, []
            model = random.choice(["publish_reliable_random", "publish_reliable_specific"])
            getattr(publisher.bus, model)(b"x", "t", timeout).addCallback(
                lambda outcome, n=n: outcomes[n].append((self.clock.seconds(), outcome.kind))
            )
            chance = random.random()
            if chance < 0.01:
                random.choice([publisher, *workers]).carrier.cut()
            elif chance < 0.02:
                victim = random.choice(workers).carrier
                victim.frozen = True
                self.clock.callLater(random.choice([0.3, 1.5]), victim.thaw)
            elif chance < 0.025:
                victim_node = workers.pop(random.randrange(len(workers)))
                victim_node.carrier.vanish()
                start()
            for _ in range(4):
                self.clock.advance(0)
            self.clock.advance(random.choice([0.0, 0.005, 0.02]))
        self.settle(2.3)
        self.assertEqual({len(got) for got in outcomes.values()}, {1})
        for n, ((at, _),) in outcomes.items():
            self.assertLessEqual(at, deadlines[n] + 0.1)
        kinds = Counter(got[0][1] for got in outcomes.values())
        self.assertGreater(kinds[Kind.ANSWERED], 900)
        self.assertEqual(max(seen.values()), 1)
        self.assertGreater(started, 6)
        self.assertEqual(self.successResultOf(publisher.bus.status()).calls, 0)


def _message(data: bytes) -> Message:
    from kupool.bus import Model

    return Message("id", "t", data, Model.RELIABLE_RANDOM, {}, "", 3.0)
