"""How lines end: as the peer's do (issue 12)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import ClientFactory
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import GOING_DOWN
from kupool.live.hub import Hub
from kupool.net import Observer, Server
from kupool.net.routing.interceptors import Intercepted
from kupool.net.testing import MemoryNetwork
from kupool.net.transport.protocols import LineFactory
from kupool.wire.codec import Codec, framing_of
from kupool.wire.codecs import JsonCodec, LineCodec
from kupool.wire.framing import LINE, LINE_CRLF, Framing
from kupool.wire.splitters import Item, LineSplitter
from tests.fakes.peers import Bench, PeerTransport, ping_router

PING = b'{"id":1,"method":"ping"}'
PONG = b'{"id":1,"result":true}'


class SplitterTests(SynchronousTestCase):
    """The splitter says how its peer ends lines, and cuts as ever."""

    @given(st.lists(st.sampled_from([b"a", b"{}", b"", b"\r", b"x\ry"])), st.booleans(), st.data())
    def test_any_lines_cut_anywhere(self, payloads: list[bytes], crlf: bool, data: Any) -> None:
        end = b"\r\n" if crlf else b"\n"
        stream = b"".join(payload + end for payload in payloads)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
        splitter, told, found = LineSplitter(100), [0], list[Item]()

        def tell() -> None:
            told[0] += 1

        splitter.on_crlf = tell
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            found += splitter.feed(stream[start:stop])
        # A lone CR before an LF is the end of an empty line, whoever sent it.
        expected = [p if crlf else p.removesuffix(b"\r") for p in payloads]
        self.assertEqual(found, [payload for payload in expected if payload])
        begun = [p for p in payloads if p.rstrip(b"\r")]
        self.assertEqual(told[0], 1 if crlf and begun else 0)

    def test_it_is_told_before_the_line_is_handed_out(self) -> None:
        splitter, told = LineSplitter(100), list[str]()
        splitter.on_crlf = lambda: told.append("crlf")
        self.assertEqual(splitter.feed(b"\r\n{"), [])
        self.assertEqual(told, [])
        self.assertEqual(splitter.feed(b"}\r\n"), [b"{}"])
        self.assertEqual(told, ["crlf"])

    def test_any_first_line_decides(self) -> None:
        for line in (b"x", b"!", b" ", b"\r!"):
            splitter, told = LineSplitter(100), list[str]()
            splitter.on_crlf = lambda told=told: told.append("crlf")  # type: ignore[misc]
            self.assertEqual(splitter.feed(line + b"\r\n"), [line])
            self.assertEqual(told, ["crlf"])

    def test_the_first_line_decides(self) -> None:
        splitter, told = LineSplitter(100), list[str]()
        splitter.on_crlf = lambda: told.append("crlf")
        self.assertEqual(splitter.feed(b"{}\n[]\r\n"), [b"{}", b"[]"])
        self.assertEqual(splitter.feed(b"[]\r\n"), [b"[]"])
        self.assertEqual(told, [])

    def test_a_splitter_around_it_passes_it_on(self) -> None:
        splitter: Any = Intercepted(LineCodec(), decode=[lambda item: item]).splitter(100)
        told = list[str]()

        def tell() -> None:
            told.append("crlf")

        self.assertIsNone(splitter.on_crlf)
        splitter.on_crlf = tell
        self.assertIs(splitter.on_crlf, tell)
        splitter.feed(b"{}\r\n")
        self.assertEqual(told, ["crlf"])

    def test_limits_hold_on_the_short_way(self) -> None:
        """A read that is one whole line is no way around the largest payload."""
        for end in (b"\n", b"\r\n"):
            splitter = LineSplitter(3)
            self.assertEqual(splitter.feed(b"abc" + end), [b"abc"])
            self.assertEqual(splitter.feed(b"abc" + end), [b"abc"])
            self.assertEqual((splitter.feed(b"abcd" + end), splitter.too_large), ([], True))
            splitter.max_payload = 4
            self.assertEqual(splitter.resume(), [b"abcd"])


class EncodingTests(SynchronousTestCase):
    def test_framings(self) -> None:
        self.assertIs(LINE.crlf, LINE_CRLF)
        self.assertEqual(LINE_CRLF.encode(b"{}"), b"{}\r\n")
        self.assertEqual(LINE_CRLF.join([b"1", b"2"]), b"1\r\n2\r\n")
        self.assertIsNone(LINE_CRLF.crlf)

    def test_codecs(self) -> None:
        codecs: list[Codec] = [LineCodec(max_payload=9), JsonCodec(max_payload=9)]
        codecs += [Intercepted(codec, encode=[lambda item: item]) for codec in codecs]
        for codec in codecs:
            framing = framing_of(codec)
            self.assertEqual(framing.encode(b"{}"), b"{}\n")
            assert framing.crlf is not None
            self.assertEqual(framing.crlf.encode(b"{}"), b"{}\r\n")
            self.assertEqual(framing.crlf.join([b"1", b"2"]), b"1\r\n2\r\n")
            self.assertNotEqual(framing.crlf.name, framing.name)
            with self.assertRaises(ValueError):
                framing.crlf.encode(b"0123456789")


class ConnectionTests(SynchronousTestCase):
    """Answers, what is pushed, and the close: all end as the peer's lines do."""

    def framings(self) -> list[Framing]:
        upper = Intercepted(LineCodec(), decode=[lambda item: item])
        return [LINE, framing_of(JsonCodec()), framing_of(upper)]

    def talk(self, framing: Framing, end: bytes) -> bytes:
        bench = Bench()
        channel = Hub(bench.clock).latest("job")
        other, heard = bench.connect(framing)
        other.feed(PING + b"\n")
        heard.clear()
        connection, transport = bench.connect(framing)
        for each in (other, connection):
            channel.subscribe(each)
        connection.feed(PING + end)
        connection.feed(PING + end + PING + end)
        channel.publish(b"job")
        connection.reply(2, "late")
        connection.close(GOING_DOWN)
        self.assertEqual(heard.value(), b"job\n", "nobody else's change")
        return transport.value()

    def test_as_the_peer_does(self) -> None:
        for framing in self.framings():
            for end in (b"\n", b"\r\n"):
                lines = self.talk(framing, end)
                returns = lines.count(b"\n") if end == b"\r\n" else 0
                self.assertEqual(lines.count(b"\r"), returns)
                *payloads, close, last = lines.split(end)
                late = b'{"id":2,"result":"late"}'
                self.assertEqual(payloads, [PONG, PONG, PONG, b"job", late])
                self.assertIn(b"server going down", close)
                self.assertEqual(last, b"")

    def test_before_the_first_line_it_is_lf(self) -> None:
        connection, transport = Bench().connect(LINE)
        connection.send(b"hello")
        connection.feed(PING + b"\r\n")
        self.assertEqual(transport.value(), b"hello\n" + PONG + b"\r\n")

    def test_a_protocol_that_went_back_to_the_stock_receiver(self) -> None:
        bench = Bench()
        protocol: Any = LineFactory(bench.manager).buildProtocol(None)
        transport = PeerTransport()
        protocol.makeConnection(transport)
        protocol.lineReceived(PING + b"\r")
        self.assertEqual(transport.value(), PONG + b"\r\n")


class LineReceiverTests(SynchronousTestCase):
    def test_twisted_as_it_is(self) -> None:
        """Issue 12: a stock LineReceiver, whose lines end with CR LF, hears its answers."""
        heard: list[bytes] = []

        class Peer(LineReceiver):
            def connectionMade(self) -> None:
                self.sendLine(PING)

            def lineReceived(self, line: bytes) -> None:
                heard.append(line)

        for framing in ("auto", "line", "json"):
            network = MemoryNetwork(chunk=3)
            server = Server(network, Observer(ping_router()), framing=framing)
            network.run(server.listen([":8000"]))
            network.connectTCP("localhost", 8000, ClientFactory.forProtocol(Peer))
            network.settle()
            network.run(server.stop(), 20)
            self.assertEqual((heard[0], b"server going down" in heard[1]), (PONG, True))
            self.assertEqual(len(heard), 2)
            heard.clear()
