"""K-91: the HTTP API over real sockets, beside a pool that works."""

from __future__ import annotations

import io
import json
import os
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers

from kupool.web.site import HttpLimits, make_site
from tests.fakes.web_site import SECRET
from tests.servers.websocket_peers import (
    Client,
    House,
    Int32Client,
    WebSocketClient,
    solution,
)


class Body(Protocol):
    """Collects the body of a response."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.whole: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone):
            self.whole.callback(b"".join(self.parts))
        else:
            self.whole.errback(reason)


class HttpTests(TestCase):
    """K-91"""

    timeout = 60

    async def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.house = House(reactor)
        await self.house.start()
        self.addCleanup(self.house.stop)
        self.connections = HTTPConnectionPool(reactor)
        self.addCleanup(self.connections.closeCachedConnections)
        self.agent = Agent(reactor, pool=self.connections)

    async def ask(
        self, path: str, method: str = "GET", body: dict[str, Any] | None = None
    ) -> tuple[int, Any]:
        port = self.house.http.getHost().port
        headers = Headers({})
        if body is not None:
            headers.addRawHeader("Content-Type", "application/json")
            headers.addRawHeader("Authorization", f"Bearer {SECRET}")
        producer = None
        if body is not None:
            producer = FileBodyProducer(io.BytesIO(json.dumps(body).encode()))
        response = await self.agent.request(
            method.encode(), f"http://127.0.0.1:{port}{path}".encode(), headers, producer
        )
        body_read = Body()
        response.deliverBody(body_read)
        return response.code, json.loads(await body_read.whole or "null")

    async def test_state(self) -> None:
        code, health = await self.ask("/health")
        self.assertEqual((code, health["status"]), (200, "ok"))
        self.assertEqual(await self.ask("/ready"), (200, {"ready": True, "reasons": []}))
        self.assertEqual((await self.ask("/shutdown/status"))[1]["connections"], 0)
        self.assertEqual(await self.ask("/health", "HEAD"), (200, None))
        self.assertEqual((await self.ask("/nothing"))[0], 404)

    async def test_submissions_are_counted(self) -> None:
        """K-18, K-73: what clients were answered with true is what is counted."""
        for client, username in (
            (Int32Client(), "alice.rig1"),
            (WebSocketClient(), "alice.rig2"),
            (WebSocketClient(), "bob"),
        ):
            await self.house.connect(client)
            job = await client.authorize(username)
            for n in range(3):
                answer = await client.call("submit", **solution(job, f"{username}-{n}"))
                self.assertEqual(answer["result"], True)
            await client.call("submit", **solution(job, f"{username}-0"))
        await self.house.until(lambda: not self.house.log.status().depth)
        await self.house.until(lambda: not len(self.house.acceptance.rejections))
        code, stats = await self.ask("/stats")
        self.assertEqual(code, 200)
        self.assertEqual((stats["accepted_total"], stats["accepted"]), (9, 9))
        self.assertEqual((stats["sessions"], stats["users"]), (3, 2))
        current = self.house.book.current
        self.assertEqual(stats["job_id"], current and current.job_id)
        self.assertEqual(sum(row["count"] for row in stats["per_minute"]), 9)
        self.assertEqual(stats["top"][0], {"username": "alice", "count": 6})
        self.assertEqual(stats["rejections"], {"Duplicate submission": 3})
        _, alice = await self.ask("/stats?username=alice")
        self.assertEqual(alice["total"], 6)
        self.assertEqual(
            {w["worker"]: w["count"] for w in alice["workers"]}, {"rig1": 3, "rig2": 3}
        )
        counts = [
            (await self.ask(f"/stats?username=alice&minute={row['minute']}"))[1]["count"]
            for row in alice["per_minute"]
        ]
        self.assertEqual(sum(counts), 6)

    async def test_rotate(self) -> None:
        """K-33: an operator's job goes out to everyone."""
        client = await self.house.connect(WebSocketClient())
        job = await client.authorize()
        code, answer = await self.ask("/jobs/rotate", "POST", {})
        self.assertEqual(code, 200)
        self.assertTrue(answer["job_id"] > job["job_id"])
        self.assertEqual((await client.receive())["params"]["job_id"], answer["job_id"])

    async def test_interval(self) -> None:
        """K-32: takes effect at the next tick."""
        code, answer = await self.ask("/jobs/interval", "POST", {"interval": "45s"})
        self.assertEqual((code, answer), (200, {"interval": "45s"}))
        self.assertEqual(self.house.coordinator.interval, 45.0)

    async def test_one_connection_is_used_again(self) -> None:
        for _ in range(5):
            await self.ask("/health")
        self.assertEqual(self.house.site.connections, 1)

    async def test_requests_that_come_together(self) -> None:
        client = Client()
        client.http = True
        client.parse = lambda: None  # type: ignore[method-assign]
        await self.house.connect(client)
        client.transport.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        await self.house.until(lambda: client.buffer.count(b"HTTP/1.1 200 OK") == 50)

    async def test_a_unix_socket(self) -> None:
        """An endpoint need not be TCP."""
        folder = tempfile.mkdtemp(dir="/tmp")
        path = os.path.join(folder, "http")
        site = make_site(
            self.reactor,
            self.house,
            self.house.stats,
            self.house.acceptance._wall,
            manager=self.house.manager,
            limits=HttpLimits(),
        )
        port = self.reactor.listenUNIX(path, site)
        self.addCleanup(os.rmdir, folder)
        self.addCleanup(port.stopListening)
        client = WebSocketClient()
        await connectProtocol(UNIXClientEndpoint(self.reactor, path), client)
        self.house.clients.append(client)
        await client.authorize()
        self.assertEqual(await client.call("ping"), {"id": 7, "result": True})
