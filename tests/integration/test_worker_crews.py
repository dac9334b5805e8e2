"""P-50: threads and processes for calls that block, with a real reactor."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kupool.errors import RequestError
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
from kupool.net.workers.executor import Executor
from kupool.net.workers.pool import WorkerPool, WorkerSettings
from kupool.net.workers.processes import CallFailed, ProcessEnded, Processes
from kupool.net.workers.threads import Threads
from kupool.session.connection import Connection
from tests.servers.sockets import PATIENCE


def add(a: int, b: int) -> int:
    return a + b


def fail() -> None:
    raise ZeroDivisionError("of ours")


def die() -> None:
    os._exit(3)


def spin() -> None:
    while True:
        pass


def pid_and(value: object) -> tuple[int, object]:
    return os.getpid(), value


async def until(true: Any) -> None:
    """Wait until something is so; fails when it takes too long."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never was so"
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]


class CrewCase(TestCase):
    def keep(self, crew: Any) -> Any:
        self.addCleanup(lambda: Deferred.fromCoroutine(crew.stop(1.0)))
        return crew

    async def refused(self, crew: Executor) -> None:
        with self.assertRaises(RequestError) as caught:
            await crew.run(add, 1, 2)
        self.assertEqual(caught.exception.error.code, 27)


class ThreadTests(CrewCase):
    async def test_calls_run_elsewhere(self) -> None:
        crew = self.keep(Threads(reactor, 2))
        here = threading.get_ident()
        self.assertNotEqual(await crew.run(threading.get_ident), here)
        self.assertEqual(await crew.run(add, 1, 2), 3)
        with self.assertRaises(ZeroDivisionError):
            await crew.run(fail)

    async def test_no_more_than_its_size_at_once(self) -> None:
        crew = self.keep(Threads(reactor, 2))
        gate, running, most = threading.Event(), [0], [0]
        lock = threading.Lock()

        def work() -> None:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            gate.wait(PATIENCE)
            with lock:
                running[0] -= 1

        calls = [crew.run(work) for _ in range(6)]
        await until(lambda: running[0] == 2)
        gate.set()
        await gatherResults(calls)
        self.assertEqual((most[0], running[0]), (2, 0))

    async def test_the_queue_is_bounded(self) -> None:
        crew = self.keep(Threads(reactor, 1, queue=1))
        gate = threading.Event()
        calls = [crew.run(gate.wait, PATIENCE) for _ in range(2)]
        await self.refused(crew)
        gate.set()
        self.assertEqual(await gatherResults(calls), [True, True])

    async def test_a_stuck_thread_is_replaced(self) -> None:
        """P-49, P-50: another takes its place, up to a limit; then calls are refused."""
        crew = self.keep(Threads(reactor, 1, most_stuck=1))
        gate = threading.Event()
        self.addCleanup(gate.set)
        stuck = crew.run(gate.wait, PATIENCE)
        waits = crew.run(add, 2, 2)
        stuck.cancel()
        with self.assertRaises(CancelledError):
            await stuck
        self.assertEqual((await waits, crew.stuck), (4, 1))
        second = crew.run(gate.wait, PATIENCE)
        behind = crew.run(add, 2, 2)
        second.cancel()
        with self.assertRaises(CancelledError):
            await second
        with self.assertRaises(RequestError):
            await behind
        self.assertEqual(crew.stuck, 2)
        await self.refused(crew)
        gate.set()
        await until(lambda: crew.stuck == 0)
        self.assertEqual(await crew.run(add, 3, 3), 6)

    async def test_no_room_for_another(self) -> None:
        """P-50: where the system has none, calls are refused, and no answer is lost."""
        for crew, missing in (
            (Threads(reactor, 2), RuntimeError),
            (Processes(reactor, 2), OSError),
        ):
            self.keep(crew)
            start_worker = crew._start_worker

            def full(missing: Any = missing) -> Any:
                raise missing("no more of them")

            self.patch(crew, "_start_worker", full)
            await self.refused(crew)
            self.patch(crew, "_start_worker", start_worker)
            first = crew.run(time.sleep, 0.05)
            self.patch(crew, "_start_worker", full)
            second = crew.run(add, 1, 2)  # waits for the first one's worker
            self.assertEqual(await gatherResults([first, second]), [None, 3])
            self.assertEqual(len(self.flushLoggedErrors(missing)), 2)

    async def test_one_that_waits_can_be_cancelled(self) -> None:
        crew = self.keep(Threads(reactor, 1))
        gate, begun = threading.Event(), []
        first = crew.run(gate.wait, PATIENCE)
        second = crew.run(begun.append, 1)
        second.cancel()
        with self.assertRaises(CancelledError):
            await second
        gate.set()
        await first
        self.assertEqual(await crew.run(add, 1, 1), 2)
        self.assertEqual(begun, [])

    async def test_stop(self) -> None:
        crew = Threads(reactor, 2)
        gate = threading.Event()
        running = [crew.run(gate.wait, PATIENCE) for _ in range(2)]
        waiting = crew.run(add, 1, 2)
        stopping = Deferred.fromCoroutine(crew.stop(PATIENCE))
        with self.assertRaises(RequestError):
            await waiting
        await self.refused(crew)
        gate.set()
        self.assertEqual(await gatherResults(running), [True, True])
        self.assertEqual(await stopping, 0)

    async def test_stop_past_its_deadline(self) -> None:
        crew = Threads(reactor, 1)
        gate = threading.Event()
        self.addCleanup(gate.set)
        stuck = crew.run(gate.wait, PATIENCE)
        self.assertEqual(await crew.stop(0.01), 1)
        with self.assertRaises(CancelledError):
            await stuck


class ProcessTests(CrewCase):
    async def test_calls_run_elsewhere(self) -> None:
        crew = self.keep(Processes(reactor, 1))
        pid, value = await crew.run(pid_and, "x" * 100_000)
        self.assertNotEqual(pid, os.getpid())
        self.assertEqual(value, "x" * 100_000)
        # The same process goes on, after an exception too.
        with self.assertRaises(CallFailed) as caught:
            await crew.run(fail)
        self.assertIn("ZeroDivisionError: of ours", str(caught.exception))
        self.assertEqual(await crew.run(pid_and, None), (pid, None))

    async def test_what_cannot_be_sent(self) -> None:
        crew = self.keep(Processes(reactor, 1))
        try:
            await crew.run(lambda: 1)
        except ValueError as error:
            self.assertIn("the call cannot be pickled", str(error))
        else:
            self.fail("a lambda was pickled")
        self.assertEqual(await crew.run(add, 1, 2), 3)

    async def test_one_that_ends_is_replaced(self) -> None:
        crew = self.keep(Processes(reactor, 1))
        with self.assertRaises(ProcessEnded):
            await crew.run(die)
        self.assertEqual(await crew.run(add, 1, 2), 3)

    async def test_one_that_never_yields_is_killed(self) -> None:
        """P-49, P-50: a loop without an end costs its caller an error, and nobody else."""
        crew = self.keep(Processes(reactor, 1))
        pid, _ = await crew.run(pid_and, None)
        endless = crew.run(spin)
        endless.cancel()
        with self.assertRaises(CancelledError):
            await endless
        other, _ = await crew.run(pid_and, None)
        self.assertNotEqual(pid, other)
        self.assertEqual(crew.stuck, 0)
        await until(lambda: not alive(pid))

    async def test_stop_ends_them(self) -> None:
        crew = Processes(reactor, 1)
        pid, _ = await crew.run(pid_and, None)
        self.assertEqual(await crew.stop(), 0)
        await until(lambda: not alive(pid))
        await self.refused(crew)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class ServedTests(CrewCase):
    """P-50: handlers that block, behind a worker pool and a real socket."""

    async def test_a_blocking_handler_delays_nobody(self) -> None:
        threads = self.keep(Threads(reactor, 2))
        pool = WorkerPool(reactor, WorkerSettings(size=2, timeout=0.2))  # type: ignore[arg-type]
        gate = threading.Event()
        self.addCleanup(gate.set)
        router = IdRouter()

        def block(connection: Connection, number: int, data: bytes) -> bytes:
            return b"yes" if gate.wait(PATIENCE) else b"no"

        router.add(1, block, use=[pool, threads])
        router.add(2, lambda c, n, data: data)
        server = Server(reactor, Observer(router), framing="tlv")
        await server.listen(["127.0.0.1:0"])
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop(timeout=1)))
        port = server.addresses[0].port
        peers = self.keep(Threads(reactor, 2))
        blocked = peers.run(talk, port, 1)
        self.assertEqual((await peers.run(talk, port, 2))[-1:], b"x")
        self.assertIn(b'"code":37', await blocked)
        await pool.stop()


def talk(port: int, number: int) -> bytes:
    """Send one message, and return what is answered; blocks."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(b"\x01\0\0\0" + number.to_bytes(4, "little") + b"x")
        return sock.recv(65536)
