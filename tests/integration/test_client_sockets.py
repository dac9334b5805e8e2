"""The client and the real pool over real sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from kupool.client import (
    NotAuthorized,
    PoolClient,
    PoolClientSettings,
    PoolUnreachable,
    SubmissionAnswer,
    SubmissionOutcome,
    Worker,
    parse_server,
)
from kupool.client.crew import ClientCrew
from kupool.client.load import Load, LoadSettings
from kupool.client.pace import PaceSettings
from kupool.client.worker import solve
from kupool.pool.handlers import AttemptSettings
from kupool.wire.framing import FRAMINGS
from tests.servers.pool_server import PoolServer

reactor: Any = global_reactor

UNLIMITED: dict[str, Any] = {"submit_interval": 0.0, "attempts": AttemptSettings(rate=0.0)}
QUICK = PoolClientSettings(backoff_first=0.05, backoff_most=0.2, close_timeout=0.2)


async def until(true: Callable[[], object]) -> None:
    """Wait until something is so; the test's own timeout bounds it."""
    while not true():
        pause: Deferred[None] = Deferred()
        reactor.callLater(0.01, pause.callback, None)
        await pause


class SocketCase(TestCase):
    """Pools and clients that are gone when the test is."""

    timeout = 60

    async def pool(self, **settings: Any) -> PoolServer:
        pool = PoolServer(reactor, **settings)
        await pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        return pool

    def client(self, *addresses: str, username: str = "admin", **named: Any) -> PoolClient:
        named.setdefault("settings", QUICK)
        client = PoolClient(reactor, addresses, username, **named)
        self.addCleanup(client.close)
        return client

    async def submit(self, client: PoolClient, nonce: str) -> SubmissionAnswer:
        await until(lambda: client.job is not None)
        job = client.job
        assert job is not None
        return await client.submit(job.job_id, nonce, solve(job.server_nonce, nonce))


class ConversationTests(SocketCase):
    """K-13, K-23, K-61: whole conversations."""

    async def test_every_framing(self) -> None:
        """K-13, K-61: authorize, a job, each kind of answer, and the end, in each framing."""
        pool = await self.pool(**UNLIMITED)
        for framing in FRAMINGS:
            client = self.client(pool.address, username=framing, framing=framing)
            await client.connect()
            self.assertEqual(pool.pool.users[framing], 1)
            self.assertTrue((await self.submit(client, "first")).accepted)
            self.assertIs((await self.submit(client, "first")).outcome, SubmissionOutcome.DUPLICATE)
            assert client.job is not None
            wrong = await client.submit(client.job.job_id, "second", "0" * 64)
            self.assertIs(wrong.outcome, SubmissionOutcome.INVALID)
            unknown = await client.submit(client.job.job_id + 1, "second", "0" * 64)
            self.assertIs(unknown.outcome, SubmissionOutcome.STALE)
            await client.close()
            await until(lambda: not pool.pool.sessions)
            self.assertEqual(
                client.counters, {"accepted": 1, "duplicate": 1, "invalid": 1, "unknown job": 1}
            )
        self.assertEqual(pool.server.manager.counters.closes, {})
        self.assertEqual(pool.server.manager.counters.malformed, 0)
        self.assertEqual(await pool.counted(), dict.fromkeys(FRAMINGS, 1))

    async def test_password(self) -> None:
        """K-23: a wrong password fails connect, with the server's reason; a right one not."""
        pool = await self.pool(password=("alice", "secret"))
        for framing in FRAMINGS:
            wrong = self.client(
                pool.address, username="alice.rig", password="guess", framing=framing
            )
            error = await self.assertFailure(wrong.connect(), NotAuthorized)
            self.assertIn("unauthorized", str(error))
            right = self.client(
                pool.address, username="alice.rig", password="secret", framing=framing
            )
            await right.connect()

    async def test_unix_socket(self) -> None:
        """K-65: any client endpoint of Twisted's will do."""
        folder = tempfile.mkdtemp()  # the path of a socket has to be short
        self.addCleanup(shutil.rmtree, folder)
        path = f"{folder}/pool"
        pool = await self.pool(path=f"unix:{path}", **UNLIMITED)
        client = self.client(f"unix:{path}")
        await client.connect()
        self.assertTrue((await self.submit(client, "nonce")).accepted)
        self.assertEqual(await pool.counted(), {"admin": 1})

    async def test_nobody_there(self) -> None:
        pool = await self.pool()
        address = pool.address
        await pool.server.stop_listening()
        settings = PoolClientSettings(backoff_first=0.01, max_attempts=3)
        client = self.client(address, settings=settings)
        await self.assertFailure(client.connect(), PoolUnreachable)

    async def test_a_server_that_does_not_react(self) -> None:
        """K-64: the socket is closed although the server answers nothing any more."""
        lost: Deferred[None] = Deferred()

        class Mute(Protocol):
            said = b""

            def dataReceived(self, data: bytes) -> None:
                if not self.said:
                    self.transport.write(FRAMINGS["frame"].encode(b'{"id":1,"result":true}'))  # type: ignore[union-attr]
                self.said += data

            def connectionLost(self, reason: Any = None) -> None:
                lost.callback(self.said)

        port = reactor.listenTCP(0, Factory.forProtocol(Mute), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = self.client(f"127.0.0.1:{port.getHost().port}")
        await client.connect()
        await client.close()
        self.assertTrue((await lost).endswith(b"\x08\x00\x00\x00\x00"))


class RestartTests(SocketCase):
    """K-62: servers that go, and come back, or do not."""

    async def test_unanswered_but_counted(self) -> None:
        """K-62: the server dies after the submission is durable and before the answer:
        submitted again it is a duplicate, which is an acceptance, counted once.
        """
        for framing in FRAMINGS:
            pool = await self.pool(**UNLIMITED)
            client = self.client(pool.address, framing=framing)
            await client.connect()
            pool.log.held = []
            answered = Deferred.fromCoroutine(self.submit(client, "held"))
            await until(lambda pool=pool: pool.log.held)
            await pool.crash()
            self.assertEqual(client.unanswered, 1)
            await pool.start()
            answer = await answered
            self.assertEqual((answer.accepted, answer.resubmitted), (True, True))
            self.assertEqual(pool.acceptance.rejections.outcomes, {"Duplicate submission": 1})
            self.assertEqual(await pool.counted(), {"admin": 1})
            self.assertEqual(client.counters["accepted"], 1)
            self.assertEqual(client.counters["resubmitted"], 1)

    async def test_unanswered_and_not_counted(self) -> None:
        """K-62: the server dies before the submission is durable: it is counted now."""
        pool = await self.pool(**UNLIMITED)
        client = self.client(pool.address)
        await client.connect()
        pool.log.held, pool.log.loses = [], True
        answered = Deferred.fromCoroutine(self.submit(client, "lost"))
        await until(lambda: pool.log.held)
        await pool.crash()
        self.assertEqual(await pool.counted(), {})
        await pool.start()
        answer = await answered
        self.assertEqual((answer.accepted, answer.resubmitted), (True, True))
        self.assertEqual(await pool.counted(), {"admin": 1})

    async def test_workers_through_ten_crashes(self) -> None:
        """K-62: what five workers hold as accepted is what the log holds, to the last one."""
        pool = await self.pool(**UNLIMITED)
        clients = [self.client(pool.address, username=f"w{n}") for n in range(5)]
        workers = [Worker(reactor, c, PaceSettings(0.01, gap=0.0)) for c in clients]
        for client in clients:
            client.connect().addErrback(lambda _: None)
        for _ in range(10):
            before = sum(c.counters["accepted"] for c in clients)
            await until(
                lambda before=before: sum(c.counters["accepted"] for c in clients) > before + 20
            )
            await pool.crash()
            await pool.start()
        for worker in workers:
            worker.stop()
        await until(lambda: not any(c.unanswered for c in clients))
        held = {c.username: c.counters["accepted"] for c in clients}
        self.assertEqual(await pool.counted(), held)
        self.assertEqual({c.counters["duplicate"] for c in clients}, {0})

    async def test_a_server_that_says_goodbye(self) -> None:
        """K-62: after ``server going down`` the client is back as soon as the server is."""
        pool = await self.pool()
        reasons: list[str] = []
        client = self.client(pool.address, on_disconnected=reasons.append)
        await client.connect()
        await pool.stop()
        await until(lambda: reasons)
        await pool.start()
        await until(lambda: client.connected)
        self.assertEqual(reasons, ["server going down"])

    async def test_failover(self) -> None:
        """K-62: when the first server dies the second one gets what was unanswered."""
        first, second = await self.pool(**UNLIMITED), await self.pool(**UNLIMITED)
        servers: list[str] = []
        client = self.client(first.address, second.address, on_connected=servers.append)
        await client.connect()
        self.assertTrue((await self.submit(client, "a")).accepted)
        await first.crash()
        await until(lambda: len(servers) == 2)
        self.assertTrue((await self.submit(client, "b")).accepted)
        self.assertEqual(servers, [first.address, second.address])
        self.assertEqual(await second.counted(), {"admin": 1})
        await first.start()

    async def test_a_full_server(self) -> None:
        """K-62: ``too many connections`` is tried again, and succeeds when there is room."""
        pool = await self.pool(max_connections=1)
        for framing in FRAMINGS:
            inside = self.client(pool.address)
            await inside.connect()
            outside = self.client(pool.address, framing=framing)
            connecting = outside.connect()
            await until(lambda outside=outside: "too many connections" in outside.problem)
            await inside.close()
            await connecting
            await outside.close()
            await until(lambda: not len(pool.server.manager))


class ManyTests(SocketCase):
    """K-66: many sessions in one process."""

    async def test_crew(self) -> None:
        """K-66: workers are started bit by bit, and added up."""
        pool = await self.pool()
        gone: list[BaseException] = []

        def make(number: int) -> PoolClient:
            client = self.client(pool.address, username=f"admin.{number}")
            Worker(reactor, client)
            return client

        crew = ClientCrew(reactor, make, 25, ramp=100.0, gone=gone.append)
        crew.start()
        self.assertLessEqual(crew.connected, 10)
        await until(lambda: crew.accepted >= 25)
        self.assertEqual((crew.connected, crew.errors(), crew.problem), (25, {}, ""))
        await crew.close()
        await until(lambda: not pool.pool.sessions)
        self.assertEqual(gone, [])
        self.assertEqual(sum((await pool.counted()).values()), crew.accepted)

    async def test_crew_that_is_refused(self) -> None:
        """K-66: when every session has ended the crew says so, with the reason."""
        pool = await self.pool(password=("alice", "secret"))
        gone: list[BaseException] = []
        crew = ClientCrew(
            reactor, lambda number: self.client(pool.address), 3, ramp=100.0, gone=gone.append
        )
        crew.start()
        await until(lambda: gone)
        self.assertIsInstance(gone[0], NotAuthorized)
        self.assertEqual(crew.errors(), {"sessions ended": 3})
        await crew.close()

    def load(self, pool: PoolServer, **settings: Any) -> Load:
        load = Load(
            reactor,
            [parse_server(reactor, pool.address)],
            lambda number: f"bench.{number}",
            None,
            settings=LoadSettings(**settings),
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(load.close()))
        return load

    async def test_load(self) -> None:
        """K-66: every answer is counted, and the log holds what was accepted."""
        for framing in FRAMINGS:
            pool = await self.pool(interval=0.2, **UNLIMITED)
            load = self.load(pool, sessions=10, in_flight=4, framing=framing)
            await load.connect()
            self.assertEqual(load.connected, 10)
            load.start()
            await until(
                lambda load=load: load.counts.accepted > 500 and load.counts.spread.widest()
            )
            load.stop()
            await load.drain(5.0)
            counts = load.counts
            self.assertEqual((dict(counts.refused), dict(load.lost)), ({}, {}))
            self.assertEqual(counts.latency.total, counts.accepted)
            self.assertEqual(sum((await pool.counted()).values()), counts.accepted)
            _, _, sessions = counts.spread.widest() or (0, 0.0, 0)
            self.assertLessEqual(sessions, 10)
            await load.close()
            await until(lambda pool=pool: not pool.pool.sessions)
            self.assertEqual(counts.unanswered, 0)

    async def test_load_on_a_limited_server(self) -> None:
        """K-66: refusals are counted by kind, and are not met with a storm."""
        pool = await self.pool()
        load = self.load(pool, sessions=2, in_flight=3)
        await load.connect()
        load.start()
        await until(lambda: load.counts.refused["too frequent"] >= 4)
        self.assertEqual(load.counts.accepted, 2)
        self.assertLessEqual(load.counts.answered, 8)

    async def test_load_that_loses_its_server(self) -> None:
        """K-66: lost sessions and what they had in flight are counted."""
        pool = await self.pool(**UNLIMITED)
        load = self.load(pool, sessions=5, in_flight=2)
        await load.connect()
        pool.log.held = []
        load.start()
        await until(lambda: pool.log.held)
        await pool.crash()
        await until(lambda: not load.connected)
        self.assertEqual(sum(load.lost.values()), 5)
        self.assertEqual(load.counts.unanswered, 10)
        await pool.start()
