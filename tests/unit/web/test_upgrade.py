"""Issue 12: the handshake of a WebSocket, its limits, its pings and its turns; on a fake clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.router import Router
from kupool.net.turns import SHARE
from kupool.session.connection import BUDGET
from kupool.web.site import HttpLimits, make_site
from kupool.web.websocket import CLOSE_GRACE
from tests.fakes.web_site import MOMENT, NOW, Answer, RouteTestCase, Transport, TurningClock
from tests.fakes.websocket_frames import frame, frames

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
PING = b'{"id":7,"method":"ping"}'
PONG = b'{"id":7,"result":true}'

GOOD: dict[bytes, bytes | None] = {
    b"Host": b"localhost:8081",
    b"Connection": b"Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}


class SocketTransport(Transport):
    """A transport whose reading can be paused, and whose end reaches the protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def taken(self) -> bytes:
        data = self.value()
        self.clear()
        return data


class UpgradeCase(RouteTestCase):
    settings = ServerSettings()

    def setUp(self) -> None:
        super().setUp()
        self.clock = TurningClock()
        router = Router()
        router.add("ping", lambda connection, message: True)
        router.add("long", lambda connection, message: True, str)
        self.manager = ConnectionManager(self.clock, Observer(router), self.settings)
        self.site = make_site(
            self.clock,
            self.source,
            self.stats,
            lambda: NOW,
            manager=self.manager,
            ws_origins=["https://pool.example.com"],
            limits=self.limits,
        )
        self.addCleanup(self.site.refusals.stop)

    def connect(self) -> tuple[Any, SocketTransport]:
        protocol: Any = self.site.buildProtocol(None)
        transport = SocketTransport()
        transport.protocol = protocol  # as real ones have it
        protocol.makeConnection(transport)
        return protocol, transport

    def request(
        self, path: bytes = b"/ws", method: bytes = b"GET", version: bytes = b"1.1", **headers: Any
    ) -> SocketTransport:
        """Send a good handshake with some headers replaced; None leaves one out."""
        given = {**GOOD, **{n.replace("_", "-").encode(): v for n, v in headers.items()}}
        lines = [b"%b %b HTTP/%b" % (method, path, version)]
        for name, value in given.items():
            values = value if isinstance(value, list) else [value]
            lines += [b"%b: %b" % (name, one) for one in values if one is not None]
        protocol, transport = self.connect()
        protocol.dataReceived(b"\r\n".join(lines) + b"\r\n\r\n")
        return transport

    def open(self) -> SocketTransport:
        transport = self.request()
        head = transport.taken()
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        return transport

    def feed(self, transport: SocketTransport, data: bytes) -> None:
        transport.protocol.dataReceived(data)


class HandshakeTests(UpgradeCase):
    def test_what_is_answered(self) -> None:
        """K-12"""
        self.assertEqual(
            self.request().value(),
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        self.assertEqual((len(self.manager), self.site.connections), (1, 0))

    def test_as_others_write_it(self) -> None:
        """Lists, any case, a query; what is asked for besides is passed over."""
        transport = self.request(
            path=b"/ws?token=1",
            Connection=b"keep-alive, upgrade",
            Upgrade=b"h2c, WebSocket",
            Sec_WebSocket_Extensions=b"permessage-deflate; client_max_window_bits, \xff;;=",
        )
        self.assertIn(b" 101 ", transport.value())
        self.assertNotIn(b"Extensions", transport.value())

    def test_subprotocols(self) -> None:
        """Issue 12: one of those that are asked for is answered, or a browser ends it."""
        for asked, chosen in (
            (b"kupool", b"kupool"),
            (b"chat, kupool", b"kupool"),
            (b"chat, superchat", b"chat"),
            ([b"a", b"b"], b"a"),
            (b"", None),
            (b"\xff\xfe, (x)", None),
        ):
            head = self.request(Sec_WebSocket_Protocol=asked).value()
            self.assertIn(b" 101 ", head)
            if chosen is None:
                self.assertNotIn(b"Sec-WebSocket-Protocol", head)
            else:
                self.assertEqual(head.count(b"Sec-WebSocket-Protocol: %b\r\n" % chosen), 1)

    def test_another_version(self) -> None:
        """Issue 12: 426, which names what is spoken."""
        for version in (
            b"8",
            b"7",
            b"14",
            b"013",
            b"",
            b"x",
            b"\xff",
            b"13, 8",
            [b"13", b"8"],
            None,
        ):
            answer = Answer(self.request(Sec_WebSocket_Version=version).value())
            self.assertEqual(answer.code, 426, version)
            self.assertEqual(answer.headers["sec-websocket-version"], "13")
            self.assertEqual(answer.headers["upgrade"], "websocket")
            self.assertEqual(answer.headers["connection"], "Upgrade")
            self.assertIn("Sec-WebSocket-Version", answer.json["error"])

    def test_what_is_no_handshake(self) -> None:
        for headers, code in (
            ({"Upgrade": None}, 426),
            ({"Upgrade": b"\xff"}, 426),
            ({"Connection": b"keep-alive"}, 400),
            ({"Connection": None}, 400),
            ({"Sec_WebSocket_Key": None}, 400),
            ({"Sec_WebSocket_Key": b"\xff" * 24}, 400),
            ({"Sec_WebSocket_Key": b"short"}, 400),
            ({"Sec_WebSocket_Key": [KEY, KEY]}, 400),
            ({"version": b"1.0"}, 400),
            ({"Origin": b"https://evil.example"}, 403),
            ({"Origin": b"\xff"}, 403),
            ({"Origin": b"http://localhost:8081", "Host": b"\xff"}, 403),
            ({"Origin": b"http://localhost:8081", "Host": b"localhost:99999"}, 403),
            ({"Origin": b"http://localhost:8081", "Host": b"[localhost:8081"}, 403),
            ({"method": b"POST"}, 405),
        ):
            answer = Answer(self.request(**headers).value())  # type: ignore[arg-type]
            self.assertEqual(answer.code, code, headers)
            self.assertTrue(answer.json["error"])
        self.assertEqual(len(self.manager), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_pages_of_other_sites(self) -> None:
        """Issue 17, bad input: the answer says what to set, and so does the log."""
        with capturedLogs() as events:
            answers = [
                Answer(self.request(Origin=origin).value()).json["error"]
                for origin in (b"http://localhost:8000", b"null")
            ]
        site = "http://localhost:8000"
        advice = f"pages of {site!r} may not use this: add {site} to --ws-origins"
        self.assertIn(advice, answers[0])
        self.assertIn("serve it with a web server", answers[1])
        self.assertEqual(sum(advice in (formatEvent(event) or "") for event in events), 1)
        self.assertEqual(self.site.refusals.counts["pages of other sites"], 2)

    def test_a_host_of_any_bytes(self) -> None:
        """Who is no browser sends no origin, and any host."""
        self.assertIn(b" 101 ", self.request(Host=b"\xff").value())

    def test_frames_behind_the_handshake(self) -> None:
        """Those of a peer that does not wait for the answer are read like any other."""
        protocol, transport = self.connect()
        lines = [b"GET /ws HTTP/1.1", *(b"%b: %b" % header for header in GOOD.items())]
        protocol.dataReceived(b"\r\n".join(lines) + b"\r\n\r\n" + frame(0x81, PING))
        self.assertEqual(frames(transport.value().partition(b"\r\n\r\n")[2]), [(0x81, PONG)])

    def test_elsewhere(self) -> None:
        """Issue 12: whoever looks for it at another path is told where it is."""
        for path in (b"/", b"/socket", b"/ws/", b"/ws/x", b"/WS", b"/stats", b"/%ff", b"/health"):
            answer = Answer(self.request(path=path).value())
            self.assertEqual(answer.code, 404, path)
            self.assertIn("/ws", answer.json["error"].partition(";")[2])
        answer = Answer(self.request(path=b"/health", Upgrade=b"h2c").value())
        self.assertEqual(answer.code, 200)

    def test_elsewhere_where_there_is_none(self) -> None:
        site = make_site(self.clock, self.source, self.stats, lambda: NOW)
        self.addCleanup(site.refusals.stop)
        self.site = site
        self.assertEqual(Answer(self.request(path=b"/health").value()).code, 200)
        self.assertEqual(Answer(self.request().value()).json, {"error": "not found: /ws"})


class LimitTests(UpgradeCase):
    limits = HttpLimits(max_connections=4, max_websockets=3, ping_interval=0.0)

    def test_websockets_and_requests_have_limits_of_their_own(self) -> None:
        """Issue 12: neither takes anything from the other."""
        opened = [self.open() for _ in range(3)]
        self.assertEqual(self.site.connections, 0)
        silent = [self.connect()[1] for _ in range(4)]
        self.clock.advance(1.0)
        self.feed(opened[0], frame(0x81, PING))
        self.assertEqual(frames(opened[0].taken()), [(0x81, PONG)])
        self.assertEqual(self.ask("/health").code, 200)
        self.assertEqual([t.aborted for t in silent], [True, False, False, False])

    def test_too_many(self) -> None:
        for _ in range(3):
            self.open()
        refused = self.open_refused()
        self.assertEqual(self.site.refusals.counts, {"WebSockets, too many connections": 1})
        self.assertEqual((self.manager.refused, len(self.manager)), (1, 3))
        self.assertEqual(self.manager.counters.closes, {"too many connections": 1})
        self.assertEqual(self.site.connections, 1)  # until it is gone
        self.clock.advance(CLOSE_GRACE)
        self.assertTrue(refused.closed)
        self.clock.advance(self.settings.write_timeout)
        self.assertTrue(refused.aborted)
        refused.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.site.connections, 0)

    def open_refused(self) -> SocketTransport:
        transport = self.request()
        head, _, rest = transport.taken().partition(b"\r\n\r\n")
        self.assertIn(b" 101 ", head)
        self.assertEqual(frames(rest), [(0x88, b"\x10\x06too many connections")])
        return transport

    def test_refused_ones_make_room(self) -> None:
        """Those that are told why are in nobody's way."""
        for _ in range(3):
            self.open()
        refused = []
        for _ in range(8):
            refused.append(self.open_refused())
            self.clock.advance(0.3)
        self.assertEqual(self.ask("/health").code, 200)
        self.assertTrue(refused[0].aborted)

    def test_a_place_that_is_free_again(self) -> None:
        opened = [self.open() for _ in range(3)]
        opened[1].protocol.connectionLost(Failure(ConnectionDone()))
        self.feed(self.open(), frame(0x81, PING))
        self.assertEqual(len(self.manager), 3)


class PingTests(UpgradeCase):
    limits = HttpLimits(ping_interval=10.0)

    def test_one_who_is_silent(self) -> None:
        transport = self.open()
        self.clock.advance(10.0)
        self.assertEqual(frames(transport.taken()), [(0x89, b"")])
        self.clock.advance(10.0)
        self.clock.advance(MOMENT)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.manager.counters.closes, {"idle timeout": 1})

    def test_a_pause_of_the_servers_own(self) -> None:
        """Issue 12: what has come meanwhile is read before anybody is judged."""
        transport = self.open()
        self.clock.advance(10.0)
        self.clock.advance(500.0)  # its timers come first, as after a SIGSTOP
        self.feed(transport, frame(0x8A, b""))
        self.clock.advance(MOMENT)
        self.assertFalse(transport.aborted)
        for _ in range(3):  # it goes on as before
            self.assertEqual(frames(transport.taken())[-1:], [(0x89, b"")])
            self.feed(transport, frame(0x8A, b""))
            self.clock.advance(10.1)
        self.clock.advance(10.1)
        self.clock.advance(MOMENT)
        self.assertTrue(transport.aborted)

    def test_whatever_came_counts(self) -> None:
        transport = self.open()
        for _ in range(10):
            self.clock.advance(10.0)
            self.feed(transport, frame(0x81, PING)[:3])
            self.assertFalse(transport.aborted)
            self.feed(transport, frame(0x81, PING)[3:])

    def test_one_that_ends_between(self) -> None:
        """No timer is left of one that goes while it is judged."""
        transport = self.open()
        self.clock.advance(10.0)
        self.clock.advance(10.0)
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TurnTests(UpgradeCase):
    limits = HttpLimits(ping_interval=0.0)
    settings = ServerSettings(max_frame=65536, idle_timeout=100.0)

    def test_a_flood_of_pings(self) -> None:
        """Issue 12: a peer has its share of a turn, and is not read from meanwhile."""
        transport = self.open()
        self.feed(transport, frame(0x89, b"") * (5 * BUDGET))
        for turn in range(1, 6):
            self.assertEqual(len(frames(transport.value())), turn * BUDGET)
            self.assertFalse(transport.reading)
            self.clock.advance(MOMENT)
        self.clock.advance(MOMENT)
        self.assertTrue(transport.reading)
        self.assertEqual(len(frames(transport.value())), 5 * BUDGET)

    def test_fragments_without_end(self) -> None:
        """Issue 12: so it is with fragments, the empty ones too; the message arrives."""
        transport = self.open()
        text = b'{"id":7,"method":"long","params":"%b"}' % (b"x" * 3000)
        data = frame(0x01, text[:1])
        for byte in text[1:]:
            data += frame(0x00, bytes((byte,))) + frame(0x00, b"")
        self.feed(transport, data + frame(0x80, b""))
        turns = 0
        while not transport.reading:
            self.clock.advance(MOMENT)
            turns += 1
        self.assertEqual(turns, 2 * len(text) // BUDGET)
        self.assertEqual(frames(transport.taken()), [(0x81, PONG)])

    def test_a_held_connection_in_the_middle_of_it(self) -> None:
        transport = self.open()
        (connection,) = self.manager
        self.feed(transport, frame(0x81, PING) * (2 * BUDGET))
        connection.hold()
        for _ in range(5):
            self.clock.advance(MOMENT)
        self.assertFalse(transport.reading)
        before = len(frames(transport.value()))
        self.assertTrue(before < 2 * BUDGET)
        connection.release()
        while not transport.reading:
            self.clock.advance(MOMENT)
        self.assertEqual(frames(transport.value()), [(0x81, PONG)] * (2 * BUDGET))

    def test_one_that_is_lost_in_the_middle_of_it(self) -> None:
        transport = self.open()
        self.feed(transport, frame(0x89, b"") * (5 * BUDGET))
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        before = transport.value()
        self.clock.advance(MOMENT)
        self.assertEqual((self.clock.getDelayedCalls(), transport.value()), ([], before))

    def test_many_that_flood(self) -> None:
        """Issue 12, point 8: together they have a share of each turn, one after the other."""
        cost, flooding = 0.00001, [self.open() for _ in range(100)]

        def takes_time(write: Callable[[bytes], None]) -> Callable[[bytes], None]:
            def slow(data: bytes) -> None:
                self.clock.rightNow += cost
                write(data)

            return slow

        for transport in flooding:
            transport.write = takes_time(transport.write)  # type: ignore[method-assign]
            self.feed(transport, frame(0x89, b"") * (3 * BUDGET))
        polite = self.open()
        while not all(transport.reading for transport in flooding):
            before = [len(t.value()) for t in flooding]
            self.clock.rightNow += MOMENT
            began = self.clock.seconds()
            for call in self.clock.getDelayedCalls():  # not those that these will make
                if call.getTime() <= began:
                    self.clock.calls.remove(call)
                    call.called = 1
                    call.func(*call.args, **call.kw)
            self.assertLess(self.clock.seconds() - began, SHARE + 2 * BUDGET * cost)
            answered = [len(t.value()) - n for t, n in zip(flooding, before, strict=True)]
            self.assertLessEqual(max(answered), BUDGET * len(b"\x8a\0"))
            self.feed(polite, frame(0x81, PING))
            self.assertEqual(frames(polite.taken()), [(0x81, PONG)])
        for transport in flooding:
            self.assertEqual(len(frames(transport.value())), 3 * BUDGET)

    def test_one_that_fails_in_a_later_turn(self) -> None:
        """It costs its own connection, and the others no turn."""
        hostile, other = self.open(), self.open()
        for transport in (hostile, other):
            self.feed(transport, frame(0x89, b"") * (3 * BUDGET))

        def fail(data: bytes) -> None:
            raise SystemExit

        hostile.write = fail  # type: ignore[method-assign]
        for _ in range(5):
            self.clock.advance(MOMENT)
        self.assertTrue(hostile.closed)
        self.assertEqual(len(frames(other.value())), 3 * BUDGET)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_both_kinds_in_one_read(self) -> None:
        """K-12: each answer is of the kind of its message."""
        transport = self.open()
        self.feed(transport, frame(0x81, PING) + frame(0x82, PING) + frame(0x81, PING))
        self.assertEqual([first for first, _ in frames(transport.taken())], [0x81, 0x82, 0x81])

    def test_a_message_that_is_never_whole(self) -> None:
        """Issue 12: pings inside it do not keep the connection beyond the idle timeout."""
        transport = self.open()
        self.feed(transport, frame(0x01, b"{"))
        for _ in range(101):
            self.clock.advance(1.0)
            self.feed(transport, frame(0x00, b"") + frame(0x89, b""))
            self.manager.sweep()
        self.assertEqual(frames(transport.value())[-1], (0x88, b"\x10\x05idle timeout"))

    def test_pings_alone_keep_a_connection(self) -> None:
        transport = self.open()
        for _ in range(300):
            self.clock.advance(1.0)
            self.feed(transport, frame(0x89, b""))
            self.manager.sweep()
        self.assertEqual(len(self.manager), 1)


class MessageTimeoutTests(UpgradeCase):
    limits = HttpLimits(ping_interval=0.0)
    settings = ServerSettings(idle_timeout=0.0, message_timeout=5.0)

    def test_the_rest_of_a_message(self) -> None:
        """Issue 12: ``message_timeout`` is kept in this framing too."""
        for part in (frame(0x01, b""), frame(0x81, b"whole")[:4], b"\x81"):
            transport = self.open()
            self.feed(transport, part)
            for _ in range(7):
                self.clock.advance(1.0)
                self.manager.sweep()
            self.assertEqual(frames(transport.taken()), [(0x88, b"\x10\x05idle timeout")])

    def test_none_that_has_begun(self) -> None:
        transport = self.open()
        self.feed(transport, frame(0x81, PING))
        for _ in range(20):
            self.clock.advance(1.0)
            self.manager.sweep()
        self.assertEqual(frames(transport.taken()), [(0x81, PONG)])


class EndTests(UpgradeCase):
    limits = HttpLimits(ping_interval=0.0)

    def test_the_peer_closes(self) -> None:
        """K-85: its close is answered, behind its answers; what follows it is not read."""
        transport = self.open()
        self.feed(transport, frame(0x81, PING) + frame(0x88, b"\x03\xe8") + frame(0x81, PING))
        self.assertEqual(frames(transport.taken()), [(0x81, PONG), (0x88, b"\x03\xe8")])
        self.assertTrue(transport.closed)

    def test_what_is_no_websocket(self) -> None:
        transport = self.open()
        self.feed(transport, frame(0x81, PING) + frame(0x83, b"") + frame(0x81, PING))
        self.assertEqual(frames(transport.taken()), [(0x81, PONG), (0x88, b"\x03\xea")])
        self.assertFalse(transport.closed)
        self.clock.advance(CLOSE_GRACE)
        self.assertTrue(transport.closed)

    def test_reasons_that_cannot_be_encoded(self) -> None:
        """Issue 12: a lone surrogate in a reason is escaped, not the close."""
        from kupool.errors import GOING_DOWN

        transport = self.open()
        (connection,) = self.manager
        connection.close(GOING_DOWN._replace(reason="so \ud800 long"))
        self.assertEqual(frames(transport.taken()), [(0x88, b"\x0f\xa0so \\ud800 long")])


class HttpOnThePoolsPortTests(UpgradeCase):
    def test_it_names_where_the_websocket_is(self) -> None:
        """Issue 12: also where a handshake comes to the pool's own port."""
        from kupool.net.transport.detecting import DetectingFactory

        protocol = DetectingFactory(self.manager, "port 8081").buildProtocol(None)
        transport = Transport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b"GET /ws HTTP/1.1\r\nHost: \xff\r\nUpgrade: \xff\r\n\r\n")
        head, _, body = transport.value().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 400 "))
        self.assertIn(b"port 8081, WebSocket there at /ws", body)
        self.assertEqual(len(body), int(head.partition(b"Content-Length: ")[2].split()[0]))
        self.assertRaises(json.JSONDecodeError, json.loads, body)
