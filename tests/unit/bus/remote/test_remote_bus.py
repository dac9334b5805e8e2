"""The networked bus in memory: connections that end, servers that are away, odd peers."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.bus import BusError, BusSettings, Kind, Message, NotMine, Refusal
from kupool.bus.broker import Broker
from kupool.bus.local import LocalBus
from kupool.bus.remote.client import CONNECT_TIMEOUT, SILENCE, RemoteBus
from kupool.bus.remote.service import BusService, PeerLimits
from kupool.errors import (
    BANNED,
    CLOSE_REASONS,
    FORBIDDEN,
    GOING_DOWN,
    SLOW_READER,
    UNAUTHORIZED,
)
from kupool.net.dialling.dialler import CUT_AFTER, ClientState
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.routing.router import Router
from kupool.net.testing import MemoryNetwork, MemoryPeer, MemoryTransport
from kupool.net.transport.protocols import FACTORIES
from kupool.wire.framing import FRAME, LINE
from tests.fakes.peers import PeerTransport

#: A call as raw peers publish it.
CALL = {"topic": "t", "model": "reliable-random"}


@implementer(IStreamClientEndpoint)
class Site:
    """A server in memory that can be away, and the clients' ends of all connections to it."""

    def __init__(self, network: MemoryNetwork, factory: Any) -> None:
        self._network = network
        self.port = network.listenTCP(0, factory)
        self.attempts = 0
        self.wires: list[MemoryTransport] = []
        #: Whether connections end as soon as they are there.
        self.cuts = False

    def leave(self) -> None:
        self.port.stopListening()

    def come_back(self) -> None:
        self.port.startListening()

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        endpoint = TCP4ClientEndpoint(self._network, "127.0.0.1", self.port.number)
        connecting: Deferred[Any] = endpoint.connect(factory)
        return connecting.addCallback(self._connected)

    def _connected(self, protocol: Any) -> Any:
        self.wires.append(protocol.transport)
        if self.cuts:
            protocol.transport.abortConnection()
        return protocol


def say(peer: MemoryPeer, **message: Any) -> None:
    """Send a message as a peer that knows only JSON."""
    peer.tell(json.dumps(message).encode())


class _Suite(SynchronousTestCase):
    framing = "frame"

    def setUp(self) -> None:
        self.clock = MemoryNetwork()
        self.settings = BusSettings()
        self.serve()
        self.site = Site(self.clock, self.factory)
        self.heard: list[Message] = []

    def serve(self, **settings: Any) -> None:
        self.broker = Broker(
            self.clock, self.settings, wall=self.clock.seconds, random=Random(20170103)
        )
        self.service = BusService(self.broker)
        self.manager = ConnectionManager(self.clock, self.service, ServerSettings(**settings))
        self.factory = FACTORIES[self.framing](self.manager)

    def connect(self, framing: Any = FRAME, settings: BusSettings | None = None) -> RemoteBus:
        bus = RemoteBus(self.clock, self.site, settings, framing=framing, random=lambda: 0.5)
        connected = bus.connect()
        self.settle()
        self.successResultOf(connected)
        return bus

    def settle(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)

    def listen(self, bus: RemoteBus, handler: Any = None, *topics: str) -> Any:
        done = bus.subscribe(topics or ("t",), handler or self.handler)
        self.settle()
        return self.successResultOf(done)

    def handler(self, message: Message) -> bytes:
        self.heard.append(message)
        return b"answer"

    def counts(self) -> int:
        return len(self.broker.status().subscribers)


class StrayReplyTests(_Suite):
    """Issue 13 build 8: what is no answer to a call of the bus's harms nobody, whoever sends it."""

    def test_from_one_that_only_publishes(self) -> None:
        wire = PeerTransport()
        connection = self.manager.admit(wire, "192.0.2.1", LINE)
        assert connection is not None
        publish = {"id": 1, "method": "bus.publish"}
        publish["params"] = {"model": "unreliable-all", "topic": "t"}
        connection.feed(LINE.encode(json.dumps(publish).encode()))
        connection.feed(LINE.encode(b'{"id":"0123456789abcdef.0","result":true}'))
        connection.feed(LINE.encode(b'{"id":"anything","error":"no","code":4}'))
        self.assertEqual(connection.malformed, 0)
        self.assertEqual(wire.value().count(b"\n"), 1)


class NoLongerAllowedTests(_Suite):
    """A-38: what is no longer allowed ends, and nothing else does."""

    def test_subscriptions_that_are_no_longer_allowed(self) -> None:
        bus = self.connect()
        self.listen(bus, None, "a", "b", "c")
        ended = self.service.end_subscriptions(lambda connection, topic: topic == "a")
        self.assertEqual(list(ended.values()), [2])
        found = [len(self.broker.listening(topic)) for topic in "abc"]
        self.assertEqual(found, [1, 0, 0])
        self.assertEqual(self.service.end_subscriptions(lambda connection, topic: True), {})
        self.listen(bus, None, "b")
        self.assertEqual(len(self.broker.listening("b")), 1)


class FanOutTests(_Suite):
    """Issue 13 build 1: an unreliable message is encoded once for each encoding."""

    def test_two_codecs_of_one_name(self) -> None:
        """Each of their peers gets its own encoding, though they go by one name."""
        encoded: list[bytes] = []

        def padded(payload: bytes) -> bytes:
            encoded.append(payload)
            return LINE.encode(b" " + payload)

        wires = []
        for framing in (LINE, LINE._replace(encode=padded)):
            for _ in range(3):
                wire = PeerTransport()
                connection = self.manager.admit(wire, "192.0.2.1", framing)
                assert connection is not None
                request = {"id": 1, "method": "bus.subscribe", "params": {"topics": ["t"]}}
                connection.receive([json.dumps(request).encode()])
                wire.taken()
                wires.append(wire)
        encoded.clear()
        publisher = self.connect()
        sent = publisher.publish_unreliable_all(b"news", "t")
        self.settle()
        self.assertEqual(self.successResultOf(sent).receivers, 6)
        plain, own = wires[0].taken(), wires[-1].taken()
        self.assertEqual(own, b" " + plain)
        self.assertEqual([wire.taken() for wire in wires[1:-1]], [plain, plain, own, own])
        self.assertEqual(encoded, [plain.rstrip(b"\n")])


class ReconnectTests(_Suite):
    """A-05, A-06, A-21."""

    def test_subscriptions_survive(self) -> None:
        """A-05, A-03: also one that was not acknowledged yet; what the old connection had
        is gone.
        """
        bus, other = self.connect(), self.connect()
        self.listen(bus, None, "a", "b.*")
        late = bus.subscribe(["c"], self.handler)
        self.site.wires[0].abortConnection()
        self.clock.advance(0)
        self.assertEqual(self.counts(), 0)
        self.assertFalse(bus.connected)
        self.settle(1.0)
        self.assertTrue(bus.connected)
        self.assertEqual(self.successResultOf(late).topics, ("a", "b.*", "c"))
        self.assertEqual(self.counts(), 1)
        for topic in ("a", "b.x", "c"):
            waiting = other.publish_reliable_random(b"", topic)
            self.settle()
            self.assertEqual(self.successResultOf(waiting).data, b"answer")

    def test_many_topics_and_keys_survive(self) -> None:
        """A-05, A-30: however many there are, in requests that fit a message."""
        bus, other = self.connect(), self.connect()
        topics = [f"t{n}." + "x" * 200 for n in range(400)]
        keys = [f"k{n}" * 20 for n in range(400)]
        done = bus.subscribe(topics, self.handler, keys=keys)
        self.settle()
        self.assertEqual(len(self.successResultOf(done).topics), 400)
        self.site.wires[0].abortConnection()
        self.settle(1.0)
        (subscriber,) = self.broker.status().subscribers
        self.assertEqual(set(subscriber.topics), set(topics))
        waiting = other.publish_reliable_random(b"", topics[-1])
        self.settle()
        self.assertEqual(self.successResultOf(waiting).kind, Kind.ANSWERED)

    def test_comes_back_for_ever(self) -> None:
        """A-06: with a wait that grows up to a bound; a steady session starts it anew."""
        bus = self.connect()
        self.site.leave()
        self.site.wires[0].abortConnection()
        self.settle(60.0)
        few = self.site.attempts
        self.assertLess(few, 15)
        self.settle(3600.0 - 60.0)
        self.assertGreater(self.site.attempts, 3600 / 15)
        self.assertLess(self.site.attempts, 3600 / 7)
        self.site.come_back()
        self.settle(15.0 + 10.0)
        self.assertTrue(bus.connected)
        self.listen(bus)
        self.site.wires[-1].abortConnection()
        self.settle(0.5)
        self.assertTrue(bus.connected)

    def test_first_failure(self) -> None:
        """A-06: is reported to the caller, and nothing goes on."""
        self.site.leave()
        bus = RemoteBus(self.clock, self.site)
        refused = bus.connect()
        self.settle()
        self.failureResultOf(refused, ConnectError)
        self.settle(60.0)
        self.assertEqual(self.site.attempts, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(bus.status(), BusError)

    def test_server_that_hangs(self) -> None:
        """A-06: a connection over which nothing comes is given up."""
        bus = self.connect()
        self.site.wires[0].pauseProducing()
        self.settle(SILENCE + 30.0)
        self.assertEqual(self.site.attempts, 2)
        self.assertTrue(bus.connected)

    def test_call_over_a_lost_connection(self) -> None:
        """A-20, A-22, A-29: it is sent again, is handled once, and has one outcome."""
        bus, other = self.connect(), self.connect()
        answer: Deferred[bytes] = Deferred()

        def slow(message: Message) -> Deferred[bytes]:
            self.heard.append(message)
            return answer

        self.listen(other, slow)
        waiting = bus.publish_reliable_random(b"x", "t", 3.0)
        self.settle(0.1)
        for wire in list(self.site.wires):  # both of them, with the call in hand
            wire.abortConnection()
        self.settle(1.0)
        self.assertNoResult(waiting)
        answer.callback(b"done")
        self.settle()
        outcome = self.successResultOf(waiting)
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b"done"))
        self.assertEqual(len(self.heard), 1)

    def test_a_call_to_all_over_a_lost_connection(self) -> None:
        """A-26, A-29, issue 13: a subscriber that comes back is told that it may have seen it."""
        bus, other = self.connect(), self.connect()
        answer: Deferred[bytes] = Deferred()

        def slow(message: Message) -> Deferred[bytes]:
            self.heard.append(message)
            return answer

        self.listen(other, slow)
        waiting = bus.publish_reliable_specific(b"x", "t", 3.0)
        self.settle(0.1)
        self.site.wires[1].abortConnection()
        self.settle(1.0)
        answer.callback(b"done")
        self.settle()
        self.assertEqual(self.successResultOf(waiting).data, b"done")
        self.assertEqual(len(self.heard), 1)

    def test_timeout_while_the_server_is_away(self) -> None:
        """A-21: the deadline holds, whatever becomes of the connection."""
        for hang in (False, True):
            bus = self.connect()
            self.listen(bus, lambda message: Deferred())
            waiting = bus.publish_reliable_random(b"", "t", 0.5)
            self.site.leave()
            if hang:
                self.site.wires[-1].pauseProducing()
            else:
                self.site.wires[-1].abortConnection()
            later = bus.publish_reliable_specific(b"", "t", 0.6)
            self.settle(0.49)
            self.assertNoResult(waiting)
            self.settle(0.11)
            self.assertEqual(self.successResultOf(waiting).kind, Kind.TIMEOUT)
            self.settle(0.1)
            self.assertEqual(self.successResultOf(later).kind, Kind.TIMEOUT)
            self.site.come_back()
            bus.close()
            self.settle()

    def test_published_while_the_server_is_away(self) -> None:
        """A-24, A-31: what is reliable waits for it, what is not is refused at once."""
        bus, other = self.connect(), self.connect()
        self.listen(other)
        self.site.wires[0].abortConnection()
        self.clock.advance(0)
        waiting = bus.publish_reliable_random(b"", "t")
        refused = self.successResultOf(bus.publish_unreliable_all(b"", "t"))
        self.assertEqual((refused.kind, refused.reason), (Kind.REFUSED, "not connected"))
        self.settle(1.0)
        self.assertEqual(self.successResultOf(waiting).data, b"answer")
        self.assertFalse(self.heard[0].redelivered)

    def test_cancelled(self) -> None:
        """A-22: nothing is left of a call that is cancelled, and its late answer is ignored."""
        bus, listener = self.connect(), self.connect()
        answer: Deferred[bytes] = Deferred()
        self.listen(listener, lambda message: answer)
        for sent in (True, False):
            if not sent:
                self.site.wires[0].abortConnection()
            waiting = bus.publish_reliable_random(b"x" * 30, "t")
            self.settle()
            self.assertEqual(self.held(bus), (1, 30, int(sent)))
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.assertEqual(self.held(bus), (0, 0, 0))
            if sent:
                answer.callback(b"late")
                self.settle()
        self.settle(10)
        self.assertTrue(bus.connected)

    def held(self, bus: RemoteBus) -> tuple[int, int, int]:
        """Return the calls of a bus, the bytes of them, and the answers that it waits for."""
        outstanding = bus._outstanding
        return len(outstanding._publishing), outstanding._size, len(bus._dialler.answers)

    def test_bounds(self) -> None:
        """A-13: what waits for the server is bounded, too."""
        bus = self.connect(settings=BusSettings(max_calls=2))
        outcomes = [bus.publish_reliable_random(b"", "t") for _ in range(3)]
        self.assertEqual(self.successResultOf(outcomes[2]).reason, "the bus is full")
        self.settle(3.1)
        for deferred in outcomes[:2]:
            self.assertEqual(self.successResultOf(deferred).kind, Kind.NO_SUBSCRIBER)

    def test_close_while_the_server_is_away(self) -> None:
        """A-22: no timer of a watch from before is left."""
        bus = self.connect()
        bus.watch("t", lambda members: None)
        self.settle()
        self.site.leave()
        self.site.wires[0].abortConnection()
        self.settle()
        ended = bus.close()
        self.settle()
        self.successResultOf(ended)
        self.broker.watches.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """A-22: closing ends the connection, its timers, and what waits for it."""
        bus = self.connect()
        self.listen(bus)
        asked, late = bus.status(), bus.subscribe(["late"], self.handler)
        ended = bus.close()
        self.settle()
        self.successResultOf(ended)
        self.failureResultOf(late, BusError)
        self.failureResultOf(asked, BusError)
        self.assertEqual((self.counts(), len(self.manager)), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with self.assertRaises(ValueError):
            bus.subscribe(["t"], self.handler)


class KillTests(_Suite):
    """A-20..A-22: connections are cut at random, the publisher's among them; every call
    has exactly one outcome, by its deadline and 100 ms, and no handler sees one twice.
    """

    def test_random_cuts(self) -> None:
        random = Random(64)
        publisher = self.connect()
        workers = [self.connect() for _ in range(4)]
        seen: Counter[tuple[int, str]] = Counter()
        for number, worker in enumerate(workers):

            def handler(message: Message, number: int = number) -> Any:
                seen[number, message.id] += 1
                return Deferred() if random.random() < 0.1 else b"done"

            self.listen(worker, handler)
        outcomes: dict[int, list[tuple[float, Kind]]] = {}
        deadlines: dict[int, float] = {}
        for n in range(1500):
            timeout = random.choice([0.1, 0.5, 2.0])
            deadlines[n], outcomes[n] = self.clock.seconds() + timeout, []
            model = random.choice(["publish_reliable_random", "publish_reliable_specific"])
            getattr(publisher, model)(b"x", "t", timeout).addCallback(
                lambda outcome, n=n: outcomes[n].append((self.clock.seconds(), outcome.kind))
            )
            if random.random() < 0.05:
                random.choice(self.site.wires[-5:]).abortConnection()
            self.clock.advance(random.choice([0.0, 0.005, 0.02]))
        self.settle(2.2)
        self.assertEqual({len(got) for got in outcomes.values()}, {1})
        for n, ((at, _),) in outcomes.items():
            self.assertLessEqual(at, deadlines[n] + 0.1)
        kinds = Counter(got[0][1] for got in outcomes.values())
        self.assertGreater(kinds[Kind.ANSWERED], 1000)
        self.assertEqual(max(seen.values()), 1)
        self.assertGreater(self.site.attempts, 15)
        self.assertEqual(self.broker.status().calls, 0)


class SharedBrokerTests(_Suite):
    def test_local_and_remote(self) -> None:
        """A-61: handlers in the server's own process are on the same bus."""
        local = LocalBus(self.clock, wall=self.clock.seconds)
        self.broker = local.broker
        service = BusService(local.broker)
        manager = ConnectionManager(self.clock, service, ServerSettings())
        self.site.port.factory = FACTORIES["frame"](manager)
        bus = self.connect()
        self.listen(bus, lambda message: b"remote", "remote")
        local.subscribe(["local"], lambda message: b"local")
        for publisher in (bus, local):
            for topic in ("remote", "local"):
                waiting = publisher.publish_reliable_random(b"", topic)
                self.settle()
                self.assertEqual(self.successResultOf(waiting).data, topic.encode())


class OddServerTests(_Suite):
    """A-09: a server that says what no server says is left, and asked again."""

    def test_what_is_no_message(self) -> None:
        for said in (b"nonsense", b'{"method": "members", "params": {"topic": 7}}'):
            bus = self.connect()
            wire = self.site.wires[-1]
            wire.other.write(FRAME.encode(said))
            self.settle()
            self.assertFalse(wire.connected, said)
            self.settle(1.0)
            self.assertTrue(bus.connected)
            self.assertIsNot(self.site.wires[-1], wire)
            bus.close()
            self.settle()

    def test_a_call_for_a_subscription_that_is_not_there(self) -> None:
        """A-28: the call is not for this client, and goes to the next one."""
        self.connect()
        (wire,) = self.site.wires
        written: list[bytes] = []
        self.patch(wire, "write", written.append)
        call = {
            "topic": "t", "data": "", "subscriber": "none", "message": "m",
            "model": "reliable-random", "timeout_ms": 1000,
        }  # fmt: skip
        message = {"id": "7", "method": "call", "params": call}
        wire.other.write(FRAME.encode(json.dumps(message).encode()))
        self.settle()
        reply = {"id": "7", "result": False, "error": "not found: not mine", "code": 35}
        self.assertEqual([json.loads(one[one.index(b"{") :]) for one in written], [reply])

    def test_one_that_does_not_read(self) -> None:
        """It has a second to take what is on its way; then it is left, too."""
        for ending in (b"\xff" * 20, b""):  # what is no frame, and the end of what it sends
            bus = self.connect()
            wire = self.site.wires[-1]
            wire.other.pauseProducing()
            wire.write(FRAME.encode(b"on its way"))
            if ending:
                wire.other.write(ending)
            else:
                wire.other.loseWriteConnection()
            self.settle()
            self.settle(1.0 + CUT_AFTER - 0.01)
            self.assertTrue(wire.connected)
            self.settle(0.02)
            self.assertFalse(wire.connected)
            bus.close()


class RawTests(_Suite):
    """A-07, A-09: any peer that speaks JSON; what is wrong is named, and costs only itself."""

    framing = "line"

    def peer(self) -> MemoryPeer:
        return self.clock.connect(self.site.port.number, "line")

    def ask(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        say(peer, id=1, method=method, params=params)
        self.settle()
        (answer,) = peer.messages()
        return answer

    def test_conversation(self) -> None:
        """A-03, A-18: subscribe is acknowledged; a call is a request with a text for id."""
        worker, publisher = self.peer(), self.peer()
        answer = self.ask(worker, "bus.subscribe", topics=["a.*", 7])
        self.assertEqual(answer["result"], {"subscriber": "1/0", "topics": ["a.*", "7"]})
        for result, data in (("text", "text"), (True, ""), ({"data": "x", "status": 3}, "x")):
            say(
                publisher,
                id=5,
                method="bus.publish",
                params={"topic": "a.b", "data": "hi", "model": "reliable-random"},
            )
            self.settle()
            (call,) = worker.messages()
            self.assertEqual(call["method"], "call")
            self.assertEqual((call["params"]["topic"], call["params"]["data"]), ("a.b", "hi"))
            self.assertEqual(call["params"]["timeout_ms"], 3000)
            say(worker, id=call["id"], result=result)
            self.settle()
            (reply,) = publisher.messages()
            self.assertEqual(reply["id"], 5)
            self.assertEqual(reply["result"]["outcome"], "answered")
            self.assertEqual(reply["result"].get("data", ""), data)

    def test_errors(self) -> None:
        """A-22: distinct codes."""
        peer = self.peer()
        publish = {"topic": "t", "model": "reliable-specific", "timeout_ms": 100}
        say(peer, id=1, method="bus.publish", params=publish)
        self.settle(0.11)
        (reply,) = peer.messages()
        self.assertEqual((reply["error"], reply["code"]), ("no subscriber", 38))
        self.ask(peer, "bus.subscribe", topics=["t"])
        for code, outcome in ((35, 38), (33, None), (20, None), (31, None)):
            say(peer, id=1, method="bus.publish", params=publish)
            self.settle()
            (call,) = peer.messages()
            say(peer, id=call["id"], result=False, error="forbidden: not you", code=code)
            self.settle()
            (reply,) = peer.messages()
            if outcome is None:
                self.assertEqual(reply["result"]["outcome"], "refused")
                wanted = "not you" if code == 33 else "forbidden: not you"
                self.assertEqual(reply["result"]["reason"], wanted)
            else:
                self.assertEqual(reply["code"], outcome)
        say(peer, id=1, method="bus.publish", params=publish)
        self.settle(0.11)
        _, reply = peer.messages()
        self.assertEqual((reply["error"], reply["code"]), ("timeout", 37))

    def test_bad_params(self) -> None:
        """A-09: what is wrong is named; nothing changes."""
        peer = self.peer()
        base = {"topic": "t", "model": "unreliable-all"}
        for method, params, named in (
            ("bus.publish", {"topic": "t"}, "model is required"),
            ("bus.publish", {**base, "model": "best"}, "model"),
            ("bus.publish", {**base, "topic": "a.*"}, "wildcard"),
            ("bus.publish", {**base, "data": "!", "base64": True}, "data"),
            ("bus.publish", {**base, "model": "reliable-random", "timeout_ms": 1}, "timeout"),
            ("bus.publish", {**base, "headers": {"a": "\n"}}, "headers"),
            ("bus.publish", {**base, "data": "x" * 46_000}, "data"),
            ("bus.subscribe", {"topics": []}, "no topic"),
            ("bus.subscribe", {"topics": ["a", ">.b"]}, "last level"),
            ("bus.subscribe", {"topics": ["a"], "subscriber": "\n"}, "subscriber"),
            ("bus.unsubscribe", {"topics": [".."]}, ""),
        ):
            answer = self.ask(peer, method, **params)
            if method == "bus.unsubscribe":
                self.assertIs(answer["result"], True)  # nobody there, nothing to take away
            else:
                self.assertEqual(answer["code"], 32, answer)
                self.assertIn(named, answer["error"])
        self.assertEqual((self.counts(), self.broker.status().counts), (0, {}))

    def test_replies_to_nothing(self) -> None:
        """A-22: only who was asked can answer; anything else is passed over."""
        peer, stranger = self.peer(), self.peer()
        self.ask(peer, "bus.subscribe", topics=["t"])
        self.ask(stranger, "bus.subscribe", topics=["u"])
        say(peer, id=9, method="bus.publish", params=CALL)
        self.settle()
        (call,) = peer.messages()
        for wrong in (call["id"], "1.1", "7.0", "x.y", ".", "9" * 60, "", "1.²"):
            say(stranger, id=wrong, result="mine")
        self.settle()
        self.assertEqual((peer.messages(), stranger.messages()), ([], []))
        say(peer, id=call["id"], result="yes")
        say(peer, id=call["id"], result="no")
        self.settle()
        (reply,) = peer.messages()
        self.assertEqual(reply["result"]["data"], "yes")

    def test_answers_that_cannot_be_read(self) -> None:
        """A-16: are failures of that subscriber."""
        peer = self.peer()
        self.ask(peer, "bus.subscribe", topics=["t"])
        for result in (False, 7, [], {"data": 1}, {"data": "!", "base64": True}):
            say(peer, id=9, method="bus.publish", params=CALL)
            self.settle()
            (call,) = peer.messages()
            say(peer, id=call["id"], result=result)
            self.settle()
            (reply,) = peer.messages()
            self.assertEqual(reply["result"]["outcome"], "refused", result)

    def test_too_many_subscribers(self) -> None:
        """A-13: a connection has so many of them."""
        peer = self.peer()
        for n in range(PeerLimits.subscribers):
            say(peer, id=1, method="bus.subscribe", params={"topics": ["t"], "subscriber": str(n)})
        self.settle()
        self.assertEqual(len(peer.messages()), PeerLimits.subscribers)
        answer = self.ask(peer, "bus.subscribe", topics=["t"], subscriber="more")
        self.assertEqual(answer["code"], 34)
        peer.abort()
        self.settle()
        self.assertEqual(self.counts(), 0)

    def test_too_many_topics(self) -> None:
        """A-13: over all of its subscribers; what it lets go makes room."""
        self.service.limits = PeerLimits(topics=3, publishing=1)
        peer = self.peer()
        self.ask(peer, "bus.subscribe", topics=["a", "b"])
        self.assertNotIn("error", self.ask(peer, "bus.subscribe", topics=["a", "b", "a"]))
        for more in ({"topics": ["c", "d"]}, {"topics": ["a"], "keys": ["x", "y"]}):
            self.assertEqual(self.ask(peer, "bus.subscribe", **more)["code"], 34)
        self.assertEqual(self.ask(peer, "bus.subscribe", topics=["c"], subscriber="")["id"], 1)
        answer = self.ask(peer, "bus.subscribe", topics=["a"], subscriber="other")
        self.assertEqual(answer["code"], 34)
        self.ask(peer, "bus.unsubscribe", topics=["c"])
        self.ask(peer, "bus.subscribe", topics=["a"], keys=["k"])
        (subscriber,) = self.broker.status().subscribers
        self.assertEqual(subscriber.topics, ("a", "b"))
        self.ask(peer, "bus.unsubscribe")
        answer = self.ask(peer, "bus.subscribe", topics=["x", "y"], keys=["z"])
        self.assertEqual(answer["result"]["topics"], ["x", "y"])
        for n in range(2):  # and so many publishes without an outcome
            say(peer, id=n, method="bus.publish", params=CALL)
        self.settle()
        self.assertEqual([answer["code"] for answer in peer.messages()], [34])

    def test_a_peer_that_is_told_to_go(self) -> None:
        """A-20: it hears no answer any more, so what it had in its hands goes to others."""
        worker, publisher = self.peer(), self.peer()
        self.ask(worker, "bus.subscribe", topics=["t"])
        say(publisher, id=1, method="bus.publish", params=CALL)
        self.settle()
        (call,) = worker.messages()
        other = self.peer()
        self.ask(other, "bus.subscribe", topics=["t"])
        next(iter(self.manager)).close(GOING_DOWN)
        self.settle()
        (again,) = other.messages()
        self.assertEqual(again["params"]["message"], call["params"]["message"])
        self.assertTrue(again["params"]["redelivered"])

    def test_finish(self) -> None:
        """A-22: a server that ends takes no more, and knows when all have their outcomes."""
        worker, publisher = self.peer(), self.peer()
        self.ask(worker, "bus.subscribe", topics=["t"])
        say(publisher, id=1, method="bus.publish", params=CALL)
        self.settle()
        finished, again = self.service.finish(), self.service.finish()
        late = self.ask(publisher, "bus.publish", topic="t", model="reliable-random")
        self.assertEqual(late["result"], {"outcome": "refused", "reason": "the bus is closed"})
        self.assertNoResult(finished)
        (call,) = worker.messages()
        say(worker, id=call["id"], result="yes")
        self.settle()
        self.assertEqual(publisher.messages()[0]["result"]["data"], "yes")
        for done in (finished, again, self.service.finish()):
            self.successResultOf(done)

    def test_half_closed(self) -> None:
        """A-18: a publisher that has sent all it will still gets its outcome."""
        worker, publisher = self.peer(), self.peer()
        self.ask(worker, "bus.subscribe", topics=["t"])
        say(publisher, id=1, method="bus.publish", params=CALL)
        self.settle()
        publisher.finish()
        self.settle(0.5)
        (call,) = worker.messages()
        say(worker, id=call["id"], result="late")
        self.settle()
        (reply,) = publisher.messages()
        self.assertEqual(reply["result"]["data"], "late")
        self.assertFalse(publisher.open)

    def test_slow_reader(self) -> None:
        """A-15, A-13: what it does not read is bounded; others do not notice."""
        slow, quick, publisher = self.peer(), self.peer(), self.peer()
        for peer in (slow, quick):
            self.ask(peer, "bus.subscribe", topics=["t"])
        (first, *_) = self.manager
        first.pauseProducing()
        for _ in range(40):
            say(
                publisher,
                id=1,
                method="bus.publish",
                params={"topic": "t", "data": "x" * 20_000, "model": "unreliable-all"},
            )
        self.settle()
        self.assertEqual(len(quick.messages()), 40)
        self.assertLessEqual(first.outbound, self.manager.settings.outbox_limit)
        self.assertEqual({r["result"]["outcome"] for r in publisher.messages()}, {"sent"})
        self.assertGreater(self.broker.status().counts["not sent: full"], 20)


class AuthorizeTests(_Suite):
    """A-38: a server that wants to know who comes."""

    def setUp(self) -> None:
        super().setUp()
        self.welcome = True
        self.asked: list[Any] = []
        router = Router()
        router.add("authorize", self.authorize, dict)
        service = BusService(self.broker, router, before=[self.known])
        self.site.port.factory = FACTORIES["frame"](
            ConnectionManager(self.clock, service, ServerSettings())
        )

    def authorize(self, connection: Any, request: Any) -> Any:
        self.asked.append(request.params)
        connection.context = self.welcome
        return True if self.welcome else UNAUTHORIZED

    def known(self, connection: Any, request: Any) -> Any:
        return None if connection.context else FORBIDDEN

    def bus(self) -> RemoteBus:
        return RemoteBus(self.clock, self.site, username="alice", password="s", random=lambda: 0.5)

    def test_every_connection_begins_with_it(self) -> None:
        """A-05: subscriptions come after it, over each connection."""
        bus = self.bus()
        listening = bus.subscribe(["t"], self.handler)
        connected = bus.connect()
        self.settle()
        self.successResultOf(connected)
        self.successResultOf(listening)
        self.site.wires[0].abortConnection()
        self.settle(1.0)
        self.assertEqual(self.asked, [{"username": "alice", "password": "s"}] * 2)
        waiting = bus.publish_reliable_random(b"", "t")
        self.settle()
        self.assertEqual(self.successResultOf(waiting).data, b"answer")
        ended = bus.close()
        self.settle()
        self.successResultOf(ended)

    def test_not_let_in(self) -> None:
        """A-06: at first it is reported; later it goes on trying."""
        self.welcome = False
        refused = self.bus().connect()
        self.settle()
        self.assertEqual(str(self.failureResultOf(refused, BusError).value), "unauthorized")
        self.settle(60.0)
        self.assertEqual(self.site.attempts, 1)
        self.assertFalse(self.site.wires[0].connected)
        self.welcome = True
        bus = self.bus()
        self.successResultOf(self.after(bus.connect()))
        self.welcome = False
        self.site.wires[-1].abortConnection()
        self.settle(5.0)
        self.assertFalse(bus.connected)
        self.welcome = True
        self.settle(20.0)
        self.assertTrue(bus.connected)

    def after(self, deferred: Deferred[None]) -> Deferred[None]:
        self.settle()
        return deferred

    def test_a_server_that_says_nothing(self) -> None:
        """A-06: it has so long to answer; whoever closes meanwhile waits for nothing."""
        self.site.port.factory = FACTORIES["frame"](
            ConnectionManager(self.clock, BusService(self.broker), ServerSettings())
        )
        for cut in (False, True):
            bus = self.bus()
            self.site.cuts = cut
            connected = bus.connect()
            self.settle()
            self.failureResultOf(connected, BusError)  # it knows no such method, or went
        self.site.cuts = False
        silent = Factory.forProtocol(Protocol)
        self.site.port.factory = silent
        bus = self.bus()
        connected = bus.connect()
        self.settle(CONNECT_TIMEOUT + 1)
        error = self.failureResultOf(connected, BusError).value
        self.assertEqual(str(error), "no answer to authorize")
        for cancels in (False, True):
            bus = self.bus()
            connected = bus.connect()
            self.settle()
            if cancels:
                connected.cancel()
            ended = bus.close()
            self.settle(1.0)
            self.failureResultOf(connected, CancelledError if cancels else BusError)
            self.successResultOf(ended)
        self.assertEqual([wire.connected for wire in self.site.wires], [False] * 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RefusedTests(_Suite):
    """Issue 12: a bus that the server wants no more does not come back, and says so."""

    def test_every_close(self) -> None:
        """Issue 12: 45xx never, 4503 after its seconds, the others with backoff."""
        for reason in CLOSE_REASONS:
            self.setUp()
            bus = self.connect()
            self.listen(bus)
            self.settle(20.0)
            for connection in self.manager:
                connection.close(reason)
            self.settle(60.0)
            self.assertEqual(self.site.attempts, 2 if reason.reconnect else 1, reason)
            self.assertEqual(bus.connected, reason.reconnect)

    def test_a_close_again_and_again(self) -> None:
        """Issue 12: what the server says before it closes starts no backoff over."""
        bus = self.connect()
        for _ in range(200):
            for connection in self.manager:
                if connection.messages_in:
                    connection.close(SLOW_READER)
            if bus.connected:
                bus.publish_unreliable_all(b"", "t")
            self.settle(0.1)
        self.assertLess(self.site.attempts, 10)

    def test_it_says_so(self) -> None:
        """Issue 12: a state, an event, and the code in each error from then on."""
        told: list[Exception] = []

        async def gone(why: Exception) -> None:
            told.append(why)

        bus = self.connect()
        bus.on_gone = gone
        bus.subscribe(["t"], lambda message: Deferred())
        self.settle()
        waiting = bus.publish_reliable_random(b"", "t", 60.0)
        self.settle()
        for connection in self.manager:
            connection.close(BANNED)
        self.settle()
        (error,) = told
        self.assertIs(bus.state, ClientState.GONE)
        self.assertIs(bus.refusal, error)
        later = bus.publish_reliable_random(b"", "t")
        for outcome in (waiting, later):
            found = self.successResultOf(outcome)
            self.assertEqual(found.kind, Kind.REFUSED)
            self.assertIn("banned (4503)", found.reason)
        for failed in (bus.status(), bus.subscribe(["u"], lambda message: b"")):
            self.assertIn("(4503)", str(self.failureResultOf(failed, BusError).value))
        self.assertEqual(self.site.attempts, 1)
        again = bus.connect()
        self.settle()
        self.successResultOf(again)
        self.assertEqual(self.counts(), 2)


class PermissionTests(_Suite):
    framing = "line"

    def test_steps_before(self) -> None:
        """A-38: a server says who may; its router may have more methods."""
        router = Router()
        router.add("hello", lambda connection, request: "hello")
        service = BusService(self.broker, router, before=[lambda connection, request: FORBIDDEN])
        manager = ConnectionManager(self.clock, service, ServerSettings())
        self.site.port.factory = FACTORIES["frame"](manager)
        bus = self.connect()
        refused = bus.subscribe(["t"], self.handler)
        outcome = bus.publish_reliable_random(b"", "t")
        self.settle()
        self.failureResultOf(refused, BusError)
        self.assertEqual(self.successResultOf(outcome).reason, "forbidden")
        asked = bus.status()
        self.settle()
        self.failureResultOf(asked, BusError)
        self.assertEqual(router.routes[0].key, "hello")


class HandlerTests(_Suite):
    def test_what_handlers_raise(self) -> None:
        """A-16, A-28: over the network, too, a refusal is one and an exception another."""
        bus, other = self.connect(), self.connect()
        said = {"n": NotMine(), "r": Refusal("because"), "b": ValueError("x")}

        def handler(message: Message) -> bytes:
            raise said[message.topic]

        self.listen(other, handler, *said)
        outcomes = {t: bus.publish_reliable_random(b"", t) for t in said}
        self.settle()
        found = {t: self.successResultOf(d) for t, d in outcomes.items()}
        self.assertEqual(found["n"].kind, Kind.NO_SUBSCRIBER)
        self.assertEqual((found["r"].kind, found["r"].reason), (Kind.REFUSED, "because"))
        self.assertEqual(found["b"].kind, Kind.REFUSED)
        self.assertIn("reference", found["b"].reason)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_large_status(self) -> None:
        """A-37: a status that fits no message comes in pages."""
        bus = self.connect()
        for n in range(300):
            self.listen(bus, lambda m, n=n: b"", f"topic.{n}." + "x" * 100)
        for n in range(60):
            for _ in range(20):
                bus.publish_unreliable_all(bytes(range(200, 256)), f"t{n}")
            self.settle()
        asked = bus.status()
        self.settle()
        status = self.successResultOf(asked)
        self.assertEqual((len(status.topics), len(status.subscribers)), (60, 300))
        self.assertEqual(status, self.broker.status())
