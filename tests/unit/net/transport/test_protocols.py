"""The protocols of every framing, and the one that finds out which it is."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolFactory
from twisted.protocols.basic import Int32StringReceiver, LineOnlyReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.net.routing.id_router import IdRouter
from kupool.net.transport.detecting import DetectingFactory
from kupool.net.transport.protocols import (
    FACTORIES,
    REFUSAL_GRACE,
    TLV,
    Int32Protocol,
    LineProtocol,
    TlvProtocol,
)
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Tlv, encode_frame, encode_tlv
from kupool.wire.messages import encode_success
from tests.fakes.peers import Bench, PeerTransport, Recorder, frames, int32s, lines

PING = b'{"id":1,"method":"ping"}'
PONG = encode_success(1)
DONE = Failure(ConnectionDone())


def meet(factory: Any, host: str = "192.0.2.1") -> tuple[Any, PeerTransport]:
    """Let a peer come; returns the protocol and its transport."""
    protocol = factory.buildProtocol(None)
    transport = PeerTransport(host)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    return protocol, transport


class PinnedTests(SynchronousTestCase):
    """Protocol section 1: an endpoint may be pinned to one framing."""

    def test_each_framing_answers_in_its_own(self) -> None:
        bench = Bench()
        for framing in (FRAME, INT32, LINE):
            factory = FACTORIES[framing.name](bench.manager)
            self.assertTrue(verifyObject(IProtocolFactory, factory))
            protocol, transport = meet(factory)
            self.assertTrue(verifyObject(IHalfCloseableProtocol, protocol))
            for byte in framing.encode(PING):
                protocol.dataReceived(bytes((byte,)))
            self.assertEqual(transport.value(), framing.encode(PONG))
            protocol.connectionLost(DONE)
        self.assertEqual(len(bench.manager), 0)

    def test_they_are_the_receivers_of_twisted(self) -> None:
        self.assertTrue(issubclass(Int32Protocol, Int32StringReceiver))
        self.assertTrue(issubclass(LineProtocol, LineOnlyReceiver))

    def test_going_back_to_the_stock_receivers(self) -> None:
        class StockInt32(Int32Protocol):
            dataReceived = Int32StringReceiver.dataReceived

        class StockLine(LineProtocol):
            dataReceived = LineOnlyReceiver.dataReceived

        for stock, framing in ((StockInt32, INT32), (StockLine, LINE)):
            bench = Bench()
            factory = FACTORIES[framing.name](bench.manager)
            self.patch(factory, "protocol", stock)
            protocol, transport = meet(factory)
            protocol.dataReceived(framing.encode(PING) * 2)
            self.assertEqual(transport.value(), framing.encode(PONG) * 2)

    def test_tlv(self) -> None:
        bench = Bench(IdRouter(lambda c, message_id, data: data.upper()))
        protocol, transport = meet(FACTORIES["tlv"](bench.manager))
        self.assertIsInstance(protocol, TlvProtocol)
        protocol.dataReceived(encode_tlv(b"abc", 7))
        protocol.received(Tlv(8, b"def"))
        protocol.send_message(9, b"push")
        self.assertEqual(
            transport.value(),
            encode_tlv(b"ABC", 7) + encode_tlv(b"DEF", 8) + encode_tlv(b"push", 9),
        )
        protocol.connectionLost(DONE)
        protocol.send_message(9, b"push")
        protocol.received(Tlv(8, b"def"))

    def test_refused_in_the_framing(self) -> None:
        for framing, read in ((FRAME, frames), (INT32, int32s), (LINE, lines)):
            bench = Bench(max_connections=1)
            factory = FACTORIES[framing.name](bench.manager)
            meet(factory)
            protocol, transport = meet(factory)
            self.assertEqual(len(read(transport.value())), 1)
            self.assertIn(b"too many connections", transport.value())
            self.assertTrue(transport.disconnecting)
            transport.clear()
            protocol.dataReceived(framing.encode(PING))
            protocol.readConnectionLost()
            protocol.connectionLost(DONE)
            self.assertEqual(transport.value(), b"")
            self.assertEqual((len(bench.manager), bench.manager.refused), (1, 1))


class DetectingTests(SynchronousTestCase):
    """Protocol section 1: the first byte decides, the answers are in the same framing."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.factory = DetectingFactory(self.bench.manager, "port 8081")

    def test_each_framing_in_one_read_and_byte_by_byte(self) -> None:
        self.assertTrue(verifyObject(IProtocolFactory, self.factory))
        for framing in (FRAME, INT32, LINE):
            for size in (1, 1000):
                protocol, transport = meet(self.factory)
                self.assertTrue(verifyObject(IHalfCloseableProtocol, protocol))
                data = framing.encode(PING) * 2
                for start in range(0, len(data), size):
                    transport.protocol.dataReceived(data[start : start + size])
                self.assertEqual(transport.value(), framing.encode(PONG) * 2)
                self.assertIsNot(transport.protocol, protocol)
                transport.protocol.connectionLost(DONE)
        self.assertEqual(len(self.bench.manager), 0)

    def test_text_and_close_opcodes_begin_frame(self) -> None:
        _, transport = meet(self.factory)
        transport.protocol.dataReceived(encode_frame(PING, 0x1))
        self.assertEqual(transport.value(), FRAME.encode(PONG))
        _, transport = meet(self.factory)
        transport.protocol.dataReceived(encode_frame(b"", 0x8))
        self.assertEqual((transport.value(), transport.disconnecting), (b"", True))

    def test_white_space_begins_line(self) -> None:
        for space in (b" ", b"\t", b"\r\n", b"\n"):
            _, transport = meet(self.factory)
            transport.protocol.dataReceived(space)
            transport.protocol.dataReceived(PING + b"\n")
            self.assertEqual(transport.value(), PONG + b"\n")

    def test_under_a_wrapper_it_goes_on_by_itself(self) -> None:
        """Under TLS the transport goes on calling the first protocol."""
        protocol, transport = meet(self.factory)
        transport.protocol = wrapper = object()
        protocol.dataReceived(FRAME.encode(PING))
        protocol.dataReceived(FRAME.encode(PING))
        self.assertEqual(transport.value(), FRAME.encode(PONG) * 2)
        self.assertIs(transport.protocol, wrapper)
        protocol.readConnectionLost()
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(DONE)
        self.assertEqual(len(self.bench.manager), 0)

    def test_any_other_byte_is_malformed_as_a_line(self) -> None:
        for first in set(range(256)) - {0, 1, 2, 8, *b"{\t\n\r "} - set(range(65, 91)):
            _, transport = meet(self.factory)
            transport.protocol.dataReceived(bytes((first,)))
            (message,) = lines(transport.value())
            self.assertEqual(message["params"]["reason"], "malformed message")
            self.assertTrue(transport.disconnecting)

    def test_http_is_told_its_port(self) -> None:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        for cut in (0, 1, 3, 4, 10):
            protocol, transport = meet(self.factory)
            if cut:
                protocol.dataReceived(request[:cut])
            protocol.dataReceived(request[cut:])
            head, _, body = transport.value().partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 400 "), cut)
            self.assertIn(b"Content-Length: %d" % len(body), head)
            self.assertIn(b"port 8081", body)
            self.assertTrue(transport.disconnecting)

    def test_http_that_is_turned_off(self) -> None:
        protocol, transport = meet(DetectingFactory(self.bench.manager))
        protocol.dataReceived(b"POST / HTTP/1.0\r\n\r\n")
        self.assertIn(b"turned off", transport.value())

    def test_capitals_that_are_not_http(self) -> None:
        for data in (b"GETTHEREEVENTUALLY", b"Ab", b"G1", b"GE T"):
            protocol, transport = meet(self.factory)
            for byte in data:
                protocol.dataReceived(bytes((byte,)))
            (message,) = lines(transport.value())
            self.assertEqual(message["params"]["reason"], "malformed message", data)

    def test_limits_hold_for_a_peer_that_says_nothing(self) -> None:
        _, transport = meet(self.factory)
        self.assertEqual(len(self.bench.manager), 1)
        self.bench.sweep_after(180)
        (message,) = lines(transport.value())
        self.assertEqual(message["params"]["reason"], "idle timeout")

    def test_goodbye_without_a_word(self) -> None:
        protocol, transport = meet(self.factory)
        protocol.readConnectionLost()
        self.assertEqual((transport.value(), transport.disconnecting), (b"", True))
        protocol.connectionLost(DONE)
        self.assertEqual(len(self.bench.manager), 0)

    def test_half_close_is_told_to_the_framing(self) -> None:
        self.bench.observer.settling = Deferred()
        _, transport = meet(self.factory)
        transport.protocol.dataReceived(LINE.encode(PING))
        transport.protocol.readConnectionLost()
        transport.protocol.writeConnectionLost()
        self.assertFalse(transport.disconnecting)
        self.bench.observer.settling.callback(None)
        self.assertTrue(transport.disconnecting)


class RefusalTests(SynchronousTestCase):
    """Protocol section 4: over the limit, the reason is told in the peer's framing."""

    def setUp(self) -> None:
        self.bench = Bench(max_connections=1)
        self.factory = DetectingFactory(self.bench.manager)
        meet(self.factory)

    def refused(self, framing: Framing) -> bytes:
        protocol, transport = meet(self.factory)
        self.assertFalse(transport.disconnecting)
        protocol.dataReceived(framing.encode(PING))
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(DONE)
        return transport.value()

    def test_in_each_framing(self) -> None:
        self.assertEqual(frames(self.refused(FRAME)), [(8, b"too many connections")])
        (body,) = int32s(self.refused(INT32))
        self.assertEqual(json.loads(body)["params"]["code"], 4102)
        (message,) = lines(self.refused(LINE))
        self.assertEqual(message["params"]["code"], 4102)
        self.assertEqual(self.bench.manager.refused, 3)
        self.assertEqual(self.bench.manager.counters.closes, {"too many connections": 3})
        self.assertEqual((len(self.bench.manager), self.bench.manager.accepted), (1, 1))

    def test_a_stranger_is_told_in_a_line(self) -> None:
        protocol, transport = meet(self.factory)
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(lines(transport.value())[0]["params"]["code"], 4102)

    def test_a_ban_says_when_to_come_back(self) -> None:
        self.bench.manager.ban("192.0.2.9", 60.0)
        protocol, transport = meet(self.factory, host="192.0.2.9")
        protocol.dataReceived(PING)
        params = lines(transport.value())[0]["params"]
        self.assertEqual((params["code"], params["retry_after"]), (4503, 60.0))

    def test_told_once_however_much_comes(self) -> None:
        protocol, transport = meet(self.factory)
        protocol.dataReceived(FRAME.encode(PING))
        protocol.dataReceived(FRAME.encode(PING))
        self.assertEqual(frames(transport.value()), [(8, b"too many connections")])
        self.assertEqual(self.bench.manager.refused, 1)

    def test_one_that_says_nothing_is_cut_off(self) -> None:
        _, transport = meet(self.factory)
        self.bench.clock.advance(REFUSAL_GRACE)
        self.assertTrue(transport.aborted)

    def test_where_no_side_can_end_alone(self) -> None:
        """Issue 12: so it is under TLS, whose goodbye is not waited for longer than the grace."""
        for factory in (self.factory, FACTORIES["line"](self.bench.manager)):
            protocol, transport = meet(factory)
            protocol.dataReceived(LINE.encode(PING))
            self.assertEqual(lines(transport.value())[0]["params"]["code"], 4102)
            self.assertEqual((transport.disconnecting, transport.aborted), (True, False))
            self.bench.clock.advance(REFUSAL_GRACE - 0.1)
            self.assertFalse(transport.aborted)
            self.bench.clock.advance(0.2)
            self.assertTrue(transport.aborted)

    def test_too_many_where_no_side_can_end_alone(self) -> None:
        import kupool.net.transport.protocols as protocols

        self.patch(protocols, "MAX_REFUSALS", 2)
        factory = FACTORIES["line"](self.bench.manager)
        transports = [meet(factory)[1] for _ in range(3)]
        self.assertEqual([t.aborted for t in transports], [False, False, True])

    def test_one_that_leaves_gives_its_grace_back(self) -> None:
        protocol, _ = meet(self.factory)
        protocol.readConnectionLost()
        protocol.connectionLost(DONE)
        self.bench.manager.refusals.stop()
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_too_many_refused_at_once_are_cut_off_at_once(self) -> None:
        import kupool.net.transport.detecting as detecting

        self.patch(detecting, "MAX_REFUSALS", 2)
        transports = [meet(self.factory)[1] for _ in range(3)]
        self.assertEqual([t.aborted for t in transports], [False, False, True])


class NoConnectionTests(SynchronousTestCase):
    def test_bytes_after_the_end_are_nobodys(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder)
        protocol, _ = meet(FACTORIES["line"](bench.manager))
        protocol.connectionLost(DONE)
        protocol.dataReceived(b"x\n")
        protocol.connectionLost(DONE)
        self.assertEqual(recorder.items, [])

    def test_framings_by_name(self) -> None:
        self.assertEqual(list(FACTORIES), ["frame", "int32", "line", "tlv"])
        self.assertEqual(TLV.join([b"a", b"b"]), encode_tlv(b"a") + encode_tlv(b"b"))
