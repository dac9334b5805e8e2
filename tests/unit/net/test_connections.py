"""A connection and its manager as a framework offers them: rows P-09 to P-18, P-41 to P-58."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import FORBIDDEN, GOING_DOWN, TOO_MANY_CONNECTIONS, CloseReason
from kupool.net.failures import MESSAGE_TOO_LARGE, ConnectionNotFound
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.request import Request
from kupool.net.routing.router import LATER, Router
from kupool.net.transport.protocols import FACTORIES, TLV, CodecFactory
from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed
from kupool.session.lifecycle import CLOSED, CLOSING, OPEN
from kupool.session.outbox import EventPolicy
from kupool.wire.codecs import CODECS, LengthFieldCodec, TlvCodec, framing_of
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Tlv, encode_tlv
from kupool.wire.packets import MessageTooLarge
from tests.fakes.peers import Bench, PeerTransport, Recorder, lines

DONE = Failure(ConnectionDone())
BIG = framing_of(CODECS["tlv-big"](0))


def meet(factory: Any, host: str = "192.0.2.1") -> tuple[Any, PeerTransport]:
    """Let a peer come; returns the protocol and its transport."""
    protocol = factory.buildProtocol(None)
    transport = PeerTransport(host)
    protocol.makeConnection(transport)
    return protocol, transport


class SendTests(SynchronousTestCase):
    """P-09, P-13: what a connection is, and sending by id."""

    def test_who_it_is(self) -> None:
        """P-09: start, stop, transport, id, remote address, send(id, data)."""
        bench = Bench()
        connection, transport = bench.connect(TLV, "192.0.2.7")
        self.assertEqual(connection.state, OPEN)
        self.assertIs(connection.transport, transport)
        self.assertEqual((connection.id, connection.peer), (1, "192.0.2.7:4000"))
        connection.send_message(301, b"hello")
        self.assertEqual(transport.value(), encode_tlv(b"hello", 301))
        connection.close(None)
        self.assertTrue(transport.disconnecting)

    def test_after_the_close(self) -> None:
        """P-13: `ConnectionClosed` from the moment of the close on; never a crash."""
        bench = Bench()
        connection, transport = bench.connect(TLV)
        connection.close(GOING_DOWN)
        sent = transport.taken()
        for state in (CLOSING, CLOSED):
            self.assertEqual((connection.state, connection.sends), (state, False))
            with self.assertRaises(ConnectionClosed) as caught:
                connection.send_message(1, b"x")
            self.assertIn(f"connection closed: {connection.id}", str(caught.exception))
            # those that have no one to tell do nothing
            connection.send(b"x")
            connection.send_many([b"x", b"y"])
            connection.send_latest("k", b"x")
            self.assertFalse(connection.send_event(b"x", EventPolicy.DROP_OLDEST))
            connection.reply(1, True)
            connection.lost(DONE)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(connection.bytes_out, len(sent))

    def test_an_answer_to_one_that_has_gone(self) -> None:
        """P-13: is no error, from whichever router and whenever it comes."""
        waiting: list[Any] = []

        def later(request: Request) -> object:
            waiting.append(request)
            return LATER

        methods, numbers = Router(), IdRouter()
        methods.on("later")(later)
        numbers.on(1)(later)
        for router, framing, sent in (
            (methods, LINE, b'{"id":1,"method":"later"}\n'),
            (numbers, TLV, encode_tlv(b"x", 1)),
        ):
            for reason in (GOING_DOWN, None):
                connection, transport = Bench(router).connect(framing)
                connection.feed(sent)
                connection.close(reason)
                transport.taken()
                waiting.pop().reply(b"late" if framing is TLV else "late")
                connection.lost(DONE)
                self.assertEqual(transport.value(), b"")

    def test_an_answer_that_cannot_be_sent(self) -> None:
        """P-13: ``request.reply`` takes what handlers return, and never raises."""
        router = Router()
        waiting: list[Request] = []
        router.on("later")(lambda request: waiting.append(request) or LATER)
        connection, transport = Bench(router).connect()
        for answer, code in ((FORBIDDEN, 33), (object(), 20)):
            connection.feed(b'{"id":1,"method":"later"}\n')
            waiting.pop().reply(answer)
            (reply,) = lines(transport.taken())
            self.assertEqual((reply["id"], reply["code"]), (1, code))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_framings_without_ids(self) -> None:
        connection, transport = Bench().connect(LINE)
        with self.assertRaises(ValueError) as caught:
            connection.send_message(1, b"x")
        self.assertIn("line has no message ids", str(caught.exception))
        self.assertEqual((transport.value(), connection.state), (b"", OPEN))


class StateTests(SynchronousTestCase):
    """P-10, P-12: open, closing, closed; the end may come from anywhere and twice."""

    def test_close_twice_and_from_a_handler(self) -> None:
        """P-10: idempotent, and safe from any callback."""
        bench = Bench(Recorder(lambda c, item: c.close(GOING_DOWN)))
        connection, transport = bench.connect()
        states: list[str] = []
        self.patch(
            bench.observer,
            "closed",
            lambda c, reason: (states.append(c.state), c.close(GOING_DOWN), c.abort()),
        )
        connection.feed(b"a\nb\nc\n")
        self.assertEqual(connection.state, CLOSING)
        connection.close(GOING_DOWN)
        connection.lost(DONE)
        connection.close(GOING_DOWN)
        connection.abort()
        self.assertEqual((connection.state, states), (CLOSED, [CLOSED]))
        self.assertEqual(transport.value().count(b"server going down"), 1)
        self.assertEqual(bench.manager.counters.closes, {"server going down": 1})

    def test_the_peer_ends_it(self) -> None:
        """P-12: reading and writing both end when the peer does, and each is told once."""
        bench = Bench()
        protocol, transport = meet(FACTORIES["tlv"](bench.manager))
        connection = protocol.connection
        protocol.readConnectionLost()
        self.assertEqual((connection.state, transport.reading), (CLOSING, False))
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(DONE)
        self.assertEqual(bench.observer.ended, [(connection, DONE)])
        self.assertEqual(connection.state, CLOSED)
        with self.assertRaises(ConnectionClosed):
            connection.send_message(1, b"x")
        protocol.dataReceived(encode_tlv(b"late", 1))

    def test_an_observer_that_cannot_settle(self) -> None:
        """P-12: what it raises is logged, and the connection ends in order."""
        bench = Bench()
        self.patch(bench.observer, "settle", lambda connection: 1 / 0)
        connection, transport = bench.connect()
        connection.finished()
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_ids_never_come_again(self) -> None:
        """P-11: not even after as many connections as 32 bits can count."""
        bench = Bench()
        first, _ = bench.connect()
        bench.manager._next_id = 2**32 - 1  # as if so many had come
        ids = [bench.connect()[0].id for _ in range(3)]
        self.assertEqual(ids, [2**32, 2**32 + 1, 2**32 + 2])
        self.assertIs(bench.manager.get(first.id), first)


class CounterTests(SynchronousTestCase):
    """P-17: bytes and messages in and out, last activity, queue length."""

    def test_in_and_out(self) -> None:
        bench = Bench(Recorder())
        connection, transport = bench.connect(TLV)
        bench.clock.advance(5)
        data = encode_tlv(b"abc", 1) + encode_tlv(b"", 2)
        connection.feed(data[:5])
        self.assertEqual((connection.messages_in, connection.last_seen), (0, 0))
        connection.feed(data[5:])
        self.assertEqual((connection.messages_in, connection.bytes_in), (2, len(data)))
        self.assertEqual(connection.last_seen, 5)
        connection.send_message(1, b"a")
        connection.send(b"b")
        connection.send_many([b"c"])
        connection.send_many([b"d", b"e"])
        connection.send_latest("k", encode_tlv(b"f"))
        connection.send_event(encode_tlv(b"g"))
        bench.manager.send_many(b"h")
        bench.manager.broadcast(b"i", key="k")
        self.assertEqual(connection.messages_out, 9)
        self.assertEqual(connection.bytes_out, 9 * 9)
        self.assertEqual(len(transport.value()), 9 * 9)

    def test_what_waits(self) -> None:
        connection, transport = Bench().connect()
        connection.pauseProducing()
        self.assertEqual(connection.outbound, 0)
        connection.send(b"reply")
        connection.send_latest("k", b"latest\n")
        connection.send_event(b"event\n")
        self.assertEqual(connection.outbound, 6 + 7 + 6)
        self.assertEqual((connection.messages_out, connection.bytes_out), (3, 0))
        transport.drain()
        self.assertEqual((connection.outbound, connection.bytes_out), (0, 19))


class OneReadTests(SynchronousTestCase):
    """issue 12: the answers of one read leave in one write, in the order of their messages."""

    def setUp(self) -> None:
        self.router = Router()
        self.router.add("ask", lambda connection, request: request.id)
        self.bench = Bench(self.router)

    def served(self, framing: Framing = LINE) -> tuple[Connection, PeerTransport, list[bytes]]:
        connection, transport = self.bench.connect(framing)
        writes: list[bytes] = []
        write = transport.write

        def noted(data: bytes) -> None:
            writes.append(data)
            write(data)

        transport.write = noted  # type: ignore[method-assign]
        return connection, transport, writes

    def test_one_write(self) -> None:
        connection, _, writes = self.served()
        connection.feed(b"".join(b'{"id":%d,"method":"ask"}\n' % n for n in range(20)))
        self.assertEqual(len(writes), 1)
        self.assertEqual([reply["result"] for reply in lines(writes[0])], list(range(20)))
        self.assertEqual((connection.messages_out, connection.bytes_out), (20, len(writes[0])))

    def test_what_a_handler_sends_itself_keeps_its_place(self) -> None:
        ways: list[Any] = [
            lambda connection: connection.send(b'{"id":"own"}'),
            lambda connection: connection.send_many([b'{"id":"own"}', b'{"id":"own"}']),
            lambda connection: connection.send_encoded(b'{"id":"own"}\n'),
            lambda connection: connection.send_latest("key", b'{"id":"own"}\n'),
            lambda connection: connection.send_event(b'{"id":"own"}\n'),
        ]
        for number, way in enumerate(ways):

            def own(connection: Connection, request: Request, way: Any = way) -> object:
                way(connection)
                return True

            self.router.add(f"own{number}", own)
            connection, transport, _ = self.served()
            ask, own_way = b'{"id":%d,"method":"ask"}\n', b'{"id":3,"method":"own%d"}\n' % number
            connection.feed(ask % 1 + ask % 2 + own_way + ask % 4)
            ids = [reply["id"] for reply in lines(transport.value())]
            times = ids.count("own")
            self.assertEqual(ids, [1, 2, *["own"] * times, 3, 4])

    def test_messages_that_come_amid_another(self) -> None:
        """A transport may hand on what comes while a handler writes."""
        ask = b'{"id":%d,"method":"ask"}\n'

        def again(connection: Connection, request: Request) -> object:
            connection.feed(ask % 9 + ask % 10)
            return True

        def own(connection: Connection, request: Request) -> object:
            connection.send(b'{"id":"own"}')
            return True

        self.router.add("again", again)
        self.router.add("own", own)
        connection, transport, _ = self.served()
        more = b'{"id":2,"method":"again"}\n' + ask % 3 + b'{"id":4,"method":"own"}\n'
        connection.feed(ask % 1 + more)
        ids = [reply["id"] for reply in lines(transport.value())]
        self.assertEqual(ids, [1, 9, 10, 2, 3, "own", 4])

    def test_one_that_cannot_be_sent_costs_no_other(self) -> None:
        self.router.add("big", lambda connection, request: "x" * 300)
        connection, transport, _ = self.served(framing_of(CODECS["json"](200)))
        ask = b'{"id":%d,"method":"%b"}\n'
        connection.feed(ask % (1, b"ask") + ask % (2, b"big") + ask % (3, b"ask"))
        replies = lines(transport.value())
        self.assertEqual([reply["id"] for reply in replies], [1, 2, 3])
        self.assertEqual([reply.get("code") for reply in replies], [None, 20, None])
        self.assertEqual(len(self.flushLoggedErrors(MessageTooLarge)), 1)

    def test_a_close_comes_after_the_answers_before_it(self) -> None:
        def leave(connection: Connection, request: Request) -> object:
            connection.close(GOING_DOWN)
            return True

        self.router.add("leave", leave)
        connection, transport, _ = self.served()
        ask = b'{"id":%d,"method":"%b"}\n'
        connection.feed(ask % (1, b"ask") + ask % (2, b"leave") + ask % (3, b"ask"))
        first, last = lines(transport.value())
        self.assertEqual((first["id"], last["method"]), (1, "close"))


class SizeTests(SynchronousTestCase):
    """P-38: over the limit is `too large message data`, in both directions."""

    def test_what_is_sent(self) -> None:
        bench = Bench(max_frame=8)
        for framing in (TLV, BIG):
            connection, transport = bench.connect(framing)
            connection.send_message(1, b"12345678")
            before = transport.taken()
            with self.assertRaises(MessageTooLarge) as caught:
                connection.send_message(1, b"123456789")
            self.assertIn("too large message data", str(caught.exception))
            self.assertEqual((len(before), transport.value()), (16, b""))
            self.assertEqual(connection.state, OPEN)

    def test_what_comes_in_closes(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder, max_frame=8, too_large=MESSAGE_TOO_LARGE)
        for framing in (TLV, BIG):
            pack: Any = framing.pack
            connection, transport = bench.connect(framing)
            connection.feed(pack(Tlv(1, b"12345678")) + pack(Tlv(2, b"123456789"))[:8])
            self.assertEqual(recorder.items.pop(), Tlv(1, b"12345678"))
            self.assertIn(b"too large message data", transport.value())
            self.assertTrue(transport.disconnecting)
        self.assertEqual(bench.manager.counters.closes, {"too large message data": 2})

    def test_a_reply_over_the_limit_of_the_codec(self) -> None:
        """P-38: an error under its id in place of it, at once and later; no exception."""
        later: Deferred[str] = Deferred()
        router = Router()
        router.add("big", lambda connection, request: "x" * 300)
        router.add("later", lambda connection, request: later)
        bench = Bench(router)
        connection, transport = bench.connect(framing_of(CODECS["json"](200)))
        ask = b'{"id":%d,"method":"%b"}\n'
        connection.feed(ask % (1, b"big"))
        connection.feed(ask % (2, b"later") + ask % (3, b"big"))
        later.callback("y" * 300)
        replies = lines(transport.value())
        self.assertEqual([reply["id"] for reply in replies], [1, 3, 2])
        for reply, failure in zip(replies, self.flushLoggedErrors(MessageTooLarge), strict=True):
            self.assertEqual(reply["code"], 20)
            self.assertIn("too large message data", str(failure.value))
        self.assertEqual(connection.state, OPEN)

    def test_what_the_framework_says_over_the_limit_of_the_codec(self) -> None:
        """P-38: errors and closes are left out, and the connection ends all the same."""
        bench = Bench(IdRouter(), max_errors=2, max_connections=1)
        codec = CODECS["tlv-big"](10)
        protocol, transport = meet(CodecFactory(bench.manager, codec))
        _, refused = meet(CodecFactory(bench.manager, codec))
        self.assertEqual((refused.value(), refused.disconnecting), (b"", True))
        protocol.dataReceived(codec.pack(Tlv(7, b"unknown")))
        self.assertEqual(protocol.connection.state, OPEN)
        protocol.dataReceived(codec.pack(Tlv(7, b"unknown")))
        self.assertEqual((transport.value(), transport.disconnecting), (b"", True))
        self.assertEqual(bench.manager.counters.closes["too many errors"], 1)

    def test_closes_because_of_messages_are_counted(self) -> None:
        """P-55: what a peer sent is the reason of the close, in the counts and in the log."""
        bench = Bench(Recorder(), max_errors=1, max_frame=50)
        large, _ = bench.connect(LINE)
        large.feed(b'{"id":1,"method":"' + b"x" * 100)
        malformed, _ = bench.connect(LINE)
        malformed.complain(b"")
        for each in (large, malformed):
            self.assertIsNot(each.state, OPEN)
        self.assertEqual(
            bench.manager.refusals.counts,
            {"message, frame too large": 1, "message, too many errors": 1},
        )
        bench.manager.stop()

    def test_what_no_packer_makes_closes_as_malformed(self) -> None:
        bench = Bench(Recorder())
        framing = framing_of(CODECS["tlv-crc"](0))
        connection, transport = bench.connect(framing)
        connection.feed(encode_tlv(b"no checksum", 1))
        self.assertTrue(transport.disconnecting)
        self.assertEqual((connection.malformed, bench.manager.counters.malformed), (1, 1))
        self.assertEqual(bench.manager.counters.closes, {"malformed message": 1})


class TimeTests(SynchronousTestCase):
    """P-41: a message that has begun must end in time."""

    def seconds_until_closed(self, bench: Bench, connection: Connection, data: bytes) -> int:
        for second in range(100):
            if connection.state is not OPEN:
                return second
            connection.feed(data)
            bench.sweep_after(1)
        raise AssertionError("still open")

    def test_one_byte_a_second(self) -> None:
        bench = Bench(Recorder(), message_timeout=10, idle_timeout=0)
        for head in (bytes((200,)), encode_tlv(bytes(200), 1)[:20]):
            connection, transport = bench.connect(TLV)
            connection.feed(head)
            seconds = self.seconds_until_closed(bench, connection, b"\0")
            self.assertTrue(10 <= seconds <= 12, seconds)
            self.assertIn(b"idle timeout", transport.value())

    def test_nothing_begun_is_not_timed(self) -> None:
        bench = Bench(Recorder(), message_timeout=10, idle_timeout=0)
        connection, _ = bench.connect(TLV)
        for _ in range(50):
            bench.sweep_after(1)
        connection.feed(encode_tlv(b"whole", 1))
        bench.sweep_after(50)
        bench.sweep_after(50)
        self.assertEqual(connection.state, OPEN)

    def test_each_message_has_its_own_time(self) -> None:
        """One that is always in the middle of the next message is not late."""
        bench = Bench(Recorder(), message_timeout=10, idle_timeout=0)
        connection, _ = bench.connect(TLV)
        data = encode_tlv(b"message", 1)
        connection.feed(data[:3])
        for _ in range(50):
            bench.sweep_after(8)
            connection.feed(data[3:] + data[:3])
        self.assertEqual(connection.state, OPEN)
        bench.sweep_after(8)
        bench.sweep_after(11)
        self.assertEqual(connection.state, CLOSING)

    def test_time_that_is_ours_is_not_counted(self) -> None:
        bench = Bench(Recorder(), message_timeout=10, idle_timeout=0)
        connection, _ = bench.connect(TLV)
        connection.feed(b"\x01")
        connection.hold()
        for _ in range(50):
            bench.sweep_after(1)
        self.assertEqual(connection.state, OPEN)


class IndependenceTests(SynchronousTestCase):
    """P-42, P-43: a peer that reads nothing is still heard; the order of sends is kept."""

    def test_reading_goes_on_while_writing_is_blocked(self) -> None:
        """P-42: up to the limit of what may wait."""
        recorder = Recorder()
        connection, transport = Bench(recorder).connect()
        connection.pauseProducing()
        for n in range(100):
            connection.feed(b"%d\n" % n)
            connection.send(b"answer %d" % n)
        self.assertEqual(recorder.items, [b"%d" % n for n in range(100)])
        self.assertEqual((transport.value(), transport.reading), (b"", True))
        transport.drain()
        self.assertEqual(transport.value().count(b"answer"), 100)

    def test_order(self) -> None:
        """P-43: of one connection's messages of one class."""
        connection, transport = Bench().connect(TLV)
        for n in range(200):
            if n % 50 == 20:
                connection.pauseProducing()
            elif n % 50 == 40:
                transport.drain()
            connection.send_message(n, b"x" * (n % 7))
        transport.drain()
        expected = b"".join(encode_tlv(b"x" * (n % 7), n) for n in range(200))
        self.assertEqual(transport.value(), expected)


class ManagerTests(SynchronousTestCase):
    """P-52, P-53, P-58: lookup, clearing, and sending to many."""

    def test_lookup_and_length(self) -> None:
        """P-52, P-53: get by id; an absent one is `connection not found`."""
        bench = Bench()
        one, _ = bench.connect()
        two, _ = bench.connect()
        self.assertEqual((len(bench.manager), list(bench.manager)), (2, [one, two]))
        self.assertIs(bench.manager.get(two.id), two)
        two.lost(DONE)
        for absent in (two.id, 99):
            for ask in (bench.manager.get, bench.manager.clear):
                with self.assertRaises(ConnectionNotFound) as caught:
                    ask(absent)
                self.assertEqual(str(caught.exception), f"connection not found: {absent}")
                self.assertIsInstance(caught.exception, KeyError)

    def test_clear_one_and_all(self) -> None:
        """P-52: one present is closed, the others stay; then all."""
        bench = Bench()
        connections = [bench.connect() for _ in range(4)]
        bench.manager.clear(connections[1][0].id)
        self.assertEqual([t.disconnecting for _, t in connections], [False, True, False, False])
        self.successResultOf(bench.manager.clear_all())
        self.assertTrue(all(t.disconnecting for _, t in connections))
        for connection, _ in connections:
            connection.lost(DONE)
        self.assertEqual(len(bench.manager), 0)

    def test_one_buffer_for_many(self) -> None:
        """P-18: encoded once for each framing, and the very same bytes for each peer."""
        bench = Bench()
        packed: list[Any] = []
        written: list[bytes] = []

        def counting(framing: Framing) -> Framing:
            assert framing.pack is not None
            pack = framing.pack
            return framing._replace(pack=lambda m: packed.append(m) or pack(m))  # type: ignore[func-returns-value]

        for framing in (counting(TLV), counting(BIG)):
            for _ in range(100):
                _, transport = bench.connect(framing)
                self.patch(transport, "write", written.append)
        message = Tlv(7, b"news")
        self.successResultOf(bench.manager.send_many(message))
        self.assertEqual((packed, len(written)), ([message, message], 200))
        self.assertEqual(len({id(data) for data in written}), 2)
        self.assertEqual(set(written), {encode_tlv(b"news", 7), CODECS["tlv-big"](0).pack(message)})

    def test_to_those_that_a_filter_lets_through(self) -> None:
        """P-58: with connections that come and go meanwhile."""
        bench = Bench()
        pairs = [bench.connect(f) for f in (LINE, FRAME, INT32, LINE, LINE)]
        pairs[3][0].close(None)
        pairs[4][0].lost(DONE)
        pairs[0][0].set_property("team", "red")
        bench.manager.send_many(b"x", where=lambda c: c.properties.get("team") == "red")
        bench.manager.broadcast(b"y", key="k", where=lambda c: c.framing is FRAME)
        bench.manager.send_many(b"z", [pairs[2][0]])
        self.assertEqual(
            [t.value() for _, t in pairs],
            [b"x\n", FRAME.encode(b"y"), INT32.encode(b"z"), b"", b""],
        )

    def test_coming_and_going_meanwhile(self) -> None:
        """P-58: a filter may end connections and let others come."""
        bench = Bench(max_connections=0)
        pairs = [bench.connect() for _ in range(20)]

        def where(connection: Connection) -> bool:
            for other in bench.manager:
                if other.id == connection.id + 1:
                    other.lost(Failure(ConnectionLost()))
            bench.connect()
            return True

        self.successResultOf(bench.manager.send_many(b"x", where=where))
        self.assertEqual([t.value() for _, t in pairs], [b"x\n", b""] * 10)

    def test_what_a_framing_cannot_say_costs_nobody_else(self) -> None:
        bench = Bench()
        _, line = bench.connect(LINE)
        _, tlv = bench.connect(TLV)
        self.successResultOf(bench.manager.send_many(Tlv(7, b"x")))
        self.assertEqual((line.value(), tlv.value()), (b"", encode_tlv(b"x", 7)))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class AdmissionTests(SynchronousTestCase):
    """P-54, P-55: limits for all, for one address and in a second; refusals are told."""

    def test_the_refusal_comes_before_the_close(self) -> None:
        """P-54: an error packet, then the end."""
        bench = Bench(max_connections=2)
        for name in CODECS:
            codec = CODECS[name](0)
            factory = CodecFactory(bench.manager, codec)
            while len(bench.manager) < 2:
                meet(factory)
            _, transport = meet(factory)
            (item,) = codec.splitter(4096).feed(transport.value())
            payload = item if isinstance(item, bytes) else item.payload
            self.assertIn(b"too many connections", payload)
            self.assertTrue(transport.disconnecting)
        self.assertEqual((len(bench.manager), bench.manager.refused), (2, len(CODECS)))

    def test_a_refusal_of_ones_own(self) -> None:
        """P-54: the packet of a protocol that has an id for it."""
        bench = Bench(max_connections=1)
        told: list[CloseReason] = []

        def close(framing: Framing, reason: CloseReason, retry: float | None) -> bytes:
            told.append(reason)
            return encode_tlv(reason.reason.encode(), 500)

        bench.manager.close_message = close
        protocol, first = meet(FACTORIES["tlv"](bench.manager))
        _, second = meet(FACTORIES["tlv"](bench.manager))
        self.assertEqual(second.value(), encode_tlv(b"too many connections", 500))
        protocol.connection.close(GOING_DOWN)
        self.assertEqual(first.value(), encode_tlv(b"server going down", 500))
        self.assertEqual(told, [TOO_MANY_CONNECTIONS, GOING_DOWN])

    def test_never_beyond_the_limit(self) -> None:
        """P-54: whoever comes and goes, and from whichever hook another comes."""
        bench = Bench(max_connections=5)
        factory = FACTORIES["tlv"](bench.manager)
        most = 0

        def opened(connection: Connection) -> None:
            nonlocal most
            most = max(most, len(bench.manager))
            if connection.id % 3 == 0:
                meet(factory)

        bench.observer.on_open = opened
        for n in range(200):
            protocol, _ = meet(factory)
            if n % 4 == 0 and protocol.connection is not None:
                protocol.connectionLost(DONE)
        self.assertEqual((most, len(bench.manager)), (5, 5))

    def test_of_one_address(self) -> None:
        """P-55: a limit for each address."""
        bench = Bench(max_connections_per_ip=2)
        factory = FACTORIES["tlv"](bench.manager)
        kept = [meet(factory, host)[0].connection for host in ("192.0.2.1",) * 3 + ("192.0.2.2",)]
        self.assertEqual([c is not None for c in kept], [True, True, False, True])

    def test_so_many_in_a_second(self) -> None:
        """P-55: a burst of one second's worth, then one for each interval."""
        bench = Bench(accept_rate=10.0)
        factory = FACTORIES["tlv"](bench.manager)

        def come(count: int) -> int:
            return sum(meet(factory)[0].connection is not None for _ in range(count))

        self.assertEqual(come(30), 10)
        bench.clock.advance(0.1)
        self.assertEqual(come(30), 1)
        bench.clock.advance(0.55)
        self.assertEqual(come(30), 5)
        bench.clock.advance(100)
        self.assertEqual(come(30), 10)
        self.assertEqual(bench.manager.refused, 120 - 26)

    def test_when_to_come_back(self) -> None:
        bench = Bench(accept_rate=0.5)
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))
        bench.connect()
        self.assertEqual(bench.manager.refusal("192.0.2.1"), (TOO_MANY_CONNECTIONS, 2.0))
        bench.clock.advance(2)
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))

    def test_those_before_the_rate_was_set_do_not_count(self) -> None:
        bench = Bench()
        for _ in range(50):
            bench.connect()
        bench.manager.settings = Bench(accept_rate=1.0).manager.settings
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))


class CodecTests(SynchronousTestCase):
    """P-40: a codec of any kind carries a conversation."""

    def test_ids(self) -> None:
        def next_id(connection: Any, item: Any) -> None:
            connection.send_message(item.message_id + 1, item.payload)

        for name in ("tlv", "tlv-big", "tag-first", "ltv", "tlv-crc"):
            codec = CODECS[name](0)
            bench = Bench(Recorder(next_id))
            _, transport = meet(CodecFactory(bench.manager, codec))
            protocol, transport = meet(CodecFactory(bench.manager, codec))
            for byte in codec.pack(Tlv(7, b"hello")):
                protocol.dataReceived(bytes((byte,)))
            self.assertEqual(transport.value(), codec.pack(Tlv(8, b"hello")), name)

    def test_one_of_ones_own(self) -> None:
        codec = LengthFieldCodec(offset=2, width=1, head=b"MG", name="mine")
        bench = Bench(Recorder(lambda c, item: item))  # type: ignore[arg-type,return-value]
        protocol, transport = meet(CodecFactory(bench.manager, codec))
        self.assertEqual(protocol.connection.framing.name, "mine")
        protocol.dataReceived(codec.pack(b"echo") * 2)
        self.assertEqual(transport.value(), codec.pack(b"echo") * 2)

    def test_the_id_router(self) -> None:
        codec = TlvCodec("big", order="id")
        bench = Bench(IdRouter(lambda c, message_id, data: data.upper()))
        protocol, transport = meet(CodecFactory(bench.manager, codec))
        protocol.dataReceived(codec.pack(Tlv(3, b"abc")))
        self.assertEqual(list(codec.splitter(99).feed(transport.value())), [Tlv(3, b"ABC")])
