"""K-12: one conversation, the same over every form of the wire."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.trial.unittest import TestCase

from kupool.errors import GOING_DOWN
from kupool.net.manager import ServerSettings
from kupool.session.connection import Connection
from tests.servers.websocket_peers import (
    BinaryWebSocketClient,
    Client,
    FrameClient,
    House,
    Int32Client,
    LineClient,
    WebSocketClient,
    solution,
)

#: Small, so that few messages fill what lies between two peers.
OUTBOX = 8192


class Conversation:
    """K-12: the tests; each subclass runs them over one form of the wire."""

    timeout = 60
    make: type[Client]
    #: Whether a close tells its code; ``frame`` has the reason alone.
    tells_code = True

    async def setUp(self: Any) -> None:
        from twisted.internet import reactor

        self.house = House(reactor, settings=ServerSettings(outbox_limit=OUTBOX))
        await self.house.start()
        self.addCleanup(self.house.stop)

    async def connect(self: Any) -> Client:
        client: Client = await self.house.connect(self.make())
        return client

    def assert_ended(self: Any, ended: tuple[int | None, str], code: int, reason: str) -> None:
        self.assertEqual(ended, (code if self.tells_code else None, reason))

    async def test_authorize_job_submit(self: Any) -> None:
        """K-05, K-13, K-22, K-37"""
        client = await self.connect()
        job = await client.authorize("alice.rig1")
        self.assertEqual(job["job_id"], self.house.book.current.job_id)
        self.assertEqual(
            await client.call("submit", **solution(job, "first")), {"id": 7, "result": True}
        )
        minute = (await self.house.stats.minutes(0, 2**33)) or None
        while minute is None:
            await self.house.until(lambda: self.house.consumer.committed)
            minute = await self.house.stats.minutes(0, 2**33)
        self.assertEqual(minute[0][1:], (1, 1))

    async def test_verdicts(self: Any) -> None:
        """K-39"""
        client = await self.connect()
        job = await client.authorize()
        await client.call("submit", **solution(job, "a"))
        for params, error, code in (
            (solution(job, "a"), "Duplicate submission", 22),
            ({**solution(job, "b"), "result": "0" * 64}, "Invalid result", 23),
            ({**solution(job, "c"), "job_id": 10**12}, "Task does not exist", 21),
        ):
            self.assertEqual(
                await client.call("submit", **params),
                {"id": 7, "result": False, "error": error, "code": code},
            )

    async def test_several_in_one_write(self: Any) -> None:
        """K-06: messages keep their boundaries both ways, and each its own answer."""
        client = await self.connect()
        job = await client.authorize()
        client.send(
            {"id": "ping", "method": "ping"},
            *({"id": n, "method": "submit", "params": solution(job, f"n{n}")} for n in range(20)),
            {"id": "wrong", "method": "nothing"},
        )
        answers = {m["id"]: m["result"] for m in [await client.receive() for _ in range(22)]}
        self.assertEqual(answers, {"ping": True, "wrong": False} | dict.fromkeys(range(20), True))

    async def test_a_new_job_reaches_everyone(self: Any) -> None:
        """K-26"""
        clients = [await self.connect() for _ in range(3)]
        jobs = [await client.authorize(f"user{n}") for n, client in enumerate(clients)]
        job_id = await self.house.rotate()
        self.assertTrue(job_id > jobs[0]["job_id"])
        for client in clients:
            message = await client.receive()
            self.assertEqual((message["method"], message["params"]["job_id"]), ("job", job_id))

    async def test_ping(self: Any) -> None:
        client = await self.connect()
        await client.authorize()
        self.assertEqual(await client.call("ping"), {"id": 7, "result": True})

    async def test_what_cannot_be_understood(self: Any) -> None:
        """K-10: each is answered, and the tenth ends the connection."""
        client = await self.connect()
        await client.authorize()
        answer = await client.call("nothing")
        self.assertEqual((answer["error"], answer["code"]), ("unknown method", 31))
        for _ in range(9):
            client.send(b"{not json")
        for _ in range(9):
            answer = await client.receive()
            self.assertEqual((answer["id"], answer["error"]), (None, "malformed message"))
        self.assert_ended(await client.ending(), 4502, "too many errors")

    async def test_unauthorized(self: Any) -> None:
        """K-14"""
        for method, params in (
            ("submit", {"job_id": 1, "client_nonce": "a", "result": ""}),
            ("authorize", {"username": ""}),
            ("authorize", {"username": "a" * 256}),
        ):
            client = await self.connect()
            answer = await client.call(method, **params)
            self.assertEqual((answer["error"], answer["code"]), ("unauthorized", 24))
            self.assert_ended(await client.ending(), 4500, "unauthorized")
        self.assertEqual(self.house.pool.sessions, 0)

    async def test_too_large(self: Any) -> None:
        """K-07: 1 KiB before authorize, 64 KiB after."""
        client = await self.connect()
        client.send(b"{" + b" " * 1024)
        self.assert_ended(await client.ending(), 4501, "frame too large")
        client = await self.connect()
        await client.authorize()
        padded = json.dumps({"id": 7, "method": "ping"}).ljust(65536).encode()
        client.send(padded)
        self.assertEqual(await client.receive(), {"id": 7, "result": True})
        client.send(padded + b" ")
        self.assert_ended(await client.ending(), 4501, "frame too large")

    async def test_going_down(self: Any) -> None:
        """K-85: clients are told, and what they sent is answered before."""
        client = await self.connect()
        job = await client.authorize()
        self.house.log.held = []
        client.send({"id": 7, "method": "submit", "params": solution(job, "a")})
        await self.house.until(lambda: self.house.acceptance.batches_in_flight)
        self.house.log.let_go()
        await self.house.server.stop(GOING_DOWN)
        self.assertEqual(await client.receive(), {"id": 7, "result": True})
        self.assert_ended(await client.ending(), 4000, "server going down")
        self.assertEqual(len(self.house.manager), 0)

    async def test_idle(self: Any) -> None:
        client = await self.connect()
        await client.authorize()
        self.sweep_after(181.0)
        self.assert_ended(await client.ending(), 4101, "idle timeout")

    async def test_a_slow_reader_is_bounded_and_loses_nothing(self: Any) -> None:
        """K-27: what waits for one who does not read is bounded; all of it comes later."""
        connection, client = await self.stuffed()
        self.assertTrue(connection.outbound > OUTBOX)
        # One read's worth may come on top: what was read before reading stopped.
        self.assertTrue(connection.outbound < OUTBOX + 4 * 65536, connection.outbound)
        client.transport.resumeProducing()
        for number in range(self.sent):
            self.assertEqual(await client.receive(), {"id": number, "result": True})
        self.assertEqual(await client.call("ping"), {"id": 7, "result": True})
        self.assertEqual(connection.outbound, 0)

    async def test_a_slow_reader_skips_to_the_newest_job(self: Any) -> None:
        """K-28"""
        _, client = await self.stuffed()
        job_ids = [await self.house.rotate() for _ in range(5)]
        client.transport.resumeProducing()
        messages = [await client.receive() for _ in range(self.sent + 1)]
        (job,) = (message for message in messages if message["id"] is None)
        self.assertEqual(job["params"]["job_id"], job_ids[-1])
        self.assertEqual(await client.call("ping"), {"id": 7, "result": True})

    async def test_who_never_reads_is_closed(self: Any) -> None:
        await self.stuffed()
        self.sweep_after(11.0)
        self.assertEqual(self.house.manager.counters.closes["slow reader"], 1)
        self.sweep_after(22.0)
        await self.house.until(lambda: not len(self.house.manager))

    # how

    def sweep_after(self: Any, seconds: float) -> None:
        """Apply the timeouts as if so much time had passed."""
        now = self.house.manager.now() + seconds
        for connection in self.house.manager:
            connection.sweep(now)

    async def stuffed(self: Any) -> tuple[Connection, Client]:
        """Return a connection whose peer asks on and on, and reads nothing."""
        house: House = self.house
        for port in (house.http, *house.server.ports):
            # Accepted sockets inherit it; the system's own size would take megabytes.
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = await self.connect()
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.authorize()
        (connection,) = house.manager
        client.transport.pauseProducing()
        self.sent = 0
        while connection.outbound <= OUTBOX:
            client.send(*({"id": self.sent + n, "method": "ping"} for n in range(500)))
            self.sent += 500
            seen = connection.messages_in

            def handled(seen: int = seen) -> bool:
                return connection.messages_in > seen or connection.outbound > OUTBOX

            await house.until(handled)
        return connection, client


class FrameTests(Conversation, TestCase):
    """Over ``frame``."""

    make = FrameClient
    tells_code = False


class Int32Tests(Conversation, TestCase):
    """Over ``int32``."""

    make = Int32Client


class LineTests(Conversation, TestCase):
    """Over ``line``."""

    make = LineClient


class WebSocketTests(Conversation, TestCase):
    """Over WebSocket, with text messages."""

    make = WebSocketClient

    async def connect(self) -> Client:
        client: Any = await super().connect()
        await client.opened
        return client


class BinaryWebSocketTests(WebSocketTests):
    """Over WebSocket, with binary messages."""

    make = BinaryWebSocketClient
