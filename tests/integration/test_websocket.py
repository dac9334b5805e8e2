"""K-12: what only WebSocket has: handshake, origins, kinds, fragments, pings, closes."""

from __future__ import annotations

import json
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kupool.errors import GOING_DOWN
from kupool.net.manager import ServerSettings
from kupool.session.lifecycle import CLOSED
from kupool.web import websocket
from kupool.web.site import HttpLimits
from tests.servers.websocket_peers import (
    BinaryWebSocketClient,
    Client,
    House,
    WebSocketClient,
    solution,
)

PING = b'{"id":7,"method":"ping"}'
PONG = {"id": 7, "result": True}


class WebSocketTestCase(TestCase):
    """A house, whose settings a subclass gives."""

    timeout = 60
    named: dict[str, Any] = {}

    async def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.house = House(reactor, **self.named)
        await self.house.start()
        self.addCleanup(self.house.stop)

    async def open(self, client: WebSocketClient | None = None) -> WebSocketClient:
        """Connect and wait for the handshake."""
        client = client or WebSocketClient()
        await self.house.connect(client)
        await client.opened
        return client

    async def refused(self, client: WebSocketClient) -> bytes:
        """Connect a client that is refused over HTTP; returns the status line."""
        await self.house.connect(client)
        await self.house.until(lambda: client.refusal)
        return client.refusal.partition(b"\r\n")[0]


class MessageTests(WebSocketTestCase):
    """K-12: messages, whole or in pieces."""

    async def test_answers_are_of_the_kind_of_the_messages(self) -> None:
        client = await self.open(BinaryWebSocketClient())
        await client.authorize()
        self.assertEqual(client.kinds, [2, 2])
        client.opcode = 1
        await client.call("ping")
        self.assertEqual(client.kinds, [2, 2, 1])
        await self.house.rotate()
        await client.receive()
        self.assertEqual(client.kinds, [2, 2, 1, 1])

    async def test_fragments_make_one_message(self) -> None:
        client = await self.open()
        await client.authorize()
        write = client.transport.write
        write(client.frame(0x01, PING[:5]))
        write(client.frame(0x00, b""))
        write(client.frame(0x89, b"between"))
        write(client.frame(0x00, PING[5:9]))
        write(client.frame(0x80, PING[9:]))
        self.assertEqual(await client.receive(), PONG)
        self.assertEqual(client.pongs, [b"between"])

    async def test_every_split_of_the_bytes(self) -> None:
        client = await self.open()
        await client.authorize()
        for byte in client.encode(PING):
            client.transport.write(bytes((byte,)))
            await deferLater(self.reactor, 0)
        self.assertEqual(await client.receive(), PONG)

    async def test_an_empty_message_is_ignored(self) -> None:
        client = await self.open()
        await client.authorize()
        client.send(b"", PING)
        self.assertEqual(await client.receive(), PONG)

    async def test_a_header_alone_is_refused(self) -> None:
        """K-07: nothing of what was announced needs to come."""
        self.patch(websocket, "CLOSE_GRACE", 0.05)  # the close is answered inside the message
        for opcode, length in ((0x81, 1025), (0x82, 65536), (0x81, 2**40), (0x01, 2**62)):
            client = await self.open()
            client.transport.write(client.frame(opcode, b"", length))
            self.assertEqual(await client.ending(), (4501, "frame too large"))

    async def test_the_rest_of_what_was_too_large_is_thrown_away(self) -> None:
        """K-07: the close is answered behind it, and nothing of it is kept."""
        client = await self.open()
        (connection,) = self.house.manager
        protocol = connection.transport._protocol
        client.transport.write(client.frame(0x81, b"", 2**40))
        for _ in range(20):
            client.transport.write(b"x" * 65536)
        await self.house.until(lambda: client.ended is not None)
        self.assertTrue(protocol._reader.buffered <= 65536)
        self.assertEqual(await client.ending(), (4501, "frame too large"))

    async def test_fragments_that_add_up(self) -> None:
        """K-07: the size of a message counts, however it is cut."""
        client = await self.open()
        client.transport.write(client.frame(0x01, b"x" * 600) + client.frame(0x00, b"", 425))
        self.assertEqual(await client.ending(), (4501, "frame too large"))

    async def test_empty_fragments_fill_nothing(self) -> None:
        client = await self.open()
        await client.authorize()
        (connection,) = self.house.manager
        client.transport.write(client.frame(0x01, PING[:5]))
        client.transport.write(client.frame(0x00, b"") * 5000)
        client.transport.write(client.frame(0x89, b"done"))
        await self.house.until(lambda: client.pongs)
        self.assertEqual(connection.transport._protocol._reader.buffered, 5)
        client.transport.write(client.frame(0x80, PING[5:]))
        self.assertEqual(await client.receive(), PONG)

    async def test_what_is_no_websocket(self) -> None:
        self.patch(websocket, "CLOSE_GRACE", 0.05)  # nothing that follows can be read
        for frame, code in (
            (b"\x81\x18" + PING, 1002),  # not masked
            (b"\xc1\x80\x00\x00\x00\x00", 1002),  # a reserved bit
            (b"\x83\x80\x00\x00\x00\x00", 1002),  # a reserved opcode
            (b"\x80\x80\x00\x00\x00\x00", 1002),  # the end of no message
            (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),  # text that is not UTF-8
        ):
            client = await self.open()
            await client.authorize()
            (connection,) = self.house.manager
            heard = connection.messages_in
            client.transport.write(frame)
            self.assertEqual((await client.ending())[0], code, frame)
            self.assertEqual(connection.messages_in, heard)
            await self.house.until(lambda: not len(self.house.manager))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_bytes_that_are_not_utf8_in_a_binary_message(self) -> None:
        client = await self.open(BinaryWebSocketClient())
        await client.authorize()
        client.send(b"\xff\xfe")
        answer = await client.receive()
        self.assertEqual((answer["id"], answer["error"]), (None, "malformed message"))

    async def test_pings_of_one_who_does_not_read_are_bounded(self) -> None:
        """Answers to pings wait in the same bounded outbox as all others."""
        client = await self.open()
        await client.authorize()
        (connection,) = self.house.manager
        client.transport.pauseProducing()
        connection.pauseProducing()  # as the transport does when its buffer is full
        limit = self.house.manager.settings.outbox_limit
        burst = client.frame(0x89, b"p" * 125) * 500
        while connection._backlogged_since is None:
            client.transport.write(burst)
            before = connection.outbound
            await self.house.until(lambda before=before: connection.outbound > before)
        for _ in range(50):
            client.transport.write(burst)
        for _ in range(20):
            await deferLater(self.reactor, 0)
        self.assertTrue(connection.outbound < limit + 65536, connection.outbound)


class HeldTests(WebSocketTestCase):
    """K-11: while a password is checked, what comes after it waits, however large."""

    named = {"password": "secret"}

    async def test_messages_behind_authorize_wait_for_it(self) -> None:
        client = await self.open()
        checks: list[Deferred[str]] = []
        greeting = self.house.pool.greeting

        async def allowed(user: str, password: str | None) -> str:
            checks.append(Deferred())
            return await checks[-1]

        self.patch(greeting._logins.authenticator, "allowed", allowed)
        large = json.dumps({"id": 9, "method": "ping"}).ljust(3000).encode()
        client.send({"id": 1, "method": "authorize", "params": {"username": "alice"}}, large, PING)
        await self.house.until(lambda: checks)
        (connection,) = self.house.manager
        self.assertEqual(connection.messages_in, 1)
        checks[0].callback("worker")
        self.assertEqual(await client.receive(), {"id": 1, "result": True})
        self.assertEqual((await client.receive())["method"], "job")
        self.assertEqual(await client.receive(), {"id": 9, "result": True})
        self.assertEqual(await client.receive(), PONG)

    async def test_a_password(self) -> None:
        """K-17"""
        client = await self.open()
        answer = await client.call("authorize", username="alice", password="secret")
        self.assertEqual(answer["result"], True)
        client = await self.open()
        answer = await client.call("authorize", username="alice", password="wrong")
        self.assertEqual(answer["error"], "unauthorized")
        self.assertEqual(await client.ending(), (4500, "unauthorized"))


class EndTests(WebSocketTestCase):
    """K-85: however a connection ends, both sides know, and nothing of it stays."""

    timeout = 20
    named = {"settings": ServerSettings(write_timeout=600.0)}

    async def test_the_clients_close_comes_after_its_answers(self) -> None:
        client = await self.open()
        job = await client.authorize()
        self.house.log.held = []
        client.send({"id": 7, "method": "submit", "params": solution(job, "a")})
        client.transport.write(client.frame(0x88, (1000).to_bytes(2, "big") + b"bye"))
        await self.house.until(lambda: self.house.acceptance.batches_in_flight)
        self.assertIdentical(client.ended, None)
        self.house.log.let_go()
        self.assertEqual(await client.receive(), PONG)
        self.assertEqual(await client.ending(), (1000, ""))
        await self.house.until(lambda: not len(self.house.manager))
        self.assertEqual(self.house.pool.sessions, 0)

    async def test_a_close_without_a_code(self) -> None:
        client = await self.open()
        client.transport.write(client.frame(0x88, b""))
        self.assertEqual(await client.ending(), (1000, ""))

    async def test_a_close_that_is_none(self) -> None:
        """A code that nobody may send ends the connection, however that is told."""
        for payload in (b"\x03\xe7", b"\x03", b"\x03\xe8\xff"):
            client = await self.open()
            client.transport.write(client.frame(0x88, payload))
            await client.gone
            await self.house.until(lambda: not len(self.house.manager))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_who_does_not_answer_a_close_is_ended(self) -> None:
        self.patch(websocket, "CLOSE_GRACE", 0.05)
        client = await self.open(WebSocketClient(polite=False))
        client.send(b"{}")
        self.assertEqual(await client.ending(), (4500, "unauthorized"))
        await self.house.until(lambda: not len(self.house.manager))

    async def test_a_close_while_nothing_is_read(self) -> None:
        """K-85: as in a stop, where connections are held first; the peer's close is read."""
        self.patch(websocket, "CLOSE_GRACE", 600.0)
        client = await self.open()
        await client.authorize()
        (connection,) = self.house.manager
        connection.hold()
        client.send(PING)
        await deferLater(self.reactor, 0.05)
        await self.house.manager.close_all(GOING_DOWN)
        self.assertEqual(await client.ending(), (4000, "server going down"))
        self.assertRaises(IndexError, client._messages.popleft)

    async def test_who_goes_without_a_word(self) -> None:
        client = await self.open()
        await client.authorize()
        (connection,) = self.house.manager
        client.transport.abortConnection()
        await self.house.until(lambda: connection.state is CLOSED)
        self.assertEqual((len(self.house.manager), self.house.pool.sessions), (0, 0))
        self.assertEqual(self.house.site.connections, 0)

    async def test_no_authorize_in_time(self) -> None:
        """K-15"""
        client = await self.open()
        (connection,) = self.house.manager
        connection.sweep(self.house.manager.now() + 10.0)
        self.assertEqual(await client.ending(), (4500, "unauthorized"))


class PingTests(WebSocketTestCase):
    """Pings find out who is gone, and keep those who are there."""

    named = {"limits": HttpLimits(ping_interval=0.05)}

    async def test_one_who_does_not_answer_is_cut_off(self) -> None:
        client = await self.open(WebSocketClient(polite=False))
        await client.authorize()
        await client.gone
        self.assertIdentical(client.ended, None)
        self.assertEqual(client.pings, 1)
        await self.house.until(lambda: not len(self.house.manager))
        self.assertEqual(self.house.manager.counters.closes["idle timeout"], 1)

    async def test_one_who_answers_is_not_idle(self) -> None:
        client = await self.open()
        await client.authorize()
        (connection,) = self.house.manager
        seen = connection.last_seen
        await self.house.until(lambda: client.pings >= 3)
        self.assertTrue(connection.last_seen > seen)
        self.assertEqual(await client.call("ping"), PONG)

    async def test_one_that_is_not_read_from_is_not_blamed(self) -> None:
        client = await self.open()
        await client.authorize()
        (connection,) = self.house.manager
        connection.hold()
        await deferLater(self.reactor, 0.2)
        self.assertEqual(len(self.house.manager), 1)
        connection.release()
        self.assertEqual(await client.call("ping"), PONG)


class LimitTests(WebSocketTestCase):
    """K-12: the limits of the pool are for all its connections."""

    named = {
        "settings": ServerSettings(max_connections=2),
        "limits": HttpLimits(max_connections=3),
    }

    async def test_too_many_connections(self) -> None:
        held = [await self.open() for _ in range(2)]
        client = await self.open()
        self.assertEqual(await client.ending(), (4102, "too many connections"))
        self.assertEqual(self.house.manager.refused, 1)
        held[0].transport.abortConnection()
        await self.house.until(lambda: len(self.house.manager) == 1)
        await (await self.open()).authorize()

    async def test_those_of_the_pool_are_not_of_http(self) -> None:
        held = [await self.open() for _ in range(2)]
        self.assertEqual(self.house.site.connections, 0)
        for client in held:
            client.transport.abortConnection()
        await self.house.until(lambda: not len(self.house.manager))
        self.assertEqual(self.house.site.connections, 0)

    async def test_those_refused_count_as_http_until_they_are_gone(self) -> None:
        for _ in range(2):
            await self.open()
        self.patch(websocket, "CLOSE_GRACE", 60.0)
        refused = [await self.open(WebSocketClient(polite=False)) for _ in range(3)]
        self.assertEqual(self.house.site.connections, 3)
        one_more = Client()
        one_more.http = True
        await self.house.connect(one_more)
        await one_more.gone
        for client in refused:
            client.transport.abortConnection()
        await self.house.until(lambda: self.house.site.connections == 0)

    async def test_an_address_that_is_banned(self) -> None:
        self.house.manager.ban("127.0.0.1", 60.0)
        client = await self.open()
        self.assertEqual(await client.ending(), (4503, "banned"))


class OriginTests(WebSocketTestCase):
    """Which pages may open the WebSocket: our own, and those of the setting."""

    named = {"ws_origins": ("https://pool.example.com",), "hosts": ("pool.lan",)}

    async def test_no_page_at_all(self) -> None:
        await (await self.open()).authorize()

    async def test_pages_of_this_server(self) -> None:
        port = self.house.http.getHost().port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "pool.lan"):
            client = await self.open(WebSocketClient(origin=f"http://{host}", host=host))
            client.transport.abortConnection()

    async def test_pages_of_the_setting(self) -> None:
        for origin in ("https://pool.example.com", "https://POOL.example.com:443"):
            client = await self.open(WebSocketClient(origin=origin))
            client.transport.abortConnection()

    async def test_other_pages(self) -> None:
        port = self.house.http.getHost().port
        for origin, host in (
            ("https://evil.example", ""),
            ("http://pool.example.com", ""),
            ("https://pool.example.com:8443", ""),
            ("https://pool.example.com.evil.example", ""),
            (f"https://localhost:{port}", ""),
            (f"http://localhost:{port + 1}", ""),
            ("null", ""),
            ("nonsense", ""),
            # A name that was made to point here is nobody's own host.
            (f"http://evil.example:{port}", f"evil.example:{port}"),
        ):
            status = await self.refused(WebSocketClient(origin=origin, host=host))
            self.assertEqual(status, b"HTTP/1.1 403 Forbidden", origin)
        self.assertEqual(len(self.house.manager), 0)

    async def test_a_request_without_upgrade(self) -> None:
        for request, status in (
            (b"GET /ws HTTP/1.1\r\n", b"HTTP/1.1 426 "),
            (b"POST /ws HTTP/1.1\r\nUpgrade: websocket\r\n", b"HTTP/1.1 405 "),
            (b"GET /ws/below HTTP/1.1\r\nUpgrade: websocket\r\n", b"HTTP/1.1 404 "),
            (b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n", b"HTTP/1.1 400 "),
        ):
            client = Client()
            client.http = True
            client.parse = lambda: None  # type: ignore[method-assign]
            await self.house.connect(client)
            client.transport.write(request + b"Host: localhost\r\nConnection: close\r\n\r\n")
            await client.gone
            self.assertTrue(client.buffer.startswith(status), client.buffer)
        self.assertEqual(self.house.site.connections, 0)

    def test_an_origin_that_is_none(self) -> None:
        from kupool.web.control import KnownHosts
        from kupool.web.upgrade import Origins

        for text in ("pool.example.com", "https://", "https://a/b", "ftp://a", "https://u@a", ""):
            self.assertRaises(ValueError, Origins, [text], KnownHosts())


class AutobahnTests(WebSocketTestCase):
    """K-12: a client that others wrote."""

    async def test_a_session(self) -> None:
        queue: DeferredQueue[dict[str, Any]] = DeferredQueue()
        closed: Deferred[tuple[int, str]] = Deferred()

        class Peer(WebSocketClientProtocol):
            def onOpen(self) -> None:
                self.ask(1, "authorize", {"username": "alice"})

            def ask(self, message_id: int, method: str, params: dict[str, Any]) -> None:
                message = {"id": message_id, "method": method, "params": params}
                self.sendMessage(json.dumps(message).encode())

            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                queue.put(json.loads(payload))

            def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
                closed.callback((code, reason))

        port = self.house.http.getHost().port
        factory = WebSocketClientFactory(f"ws://127.0.0.1:{port}/ws", reactor=self.reactor)
        factory.protocol = Peer
        # Its timers would outlive the test.
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0
        )
        peer = await TCP4ClientEndpoint(self.reactor, "127.0.0.1", port).connect(factory)
        self.assertEqual(await queue.get(), {"id": 1, "result": True})
        job = (await queue.get())["params"]
        peer.ask(2, "submit", solution(job, "a"))
        self.assertEqual(await queue.get(), {"id": 2, "result": True})
        await self.house.server.stop()
        self.assertEqual(await closed, (4000, "server going down"))
