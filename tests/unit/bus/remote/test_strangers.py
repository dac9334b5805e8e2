"""The bus among strangers: whose call and whose answer it is, and what is left of those who go."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter, OrderedDict, deque
from random import Random
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Kind, Message, Model
from kupool.bus.local import LocalBus
from kupool.bus.publishing import json_size, make_message
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import LAST_OUTCOMES, BusService
from kupool.bus.remote.subscriptions import MAX_HANDLED
from kupool.bus.settings import PeerLimits
from kupool.bus.unguessable import Unguessable
from kupool.errors import GOING_DOWN
from kupool.net import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer

PORT = 8000

#: A call as raw peers publish it.
CALL = {"topic": "t", "model": "reliable-random"}
CALL_MODEL = Model.RELIABLE_RANDOM


class BusCase(SynchronousTestCase):
    """A server with a bus in memory; ``users`` are those of connections, by their ids."""

    settings = BusSettings()

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.core = LocalBus(
            self.network, self.settings, wall=self.network.seconds, random=Random(13)
        )
        self.users: dict[int, str] = {}
        self.service = BusService(
            self.core.broker, user_of=lambda connection: self.users.get(connection.id, "")
        )
        self.server = Server(self.network, self.service)
        self.network.run(self.server.listen([f":{PORT}"]))
        self.connections = 0

    @property
    def broker(self) -> Any:
        return self.core.broker

    def peer(self, user: str = "") -> MemoryPeer:
        self.connections += 1
        self.users[self.connections] = user
        return self.network.connect(PORT)

    def remote(self, user: str = "") -> RemoteBus:
        self.connections += 1
        self.users[self.connections] = user
        bus = RemoteBus(self.network, TCP4ClientEndpoint(self.network, "127.0.0.1", PORT))
        self.network.run(bus.connect())
        return bus

    def ask(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        reply = peer.ask(f"bus.{method}", params)
        return reply["result"] if "error" not in reply else (reply["code"], reply["error"])

    def publish(self, peer: MemoryPeer, **params: Any) -> int:
        return peer.request("bus.publish", {**CALL, **params})

    def call(self, peer: MemoryPeer) -> Any:
        (call,) = [m for m in peer.messages() if m.get("method") == "call"]
        return call

    def reply(self, peer: MemoryPeer, **message: Any) -> None:
        peer.tell(json.dumps(message).encode())


class SameIdTests(BusCase):
    """Issue 13: an id that a publisher chooses selects nobody else's call or answer."""

    def setUp(self) -> None:
        super().setUp()
        self.handled: list[Message] = []
        service = self.remote("service")

        def handler(message: Message) -> bytes:
            self.handled.append(message)
            return b"%d for %s" % (len(self.handled), message.data)

        self.network.run(service.subscribe(["t", "u"], handler))

    def outcome(self, peer: MemoryPeer, **params: Any) -> Any:
        return self.ask(peer, "publish", **{**CALL, "message": "m-1", **params})["data"]

    def test_each_call_is_handled(self) -> None:
        """Of two publishers, and of one that uses an id again."""
        ann, bob = self.peer("ann"), self.peer("bob")
        self.assertEqual(self.outcome(ann, data="ann"), "1 for ann")
        self.assertEqual(self.outcome(bob, data="bob"), "2 for bob")
        self.assertEqual(self.outcome(bob, data="bob", topic="u"), "3 for bob")
        self.assertEqual(self.outcome(bob, data="ann"), "4 for ann")
        self.assertEqual(self.outcome(ann, data="ann"), "5 for ann")

    def test_sent_again(self) -> None:
        """By the same user it is the same call, over whichever connection; by another it is
        not, and with other content neither.
        """
        ann, bob = self.peer("ann"), self.peer("bob")
        self.assertEqual(self.outcome(ann, data="x"), "1 for x")
        self.assertEqual(self.outcome(bob, data="x", redelivered=True), "2 for x")
        ann.abort()
        ann = self.peer("ann")
        self.assertEqual(self.outcome(ann, data="x", redelivered=True), "1 for x")
        self.assertEqual(self.outcome(ann, data="y", redelivered=True), "3 for y")
        self.assertEqual(self.outcome(ann, data="x", topic="u", redelivered=True), "4 for x")

    def test_nobody_sees_the_ids_of_others(self) -> None:
        """Handlers see an id of the server's, by which its trace is found, as by the own one."""
        ann = self.peer("ann")
        self.outcome(ann, message="my id")
        self.outcome(self.peer("bob"), message="my id")
        first, second = self.handled
        self.assertNotEqual(first.id, second.id)
        self.assertNotIn("my id", first.id + second.id)
        self.assertEqual(self.broker.trace("my id"), self.broker.trace(second.id))
        self.assertEqual(len(self.broker.trace(first.id)), 3)


class CallIdTests(BusCase):
    """Issue 13: the id of a call cannot be guessed, and is of use to nobody else."""

    def offered(self, peer: MemoryPeer, publisher: MemoryPeer) -> str:
        self.publish(publisher)
        found: str = self.call(peer)["id"]
        return found

    def test_ids_say_nothing(self) -> None:
        worker, publisher = self.peer(), self.peer()
        self.ask(worker, "subscribe", topics=["t"])
        ids = [self.offered(worker, publisher) for _ in range(50)]
        self.assertEqual({len(found) for found in ids}, {len("0123456789abcdef.0")})
        numbers = [int(found.partition(".")[0], 16) for found in ids]
        self.assertNotEqual(numbers, sorted(numbers))
        self.assertGreater(max(numbers) - min(numbers), 1 << 60)
        messages = [self.broker.message_id() for _ in range(50)]
        self.assertEqual({len(found) for found in messages}, {16})
        self.assertGreater(int(max(messages), 16) - int(min(messages), 16), 1 << 60)

    def test_only_who_was_asked_can_answer(self) -> None:
        """Nobody else can, knowing the very id, subscribed to the very topic."""
        worker, thief, publisher = self.peer(), self.peer(), self.peer()
        self.ask(worker, "subscribe", topics=["t"])
        call = self.offered(worker, publisher)
        for subscriber in ("", "second"):
            self.ask(thief, "subscribe", topics=["t"], subscriber=subscriber)
        number = call.partition(".")[0]
        for found in (call, f"{number}.1", f"{number}.2", number, f"{number}.0.0"):
            self.reply(thief, id=found, result="stolen")
            self.reply(publisher, id=found, result="stolen")
        self.assertEqual(publisher.messages(), [])
        self.reply(worker, id=call, result="mine")
        self.assertEqual(publisher.messages()[0]["result"]["data"], "mine")

    def test_an_answer_of_a_subscriber_that_left(self) -> None:
        """A-03: it still counts, and one under the same name has a number of its own."""
        worker, publisher = self.peer(), self.peer()
        self.ask(worker, "subscribe", topics=["t"], subscriber="a")
        call = self.offered(worker, publisher)
        self.assertIs(self.ask(worker, "unsubscribe", subscriber="a"), True)
        self.assertEqual(
            self.ask(worker, "subscribe", topics=["u"], subscriber="a")["topics"], ["u"]
        )
        self.reply(worker, id=call.replace(".0", ".1"), result="wrong")
        self.assertEqual(publisher.messages(), [])
        self.reply(worker, id=call, result="late")
        self.assertEqual(publisher.messages()[0]["result"]["data"], "late")

    def test_the_end_of_one_that_left(self) -> None:
        """A-20: what it had not answered goes to others at once."""
        worker, publisher, other = self.peer(), self.peer(), self.peer()
        self.ask(worker, "subscribe", topics=["t"], subscriber="a")
        self.offered(worker, publisher)
        self.ask(worker, "unsubscribe", subscriber="a")
        self.ask(other, "subscribe", topics=["t"])
        worker.abort()
        self.assertTrue(self.call(other)["params"]["redelivered"])


class UnguessableTests(SynchronousTestCase):
    """Issue 13: numbers that tell nothing of each other."""

    def test_numbers(self) -> None:
        numbers = Unguessable()
        drawn = [numbers.number() for _ in range(2000)]
        self.assertEqual(len(set(drawn)), 2000)
        self.assertLess(max(drawn), 1 << 64)
        self.assertGreater(max(drawn), 1 << 63)
        for bit in range(64):  # each is set in about half of them
            self.assertTrue(800 < sum(n >> bit & 1 for n in drawn) < 1200, bit)
        self.assertRegex(numbers.text(), "^[0-9a-f]{16}$")
        self.assertNotEqual(Unguessable().number(), Unguessable().number())


class GivenUpTests(BusCase):
    """Issue 13: a message is checked against the topics of its handler."""

    def test_a_topic_that_was_given_up(self) -> None:
        """What was on its way is not handled; its publisher is not kept waiting."""
        bus = self.remote()
        heard: list[str] = []

        def handler(message: Message) -> bytes:
            heard.append(message.topic)
            return b"x"

        self.network.run(bus.subscribe(["pay", "mail.*"], handler))
        outcome = self.core.publish_reliable_random(b"", "pay", timeout=1.0)
        self.core.publish_unreliable_all(b"", "pay")
        bus.unsubscribe(handler, ["pay"])
        self.network.settle()
        self.assertEqual(heard, [])
        self.assertEqual(self.successResultOf(outcome).kind, Kind.NO_SUBSCRIBER)
        for topic in ("mail.a", "mail.b", "mail.a"):
            outcome = self.core.publish_reliable_random(b"", topic)
            self.network.settle()
            self.assertEqual(self.successResultOf(outcome).data, b"x")
        self.assertEqual(heard, ["mail.a", "mail.b", "mail.a"])


class PublisherEndTests(BusCase):
    """Issue 13: a call ends with the connection of its publisher, however that ended."""

    def test_however_it_ended(self) -> None:
        worker = self.peer()
        self.ask(worker, "subscribe", topics=["t"])

        def told_to_go(peer: MemoryPeer) -> None:
            *_, last = self.server.manager
            last.close(GOING_DOWN)

        for end in (MemoryPeer.abort, MemoryPeer.close, told_to_go):
            publisher = self.peer("ann")
            for topic in ("t", "nobody"):
                self.publish(publisher, topic=topic, timeout_ms=3_600_000)
            self.publish(publisher, topic="t", model="reliable-specific", timeout_ms=3_600_000)
            self.assertEqual(self.broker.status().calls, 3)
            end(publisher)
            # One that closes its side may be waiting for outcomes: for so long it is.
            self.network.advance(LAST_OUTCOMES if end == MemoryPeer.close else 0)
            status = self.broker.status()
            self.assertEqual((status.calls, status.calls_bytes), (0, 0), end)
            self.assertEqual([s.unanswered for s in status.subscribers], [0])
        self.assertEqual(self.broker.status().counts["cancelled"], 9)
        self.successResultOf(self.service.finish())

    def test_one_that_has_sent_all(self) -> None:
        """A-18: waits for its outcomes; when it goes, they end, too."""
        worker, publisher = self.peer(), self.peer()
        self.ask(worker, "subscribe", topics=["t"])
        for _ in range(2):
            self.publish(publisher, timeout_ms=3_600_000)
        publisher.finish()
        first, _ = worker.messages()
        self.reply(worker, id=first["id"], result="one")
        self.assertEqual(publisher.messages()[0]["result"]["data"], "one")
        self.assertEqual(self.broker.status().calls, 1)
        publisher.abort()
        self.network.settle()
        self.assertEqual(self.broker.status().calls, 0)

    def test_to_very_many(self) -> None:
        """One that is still being sent to many when its publisher goes is counted once."""
        worker, publisher = self.peer(), self.peer()
        for n in range(600):
            self.ask(worker, "subscribe", topics=["t"], subscriber=str(n))
        publisher.tell(
            json.dumps(
                {"id": 1, "method": "bus.publish", "params": {**CALL, "model": "unreliable-all"}}
            ).encode()
        )
        publisher.abort()
        self.network.settle()
        self.successResultOf(self.service.finish())


class NothingIsLeftTests(BusCase):
    """Issue 13: names are never used again, and nothing is kept of sessions that are gone."""

    settings = BusSettings(max_topics=10, recent=3, max_traces=10)

    def test_names_of_subscribers(self) -> None:
        """A peer may name each subscriber anew, as often as it likes."""
        peer, publisher = self.peer(), self.peer()
        seen = set()
        for n in range(1500):
            topic = f"inbox.{n}"
            found = self.ask(peer, "subscribe", topics=[topic], subscriber=f"name{n % 7}")
            seen.add(found["subscriber"])
            if n % 100 == 0:
                self.publish(publisher, topic=topic, timeout_ms=3_600_000)
            self.assertIs(self.ask(peer, "unsubscribe", subscriber=f"name{n % 7}"), True)
        self.assertEqual(len(seen), 1500)
        for call in [m for m in peer.messages() if m.get("method") == "call"]:
            self.reply(peer, id=call["id"], result=True)
        status = self.broker.status()
        self.assertEqual((status.subscribers, status.calls), ((), 0))

    def test_short_sessions(self) -> None:
        """A thousand of them, each with a user, topics, names, ids and calls of its own."""
        stays = self.remote("stays")
        self.network.run(stays.subscribe(["work.>"], lambda message: b"done"))

        def sessions(begin: int) -> None:
            for n in range(begin, begin + 500):
                peer = self.peer(f"user{n}")
                self.ask(peer, "subscribe", topics=[f"a{n}"], subscriber=f"s{n}", keys=[f"k{n}"])
                self.publish(peer, topic=f"work.{n}", message=f"m{n}")
                self.publish(peer, topic=f"a{n}", model="reliable-specific", message=f"o{n}")
                self.publish(peer, topic=f"nobody{n}", timeout_ms=60_000)
                self.publish(peer, topic=f"late{n}", model="unreliable-all")
                peer.abort() if n % 2 else peer.close()
                if n % 50 == 49:
                    self.network.advance(61.0)  # past the timeout of the calls
            self.users.clear()

        sessions(0)
        before = tables(self.service, self.core)
        sessions(500)
        after = tables(self.service, self.core)
        self.assertEqual(before, after)
        self.assertLess(sum(before.values()), 400)
        self.assertLessEqual(max(tables(stays).values()), MAX_HANDLED)
        self.assertEqual(
            [len(self.broker.status().subscribers), self.broker.status().calls], [1, 0]
        )


def tables(*things: object) -> Counter[str]:
    """Count what is in each table of some objects of ours, and of the objects in them."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    left: list[tuple[str, object]] = [(type(thing).__name__, thing) for thing in things]
    while left:
        name, thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | OrderedDict | set | list | deque):
            found[name] += len(thing)
            inner = thing.values() if isinstance(thing, dict) else thing
            left += [(name, value) for value in list(inner)]
        elif isinstance(thing, Unguessable):
            continue  # it holds numbers for others, drawn in advance
        elif type(thing).__module__.startswith("kupool.bus"):
            slots = [s for c in type(thing).__mro__ for s in getattr(c, "__slots__", ())]
            for attribute in {*slots, *getattr(thing, "__dict__", ())}:
                value = getattr(thing, attribute, None)
                left.append((f"{type(thing).__name__}.{attribute}", value))
    return found


class SizeTests(BusCase):
    """Issue 13: a message that is legal fits every wire that it may have to take."""

    def test_the_largest(self) -> None:
        """A-25: it arrives, and nobody's connection ends."""
        settings, topic = BusSettings(), '"' * 255
        data, key = b"\xff" * settings.max_data, '"' * 200
        room = settings.max_message - json_size(data, topic, key, {"h": ""})
        headers = {"h": '"' * (room // 2)}
        self.assertLessEqual(settings.max_message - json_size(data, topic, key, headers), 1)
        publisher, worker = self.remote(), self.remote()
        heard: list[Message] = []

        def handler(message: Message) -> bytes:
            heard.append(message)
            return message.data

        self.network.run(worker.subscribe([topic], handler))
        outcome = self.network.run(
            publisher.publish_reliable_specific(data, topic, key=key, headers=headers)
        )
        self.assertEqual((outcome.kind, len(outcome.data)), (Kind.ANSWERED, settings.max_data))
        self.assertEqual((heard[0].headers, heard[0].key), (headers, key))
        self.assertEqual(len(self.server.manager), 2)
        with self.assertRaisesRegex(ValueError, "as JSON, at most 65536"):
            publisher.publish_reliable_specific(data, topic, key=key + '"', headers=headers)

    def test_a_raw_peer(self) -> None:
        """A-09: is told what is wrong; a subscriber's long name costs that subscriber alone."""
        publisher, worker, quick = self.peer(), self.peer(), self.peer()
        fits = {
            "data": b64encode(b"\xff" * 45_000).decode(),
            "base64": True,
            "headers": {"h": '"' * 2000},
            "key": '"' * 200,
            "model": "unreliable-all",
        }
        code, text = self.ask(
            publisher, "publish", **{**fits, "topic": '"' * 255, "key": '"' * 255}
        )
        self.assertEqual(code, 32)
        self.assertIn("bytes as JSON", text)
        self.ask(worker, "subscribe", topics=["t"], subscriber="\U0001f600" * 255)
        for model, reason in (
            ("unreliable-all", "too large for every subscriber"),
            ("unreliable-random", "too large for every subscriber"),
            ("reliable-random", "too large message data"),
        ):
            found = self.ask(publisher, "publish", **{**fits, "topic": "t", "model": model})
            self.assertEqual(found["outcome"], "refused")
            self.assertIn(reason, found["reason"])
        self.assertEqual(worker.messages(), [])
        self.ask(quick, "subscribe", topics=["t"])
        self.ask(publisher, "publish", **fits, topic="t")
        self.assertEqual(len(quick.messages()), 1)
        self.assertTrue(worker.open)

    def test_what_is_cheap_is_not_measured(self) -> None:
        """Only what may be too large is encoded to see whether it is."""
        settings = BusSettings(max_data=1_000_000)
        self.assertGreaterEqual(settings.max_message, 1_000_000 * 4 // 3)
        message = make_message(settings, "i", CALL_MODEL, "t", data=b"\xff" * 1_000_000)
        self.assertLessEqual(json_size(message.data, "t", "", {}), settings.max_message)

    def test_many_long_topics(self) -> None:
        """A-05, A-30: a client asks for what it listens to in requests that fit, in any script."""
        bus = self.remote()
        topics = [chr(0x4E00 + n) + "\U0001f600" * 250 for n in range(120)]
        keys = [chr(0x4E00 + n) + "\U0001f600" * 250 for n in range(120)]
        subscription = self.network.run(bus.subscribe(topics, lambda m: b"x", keys=keys))
        self.assertEqual(len(subscription.topics), 120)
        (subscriber,) = self.broker.status().subscribers
        self.assertEqual(len(subscriber.topics), 120)
        self.network.run(bus.unsubscribe(handler := (lambda m: b"y")))
        self.network.run(bus.subscribe(topics, handler))
        self.network.run(bus.unsubscribe(handler, topics[:119]))
        self.assertEqual([len(s.topics) for s in self.broker.status().subscribers], [120, 1])
        self.assertTrue(bus.connected)


class ShareTests(BusCase):
    """Issue 13: one client does not fill the limits for everybody."""

    def test_calls(self) -> None:
        """Of a user over all of their sessions, by number and by size; others have their own."""
        self.service.limits = PeerLimits(user_calls=3, user_calls_bytes=100, address_calls=0)
        one, two, bob = self.peer("ann"), self.peer("ann"), self.peer("bob")
        for peer in (one, one, two):
            self.publish(peer, timeout_ms=60_000)
        refused = (34, "too many requests: open calls of one user")
        self.assertEqual(self.ask(two, "publish", **CALL), refused)
        one.abort()
        self.network.settle()
        self.publish(two, data="x" * 60, timeout_ms=60_000)
        code, text = self.ask(two, "publish", **CALL, data="x" * 41)
        self.assertEqual((code, text), (34, "too many requests: data in open calls of one user"))
        self.publish(bob, data="x" * 60, timeout_ms=60_000)
        self.assertEqual(self.broker.status().calls, 3)
        counts = self.broker.status().counts
        self.assertEqual(counts["turned away: open calls of one user"], 1)
        self.network.advance(61.0)
        two.messages()
        self.publish(two, timeout_ms=10, data="x" * 99)
        self.network.advance(0.1)
        self.assertEqual([m["code"] for m in two.messages()], [38])

    def test_what_waits_for_a_subscriber(self) -> None:
        """One user does not fill the buffer for everybody, over however many sessions."""
        most = self.broker.settings.buffer_total // 8
        ann, again, bob = self.peer("ann"), self.peer("ann"), self.peer("bob")

        def send(peer: Any, number: int) -> Any:
            topic, data = f"news.{number % 100}", "x" * 45_000
            return self.ask(peer, "publish", topic=topic, data=data, model="unreliable-all")

        for number in range(most // 45_000):
            self.assertEqual(send((ann, again)[number % 2], number)["outcome"], "sent")
        refused = {
            "outcome": "refused",
            "reason": "too much of one user or address waits for a subscriber",
        }
        self.assertEqual(send(ann, 99), refused)
        self.assertEqual(send(bob, 99)["outcome"], "sent")

    def test_addresses(self) -> None:
        """Also of those that have said no name."""
        self.service.limits = PeerLimits(address_calls=2, address_topics=3)
        one, two = self.peer(), self.peer()
        for peer in (one, two):
            self.publish(peer, timeout_ms=60_000)
        refused = (34, "too many requests: open calls of one address")
        self.assertEqual(self.ask(two, "publish", **CALL), refused)
        self.ask(one, "subscribe", topics=["a", "b"])
        refused = (34, "too many requests: topics of one address")
        self.assertEqual(self.ask(two, "subscribe", topics=["a", "b"]), refused)
        self.assertEqual(self.ask(two, "subscribe", topics=["a"])["topics"], ["a"])
        one.abort()
        self.network.settle()
        self.assertEqual(self.ask(two, "subscribe", topics=["b"], keys=["k"])["topics"], ["a", "b"])

    def test_topics(self) -> None:
        """Of a user: what is given up makes room, whichever session had it."""
        self.service.limits = PeerLimits(user_topics=3)
        one, two = self.peer("ann"), self.peer("ann")
        self.ask(one, "subscribe", topics=["a", "b"], keys=["k"])
        refused = (34, "too many requests: topics of one user")
        self.assertEqual(self.ask(two, "subscribe", topics=["a"]), refused)
        self.ask(one, "unsubscribe", topics=["a"])
        self.assertEqual(self.ask(two, "subscribe", topics=["a"])["topics"], ["a"])
        self.ask(one, "unsubscribe")
        self.assertEqual(self.ask(two, "subscribe", topics=["b", "c"])["topics"], ["a", "b", "c"])

    def test_the_log(self) -> None:
        """A flood of refusals is a line a minute."""
        self.service.limits = PeerLimits(user_topics=1)
        peer = self.peer("ann")
        lines: list[Any] = []
        observer = lines.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for _ in range(3):
            for _ in range(100):
                self.ask(peer, "subscribe", topics=["a", "b"])
            self.network.advance(61.0)
        said = [line for line in lines if "The bus refused" in (line.get("log_format") or "")]
        self.assertEqual([line["count"] for line in said], [1, 101, 201])
