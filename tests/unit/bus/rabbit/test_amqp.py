"""The carrier on RabbitMQ, with a connection that notes what is asked of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError, BrokerRefused, BrokerUnreachable
from kupool.amqp.channel import BrokerMessage
from kupool.bus import BusError
from kupool.bus.rabbit import amqp
from kupool.bus.rabbit.amqp import AmqpCarrier
from kupool.bus.rabbit.settings import MeshSettings

URL = "amqp://guest:guest@127.0.0.1/"


class FakeDeliveries:
    """The messages of a consumer, which the test puts there."""

    def __init__(self) -> None:
        self.waiting: Deferred[BrokerMessage] | None = None
        self.behind: list[BrokerMessage] = []

    def next(self) -> Deferred[BrokerMessage]:
        self.waiting = Deferred()
        return self.waiting

    def arrived(self) -> Deferred[list[BrokerMessage]]:
        behind, self.behind = self.behind, []
        return succeed(behind)

    def put(self, *messages: BrokerMessage) -> None:
        self.behind += messages[1:]
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        waiting.callback(messages[0])

    def fail(self, why: str) -> None:
        assert self.waiting is not None
        self.waiting.errback(BrokerError(why))


class FakeChannel:
    """A channel that notes what is declared, sent and acknowledged."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.sent: list[tuple[str, str, bytes, Any]] = []
        self.acknowledged: list[tuple[int, bool]] = []
        self.deliveries: dict[str, FakeDeliveries] = {}
        self.refuses = False
        self.on_closed: Any = None
        self.unroutable: Any = None

    def _asked(self, *what: Any) -> Deferred[Any]:
        self.asked.append(what)
        return succeed(None)

    def declare_exchange(self, name: str, kind: str, *, durable: bool = True) -> Deferred[Any]:
        if self.refuses:
            raise BrokerError("not allowed", 403)
        return self._asked("exchange", name, kind, durable)

    def declare_own_queue(self, name: str, arguments: dict[str, Any]) -> Deferred[Any]:
        return self._asked("queue", name, arguments)

    def bind(self, queue: str, exchange: str, key: str = "") -> Deferred[Any]:
        return self._asked("bind", queue, exchange, key)

    def prefetch(self, count: int) -> Deferred[Any]:
        return self._asked("prefetch", count)

    def count_consumers(self, queue: str, arguments: dict[str, Any]) -> Deferred[int]:
        self.asked.append(("count", queue, arguments))
        return succeed(3)

    def consume(self, queue: str) -> Deferred[FakeDeliveries]:
        self.asked.append(("consume", queue))
        return succeed(self.deliveries.setdefault(queue, FakeDeliveries()))

    def on_unroutable(self, returned: Any) -> None:
        self.unroutable = returned

    def send(self, exchange: str, key: str, body: bytes, properties: Any) -> None:
        self.sent.append((exchange, key, body, properties))

    def ack(self, tag: int, multiple: bool = False) -> None:
        self.acknowledged.append((tag, multiple))


class FakeConnection:
    """A connection with one channel."""

    broker = "127.0.0.1:5672"

    def __init__(self, refuses: bool = False) -> None:
        self.made = FakeChannel()
        self.made.refuses = refuses
        self.writable = True
        self.resumed: Any = None
        self.drops: list[str] = []

    def channel(self) -> Deferred[FakeChannel]:
        return succeed(self.made)

    def watch(self, resumed: Any) -> None:
        self.resumed = resumed

    def drop(self, why: str) -> None:
        self.drops.append(why)


class FakeLink:
    """A link whose connections come and go as the test says."""

    def __init__(
        self, reactor: Any, brokers: Any, name: str, set_up: Any, *, lost: Any, settings: Any
    ) -> None:
        self.name, self.set_up, self.lost, self.settings = name, set_up, lost, settings
        self.problem = "nobody answers"
        self.started = self.stopped = False
        self.patience: list[float | None] = []
        self.connected: Deferred[None] = Deferred()

    def start(self) -> None:
        self.started = True

    def first(self, patience: float | None) -> Deferred[None]:
        self.patience.append(patience)
        return self.connected

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return succeed(None)


class CarrierCase(SynchronousTestCase):
    """A carrier, and what its listener was told."""

    def setUp(self) -> None:
        self.links: list[FakeLink] = []
        self.told: list[tuple[Any, ...]] = []
        self.patch(amqp, "Link", self.link)
        self.carrier = self.make()

    def link(self, *arguments: Any, **named: Any) -> FakeLink:
        self.links.append(FakeLink(*arguments, **named))
        return self.links[-1]

    def make(self, **settings: Any) -> AmqpCarrier:
        return AmqpCarrier(Clock(), URL, "house", MeshSettings(**settings))

    # The listener of the carrier.

    def up(self, address: str) -> None:
        self.told.append(("up", address))

    def down(self, why: str) -> None:
        self.told.append(("down", why))

    def received(self, *message: Any) -> None:
        self.told.append(("received", *message))

    def returned(self, address: str) -> None:
        self.told.append(("returned", address))

    def resumed(self) -> None:
        self.told.append(("resumed",))

    def unreadable(self, why: str) -> None:
        self.told.append(("unreadable", why))

    # What the test does.

    def news(self) -> list[tuple[Any, ...]]:
        told, self.told = self.told, []
        return told

    def connect(self) -> FakeConnection:
        """Have one connection, which the listener has been told of."""
        if not self.links:
            self.carrier.connect("n", self)
        connection = FakeConnection()
        self.successResultOf(Deferred.fromCoroutine(self.links[-1].set_up(connection)))
        self.news()
        return connection

    def message(self, tag: int, kind: str = "kupool.bus/1") -> BrokerMessage:
        return BrokerMessage(tag, "", {}, b"%d" % tag, False, kind, "other", "house.other.1")


class ConnectingTests(CarrierCase):
    """A-31: a node has a queue of its own, in the exchanges of all nodes of its prefix."""

    def test_prefixes(self) -> None:
        for good in ("x", "x" * 100, "my-bus.1"):
            AmqpCarrier(Clock(), URL, good, MeshSettings())
        for bad in ("", "x" * 101, "a b", "a\n"):
            with self.assertRaisesRegex(ValueError, "prefix: .* is not a name of at most 100"):
                AmqpCarrier(Clock(), URL, bad, MeshSettings())

    def test_what_is_declared(self) -> None:
        """A node is counted before it receives, and hears everybody last."""
        self.carrier = self.make(message_ttl=2.5, max_queue_bytes=1000, prefetch=7)
        asked = self.connect().made.asked
        counter = ("count", "house.count", {"x-expires": 60_000, "x-max-length": 1})
        expected = [
            ("exchange", "house.all", "fanout", False),
            ("exchange", "house.nodes", "direct", False),
            ("queue", "house.n.1", {"x-message-ttl": 2500, "x-max-length-bytes": 1000}),
            ("bind", "house.n.1", "house.nodes", "house.n.1"),
            ("prefetch", 7),
            counter,
            ("consume", "house.count"),
            ("consume", "house.n.1"),
            ("bind", "house.n.1", "house.all", ""),
        ]
        self.assertEqual(asked, expected)
        self.assertEqual(self.successResultOf(self.carrier.count()), 3)
        self.assertEqual(asked[-1], counter)

    def test_messages_that_are_of_use_for_less_than_a_millisecond(self) -> None:
        self.carrier = self.make(message_ttl=0.0001)
        self.assertEqual(self.connect().made.asked[2][2]["x-message-ttl"], 1)

    def test_each_connection_has_another_address(self) -> None:
        """What was sent to the one before does not reach the next."""
        self.carrier.connect("n", self)
        for address in ("house.n.1", "house.n.2"):
            set_up = self.links[-1].set_up(FakeConnection())
            self.successResultOf(Deferred.fromCoroutine(set_up))
            self.assertEqual(self.news(), [("up", address)])
        self.assertEqual((len(self.links), self.links[0].name), (1, "house n"))

    def test_refused_by_the_broker(self) -> None:
        self.carrier.connect("n", self)
        set_up = self.links[-1].set_up(FakeConnection(refuses=True))
        self.failureResultOf(Deferred.fromCoroutine(set_up), BrokerError)
        self.assertEqual(self.news(), [])

    def test_the_first_connection(self) -> None:
        connected = self.carrier.connect("n", self)
        (link,) = self.links
        self.assertEqual((link.started, link.patience), (True, [None]))
        self.assertNoResult(connected)
        link.connected.callback(None)
        self.successResultOf(connected)
        self.assertFalse(link.stopped)

    def test_no_broker(self) -> None:
        """It fails, and there is no other attempt; unless none is required."""
        cases = (
            (True, BrokerUnreachable("away"), True),
            (True, BrokerRefused("no"), True),
            (False, BrokerUnreachable("away"), False),
            (False, BrokerRefused("no"), True),
        )
        for required, error, fails in cases:
            carrier = self.make(required=required, patience=2.0)
            connected = carrier.connect("n", self)
            link = self.links[-1]
            self.assertEqual(link.patience, [None if required else 2.0])
            link.connected.errback(error)
            if fails:
                failure = self.failureResultOf(connected, BusError)
                self.assertEqual(str(failure.value), str(error))
            else:
                self.successResultOf(connected)
            self.assertEqual(link.stopped, fails)

    def test_why_there_is_none(self) -> None:
        self.assertEqual(self.carrier.problem, "not connected yet")
        self.carrier.connect("n", self)
        self.assertEqual(self.carrier.problem, "nobody answers")

    def test_close(self) -> None:
        self.successResultOf(self.carrier.close())
        self.connect()
        self.successResultOf(self.carrier.close())
        self.assertTrue(self.links[0].stopped)


class CarryingTests(CarrierCase):
    """A-31: what is sent and received, and what is not."""

    def test_send(self) -> None:
        """To one node or to all; it expires with the queue's own limit at the latest."""
        self.carrier.send("house.b.1", b"nothing", 1.0)
        made = self.connect().made
        self.carrier.send("house.b.1", b"one", 1.5)
        self.carrier.send("", b"all", 60.0)
        sent = [(exchange, key, body) for exchange, key, body, _ in made.sent]
        self.assertEqual(sent, [("house.nodes", "house.b.1", b"one"), ("house.all", "", b"all")])
        envelope = made.sent[0][3]
        self.assertEqual(
            (envelope.type, envelope.app_id, envelope.reply_to, envelope.expiration),
            ("kupool.bus/1", "n", "house.n.1", "1500"),
        )
        self.assertEqual(made.sent[1][3].expiration, "10000")

    def test_receive(self) -> None:
        """All that have come are acknowledged together; what is of another kind is not read."""
        made = self.connect().made
        own = made.deliveries["house.n.1"]
        own.put(self.message(1), self.message(2, "other/1"), self.message(3))
        self.assertEqual(
            self.news(),
            [
                ("received", "other", "house.other.1", b"1"),
                ("unreadable", "a message of kind 'other/1'"),
                ("received", "other", "house.other.1", b"3"),
            ],
        )
        own.put(self.message(4))
        self.assertEqual(made.acknowledged, [(3, True), (4, True)])
        self.assertEqual(len(self.news()), 1)

    def test_the_queue_for_counting(self) -> None:
        """A message that a stranger put there is acknowledged, and nothing else."""
        made = self.connect().made
        made.deliveries["house.count"].put(self.message(1))
        self.assertEqual((self.news(), made.acknowledged), ([], [(1, True)]))

    def test_what_comes_over_a_connection_that_was_lost(self) -> None:
        """It is not passed on, and does not end the next connection."""
        old = self.connect()
        self.links[-1].lost("cut")
        self.assertEqual(self.news(), [("down", "cut")])
        new = self.connect()
        old.made.unroutable("house.b.1")
        old.made.deliveries["house.n.1"].put(self.message(1))
        old.made.deliveries["house.n.1"].fail("over")
        self.assertEqual((self.news(), old.drops, new.drops), ([], [], []))
        new.made.unroutable("house.b.1")
        self.assertEqual(self.news(), [("returned", "house.b.1")])

    def test_no_more_messages(self) -> None:
        """The connection is of no use without them, or without its channel."""
        connection = self.connect()
        connection.made.deliveries["house.n.1"].fail("cancelled")
        connection.made.on_closed(BrokerError("ended"))
        self.assertEqual(
            connection.drops, ["no more messages: cancelled", "the channel ended: ended"]
        )

    def test_a_fault_while_a_message_is_read(self) -> None:
        """It is logged."""
        made = self.connect().made
        self.received = self.broken  # type: ignore[method-assign]
        made.deliveries["house.n.1"].put(self.message(1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def broken(self, *message: Any) -> None:
        raise ZeroDivisionError

    def test_whether_it_takes_more(self) -> None:
        self.assertFalse(self.carrier.writable)
        connection = self.connect()
        self.assertTrue(self.carrier.writable)
        connection.writable = False
        self.assertFalse(self.carrier.writable)
        connection.resumed()
        self.assertEqual(self.news(), [("resumed",)])
        self.links[-1].lost("cut")
        self.news()
        self.assertFalse(self.carrier.writable)
        connection.resumed()
        self.assertEqual(self.news(), [])

    def test_dropped(self) -> None:
        """Without a connection there is nothing to drop, to send over or to count."""
        self.carrier.drop("early")
        connection = self.connect()
        self.carrier.drop("too slow")
        self.links[-1].lost("too slow")
        self.carrier.drop("late")
        self.assertEqual(connection.drops, ["too slow"])
        error = self.failureResultOf(self.carrier.count(), BusError).value
        self.assertEqual(str(error), "not connected")
