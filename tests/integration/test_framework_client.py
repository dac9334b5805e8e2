"""P-63: client and server of one's own, over real sockets."""

from __future__ import annotations

import json
import socket
import time
from threading import Event, Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kupool.net.dialling.client import Client, ClientSettings
from kupool.net.dialling.failures import ConnectionEnded, Unreachable
from kupool.net.observer import Observer
from kupool.net.routing.correlation import correlated
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.workers.pool import WorkerPool, WorkerSettings
from kupool.session.connection import Connection


class SocketTests(TestCase):
    """P-63: the same codecs and routers on both sides, reconnect, answers by id."""

    async def serve(self, router: Any, port: int = 0, framing: str = "auto") -> Server:
        server = Server(reactor, Observer(router), framing=framing)
        await server.listen([f"127.0.0.1:{port}"])
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop(timeout=1)))
        return server

    def client(self, port: int, codec: str) -> Client:
        settings = ClientSettings(backoff_first=0.01, backoff_most=0.05)
        client = Client(reactor, f"tcp:127.0.0.1:{port}", settings=settings, codec=codec)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    def methods(self) -> Router:
        router = Router()
        router.add("twice", lambda c, m: m.params * 2, int)
        router.add("never", lambda c, m: Deferred())
        return router

    async def test_by_method(self) -> None:
        server = await self.serve(self.methods())
        for codec in ("line", "frame", "int32"):
            client = self.client(server.addresses[0].port, codec)
            await client.connect()
            answers = await gatherResults([client.request("twice", n) for n in range(500)])
            self.assertEqual(answers, [2 * n for n in range(500)])

    async def test_by_number_behind_workers(self) -> None:
        """P-45, P-46: and each connection's messages are handled in order."""
        pool = WorkerPool(reactor, WorkerSettings(size=3, balance="by-connection"))  # type: ignore[arg-type]
        seen: dict[int, list[bytes]] = {}

        async def work(connection: Connection, number: int, data: bytes) -> bytes:
            if data.endswith(b"7"):
                await deferLater(reactor, 0.001)  # type: ignore[arg-type]
            seen.setdefault(connection.id, []).append(data)
            return data.upper()

        router = IdRouter()
        router.add(1, work, use=[pool])
        router.use(correlated(router))
        server = await self.serve(router, framing="tlv")
        clients = [self.client(server.addresses[0].port, "tlv") for _ in range(4)]
        await gatherResults([client.connect() for client in clients])
        sent = [b"m%d" % n for n in range(200)]
        calls = [client.call(1, data) for data in sent for client in clients]
        answers = await gatherResults(calls)
        self.assertEqual(answers, [data.upper() for data in sent for _ in clients])
        self.assertEqual(list(seen.values()), [sent] * 4)

    async def test_it_comes_back_to_a_new_server(self) -> None:
        server = await self.serve(self.methods())
        port = server.addresses[0].port
        client = self.client(port, "line")
        await client.connect()
        self.assertEqual(await client.request("twice", 1), 2)
        asked = client.request("never")
        await server.stop(timeout=1)
        with self.assertRaises(ConnectionEnded):
            await asked
        await self.serve(self.methods(), port)
        await client.connect()
        self.assertEqual(await client.request("twice", 2), 4)
        self.assertEqual(client.counters["connected"], 2)

    async def test_an_answer_that_came_while_the_reactor_was_blocked(self) -> None:
        """Case 16, P-63: it lies in the socket when its deadline is looked at, and counts."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        blocked = Event()

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, peer.makefile("rb") as lines:
                number = json.loads(lines.readline())["id"]
                peer.sendall(b'{"id":null,"method":"block"}\n')
                blocked.wait()
                peer.sendall(b'{"id":%d,"result":"here"}\n' % number)
                lines.readline()

        def block(connection: Connection, message: Any) -> None:
            blocked.set()
            time.sleep(0.8)

        thread = Thread(target=serve)
        thread.start()
        router = Router()
        router.add("block", block)
        where = f"tcp:127.0.0.1:{listening.getsockname()[1]}"
        client = Client(reactor, where, router)
        await client.connect()
        self.assertEqual(await client.request("ask", timeout=0.4), "here")
        await client.close()
        thread.join()

    async def test_nobody_there(self) -> None:
        server = await self.serve(self.methods())
        port = server.addresses[0].port
        await server.stop(timeout=1)
        with self.assertRaises(Unreachable):
            await self.client(port, "line").connect()
