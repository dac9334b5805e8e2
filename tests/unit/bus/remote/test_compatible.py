"""A-08..A-10: the frame of the bus's predecessor."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Kind, Model, Outcome
from kupool.bus.broker import Broker
from kupool.bus.publishing import make_message
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.compatible import COMPATIBLE, MAX_BODY, CompatibleCodec
from kupool.bus.remote.service import BusService
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.net.transport.protocols import CodecFactory
from kupool.wire.packets import MessageTooLarge
from kupool.wire.splitters import Tlv

PING = b'{"id":1,"method":"ping"}'


def frame(body: bytes, magic: int = 20170103, command: int = 0, length: int | None = None) -> bytes:
    numbers = (magic, command, 5, len(body) if length is None else length, 1, 2)
    return b"".join(n.to_bytes(4, "big") for n in numbers) + body


class CodecTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """A-08: six numbers of 32 bits, big-endian, and the body."""
        golden = bytes.fromhex("0133c577 00000000 00000000 00000002 00000000 00000000") + b"hi"
        self.assertEqual(COMPATIBLE.encode(b"hi"), golden)
        self.assertEqual(COMPATIBLE.splitter(65536).feed(golden), [b"hi"])
        self.assertEqual(COMPATIBLE.splitter(65536).feed(frame(b"x", command=7)), [Tlv(7, b"x")])
        self.assertEqual(CompatibleCodec().pack(Tlv(7, b"x"))[4:8], b"\0\0\0\x07")

    def test_commands_have_32_bits(self) -> None:
        """A-08: another is an error that names it."""
        for wrong in (-1, 2**32):
            with self.assertRaises(ValueError):
                CompatibleCodec().pack(Tlv(wrong, b""))

    def test_limit(self) -> None:
        """A-08: 50 KiB, in both directions."""
        splitter = COMPATIBLE.splitter(1_000_000)
        body = b"x" * MAX_BODY
        self.assertEqual(splitter.feed(COMPATIBLE.encode(body)), [body])
        self.assertEqual(splitter.feed(frame(b"", length=MAX_BODY + 1)), [])
        self.assertEqual((splitter.too_large, splitter.corrupt), (True, False))
        with self.assertRaises(MessageTooLarge):
            COMPATIBLE.encode(body + b"x")

    @given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 300)))
    def test_any_pieces(self, bodies: list[bytes], cuts: list[int]) -> None:
        """A-10: whole, however the bytes are cut."""
        data = b"".join(frame(body) for body in bodies)
        splitter = COMPATIBLE.splitter(65536)
        found: list[Any] = []
        for cut in cuts:
            piece, data = data[:cut], data[cut:]
            found += splitter.feed(piece)
        found += splitter.feed(data)
        self.assertEqual(found, bodies)
        self.assertEqual(splitter.buffered, 0)

    @given(st.lists(st.binary(max_size=100)))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """A-09: no bytes raise, nothing comes after a wrong magic, little is kept."""
        splitter = COMPATIBLE.splitter(65536)
        for piece in pieces:
            found = splitter.feed(piece)
            if splitter.corrupt:
                self.assertEqual(splitter.buffered, 0)
            elif piece:
                self.assertEqual(found, [])


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = Broker(self.clock, wall=self.clock.seconds)
        service = BusService(self.broker)
        self.manager = ConnectionManager(self.clock, service, ServerSettings())
        self.transport = StringTransport()
        self.protocol = CodecFactory(self.manager, CompatibleCodec()).buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def test_a_call_over_the_limit(self) -> None:
        """A-22: one outcome, and nothing left, where a subscriber's codec cannot carry it."""
        ask = {"id": 1, "method": "bus.subscribe", "params": {"topics": ["t"]}}
        self.protocol.dataReceived(COMPATIBLE.encode(json.dumps(ask).encode()))
        self.transport.clear()
        for model in Model:
            outcomes: list[Outcome] = []
            message = make_message(
                BusSettings(), "1", model, "t", data=b"\xff" * 45_000, timeout=1.0
            )
            self.broker.publish(message, outcomes.append)
            self.assertEqual(self.transport.value(), b"")
            self.clock.advance(1.0)
            (outcome,) = outcomes
            if model.reliable:
                self.assertEqual(outcome.kind, Kind.REFUSED)
                self.assertIn("too large message data", outcome.reason)
        self.assertEqual(self.broker.status().calls, 0)
        self.assertEqual(self.broker.status().subscribers[0].unanswered, 0)

    def test_wrong_magic(self) -> None:
        """A-09: answered before it is what came before, and the close has the reason."""
        self.protocol.dataReceived(frame(PING) + frame(PING, magic=20170104) + frame(PING))
        first, *rest = COMPATIBLE.splitter(65536).feed(self.transport.value())
        self.assertEqual(first, b'{"id":1,"result":true}')
        self.assertEqual(len(rest), 1)
        self.assertIn(b"malformed message", rest[0])
        self.assertTrue(self.transport.disconnecting)

    def test_too_large(self) -> None:
        """A-09: told from the header alone, and closed with the reason."""
        self.protocol.dataReceived(frame(b"", length=MAX_BODY + 1))
        (close,) = COMPATIBLE.splitter(65536).feed(self.transport.value())
        self.assertIn(b"too large", close)
        self.assertTrue(self.transport.disconnecting)


class ClientTests(SynchronousTestCase):
    """A-22: what the codec of a client's own connection cannot carry has its outcome, too."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.broker = Broker(self.network, wall=self.network.seconds)
        server = Server(self.network, BusService(self.broker), framing=CompatibleCodec())
        self.network.run(server.listen([":7000"]))
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", 7000)
        self.bus = RemoteBus(self.network, endpoint, framing=COMPATIBLE)
        self.network.run(self.bus.connect())

    def test_published(self) -> None:
        waiting = self.bus.publish_reliable_random(b"\xff" * 45_000, "t")
        outcome = self.successResultOf(waiting)
        self.assertEqual(outcome.kind, Kind.REFUSED)
        self.assertIn("too large message data", outcome.reason)
        self.assertEqual(self.broker.status().calls, 0)

    def test_answered(self) -> None:
        self.bus.subscribe(["t"], lambda message: b"\xff" * 45_000)
        outcome = self.network.run(self.bus.publish_reliable_random(b"", "t"))
        self.assertEqual(outcome.kind, Kind.REFUSED)
        self.assertIn("too large message data", outcome.reason)
