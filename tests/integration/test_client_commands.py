"""``kupool work`` and ``kupool bench`` as a user runs them: real processes."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kupool.pool.handlers import AttemptSettings
from kupool.web.site import make_site
from kupool.wire.framing import FRAMINGS
from tests.servers.pool_server import PoolServer

reactor: Any = global_reactor

CLOSE = b"\x08\x00\x00\x00\x00"


class Command(ProcessProtocol):
    """One process; ``status`` is its exit status, -N where signal N ended it."""

    def __init__(self) -> None:
        self.out = ""
        self.err = ""
        self.status: int | None = None
        self._waiting: list[tuple[str, Deferred[None]]] = []
        self.ended: Deferred[Command] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data.decode()
        for text, waiting in list(self._waiting):
            if text in self.out:
                self._waiting.remove((text, waiting))
                waiting.callback(None)

    def errReceived(self, data: bytes) -> None:
        self.err += data.decode()

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.status = value.exitCode if value.exitCode is not None else -value.signal
        for _, waiting in self._waiting:
            waiting.errback(AssertionError(f"ended without it: {self.out}{self.err}"))
        self.ended.callback(self)

    def printed(self, text: str) -> Deferred[None]:
        """Return what fires when the process has printed a text."""
        waiting: Deferred[None] = Deferred()
        if text in self.out:
            waiting.callback(None)
        else:
            self._waiting.append((text, waiting))
        return waiting

    def signal(self, name: str) -> None:
        transport: Any = self.transport
        transport.signalProcess(name)

    def kill(self) -> Deferred[Any] | None:
        if self.status is not None:
            return None
        self.signal("KILL")
        return self.ended


class CommandCase(TestCase):
    """Runs the command beside a pool in this process."""

    timeout = 90

    def start(self, *arguments: str, **environment: str) -> Command:
        command = Command()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("KUP_")}
        reactor.spawnProcess(
            command,
            sys.executable,
            [sys.executable, "-m", "kupool.cli", *arguments],
            env={**inherited, **environment},
            path=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
        )
        self.addCleanup(command.kill)
        return command

    async def run_to_end(self, *arguments: str, **environment: str) -> Command:
        return await self.start(*arguments, **environment).ended

    async def pool(self, **settings: Any) -> PoolServer:
        pool = PoolServer(reactor, **settings)
        await pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        return pool


class Witness(Protocol):
    """A server that lets everyone in, never ends anything, and notes what it hears."""

    heard: bytes

    def connectionMade(self) -> None:
        self.heard = b""
        self.factory.peers.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        if not self.heard:
            self.transport.write(FRAMINGS["frame"].encode(b'{"id":1,"result":true}'))  # type: ignore[union-attr]
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost.callback(self.heard)  # type: ignore[union-attr]


class Abrupt(Protocol):
    """A server that ends every connection without a word."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class WorkTests(CommandCase):
    """K-56, K-64, K-65: one session on the command line."""

    async def test_flags_of_the_first_client(self) -> None:
        """K-65: ``-addr`` and ``-username`` as the first client has them; each job and each
        accepted submission is a line.
        """
        pool = await self.pool()
        done = await self.run_to_end(
            "work", "-addr", pool.address, "-username", "zoe", "--count", "2"
        )
        self.assertEqual((done.status, done.err), (0, ""))
        job = pool.book.current
        assert job is not None
        lines = done.out.splitlines()
        self.assertEqual(lines[0], f"authorized on {pool.address} as zoe")
        self.assertEqual(lines[1], f"job {job.job_id}")
        for number, line in enumerate(lines[2:4], start=1):
            self.assertRegex(
                line, rf"^accepted job {job.job_id} nonce [0-9a-f]{{4}}… \({number} total\)$"
            )
        self.assertRegex(lines[4], r"^2 accepted in [\d.]+ s, no errors$")
        self.assertEqual(await pool.counted(), {"zoe": 2})

    async def test_environment(self) -> None:
        """K-65: KUP_ADDR, KUP_USERNAME and KUP_PASSWORD; a flag comes before them."""
        pool = await self.pool(password=("yan", "secret"))
        environment = {
            "KUP_ADDR": f"127.0.0.1:1,{pool.address}",
            "KUP_USERNAME": "yan",
            "KUP_PASSWORD": "secret",
        }
        done = await self.run_to_end("work", "--count", "1", **environment)
        self.assertEqual(done.status, 0, done.err)
        self.assertIn("refused", done.err)  # the first server of the list
        self.assertEqual(await pool.counted(), {"yan": 1})
        done = await self.run_to_end(
            "work",
            "--count",
            "1",
            "--connect",
            pool.address,
            "--username",
            "yan.rig",
            **environment,
        )
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(await pool.counted(), {"yan": 1, "yan.rig": 1})

    async def test_every_framing(self) -> None:
        """K-65: ``--framing``."""
        pool = await self.pool()
        for framing in FRAMINGS:
            done = await self.run_to_end(
                "work", "--connect", pool.address, "--framing", framing, "--count", "1"
            )
            self.assertEqual((done.status, done.err), (0, ""))

    async def test_signals(self) -> None:
        """K-64: on SIGINT and SIGTERM OpClose is sent, the socket closed, and the status 0,
        though this server reacts to nothing.
        """
        for signal in ("INT", "TERM"):
            factory: Any = Factory.forProtocol(Witness)
            factory.peers, factory.lost = [], Deferred()
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            command = self.start("work", "--connect", f"127.0.0.1:{port.getHost().port}")
            await command.printed("authorized on")
            command.signal(signal)
            command.signal(signal)  # a terminal and a parent may both pass it on
            heard = await factory.lost
            done = await command.ended
            self.assertEqual((done.status, done.err), (0, ""), signal)
            self.assertTrue(heard.endswith(CLOSE), heard)

    async def test_signals_with_a_pool(self) -> None:
        """K-64: the same with the real pool, which ends the connection itself."""
        pool = await self.pool()
        for signal in ("INT", "TERM"):
            command = self.start("work", "--connect", pool.address)
            await command.printed("accepted job")
            command.signal(signal)
            done = await command.ended
            self.assertEqual((done.status, done.err), (0, ""), signal)
            self.assertIn("accepted in", done.out)
        self.assertEqual(pool.pool.sessions, 0)

    async def test_signal_while_nobody_is_there(self) -> None:
        """K-64: a client that waits for a server ends as well."""
        command = self.start("work", "--connect", "127.0.0.1:1", "--sessions", "3")
        await command.printed("refused")
        command.signal("TERM")
        done = await command.ended
        self.assertEqual((done.status, done.err), (0, ""))

    async def test_nobody_there(self) -> None:
        """K-88: a server that was never reached is no success, and the cause is named."""
        for sessions in ("1", "3"):
            done = await self.run_to_end(
                *("work", "--connect", "127.0.0.1:1", "--sessions", sessions, "--duration", "1s")
            )
            self.assertEqual(done.status, 1)
            self.assertRegex(
                done.out,
                r"(?m)^0 accepted in [\d.]+ s, never connected: 127.0.0.1:1: connection refused: "
                "nothing listens on this port$",
            )

    async def test_another_protocol_on_the_port(self) -> None:
        """K-88: HTTP, or what ends at once as TLS does, is named."""
        site = make_site(reactor, None, None, time.time)  # type: ignore[arg-type]
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        for framing in FRAMINGS:
            done = await self.run_to_end(
                *("work", "--connect", f"127.0.0.1:{port.getHost().port}", "--framing", framing)
            )
            self.assertEqual((done.status, done.out), (1, ""))
            self.assertRegex(
                done.err,
                r"^kupool: 127.0.0.1:\d+ ended the session: malformed message: this port serves "
                r"HTTP; connect to the port of the pool \(30\)\n$",
            )
        factory: Any = Factory.forProtocol(Abrupt)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        done = await self.run_to_end(
            *("work", "--connect", f"127.0.0.1:{port.getHost().port}", "--duration", "1s")
        )
        self.assertEqual(done.status, 1)
        self.assertIn("before it said anything; does this port speak TLS", done.err)

    async def test_a_disk_that_is_full(self) -> None:
        """K-88: submissions that the server cannot store are told, one by one and in all."""
        pool = await self.pool()
        pool.log.dead = True
        done = await self.run_to_end("work", "--connect", pool.address, "--duration", "4s")
        self.assertRegex(
            done.err,
            r"(?m)^kupool: The server could not store a submission for job \d+: Temporarily "
            r"unavailable; it is submitted again in [\d.]+ s$",
        )
        self.assertRegex(
            done.err,
            r"(?m)^kupool: the server could not store a submission \d+ times \(Temporarily",
        )
        done = await self.run_to_end(
            *("work", "--connect", pool.address, "--duration", "4s", "--sessions", "2")
        )
        self.assertRegex(done.out, r"(?m)^0 accepted in [\d.]+ s, \d+ not stored$")

    async def test_stderr_that_nobody_reads(self) -> None:
        """K-88: it ends all the same."""
        command = self.start("work", "--connect", "127.0.0.1:1", "--duration", "2s")
        transport: Any = command.transport
        transport.closeChildFD(2)
        done = await command.ended
        self.assertEqual(done.status, 1)
        self.assertIn("never connected", done.out)

    async def test_not_authorized(self) -> None:
        """A client that may not come in says so in one line, and its status is 1."""
        pool = await self.pool(password=("yan", "secret"))
        for sessions in ("1", "3"):
            done = await self.run_to_end(
                "work", "--connect", pool.address, "--sessions", sessions, KUP_PASSWORD="guess"
            )
            self.assertEqual(done.status, 1)
            self.assertEqual(
                done.err,
                f"kupool: cannot authorize as admin on {pool.address}: unauthorized\n",
            )

    async def test_bad_values(self) -> None:
        """Each is one line that names the value, and a status other than 0."""
        for arguments, named in (
            (["--connect", "nonsense"], "nonsense"),
            (["--interval", "61s"], "61"),
            (["--interval", "soon"], "soon"),
            (["--sessions", "0"], "0"),
            (["--framing", "tlv"], "tlv"),
            (["--sessions", "900000000"], "900000064"),
        ):
            done = await self.run_to_end("work", *arguments)
            self.assertNotEqual(done.status, 0, arguments)
            self.assertIn(named, done.err.splitlines()[-1])
            self.assertNotIn("Traceback", done.err)

    async def test_restart(self) -> None:
        """K-62: a restart of the server is a line on stderr, and the work goes on."""
        pool = await self.pool()
        command = self.start("work", "--connect", pool.address, "--count", "3")
        await command.printed("(1 total)")
        await pool.crash()
        await pool.start()
        done = await command.ended
        self.assertEqual(done.status, 0, done.err)
        self.assertIn("next attempt in", done.err)
        self.assertEqual(done.out.count("authorized on"), 2)
        self.assertEqual(await pool.counted(), {"admin": 3})

    async def test_many_sessions(self) -> None:
        """K-66: rate and errors of many sessions, in plain lines where there is no terminal."""
        pool = await self.pool()
        done = await self.run_to_end(
            *("work", "--connect", pool.address, "--sessions", "20", "--numbered"),
            *("--username", "farm", "--duration", "5500ms"),
        )
        self.assertEqual((done.status, done.err), (0, ""))
        first, last = done.out.splitlines()
        self.assertRegex(first, r"^20 of 20 sessions, \d+ accepted, [\d.]+/s$")
        counted = await pool.counted()
        self.assertEqual(set(counted), {f"farm.{n}" for n in range(1, 21)})
        self.assertTrue(last.startswith(f"{sum(counted.values())} accepted in 5."), last)

    async def test_a_reader_that_goes_away(self) -> None:
        """A closed standard output ends the work, and is no traceback."""
        pool = await self.pool()
        command = self.start("work", "--connect", pool.address)
        await command.printed("accepted job")
        transport: Any = command.transport
        transport.closeStdout()
        done = await command.ended
        self.assertEqual(done.err, "")


class BenchTests(CommandCase):
    """K-66: load from the command line."""

    async def test_report(self) -> None:
        """K-66: rates, answers by outcome, latencies and the spread of a job."""
        pool = await self.pool(
            interval=0.5, submit_interval=0.0, attempts=AttemptSettings(rate=0.0)
        )
        done = await self.run_to_end(
            *("bench", "--connect", pool.address, "--sessions", "10"),
            *("--in-flight", "4", "--duration", "2s"),
        )
        self.assertEqual((done.status, done.err), (0, ""))
        found = dict(line.split(": ", 1) for line in done.out.splitlines())
        counted = await pool.counted()
        self.assertEqual(found["accepted"], f"{sum(counted.values()):,}")
        self.assertEqual(found["submissions"], found["accepted"])
        for name in ("p50", "p90", "p99", "max"):
            self.assertRegex(found[f"latency {name}"], r"^[\d.]+ ms$")
        self.assertRegex(
            found["job fan-out, first to last"], r"^[\d.]+ ms \(job \d+, 10 sessions\)$"
        )
        self.assertTrue(re.fullmatch(r"[\d,]+", found["accepted a second"]))

    async def test_a_limited_server(self) -> None:
        """K-66: where the server limits submissions, one line says what to set."""
        pool = await self.pool()
        done = await self.run_to_end(
            "bench", "--connect", pool.address, "--sessions", "2", "--duration", "1s"
        )
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(done.out.count("--submit-interval 0 --attempts-rate 0"), 1)
        self.assertIn("too frequent: ", done.out)

    async def test_nobody_there(self) -> None:
        done = await self.run_to_end("bench", "--connect", "127.0.0.1:1")
        self.assertEqual(done.status, 1)
        self.assertRegex(done.err, r"^kupool: no session could be opened: .*refused.*\n$")

    async def test_interrupted(self) -> None:
        """A signal ends the load early, and what was measured is printed."""
        pool = await self.pool(submit_interval=0.0, attempts=AttemptSettings(rate=0.0))
        command = self.start("bench", "--connect", pool.address, "--duration", "5m")
        await command.printed("submitting")
        command.signal("INT")
        done = await command.ended
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn("latency p99", done.out)
