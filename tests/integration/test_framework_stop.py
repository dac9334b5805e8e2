"""Stopping a server under load, on real sockets: rows P-03, P-51 and P-56."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

import kupool.net.transport.listening
from kupool.net.hooks import HookedObserver
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
from kupool.net.transport.endpoints import Address
from kupool.net.workers.executor import Executor
from kupool.net.workers.pool import Drained, WorkerPool, WorkerSettings
from kupool.net.workers.processes import Processes
from kupool.net.workers.threads import Threads
from kupool.session.connection import Connection
from kupool.wire.framing import encode_tlv
from tests.servers.serving import ServerCase, echo, received
from tests.servers.sockets import PATIENCE, Peer, in_thread, started, until

reactor: Any = _reactor


def spin() -> None:
    while True:
        pass


class LoadCase(ServerCase):
    """A server with a pool, threads and processes, and peers that keep them busy."""

    async def serve(self, deadline: float) -> None:
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)
        self.ended: list[Drained] = []
        self.order: list[str] = []
        self.pool = WorkerPool(reactor, WorkerSettings(size=2, balance="by-connection", timeout=0))
        self.threads = Threads(reactor, 2)
        self.processes = Processes(reactor, 1)
        self.router = echo()
        self.router.add(1, self.block, use=[self.pool, self.threads])
        self.router.add(2, self.compute, use=[self.pool])
        server = self.server(Observer(self.router))
        self.owner = server

        async def drain(stopping: Server) -> None:
            self.order.append("drain")
            self.ended.append(await self.pool.stop(deadline))
            crews: Sequence[Executor] = (self.threads, self.processes)
            for crew in crews:
                await crew.stop(deadline)
            self.order.append("drained")

        server.before_stop(drain)
        await server.start()
        self.port = server.port

    def block(self, connection: Connection, number: int, data: bytes) -> bytes:
        self.gate.wait(PATIENCE)
        return data.upper()

    async def compute(self, connection: Connection, number: int, data: bytes) -> bytes:
        await self.processes.run(spin)
        return b"never"

    def turned_away(self) -> None:
        """Nobody new comes in."""
        with self.assertRaises(ConnectionError), Peer(self.port) as late:
            late.send(encode_tlv(b"x", 7))
            late.exactly(1)
            self.fail("somebody was let in")

    async def busy(self) -> tuple[list[Peer], Peer]:
        """Two peers whose messages wait for workers, and one that needs none."""

        def begin() -> tuple[list[Peer], Peer]:
            greedy, other = [Peer(self.port), Peer(self.port)], Peer(self.port)
            for peer in greedy:
                peer.send(b"".join(encode_tlv(b"m%d" % n, 1) for n in range(3)))
            self.rounds(other, 1)
            return greedy, other

        peers = await in_thread(begin)
        await until(reactor, lambda: sum(self.pool.loads) == 6, "six messages at the workers")
        return peers

    def rounds(self, peer: Peer, count: int) -> None:
        for n in range(count):
            peer.send(encode_tlv(b"%d" % n, 7))
            self.assertEqual(received(peer), (7, b"%d" % n))


class DrainTests(LoadCase):
    async def test_all_that_was_accepted_is_answered(self) -> None:
        """P-51: the pool drains first, and meanwhile the others are answered as ever."""
        await self.serve(deadline=PATIENCE)
        greedy, other = await self.busy()
        stopping = started(self.owner.stop())
        stopping.addCallback(lambda _: self.order.append("stopped"))
        await until(reactor, lambda: self.order, "the drain")

        def meanwhile() -> None:
            self.turned_away()
            self.rounds(other, 20)
            other.send(encode_tlv(b"late", 1))
            number, data = received(other)
            self.assertEqual((number, json.loads(data)["code"]), (0, 27))

        await in_thread(meanwhile)
        self.assertEqual(self.order, ["drain"])  # so all that was during the stop
        self.gate.set()

        def endings() -> None:
            for peer in greedy:
                self.assertEqual(
                    [received(peer) for _ in range(3)], [(1, b"M%d" % n) for n in range(3)]
                )
            for peer in (*greedy, other):
                self.assertIn(b"server going down", peer.rest())
                peer.close()

        await in_thread(endings)
        await stopping
        self.assertEqual(self.order, ["drain", "drained", "stopped"])
        self.assertEqual(self.ended, [Drained(6, Counter())])
        self.assertEqual(len(self.owner.manager), 0)

    async def test_what_does_not_end_is_dropped_at_the_deadline(self) -> None:
        """P-51: and reported by id; its peers are told, those it held up as well."""
        await self.serve(deadline=0.3)
        greedy, other = await self.busy()
        spinning = await in_thread(Peer, self.port)
        spinning.send(encode_tlv(b"", 2))
        await until(reactor, lambda: sum(self.pool.loads) == 7, "the seventh")
        stopping = started(self.owner.stop())
        await until(reactor, lambda: self.order, "the drain")

        def talk_to_the_end() -> int:
            count = 0
            while True:  # until the server says that it goes
                other.send(encode_tlv(b"x", 7))
                number, data = received(other)
                if number == 0:
                    self.assertIn(b"server going down", data)
                    return count
                count += 1

        def endings() -> None:
            for peer, messages in ((greedy[0], 3), (greedy[1], 3), (spinning, 1)):
                for _ in range(messages):
                    number, data = received(peer)
                    self.assertEqual((number, json.loads(data)["code"]), (0, 27))
                self.assertIn(b"server going down", peer.rest())
                peer.close()

        self.assertGreater(await in_thread(talk_to_the_end), 0)
        await in_thread(endings)
        other.close()
        self.gate.set()
        await stopping
        (report,) = self.ended
        self.assertEqual(report, Drained(0, Counter({"1": 6, "2": 1})))
        self.assertEqual(self.order, ["drain", "drained"])


class StopTests(ServerCase):
    async def test_a_farewell_that_takes_its_time(self) -> None:
        """P-56: a stop hook may be a coroutine; the close waits for it, and nobody else."""
        gate: Deferred[None] = Deferred()
        handled: list[bytes] = []

        async def farewell(connection: Connection, reason: Any) -> None:
            connection.send_message(302, b"wait")
            await gate
            connection.send_message(302, b"farewell")

        router = IdRouter(lambda c, n, data: handled.append(data) or data)  # type: ignore[func-returns-value]
        server = self.server(HookedObserver(router, on_stop=farewell))
        await server.start()
        port = server.port

        def begin() -> tuple[Peer, Peer]:
            leaves, stays = Peer(port), Peer(port)
            for peer in (leaves, stays):
                peer.send(encode_tlv(b"hello", 7))
                self.assertEqual(received(peer), (7, b"hello"))
            return leaves, stays

        leaves, stays = await in_thread(begin)
        server.manager.clear(1)

        def meanwhile() -> None:
            self.assertEqual(received(leaves), (302, b"wait"))
            leaves.send(encode_tlv(b"too late", 7))
            for _ in range(10):
                stays.send(encode_tlv(b"on", 7))
                self.assertEqual(received(stays), (7, b"on"))

        await in_thread(meanwhile)
        gate.callback(None)

        def ends() -> None:
            self.assertEqual(received(leaves), (302, b"farewell"))
            self.assertIn(b"server going down", leaves.rest())
            leaves.close()
            stays.close()

        await in_thread(ends)
        self.assertNotIn(b"too late", handled)

    async def test_a_stop_waits_for_farewells(self) -> None:
        """P-56: of all connections at once, however they were closed."""

        async def farewell(connection: Connection, reason: Any) -> None:
            await deferLater(reactor, 0.05)
            connection.send_message(302, b"farewell")

        server = self.server(HookedObserver(echo(), on_stop=farewell))
        await server.start()
        peers = await in_thread(lambda: [Peer(server.port) for _ in range(20)])
        await until(reactor, lambda: len(server.manager) == 20, "twenty peers")
        peers[0].finish()
        stopping = started(server.stop())

        def endings() -> None:
            for peer in peers:
                self.assertEqual(received(peer), (302, b"farewell"))
                peer.rest()
                peer.close()

        await in_thread(endings)
        await stopping

    async def test_stopped_while_a_name_is_looked_up(self) -> None:
        """P-03: nothing listens afterwards, and start and serve return."""
        for begin in ("start", "serve"):
            found: Deferred[list[Address]] = Deferred()
            asked: list[str] = []
            ran: list[object] = []

            async def slow(reactor: Any, text: str) -> list[Address]:
                asked.append(text)  # noqa: B023
                return await found  # noqa: B023

            self.patch(kupool.net.transport.listening, "resolved", slow)
            server = self.server(addresses=["a.example:0"])
            server.after_start(ran.append)
            starting = started(getattr(server, begin)())
            self.assertEqual(asked, ["a.example:0"])
            await server.stop()
            found.callback([Address("127.0.0.1", 0)])
            await starting
            self.assertEqual((server.addresses, ran), ([], []))

    async def test_the_file_of_a_socket_that_has_gone(self) -> None:
        """P-03: whoever removed it, the stop closes the port and every connection."""
        path = str(Path(tempfile.mkdtemp()) / "demo.sock")
        server = self.server(addresses=[f"unix:{path}"])
        await server.start()
        (port,) = server.ports
        peer = await in_thread(Peer, path)
        await until(reactor, lambda: len(server.manager), "the peer")
        os.unlink(path)
        stopping = started(server.stop())
        self.assertIn(b"server going down", await in_thread(peer.rest))
        peer.close()
        await stopping
        self.assertEqual(port.fileno(), -1)
        self.assertEqual(self.flushLoggedErrors(), [])
        await server.start()  # as before
        await self.talk(path)

    async def test_peers_that_never_end_are_cut_off(self) -> None:
        """P-03: after the timeout of the stop, whatever they do."""
        server = self.server(settings=ServerSettings(write_timeout=PATIENCE))
        await server.start()
        peers = await in_thread(lambda: [Peer(server.port, receive_buffer=4096) for _ in range(5)])
        await until(reactor, lambda: len(server.manager) == 5, "five peers")
        await server.manager.each(lambda c: c.send_encoded(bytes(8_000_000)))
        await server.stop(timeout=0.2)
        self.assertEqual(len(server.manager), 0)
        for peer in peers:
            peer.close()
