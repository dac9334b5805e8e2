"""A port that cannot accept rests, instead of asking again and again."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from unittest import SkipTest

from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport import leftovers
from kupool.net.transport.ports import (
    ACCEPTS,
    FIRST_REST,
    LONGEST_REST,
    RESETS,
    ListeningSocket,
    RestingListeners,
    RestingPort,
)
from tests.servers.sockets import Peer


class Reactor(Clock):
    """A clock that knows who waits to be called for something to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    removeWriter = removeReader


class Gate:
    """Says what a test wants; notes what it was asked."""

    def __init__(self, unwanted: int = 0, pauses: Sequence[float] = ()) -> None:
        self.left = unwanted
        self.pauses = list(pauses)
        self.asked = self.accepted = 0

    def pause(self) -> float:
        return self.pauses.pop(0) if self.pauses else 0.0

    def taken(self) -> None:
        self.accepted += 1

    def unwanted(self, host: str) -> bool:
        assert host.endswith("127.0.0.1")
        self.asked += 1
        self.left -= 1
        return self.left >= 0


class RestTests(SynchronousTestCase):
    """P-06: errors of accept back off from 5 ms to 1 s."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        self.port = self.listen(factory)
        self.addCleanup(self.let_go)
        #: What accept raises instead of accepting; 0: it accepts.
        self.failing = 0
        self.tries = 0
        accept = ListeningSocket.__mro__[1].accept  # that of the standard library

        def tried(listening: Any) -> Any:
            self.tries += 1
            if self.failing:
                raise OSError(self.failing, "not now")
            return accept(listening)

        self.patch(ListeningSocket.__mro__[1], "accept", tried)

    def listen(self, factory: Any) -> Any:
        port = RestingPort(0, factory, 50, "127.0.0.1", self.reactor)
        port.startListening()
        return port

    def address(self) -> Any:
        return self.port.getHost().port

    def let_go(self) -> None:
        if self.port.connected:
            self.port.connectionLost(Failure(ConnectionDone()))

    def rests(self) -> float:
        """Have the port read until it rests; returns for how long."""
        self.assertIn(self.port, self.reactor.readers)
        self.port.doRead()
        if self.port in self.reactor.readers:
            return 0.0
        (call,) = self.reactor.getDelayedCalls()
        seconds: float = call.getTime() - self.reactor.seconds()
        self.reactor.advance(seconds)
        return seconds

    def test_longer_and_longer(self) -> None:
        for number in (errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            self.failing = number
            rests = [self.rests() for _ in range(10)]
            self.assertAlmostEqual(rests[0], FIRST_REST)
            for shorter, longer in pairwise(rests):
                self.assertAlmostEqual(longer, min(2 * shorter, LONGEST_REST))
            self.assertAlmostEqual(rests[8], LONGEST_REST)
            self.assertAlmostEqual(rests[9], LONGEST_REST)
            self.failing = 0
            with Peer(self.address()):
                self.assertEqual(self.rests(), 0.0)
        self.assertEqual((FIRST_REST, LONGEST_REST), (0.005, 1.0))

    def test_one_try_for_each_rest(self) -> None:
        self.failing = errno.ENFILE
        for n in range(1, 5):
            self.rests()
            self.assertEqual(self.tries, n)

    def test_what_says_nothing_about_the_next(self) -> None:
        for number in (errno.EAGAIN, errno.ECONNABORTED, errno.EPERM):
            self.failing = number
            self.assertEqual(self.rests(), 0.0)

    def test_stopped_while_it_rests(self) -> None:
        self.failing = errno.ENFILE
        self.port.doRead()
        self.port.stopListening()
        self.reactor.advance(0)
        self.assertFalse(self.port.connected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.readers, set())

    def test_a_flood_gets_a_few_places_in_each_turn(self) -> None:
        """Issue 15: however many wait, those who are connected get their turn in between."""
        with ExitStack() as peers:
            for _ in range(4 * ACCEPTS):
                peers.enter_context(Peer(self.address()))
            for turn in range(1, 5):
                self.port.doRead()
                self.assertEqual(self.tries, turn * ACCEPTS)
            for transport in self.reactor.readers - {self.port}:
                transport.connectionLost(Failure(ConnectionDone()))

    def come(self, stack: ExitStack, count: int) -> list[Peer]:
        return [stack.enter_context(Peer(self.address())) for _ in range(count)]

    def accepted(self) -> int:
        return len(self.reactor.readers - {self.port})

    def end(self) -> None:
        for transport in self.reactor.readers - {self.port}:
            transport.connectionLost(Failure(ConnectionDone()))

    def test_unwanted_ones_are_reset(self) -> None:
        """Issue 15, acceptance 2: before anything is made for them, a few more in each turn."""
        gate = self.port.socket.gate = Gate(unwanted=RESETS + 1)
        with ExitStack() as stack:
            peers = self.come(stack, RESETS + 2)
            self.port.doRead()
            self.assertEqual((gate.asked, self.accepted()), (RESETS, 0))
            self.port.doRead()
            self.assertEqual((gate.asked, gate.accepted), (RESETS + 2, 1))
            self.assertEqual(self.accepted(), 1)
            self.assertRaises(ConnectionResetError, peers[0].exactly, 1)
            self.end()

    def test_the_pace(self) -> None:
        """Issue 15, acceptance 2: those beyond it wait in the system's queue."""
        gate = self.port.socket.gate = Gate(pauses=[0.0, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0])
        with ExitStack() as stack:
            self.come(stack, 3)
            self.port.doRead()
            self.assertEqual(gate.accepted, 2)
            self.assertIn(self.port, self.reactor.readers)
            self.assertEqual(self.rests(), 0.25)
            self.port.doRead()
            self.assertEqual(gate.accepted, 3)
            self.end()

    def test_the_gate_is_that_of_the_factory(self) -> None:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        factory.gate = gate = Gate()  # type: ignore[attr-defined]
        self.assertIsNone(self.port.socket.gate)
        other = self.listen(factory)
        self.assertIs(other.socket.gate, gate)
        other.connectionLost(Failure(ConnectionDone()))

    def test_descriptors_of_accepted_connections(self) -> None:
        with Peer(self.address()):
            self.port.doRead()
            (transport,) = self.reactor.readers - {self.port}
            self.assertFalse(transport.getHandle().getblocking())
            transport.connectionLost(Failure(ConnectionDone()))


class TlsTests(RestTests):
    """P-06: so does a port for TLS."""

    def listen(self, factory: Any) -> Any:
        try:
            from twisted.internet.ssl import CertificateOptions
        except ImportError as error:
            raise SkipTest(f"the extra 'tls' is not installed: {error}") from None
        listeners = RestingListeners(self.reactor)
        return listeners.listenSSL(0, factory, CertificateOptions(), 50, "127.0.0.1")

    def test_descriptors_of_accepted_connections(self) -> None:
        """What is accepted speaks TLS."""
        with Peer(self.address()):
            self.port.doRead()
            from twisted.protocols.tls import TLSMemoryBIOProtocol

            (transport,) = self.reactor.readers - {self.port}
            self.assertIsInstance(transport.protocol, TLSMemoryBIOProtocol)
            transport.connectionLost(Failure(ConnectionDone()))


class UnixTests(RestTests):
    """P-06: so does one on a Unix socket."""

    def listen(self, factory: Any) -> Any:
        self.path = str(Path(mkdtemp()) / "demo.sock")
        return RestingListeners(self.reactor).listenUNIX(self.path.encode(), factory)

    def address(self) -> Any:
        return self.path

    def test_unwanted_ones_are_reset(self) -> None:
        """A peer on a Unix socket has no address, and is never unwanted."""
        gate = self.port.socket.gate = Gate(unwanted=2)
        with ExitStack() as stack:
            self.come(stack, 2)
            self.port.doRead()
            self.assertEqual((gate.asked, gate.accepted), (0, 2))
            self.end()

    def test_its_file_goes_with_it(self) -> None:
        self.assertTrue(Path(self.path).exists())
        self.let_go()
        self.assertFalse(Path(self.path).exists())

    def test_its_file_may_have_gone(self) -> None:
        Path(self.path).unlink()
        self.let_go()
        self.assertEqual((self.port.connected, self.reactor.readers), (False, set()))
        self.assertEqual(self.port.fileno(), -1)


class LeftoverTests(SynchronousTestCase):
    """Issue 11, point 4: what a killed process left of a Unix socket stops nobody; only who
    listens there does. ``unix:`` endpoints take such a lock.
    """

    def setUp(self) -> None:
        folder = TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "demo.sock"
        self.lock = Path(f"{self.path}.lock")
        self.reactor = Reactor()

    def left_by(self, pid: int) -> None:
        """Leave what a process of this number leaves when it is killed."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(self.path))
            sock.listen(1)
        self.lock.symlink_to(str(pid))

    def listen(self) -> Any:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        return RestingListeners(self.reactor).listenUNIX(
            str(self.path).encode(), factory, wantPID=1
        )

    def check_listening(self) -> None:
        port = self.listen()
        with Peer(str(self.path)):
            port.doRead()
        self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        for transport in self.reactor.readers - {port}:
            transport.connectionLost(Failure(ConnectionDone()))
        port.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(os.path.lexists(self.lock) or os.path.lexists(self.path))

    def test_a_number_in_use_again(self) -> None:
        """By this process, as in a container; by another, which does not listen; by none."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        for pid in (os.getpid(), os.getppid(), gone.pid):
            self.left_by(pid)
            self.check_listening()

    def test_a_socket_without_a_lock(self) -> None:
        self.left_by(1)
        self.lock.unlink()
        self.check_listening()

    def test_a_lock_without_a_socket(self) -> None:
        self.lock.symlink_to(str(os.getpid()))
        self.check_listening()

    def refused(self) -> str:
        error = self.assertRaises(CannotListenError, self.listen)
        return str(error.socketError)

    def test_somebody_listens(self) -> None:
        """Whatever the lock says: their socket is left alone."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(self.path))
            sock.listen(5)
            self.lock.symlink_to(str(os.getpid()))
            self.assertEqual(self.refused(), f"in use by another process (pid {os.getpid()})")
            self.lock.unlink()
            self.assertEqual(self.refused(), "in use by another process (pid unknown)")
            with Peer(str(self.path)):
                pass

    def test_one_that_begins_just_now(self) -> None:
        """It has taken the lock, and listens a moment later."""
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        self.lock.symlink_to(str(os.getppid()))

        def meanwhile(seconds: float) -> None:
            other.bind(str(self.path))
            other.listen(1)

        self.patch(leftovers.time, "sleep", meanwhile)
        self.assertIn(f"pid {os.getppid()}", self.refused())
        self.assertTrue(self.lock.is_symlink())

    def test_a_file_in_its_place(self) -> None:
        """What is no socket is not removed, and no lock stays behind."""
        self.path.write_text("precious")
        self.assertIn("Address already in use", self.refused())
        self.assertEqual(self.path.read_text(), "precious")
        self.assertFalse(os.path.lexists(self.lock))


class AdoptedTests(RestTests):
    """P-06: so does one that was passed to the process, as systemd does."""

    family = socket.AF_INET
    where = "127.0.0.1"

    def listen(self, factory: Any) -> Any:
        with socket.socket(self.family) as passed:
            passed.bind((self.where, 0))
            passed.listen(50)
            listeners = RestingListeners(self.reactor)
            return listeners.adoptStreamPort(passed.fileno(), self.family, factory)


class AdoptedSixTests(AdoptedTests):
    family = socket.AF_INET6
    where = "::ffff:127.0.0.1"


class AdoptedUnixTests(UnixTests):
    """P-06, P-07: a Unix socket of systemd's."""

    def listen(self, factory: Any) -> Any:
        self.path = str(Path(mkdtemp()) / "demo.sock")
        with socket.socket(socket.AF_UNIX) as passed:
            passed.bind(self.path)
            passed.listen(50)
            listeners = RestingListeners(self.reactor)
            return listeners.adoptStreamPort(passed.fileno(), socket.AF_UNIX, factory)
