"""Bad input on real sockets: what each row says comes of it, and that others go on meanwhile.

That others go on is shown by counts and by the order of events: a bystander has its
conversation while what is wrong is going on, and before that has ended.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from kupool.net.dialling.client import Client, ClientSettings
from kupool.net.dialling.failures import ConnectionEnded
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.stalls import StallWatch
from kupool.net.workers.pool import WorkerPool, WorkerSettings
from kupool.net.workers.processes import Processes
from kupool.net.workers.threads import Threads
from kupool.session.connection import Connection
from kupool.wire.codecs import CODECS, LengthFieldCodec
from kupool.wire.framing import Tlv, encode_tlv
from tests.servers.serving import ServerCase, echo, received
from tests.servers.sockets import PATIENCE, Peer, in_thread, until

reactor: Any = _reactor

#: The head of one message of each codec, as a function of the length that it announces.
HEADS: dict[str, Callable[[int], bytes]] = {
    "frame": lambda n: b"\x02" + n.to_bytes(4, "little"),
    "int32": lambda n: n.to_bytes(4, "big"),
    "tlv": lambda n: n.to_bytes(4, "little") + b"\1\0\0\0",
    "tlv-big": lambda n: n.to_bytes(4, "big") + b"\0\0\0\1",
    "tag-first": lambda n: b"\0\0\0\1" + n.to_bytes(4, "big"),
    "ltv": lambda n: n.to_bytes(4, "little") + b"\1\0\0\0",
    "tlv-crc": lambda n: n.to_bytes(4, "little") + b"\1\0\0\0",
}

LIMIT = 256


def spin() -> None:
    while True:
        pass


class _Case(ServerCase):
    async def serve(self, router: Any, framing: Any = "tlv", **settings: Any) -> Server:
        server = self.server(Observer(router), framing=framing, settings=ServerSettings(**settings))
        await server.start()
        return server

    def error(self, peer: Peer) -> int:
        """The code of the error that comes next."""
        number, data = received(peer)
        self.assertEqual(number, 0)
        code: int = json.loads(data)["code"]
        return code


class _LengthSuite(_Case):
    """P-38, P-40: a length that lies costs its own connection, and no one else anything."""

    async def test_too_large_and_negative(self) -> None:
        for name in HEADS:
            server = await self.serve(echo(), name, max_frame=LIMIT)
            farewells = await in_thread(self.lie, name, server.port)
            self.assertEqual(len(farewells), 4)
            for farewell in farewells:
                self.assertIn(b"frame too large", farewell)
            self.assertEqual(server.manager.counters.closes, {"frame too large": 4})
            await server.stop()

    def lie(self, name: str, port: int) -> list[bytes]:
        """What peers that lie hear, while another one is answered."""
        codec, farewells = CODECS[name](0), []
        with Peer(port) as bystander:
            for length in (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, LIMIT + 5):
                with Peer(port) as liar:
                    liar.send(HEADS[name](length) + b"x" * 64)
                    farewells.append(liar.rest())
                if name not in ("frame", "int32"):  # of these a router of ids takes nothing
                    sent = codec.pack(Tlv(1, b"%d" % length))
                    bystander.send(sent)
                    self.assertEqual(bystander.exactly(len(sent)), sent)
        return farewells

    async def test_too_small(self) -> None:
        """The rest is taken for a message of its own: wrong, perhaps, but never a crash."""
        for name, head in HEADS.items():
            server = await self.serve(echo(), name, max_frame=LIMIT, message_timeout=1.0)

            def conversation(port: int, head: Any = head) -> None:
                with Peer(port) as liar:
                    liar.send(head(2) + b"\xff" * 64)
                    liar.finish()
                    liar.rest()  # whatever it was told, the connection has ended

            await in_thread(conversation, server.port)
            await until(reactor, lambda: not len(server.manager), f"{name} to end")  # noqa: B023
            await server.stop()

    async def test_a_length_that_does_not_even_count_its_head(self) -> None:
        """A length field that counts the head, and says less than that."""
        codec = LengthFieldCodec(width=2, adjust=-2)
        server = await self.serve(echo(), codec, max_frame=LIMIT)

        def conversation() -> bytes:
            with Peer(server.port) as liar:
                liar.send(b"\0\1" + b"x" * 10)
                return liar.rest()

        self.assertIn(b"malformed message", await in_thread(conversation))
        self.assertEqual(server.manager.counters.closes, {"malformed message": 1})

    async def test_a_line_without_an_end(self) -> None:
        server = await self.serve(Router(), "line", max_frame=LIMIT)

        def conversation() -> bytes:
            with Peer(server.port) as liar:
                liar.send(b"{" * (LIMIT + 2))
                return liar.rest()

        self.assertIn(b"frame too large", await in_thread(conversation))

    async def test_a_handler_that_answers_too_much(self) -> None:
        """P-38: its peer gets an error, and the connection goes on."""
        router = echo()
        router.add(1, lambda c, n, data: bytes(LIMIT + 1))
        router.add(2, self.too_much_later)
        server = await self.serve(router, max_frame=LIMIT)

        def conversation() -> None:
            with Peer(server.port) as peer:
                for number in (1, 2):
                    peer.send(encode_tlv(b"", number))
                    self.assertEqual(self.error(peer), 20)
                peer.send(encode_tlv(b"x" * LIMIT, 7))
                self.assertEqual(received(peer), (7, b"x" * LIMIT))

        await in_thread(conversation)
        self.assertEqual(router.failures, {1: 1, 2: 1})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    async def too_much_later(self, connection: Connection, number: int, data: bytes) -> bytes:
        await deferLater(reactor, 0.001)
        return bytes(LIMIT + 1)

    async def test_a_codec_that_cannot_carry_an_answer(self) -> None:
        """P-38: where the codec has the limit, a JSON handler's answer is an error, too."""
        router = Router()
        router.add("much", lambda c, m: "x" * 2 * LIMIT)
        router.add("ping", lambda c, m: True)
        server = await self.serve(router, LengthFieldCodec(width=2, max_payload=LIMIT))

        def conversation() -> list[Any]:
            answers = []
            with Peer(server.port) as peer:
                for number, method in ((1, "much"), (2, "ping")):
                    body = b'{"id":%d,"method":"%s"}' % (number, method.encode())
                    peer.send(len(body).to_bytes(2, "big") + body)
                    answers.append(json.loads(peer.exactly(int.from_bytes(peer.exactly(2), "big"))))
            return answers

        first, second = await in_thread(conversation)
        self.assertEqual((first["id"], first["code"]), (1, 20))
        self.assertEqual(second, {"id": 2, "result": True})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_a_client_that_is_sent_too_much(self) -> None:
        """P-38, P-63: it ends the connection, says why, and each request has one end."""
        router = Router()
        router.add("much", lambda c, m: "x" * 2 * LIMIT)
        for codec in ("line", "frame", "int32"):
            server = await self.serve(router, codec)
            ends: list[Any] = []
            client = Client(
                reactor,
                f"tcp:127.0.0.1:{server.port}",
                codec=codec,
                settings=ClientSettings(max_frame=LIMIT),
            )
            connection = await client.connect()
            asked = client.request("much")
            asked.addBoth(ends.append)
            await until(reactor, lambda: ends, "the end of the request")  # noqa: B023
            self.assertTrue(ends[0].check(ConnectionEnded))
            await until(reactor, lambda: connection.state == "closed", "the end")  # noqa: B023
            await client.close()
            self.assertEqual((len(ends), client.pending), (1, 0))
            await server.stop()


class DirectLengthTests(_LengthSuite):
    transport = "direct"


class StockLengthTests(_LengthSuite):
    transport = "stock"


del _LengthSuite


class HandlerTests(_Case):
    """Handlers that raise, that hang, and that never yield."""

    def hang(self) -> tuple[threading.Event, Callable[..., bytes]]:
        gate = threading.Event()
        self.addCleanup(gate.set)

        def blocked(connection: Connection, number: int, data: bytes) -> bytes:
            gate.wait(PATIENCE)
            return data.upper()

        return gate, blocked

    async def test_unknown_ids_and_methods(self) -> None:
        """P-24: an error and a count for each; the connection goes on until too many."""
        known = IdRouter()
        known.add(7, lambda c, n, data: data)
        server = await self.serve(known, max_errors=4)

        def conversation() -> None:
            with Peer(server.port) as peer, Peer(server.port) as other:
                for number in (0, 8, 0xFFFFFFFF):
                    peer.send(encode_tlv(b"x", number))
                    self.assertEqual(self.error(peer), 31)
                peer.send(encode_tlv(b"still here", 7))
                self.assertEqual(received(peer), (7, b"still here"))
                peer.send(encode_tlv(b"x", 8))
                self.assertIn(b"too many errors", peer.rest())
                other.send(encode_tlv(b"and I", 7))
                self.assertEqual(received(other), (7, b"and I"))

        await in_thread(conversation)
        self.assertEqual(
            (known.unknown, server.manager.counters.closes), (4, {"too many errors": 1})
        )

    async def test_those_that_raise(self) -> None:
        """P-21: an answer that says no more than a reference, a count, and no other effect."""
        router = echo()

        class Odd(Exception):
            def __str__(self) -> str:
                raise ZeroDivisionError

        async def late(connection: Connection, number: int, data: bytes) -> bytes:
            await deferLater(reactor, 0.001)
            raise KeyError("secret")

        def leave(connection: Connection, number: int, data: bytes) -> bytes:
            raise SystemExit("secret")

        def odd(connection: Connection, number: int, data: bytes) -> bytes:
            raise Odd

        pool = WorkerPool(reactor, WorkerSettings(size=1, wait=0))
        router.add(1, lambda c, n, data: 1 / 0)
        router.add(2, late)
        router.add(3, odd)
        router.add(4, leave, use=[pool])
        router.add(5, lambda c, n, data: object())
        server = await self.serve(router)

        def conversation() -> None:
            with Peer(server.port) as peer, Peer(server.port) as other:
                for number in (1, 2, 3, 4, 4, 5):
                    peer.send(encode_tlv(b"", number))
                    head, data = received(peer)
                    self.assertEqual((head, json.loads(data)["code"]), (0, 20))
                    self.assertNotIn(b"secret", data)
                for each in (peer, other):
                    each.send(encode_tlv(b"x", 7))
                    self.assertEqual(received(each), (7, b"x"))

        await in_thread(conversation)
        self.assertEqual(router.failures, {1: 1, 2: 1, 3: 1, 4: 2, 5: 1})
        self.assertEqual(len(self.flushLoggedErrors()), 6)

    async def test_one_that_hangs_in_a_thread(self) -> None:
        """P-49, P-50: others have whole conversations while it does, with its pool, too."""
        gate, blocked = self.hang()
        threads = Threads(reactor, 2)
        pool = WorkerPool(reactor, WorkerSettings(size=2, balance="least-loaded"))
        router = echo()
        router.add(1, blocked, use=[pool, threads])
        router.add(2, lambda c, n, data: data.upper(), use=[pool, threads])
        server = await self.serve(router)
        self.addCleanup(lambda: Deferred.fromCoroutine(threads.stop(1.0)))

        def conversation() -> None:
            with Peer(server.port) as hangs, Peer(server.port) as other:
                hangs.send(encode_tlv(b"a", 1))
                for n in range(50):
                    number = 2 if n % 2 else 7
                    other.send(encode_tlv(b"x", number))
                    self.assertEqual(received(other), (number, b"X" if n % 2 else b"x"))
                hangs.send(encode_tlv(b"past it", 7))
                self.assertEqual(received(hangs), (7, b"past it"))
                gate.set()
                self.assertEqual(received(hangs), (1, b"A"))

        await in_thread(conversation)

    async def test_one_that_never_yields_in_a_process(self) -> None:
        """P-49, P-50: it is killed at its time; until then, and after, others are answered."""
        processes = Processes(reactor, 1)
        pool = WorkerPool(reactor, WorkerSettings(size=1, timeout=1.0))
        patient = WorkerPool(reactor, WorkerSettings(size=1))  # another process has to start
        self.addCleanup(lambda: Deferred.fromCoroutine(processes.stop(1.0)))

        async def compute(connection: Connection, number: int, data: bytes) -> bytes:
            await processes.run(spin)
            return b"never"

        async def length(connection: Connection, number: int, data: bytes) -> bytes:
            return b"%d" % await processes.run(len, data)

        router = echo()
        router.add(1, compute, use=[pool])
        router.add(2, length, use=[patient])
        server = await self.serve(router)
        told = threading.Event()

        def victim() -> None:
            with Peer(server.port) as peer:
                peer.send(encode_tlv(b"", 1))
                self.assertEqual(self.error(peer), 37)
                told.set()
                peer.send(encode_tlv(b"four", 2))
                self.assertEqual(received(peer), (2, b"4"))

        def bystander() -> int:
            rounds = 0
            with Peer(server.port) as peer:
                while not told.is_set():
                    peer.send(encode_tlv(b"x", 7))
                    self.assertEqual(received(peer), (7, b"x"))
                    rounds += 1
            return rounds

        suffers = in_thread(victim)
        rounds = await in_thread(bystander)
        await suffers
        self.assertGreater(rounds, 10)
        self.assertEqual(pool.counters["timeout"], 1)

    async def test_full_queues(self) -> None:
        """P-47: the policy for those over the limit, counted; who needs no worker goes on."""
        for policy in ("reject", "close", "drop"):
            gate, blocked = self.hang()
            threads = Threads(reactor, 1)
            pool = WorkerPool(reactor, WorkerSettings(size=1, queue=2, wait=0.05, full=policy))
            router = echo()
            router.add(1, blocked, use=[pool, threads])
            server = await self.serve(router)

            def conversation(port: int, policy: str = policy, gate: Any = gate) -> None:
                with Peer(port) as greedy, Peer(port) as late, Peer(port) as other:
                    greedy.send(b"".join(encode_tlv(b"%d" % n, 1) for n in range(3)))
                    greedy.send(encode_tlv(b"read", 7))
                    self.assertEqual(received(greedy), (7, b"read"))  # so the queue is full
                    late.send(encode_tlv(b"late", 1) + encode_tlv(b"behind", 7))
                    for _ in range(20):
                        other.send(encode_tlv(b"x", 7))
                        self.assertEqual(received(other), (7, b"x"))
                    if policy == "reject":
                        self.assertEqual(self.error(late), 27)
                    if policy == "close":
                        self.assertIn(b"Temporarily unavailable", late.rest())
                    else:
                        self.assertEqual(received(late), (7, b"behind"))
                    gate.set()
                    answers = [received(greedy) for _ in range(3)]
                    self.assertEqual(answers, [(1, b"0"), (1, b"1"), (1, b"2")])

            await in_thread(conversation, server.port)
            self.assertEqual(pool.counters[policy], 1)
            await server.stop()
            await threads.stop(1.0)

    async def test_an_inline_handler_that_never_yields(self) -> None:
        """P-49: it holds all up, nothing is lost, and the operator is told where it stands."""
        begun, gate = threading.Event(), threading.Event()
        report = Path(mkdtemp()) / "stacks"
        stacks = self.enterContext(report.open("w"))

        def never_yields(connection: Connection, number: int, data: bytes) -> bytes:
            begun.set()
            while not (gate.is_set() and "never_yields" in report.read_text()):
                pass
            return data

        router = echo()
        router.add(1, never_yields)
        server = await self.serve(router)
        watch = StallWatch(reactor, 0.2, stacks)
        watch.start()
        self.addCleanup(watch.stop)

        def conversation() -> None:
            with Peer(server.port) as busy, Peer(server.port) as other:
                busy.send(encode_tlv(b"a", 1))
                self.assertTrue(begun.wait(PATIENCE))
                other.send(encode_tlv(b"b", 7))
                gate.set()
                self.assertEqual(received(busy), (1, b"a"))
                self.assertEqual(received(other), (7, b"b"))

        await in_thread(conversation)
        await until(reactor, lambda: watch.stalls, "the stall to be counted")

    async def test_a_pool_that_has_stopped(self) -> None:
        """P-51: what comes afterwards is answered, not left waiting."""
        pool = WorkerPool(reactor, WorkerSettings(size=1))
        router = echo()
        router.add(1, lambda c, n, data: data, use=[pool])
        server = await self.serve(router)
        await pool.stop()

        def conversation() -> None:
            with Peer(server.port) as peer:
                peer.send(encode_tlv(b"a", 1) + encode_tlv(b"b", 7))
                self.assertEqual(self.error(peer), 27)
                self.assertEqual(received(peer), (7, b"b"))

        await in_thread(conversation)
