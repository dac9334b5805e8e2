"""Who is told when of a member that is lost: it first, and then the others."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusError, Kind
from kupool.bus.calls import Subscriber, Taken
from kupool.bus.local import LocalBus
from kupool.bus.members import SILENCE, STEP_DOWN, TopicMember, TopicWatches
from kupool.bus.rabbit.bus import MeshBus
from kupool.bus.rabbit.carrier import EVERYBODY
from kupool.bus.rabbit.settings import MeshSettings
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import BusService
from kupool.errors import FORBIDDEN
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer
from tests.fakes.bus_exchange import Exchange, MemoryCarrier


class Node:
    """A node that is a member of ``crew``, and notes when it was told which members."""

    def __init__(self, case: NodesCase, name: str) -> None:
        self.case = case
        self.carrier = MemoryCarrier(case.exchange)
        self.bus = MeshBus(case.clock, self.carrier, wall=case.clock.seconds, node=name)
        self.told: list[tuple[float, Any]] = []
        self.bus.connect()
        self.bus.subscribe(["crew"], self.handle, keys=[name])
        self.bus.watch("crew", self.note)

    def handle(self, message: Any) -> None:
        """Do nothing."""

    def note(self, members: Any) -> None:
        names = None if members is None else {member.keys[0] for member in members}
        self.told.append((self.case.clock.seconds(), names))

    @property
    def names(self) -> Any:
        return self.told[-1][1]

    def when(self, names: Any) -> float:
        """When it was told last of exactly these members."""
        return [at for at, told in self.told if told == names][-1]


class NodesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = Exchange(self.clock)
        self.a, self.b = Node(self, "a"), Node(self, "b")
        self.advance(3)
        self.assertEqual((self.a.names, self.b.names), ({"a", "b"}, {"a", "b"}))
        self.start = self.clock.seconds()

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))


class WatchesTests(SynchronousTestCase):
    """A-62: what a watch is told, and when, to the fraction of a second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.there: list[Subscriber] = []
        self.told: list[tuple[float, Any]] = []
        self.looks = 0
        self.watches = TopicWatches(self.clock, self.listening)
        self.end = self.watches.watch("crew", self.note)
        self.clock.advance(0)

    def listening(self, topic: str) -> list[Subscriber]:
        self.looks += 1
        return self.there

    def times(self) -> list[float]:
        return sorted(call.getTime() for call in self.clock.getDelayedCalls())

    def note(self, members: tuple[TopicMember, ...] | None) -> None:
        names = None if members is None else [member.id for member in members]
        self.told.append((self.clock.seconds(), names))

    def come(self, name: str) -> Subscriber:
        subscriber = Subscriber(name, lambda message, number: Taken.YES, 0.0)
        subscriber.patterns["crew"] = None
        self.there.append(subscriber)
        self.watches.changed()
        self.clock.advance(0)
        return subscriber

    def lose(self, subscriber: Subscriber, seconds: float) -> None:
        self.watches.lost(subscriber, seconds)
        self.there.remove(subscriber)
        self.watches.changed()
        self.clock.advance(0)

    def test_a_lost_member_stays_for_half_a_second(self) -> None:
        self.lose(self.come("a"), 0.5)
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.told, [(0.0, []), (0.0, ["a"]), (0.5, [])])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_two_lost_members_go_one_after_the_other(self) -> None:
        first, second = self.come("a"), self.come("b")
        self.lose(first, 0.5)
        self.lose(second, 1.0)
        self.clock.pump([0.25] * 6)
        self.assertEqual(self.told[2:], [(0.0, ["a", "b"]), (0.5, ["b"]), (1.0, [])])

    def test_a_member_that_is_lost_for_no_time(self) -> None:
        self.lose(self.come("a"), 0.0)
        self.assertEqual(self.told, [(0.0, []), (0.0, ["a"]), (0.0, [])])

    def test_half_a_second_for_which_this_side_counts(self) -> None:
        """The members are known for as long as the others count this side, and no longer."""
        self.watches.heard(0.5)
        self.come("a")
        self.assertEqual(self.watches.lease, 0.5)
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.told, [(0.0, []), (0.0, ["a"]), (0.5, None)])
        self.watches.heard(2.0)
        self.clock.advance(0)
        self.assertEqual(self.told[3:], [(1.0, ["a"])])

    def test_this_side_counts_no_more(self) -> None:
        """It is told without any other change; whoever was lost before is not among those that
        are heard again.
        """
        self.watches.heard(0.5)
        self.watches.heard(0.75)
        self.assertEqual(self.times(), [0.5], "the timer is not moved")
        self.clock.pump([0.5, 0.25])
        self.assertEqual(self.told, [(0.0, []), (0.75, None)])
        self.watches.heard(2.0)
        self.clock.advance(0)
        self.assertEqual(self.told[2:], [(0.75, [])])
        self.lose(self.come("a"), 9.0)
        self.clock.pump([1.25, 1.0])
        self.watches.heard(9.0)
        self.come("b")
        self.assertEqual(self.told[3:], [(0.75, ["a"]), (2.0, None), (3.0, ["b"])])

    def test_one_timer(self) -> None:
        """However often something changes."""
        subscriber = self.come("a")
        self.lose(subscriber, 5.0)
        for _ in range(3):
            self.come("b")
        self.assertEqual(self.times(), [5.0])

    def test_a_change_as_a_lost_member_goes(self) -> None:
        """Both are seen at one look."""
        self.clock.callLater(0.5, self.watches.changed)
        self.lose(self.come("a"), 0.5)
        self.looks = 0
        self.clock.advance(0.5)
        self.assertEqual((self.looks, self.told[-1]), (1, (0.5, [])))

    def test_half_a_second_in_which_nothing_is_told(self) -> None:
        self.watches.hold(0.5)
        self.come("a")
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.told, [(0.0, []), (0.5, ["a"])])

    def test_subscribers_that_may_be_unknown(self) -> None:
        """Nothing is told until all are known."""
        self.watches.complete(False)
        self.come("a")
        self.clock.advance(1.0)
        self.assertEqual(self.told, [(0.0, [])])
        self.watches.complete(True)
        self.clock.advance(0)
        self.assertEqual(self.told, [(0.0, []), (1.0, ["a"])])

    def test_no_timer_after_the_last_watch(self) -> None:
        """Neither the one of a change, nor the one of a lost member."""
        self.lose(self.come("a"), 5.0)
        self.watches.changed()
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.end()

    def test_a_watch_that_ends_as_it_is_told(self) -> None:
        """No timer is set for the lost member that it was told of."""
        self.end()
        end = self.watches.watch("crew", lambda members: end())
        self.watches.lost(Subscriber("a", lambda message, number: Taken.YES, 0.0), 5.0)
        self.clock.advance(0)
        self.assertEqual((self.looks, self.clock.getDelayedCalls()), (2, []))

    def test_a_watch_that_ends_while_others_are_told(self) -> None:
        """It is told nothing more, and the others are."""
        other: list[Any] = []
        self.watches.watch("crew", lambda members: self.end())
        self.watches.watch("crew", other.append)
        self.clock.advance(0)
        self.come("a")
        self.assertEqual(self.told, [(0.0, [])])
        self.assertEqual([len(members) for members in other], [0, 1])


class LostNodesTests(NodesCase):
    """Issue 13, A-62: a node that is not heard any more knows before the others do."""

    def test_one_that_neither_hears_nor_says_anything(self) -> None:
        self.a.carrier.frozen = True
        self.advance(8)
        lost, dropped = self.a.when(None), self.b.when({"b"})
        self.assertLess(lost, dropped - 0.5)
        self.assertLess(lost, self.start + 4.1)  # 3 s after it heard something, and a beat
        self.assertLess(dropped, self.start + 5.1)
        self.assertNotIn(None, [names for _, names in self.b.told])

    def test_one_whose_messages_are_lost(self) -> None:
        """It hears the others, but not itself."""
        self.exchange.loses = lambda sender, address, body: sender == self.a.carrier.address
        self.advance(8)
        self.assertLess(self.a.when(None), self.b.when({"b"}) - 0.5)
        self.exchange.loses = lambda *sent: False
        self.advance(4)
        self.assertEqual((self.a.names, self.b.names), ({"a", "b"}, {"a", "b"}))

    def test_one_whose_queue_is_gone(self) -> None:
        """RabbitMQ ended its connection, of which it does not hear: its time is not cut short."""
        del self.exchange.queues[self.a.carrier.address]
        self.advance(8)
        lost, dropped = self.a.when(None), self.b.when({"b"})
        self.assertLess(lost, dropped - 0.5)
        self.assertGreaterEqual(dropped, self.start + SILENCE - 1.1)

    def test_one_that_comes_back_in_time(self) -> None:
        """A short break of all connections costs nobody anything."""
        before = [len(node.told) for node in (self.a, self.b)]
        self.exchange.fall()
        self.advance(0.5)
        self.exchange.up = True
        self.advance(6)
        self.assertEqual([len(node.told) for node in (self.a, self.b)], before)

    def test_one_that_does_not_come_back_in_time(self) -> None:
        self.exchange.fall()
        self.advance(STEP_DOWN + 0.1)
        self.assertEqual((self.a.names, self.b.names), (None, None))
        self.exchange.up = True
        self.advance(4)
        self.assertEqual((self.a.names, self.b.names), ({"a", "b"}, {"a", "b"}))

    def test_one_that_goes_in_order_is_gone_at_once(self) -> None:
        self.a.bus.unsubscribe(self.a.handle)
        self.advance(0.1)
        self.assertEqual(self.b.names, {"b"})

    def test_one_that_closes_is_gone_at_once(self) -> None:
        self.a.bus.close()
        self.advance(0.1)
        self.assertEqual(self.b.names, {"b"})

    def test_the_time_to_step_down_follows_the_silence(self) -> None:
        self.assertEqual(MeshSettings().step_down, 3.0)
        self.assertEqual(MeshSettings(beat=0.2, silence=2.0).step_down, 1.5)

    def test_nobody_watches(self) -> None:
        """Nothing runs for nobody."""
        bus = LocalBus(clock := Clock(), wall=clock.seconds)
        bus.watch("crew", print)
        bus.unwatch(print)
        bus.subscribe(["crew"], print)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_topic_with_more_members_than_a_watch_tells_of(self) -> None:
        bus, told = LocalBus(clock := Clock(), wall=clock.seconds), list[Any]()
        earliest = [str(n) for n in range(1000)]
        for n in range(1005):
            bus.subscribe(["crew"], lambda message, n=n: None, keys=[str(n)])
        bus.watch("crew", told.append)
        clock.advance(0)
        self.assertEqual([[m.keys[0] for m in members] for members in told], [earliest])


class LostClientTests(SynchronousTestCase):
    """Issue 13, A-62: a client of one node that is lost, as another node sees it."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.exchange = Exchange(self.network)
        self.nodes = [
            MeshBus(
                self.network, MemoryCarrier(self.exchange), wall=self.network.seconds, node=name
            )
            for name in "ab"
        ]
        for node in self.nodes:
            node.connect()
        server = Server(self.network, BusService(self.nodes[0].broker))
        self.network.run(server.listen(["tcp:8000"]))
        self.network.advance(SILENCE)
        self.told: list[Any] = []
        self.nodes[1].watch("crew", self.told.append)
        self.network.advance(2)
        self.peer = self.network.connect(8000, "line")
        self.peer.ask("bus.subscribe", {"topics": ["crew"], "keys": ["peer"]})

    def names(self, seconds: float = 0.0) -> list[str]:
        self.network.advance(seconds)
        self.network.settle()
        return [key for member in self.told[-1] for key in member.keys]

    def test_it_is_a_member_for_as_long_as_it_may_think_so(self) -> None:
        self.peer.ask("bus.watch", {"topic": "crew"})
        self.assertEqual(self.names(1.0), ["peer"])
        self.peer.abort()
        self.assertEqual(self.names(SILENCE - 1.2), ["peer"])
        self.assertEqual(self.names(0.4), [])

    def test_it_answers_no_more_meanwhile(self) -> None:
        """It is a member yet, but nothing is sent to it."""
        self.peer.ask("bus.watch", {"topic": "crew"})
        self.assertEqual(self.names(1.0), ["peer"])
        self.peer.abort()
        self.assertEqual(self.names(0.5), ["peer"])
        sent = self.nodes[1].publish_reliable_random(b"", "crew", 0.2)
        self.network.advance(0.3)
        self.assertEqual(self.successResultOf(sent).kind, Kind.NO_SUBSCRIBER)

    def test_one_that_watches_nothing_is_gone_at_once(self) -> None:
        self.assertEqual(self.names(1.0), ["peer"])
        self.peer.abort()
        self.assertEqual(self.names(0.2), [])

    def test_one_that_goes_in_order_is_gone_at_once(self) -> None:
        self.peer.ask("bus.watch", {"topic": "crew"})
        self.assertEqual(self.names(1.0), ["peer"])
        self.peer.ask("bus.unsubscribe", {})
        self.assertEqual(self.names(0.2), [])

    def test_a_node_that_takes_the_whole_state_keeps_it_as_long(self) -> None:
        """Issue 13, acceptance 3: it has missed the news that the client is lost."""
        self.peer.ask("bus.watch", {"topic": "crew"})
        self.assertEqual(self.names(1.0), ["peer"])
        self.exchange.loses = lambda sender, to, body: to == EVERYBODY
        self.peer.abort()
        self.assertEqual(self.names(0.2), ["peer"])
        self.exchange.loses = lambda *sent: False
        self.assertEqual(self.names(SILENCE - 1.4), ["peer"], "it was told of a newer version")
        self.assertEqual(self.names(0.4), [])

    def test_a_whole_state_without_one_that_went_in_order(self) -> None:
        """Issue 13, acceptance 3: that one is gone at once."""
        self.peer.ask("bus.watch", {"topic": "crew"})
        self.assertEqual(self.names(1.0), ["peer"])
        self.exchange.loses = lambda sender, to, body: to == EVERYBODY
        self.peer.ask("bus.unsubscribe", {})
        self.assertEqual(self.names(0.2), ["peer"])
        self.exchange.loses = lambda *sent: False
        self.assertEqual(self.names(1.2), [])


class ClientTests(SynchronousTestCase):
    """Issue 13: what a client knows of the members while its connection breaks."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.there = LocalBus(self.network, wall=self.network.seconds)
        self.refuses = False
        service = BusService(self.there.broker, before=[self.refuse])
        self.server = Server(self.network, service, framing="frame")
        self.network.run(self.server.listen(["tcp:8000"]))
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", 8000)
        self.bus = RemoteBus(self.network, endpoint, random=lambda: 0.5)
        self.network.run(self.bus.connect())
        self.told: list[Any] = []
        self.there_told: list[Any] = []
        self.bus.subscribe(["crew"], print, keys=["me"])
        self.bus.watch("crew", self.note)
        self.there.watch("crew", self.note_there)
        self.network.advance(SILENCE)
        self.addCleanup(self.bus.close)

    def refuse(self, connection: Any, request: Any) -> Any:
        return FORBIDDEN if self.refuses else None

    def note(self, members: Any) -> None:
        keys = None if members is None else {m.keys for m in members}
        if not self.told or self.told[-1][1] != keys:
            self.told.append((self.network.seconds(), keys))

    def note_there(self, members: Any) -> None:
        keys = {m.keys for m in members}
        if not self.there_told or self.there_told[-1][1] != keys:
            self.there_told.append((self.network.seconds(), keys))

    def cut(self) -> None:
        for connection in list(self.server.manager):
            connection.abort()

    def test_a_short_break(self) -> None:
        """Who subscribes again in time has been a member all the time."""
        before = list(self.told), list(self.there_told)
        self.assertEqual(self.told[-1][1], {("me",)})
        self.cut()
        self.network.advance(8)
        self.assertTrue(self.bus.connected)
        self.assertEqual((self.told, self.there_told), before)

    def test_a_watch_that_is_refused(self) -> None:
        """At first, and when it is asked for again: a reload may have taken the topic away."""
        self.refuses = True
        refused = self.bus.watch("secret", print)
        self.network.settle()
        self.assertEqual(str(self.failureResultOf(refused, BusError).value), "forbidden")
        self.network.advance(1.1)
        self.assertEqual(self.told[-1][1], None)

    def test_a_break_that_lasts(self) -> None:
        self.network.run(self.server.stop_listening())
        self.cut()
        self.network.advance(8)
        (lost, told), (gone, there) = self.told[-1], self.there_told[-1]
        self.assertEqual((told, there), (None, set()))
        self.assertLess(lost, gone - 0.5)


class NewServerTests(SynchronousTestCase):
    """Issue 13, acceptance 3: a server that begins anew does not know yet who has not come back."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.told: dict[str, list[Any]] = {name: [] for name in "abc"}
        self.buses: dict[str, RemoteBus] = {}
        self.begin()
        for name in "ab":
            self.come(name)
        self.network.advance(SILENCE + 1)
        self.assertEqual(self.of("a"), {"a", "b"})

    def begin(self) -> None:
        there = LocalBus(self.network, wall=self.network.seconds)
        self.server = Server(self.network, BusService(there.broker), framing="frame")
        self.network.run(self.server.listen(["tcp:8000"]))
        self.began = self.network.seconds()

    def end(self) -> None:
        self.network.run(self.server.stop_listening())
        for connection in list(self.server.manager):
            connection.abort()

    def come(self, name: str) -> None:
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", 8000)
        self.buses[name] = bus = RemoteBus(self.network, endpoint, random=lambda: 0.5)
        self.network.run(bus.connect())
        bus.subscribe(["crew"], print, keys=[name])
        bus.watch("crew", lambda members: self.note(name, members))
        self.addCleanup(bus.close)

    def note(self, name: str, members: Any) -> None:
        names = None if members is None else {m.keys[0] for m in members}
        self.told[name].append((self.network.seconds(), names))

    def of(self, name: str) -> Any:
        return self.told[name][-1][1] if self.told[name] else None

    def test_who_knew_the_others_keeps_them(self) -> None:
        """All come back in time: nobody hears of any change."""
        before = {name: list(told) for name, told in self.told.items()}
        self.end()
        self.begin()
        self.network.advance(SILENCE + 3)
        self.assertEqual(self.told, before)

    def test_who_comes_anew_hears_nothing_at_first(self) -> None:
        """It would take the others, which may think themselves members yet, for gone."""
        self.end()
        self.begin()
        self.come("c")
        self.network.advance(SILENCE + 1)
        self.assertEqual([names for _, names in self.told["c"]], [{"a", "b", "c"}])
        self.assertGreaterEqual(self.told["c"][0][0], self.began + SILENCE)

    def test_one_that_does_not_come_back(self) -> None:
        self.end()
        self.buses["b"].close()
        self.begin()
        self.network.advance(SILENCE + 1)
        at, names = self.told["a"][-1]
        self.assertEqual(names, {"a"})
        self.assertAlmostEqual(at, self.began + SILENCE, delta=0.1)

    def test_one_that_was_counted_out_keeps_nothing(self) -> None:
        """What it knew before is out of date when it is heard again."""
        self.end()
        self.network.advance(STEP_DOWN + 0.1)
        self.assertIsNone(self.of("a"))
        self.buses["b"].close()
        self.begin()
        self.network.advance(SILENCE + 5)
        self.assertEqual([names for _, names in self.told["a"][-2:]], [None, {"a"}])

    def test_one_that_comes_back_and_is_lost_again_meanwhile(self) -> None:
        """Nobody was told of it yet, and it is a member all the same."""
        self.end()
        self.begin()
        self.network.advance(SILENCE - 0.5)
        self.buses["b"].close()
        self.end_of_b = self.network.seconds()
        self.come("c")
        self.network.advance(1.5)
        self.assertEqual(self.of("c"), {"a", "b", "c"})
        self.network.advance(SILENCE)
        self.assertEqual(self.of("c"), {"a", "c"})


class SessionTests(SynchronousTestCase):
    """Issue 13: ``bus.watch`` as a raw session has it."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.bus = LocalBus(self.network, wall=self.network.seconds)
        self.service = BusService(self.bus.broker)
        self.server = Server(self.network, self.service)
        self.network.run(self.server.listen(["tcp:8000"]))
        self.told: list[Any] = []
        self.bus.watch("crew", self.told.append)
        self.network.advance(SILENCE)

    def connect(self) -> MemoryPeer:
        return self.network.connect(8000, "line")

    def heard(self, peer: MemoryPeer) -> list[Any]:
        self.network.settle()
        return [m["params"] for m in peer.messages() if m.get("method") == "members"]

    def test_who_comes_and_goes(self) -> None:
        peer = self.connect()
        answer = peer.ask("bus.watch", {"topic": "crew"})
        self.assertEqual(answer["result"], {"valid_ms": 3000.0})
        self.assertEqual(self.heard(peer), [{"topic": "crew"}])
        done = self.bus.subscribe(["crew"], print, keys=["a"])
        entry = {"subscriber": self.successResultOf(done).id, "keys": ["a"]}
        self.assertEqual(self.heard(peer), [{"topic": "crew", "came": [entry]}])
        self.bus.unsubscribe(print)
        self.assertEqual(self.heard(peer), [{"topic": "crew", "gone": [entry["subscriber"]]}])
        self.assertIs(peer.ask("bus.unwatch", {"topic": "crew"})["result"], True)
        self.bus.subscribe(["crew"], print)
        self.assertEqual(self.heard(peer), [])

    def test_many_members_come_in_parts(self) -> None:
        for n in range(500):
            self.bus.subscribe(["crew"], lambda message, n=n: None, keys=["x" * 250])
        peer = self.connect()
        peer.ask("bus.watch", {"topic": "crew"})
        parts = self.heard(peer)
        self.assertEqual([part.get("more", False) for part in parts[-2:]], [True, False])
        self.assertEqual(sum(len(part["came"]) for part in parts), 500)
        self.assertLess(max(len(msgspec.json.encode(part)) for part in parts), 40_000)

    def test_one_that_does_not_ask_again_is_closed(self) -> None:
        peer = self.connect()
        for _ in range(3):
            peer.ask("bus.watch", {"topic": "crew"})
            self.network.advance(3.5)
        self.network.advance(1)
        (close,) = [m["params"] for m in peer.messages() if m.get("method") == "close"]
        self.assertEqual((close["code"], close["reason"]), (4101, "idle timeout"))

    def test_a_lost_session_is_a_member_for_as_long_as_it_may_think_so(self) -> None:
        peer = self.connect()
        peer.ask("bus.subscribe", {"topics": ["crew"], "keys": ["peer"]})
        peer.ask("bus.watch", {"topic": "crew"})
        self.network.advance(1)
        peer.abort()
        self.network.advance(SILENCE - 1.1)
        self.assertEqual([m.keys for m in self.told[-1]], [("peer",)])
        self.network.advance(0.2)
        self.assertEqual(self.told[-1], ())

    def test_who_watches_after_one_was_lost(self) -> None:
        """Issue 13, acceptance 3: nobody watched when it was lost."""
        self.bus.unwatch(self.told.append)
        peer = self.connect()
        peer.ask("bus.subscribe", {"topics": ["crew", "*"], "keys": ["peer"]})
        peer.ask("bus.watch", {"topic": "crew"})
        self.network.advance(1)
        peer.abort()
        self.network.advance(1)
        later: list[Any] = []
        self.bus.watch("crew", later.append)
        other: list[Any] = []
        self.bus.watch("mew.a", other.append)
        self.network.advance(SILENCE)
        self.assertEqual([[m.keys for m in told] for told in later], [[("peer",)], []])
        self.assertEqual(other, [()])

    def test_a_lost_session_that_watches_nothing_is_gone_at_once(self) -> None:
        peer = self.connect()
        peer.ask("bus.subscribe", {"topics": ["crew"], "keys": ["peer"]})
        peer.abort()
        self.network.settle()
        self.assertEqual(self.told[-1], ())

    def test_refusals(self) -> None:
        peer = self.connect()
        for method in ("bus.watch", "bus.unwatch"):
            for topic in ("a.*", ""):
                self.assertEqual(peer.ask(method, {"topic": topic})["code"], 32, method)

    def test_no_more_than_so_many_topics(self) -> None:
        peer = self.connect()
        for n in range(self.service.limits.subscribers):
            peer.request("bus.watch", {"topic": f"t.{n}"})
        answer = peer.ask("bus.watch", {"topic": "more"})
        self.assertEqual(answer["error"], "too many requests: watched topics of one session")
        self.assertEqual(peer.ask("bus.watch", {"topic": "t.0"})["result"], {"valid_ms": 3000.0})
