"""The torture in small, and its own instruments; the long run is by hand."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.servers.services import PostgresServer, RabbitServer, postgres, rabbit
from tools.torture import Torture, torture
from tools.torture_accounts import Accounts, Findings, Row, Stored
from tools.torture_audit import CUT_OFF, DIFFERENT, Forgery, forge, read_answer
from tools.torture_clock import DAY, SEEN, Clock
from tools.torture_faults import Fault, plan
from tools.torture_files import FilesSite
from tools.torture_load import Key
from tools.torture_proxy import HALF, HOLE, MUTE, OPEN, Proxy
from tools.torture_services import ServicesSite


class TortureTests(SynchronousTestCase):
    """K-52, K-53, K-81: whatever is done to it, nothing is lost or double.

    Killed, stopped, cut off and without room; with a clock that is wrong, without its folder
    or its log, with an older copy of its store.
    """

    def services(self) -> ServicesSite:
        broker, database = rabbit(), postgres()
        if not isinstance(broker, RabbitServer) or not isinstance(database, PostgresServer):
            raise SkipTest("the servers given by the environment are not ours to hurt")
        return ServicesSite(broker, database, seed=3)

    def run_rounds(
        self, site: FilesSite | ServicesSite, faults: Sequence[str], audit_every: int = 3
    ) -> Torture:
        with site:
            done = torture(site, seed=3, rounds=len(faults), forced=faults, audit_every=audit_every)
        self.assertEqual(done.texts, [])
        self.assertEqual((done.differences, done.lost, done.double), (0, 0, 0))
        self.assertEqual(done.done, Counter(faults))
        books, accounts = done.load.books, done.accounts
        self.assertGreater(books.submitted, 1000)
        self.assertEqual(accounts.in_log, accounts.in_table)
        told = books.answered_true + books.answered_again
        self.assertTrue(told <= accounts.in_log <= told + books.gone)
        self.assertGreater(books.probes, 0)
        self.assertGreater(done.auditor.forged, 0)
        return done

    def test_services(self) -> None:
        """K-53, K-68, K-81, X-12: after each round what clients were told is what is in the log
        and what is counted, per user and minute.
        """
        faults = ["daemon kill", "clients cut mute", "disk full", "postgres kill", "broker kill"]
        books = self.run_rounds(self.services(), faults, audit_every=5).load.books
        # The faults were felt, and not only survived. Whether anything was refused goes by
        # the moment: the spool takes what the broker does not.
        self.assertGreater(books.answered_again, 0)
        self.assertGreater(books.reconnects, 50)

    def test_services_surroundings(self) -> None:
        """K-53: the same where the clock, the stream and the store are not what they were."""
        faults = ["clock -1d", "store older", "stream deleted after term", "restart +40d"]
        done = self.run_rounds(self.services(), faults)
        self.assertEqual(done.accounts.logs_taken, 1)
        self.assertFalse(done.accounts.whole)

    def test_files(self) -> None:
        """K-53: the same with SQLite files on a disk that fills up, and under a lock."""
        faults = ["daemon kill", "clients cut mute", "disk full", "log locked", "daemon term"]
        books = self.run_rounds(FilesSite(seed=3), faults, audit_every=5).load.books
        self.assertGreater(books.answered_again, 0)
        self.assertGreater(books.reconnects, 50)
        self.assertGreater(books.retried, 0)

    def test_files_surroundings(self) -> None:
        """K-53: the same where the clock, the folder, the log and the store are not what they
        were.
        """
        faults = ["clock +40d", "store older", "folder moved", "log moved", "restart -1d"]
        done = self.run_rounds(FilesSite(seed=3), faults)
        self.assertEqual(done.accounts.logs_taken, 1)
        self.assertFalse(done.accounts.whole)


class PlanTests(SynchronousTestCase):
    """The seed decides what happens, and when."""

    faults = [
        Fault(f"{victim} {way}", victim, lambda: None, lambda: None)
        for victim in ("daemon", "broker")
        for way in ("kill", "stop")
    ]

    def test_seed(self) -> None:
        def rounds(seed: int) -> list[str]:
            chance = random.Random(seed)
            return [str(one) for _ in range(50) for one in plan(self.faults, chance)]

        self.assertEqual(rounds(1), rounds(1))
        self.assertNotEqual(rounds(1), rounds(2))

    def test_two(self) -> None:
        """Two faults at a time are of different victims, and the second begins after the first."""
        chance = random.Random(1)
        plans = [plan(self.faults, chance) for _ in range(200)]
        two = [planned for planned in plans if len(planned) == 2]
        self.assertGreater(len(two), 20)
        for first, second in two:
            self.assertNotEqual(first.fault.victim, second.fault.victim)
            self.assertGreaterEqual(second.begin, first.begin)

    def test_forced(self) -> None:
        (only,) = plan(self.faults, random.Random(1), "broker stop")
        self.assertEqual(only.fault.name, "broker stop")
        self.assertRaises(ValueError, plan, self.faults, random.Random(1), "broker sing")

    def test_alone(self) -> None:
        """A fault that takes something away has no other beside it, before or after."""
        alone = Fault("log moved", "daemon", lambda: None, lambda: None, alone=True)
        chance = random.Random(1)
        plans = [plan([*self.faults, alone], chance) for _ in range(500)]
        with_it = [planned for planned in plans if any(one.fault.alone for one in planned)]
        self.assertGreater(len(with_it), 20)
        self.assertEqual({len(planned) for planned in with_it}, {1})


class AccountsTests(SynchronousTestCase):
    """The comparison itself: it must see what is wrong."""

    def setUp(self) -> None:
        self.stream: list[Stored] = []
        self.rows: Counter[tuple[str, int]] = Counter()
        self.dead = 0
        self.accounts = Accounts(
            lambda start: ([one for one in self.stream if one.offset >= start], self.dead),
            lambda since: [(u, m, n) for (u, m), n in self.rows.items() if m >= since],
        )

    def log(self, batch_id: str, keys: Sequence[Key], minute: int = 60) -> None:
        """Put a batch into the log."""
        names, jobs, nonces = (list(column) for column in zip(*keys, strict=True))
        body = encode_batch(Batch(VERSION, batch_id, minute * 1000, names, jobs, nonces))
        self.stream.append(Stored(len(self.stream), batch_id, body))

    def count(self, *names: str, minute: int = 60) -> None:
        """Count for users, and where a worker is named for the worker as well."""
        for name in names:
            self.rows.update((part, minute) for part in {name, name.partition(".")[0]})

    def found(self, told: Sequence[Key], unknown: Sequence[Key] = ()) -> Findings:
        self.accounts.told(told, unknown)
        self.accounts.read()
        return self.accounts.compare()

    def test_equal(self) -> None:
        """K-53: what agrees is no difference, a batch that is in the log twice included."""
        self.log("b1", [("u1.rig1", 1, "a"), ("u2", 1, "a")])
        self.log("b1", [("u1.rig1", 1, "a"), ("u2", 1, "a")])
        self.count("u1.rig1", "u2")
        self.assertFalse(self.found([("u1", 1, "a"), ("u2", 1, "a")]))
        self.assertEqual((self.accounts.copies, self.accounts.in_log), (1, 2))
        self.accounts.close_round()
        self.assertFalse(self.accounts.compare_all())

    def test_lost(self) -> None:
        """K-53: what counts and is not in the log is lost."""
        self.log("b1", [("u1", 1, "a")])
        self.count("u1")
        self.assertEqual(self.found([("u1", 1, "a"), ("u1", 1, "b")])[1:], (1, 0))

    def test_not_counted(self) -> None:
        """K-68: what is in the log and not in the table is lost, in its own minute."""
        self.log("b1", [("u1", 1, "a")], minute=60)
        self.log("b2", [("u1", 1, "b")], minute=120)
        self.count("u1", "u1", minute=60)
        self.assertEqual(self.found([("u1", 1, "a"), ("u1", 1, "b")])[1:], (1, 1))

    def test_twice(self) -> None:
        """K-47, K-68: twice in the log, or twice in the table."""
        self.log("b1", [("u1", 1, "a")])
        self.count("u1", "u1")
        self.assertEqual(self.found([("u1", 1, "a")])[1:], (0, 1))
        self.log("b2", [("u1.rig1", 1, "a")])
        self.assertEqual(self.found([])[1:], (0, 1))

    def test_worker(self) -> None:
        """A worker's count is compared, and is no submission more."""
        self.log("b1", [("u1.rig1", 1, "a")])
        self.count("u1")
        found = self.found([("u1", 1, "a")])
        self.assertEqual((len(found.texts), *found[1:]), (1, 0, 0))

    def test_told_twice(self) -> None:
        self.log("b1", [("u1", 1, "a")])
        self.count("u1")
        self.assertEqual(self.found([("u1", 1, "a"), ("u1", 1, "a")])[1:], (0, 1))

    def test_nobody_was_told(self) -> None:
        """K-53: what is in the log and was refused is a difference; what nobody can know is not."""
        self.log("b1", [("u1", 1, "a"), ("u1", 1, "b")])
        self.count("u1", "u1")
        self.assertEqual(len(self.found([("u1", 1, "a")]).texts), 1)
        self.assertFalse(self.found([], unknown=[("u1", 1, "b")]))

    def test_other_content(self) -> None:
        self.log("b1", [("u1", 1, "a")])
        self.log("b1", [("u1", 1, "b")])
        self.count("u1")
        self.assertEqual(len(self.found([("u1", 1, "a")]).texts), 1)

    def test_dead_letters(self) -> None:
        self.dead = 2
        self.assertEqual(self.found([]).texts, ["2 dead letters"])
        self.accounts.close_round()
        self.assertFalse(self.found([]))

    def test_reported_once(self) -> None:
        """A difference is one of the round it was found in, and of no other."""
        self.log("b1", [("u1", 1, "a")])
        self.count("u1", "u1")
        self.assertEqual(self.found([("u1", 1, "a"), ("u1", 1, "b")])[1:], (1, 1))
        self.accounts.close_round()
        self.log("b2", [("u1", 1, "c")])
        self.count("u1")
        self.assertFalse(self.found([("u1", 1, "c")]))

    def test_the_log_forgets(self) -> None:
        """What was in the log and is gone is seen when all of it is read again."""
        self.log("b1", [("u1", 1, "a")])
        self.count("u1")
        self.assertFalse(self.found([("u1", 1, "a")]))
        self.accounts.close_round()
        self.stream.clear()
        self.assertEqual(len(self.accounts.compare_all().texts), 1)

    def test_log_moved(self) -> None:
        """What the log held before counts, and accepted once more it is double."""
        self.log("b1", [("u1", 1, "a")])
        self.count("u1")
        self.assertFalse(self.found([("u1", 1, "a")]))
        self.assertEqual((self.accounts.whole, self.accounts.covered()), (True, {60}))
        self.accounts.close_round()
        self.stream.clear()
        self.accounts.new_log()
        self.log("b2", [("u1", 1, "b")], minute=120)
        self.count("u1", minute=120)
        self.assertFalse(self.found([("u1", 1, "b")]))
        self.assertEqual((self.accounts.whole, self.accounts.covered()), (False, {120}))
        self.log("b3", [("u1", 1, "a")], minute=120)
        self.count("u1", minute=120)
        self.assertEqual(self.found([("u1", 1, "a")])[1:], (0, 1))

    def test_log_older(self) -> None:
        """What an older copy holds again is neither double nor a repetition."""
        self.log("b1", [("u1", 1, "a")])
        self.log("b2", [("u1", 1, "b")])
        self.count("u1", "u1")
        self.assertFalse(self.found([("u1", 1, "a"), ("u1", 1, "b")]))
        self.stream.pop()
        self.accounts.new_log()
        self.assertFalse(self.found([]))
        self.assertEqual((self.accounts.copies, self.accounts.logs_taken), (0, 1))
        self.assertEqual((self.accounts.whole, self.accounts.covered()), (False, set()))

    def test_note(self) -> None:
        """A batch without submissions is none that a log could lack."""
        self.stream.append(Stored(0, "n1", encode_batch(Batch(VERSION, "n1", 60000, [], [], []))))
        self.assertFalse(self.found([]))
        self.accounts.new_log()
        self.assertTrue(self.accounts.whole)

    def test_uncounted(self) -> None:
        self.log("b1", [("u1.rig1", 1, "a"), ("u2", 1, "a")])
        self.count("u2")
        self.accounts.read()
        self.assertEqual(self.accounts.uncounted(), 1)

    def test_recorded(self) -> None:
        """What was sent and is not in the log counts, and is a difference, unless excused."""
        recorded: list[Stored] = []
        self.accounts = Accounts(
            lambda start: (self.stream[start:], 0),
            lambda since: [(u, m, n) for (u, m), n in self.rows.items() if m >= since],
            lambda start: recorded[start:],
        )
        self.log("b1", [("u1", 1, "a")])
        recorded.append(self.stream.pop())
        self.count("u1")
        found = self.found([("u1", 1, "a")])
        self.assertEqual((len(found.texts), *found[1:]), (1, 0, 0))
        self.stream.append(recorded[0])
        self.assertFalse(self.found([]))
        self.accounts.new_log(excused=True)
        self.stream.clear()
        self.log("b2", [("u1", 1, "b")])
        recorded.append(self.stream.pop()._replace(offset=1))
        self.count("u1")
        self.assertFalse(self.found([("u1", 1, "b")]))

    def test_rolled_up(self) -> None:
        """What is rolled up is compared by the day, and is in no minute that is covered."""
        rolled = 0
        self.accounts = Accounts(
            lambda start: (self.stream[start:], 0),
            lambda since: [(u, m, n) for (u, m), n in self.rows.items() if m >= since],
            rolled=lambda: rolled,
        )
        self.log("b1", [("u1", 1, "a")], minute=60)
        self.log("b2", [("u1", 1, "b")], minute=4000)
        self.count("u1", minute=0)
        self.count("u1", minute=3600)
        told = [("u1", 1, "a"), ("u1", 1, "b")]
        self.assertEqual(self.found(told)[1:], (2, 1))
        rolled = 7200
        self.assertFalse(self.found([]))
        self.assertEqual(self.accounts.covered(), set())


class AuditTests(SynchronousTestCase):
    """What is made false, and how an answer is read."""

    rows = [Row("u1", 60, 3), Row("u1.rig1", 60, 1), Row("u2", 120, 5)]

    def test_answer(self) -> None:
        said = read_answer(
            DIFFERENT,
            "compared: much\n"
            "1970-01-01 00:01 u1.rig1: 1 in the log, 2 counted\n"
            "2099-01-01 00:00 u2: 7 in the log, 0 counted\n2 differences\n",
        )
        self.assertEqual(said.rows, {("u1.rig1", 60): (1, 2), ("u2", 4070908800): (7, 0)})
        self.assertEqual(read_answer(CUT_OFF, "not compared: 3 minutes").rows, {})

    def test_forge(self) -> None:
        """Every way is chosen, only in the given minutes, and always changes something."""
        chance = random.Random(1)
        made = [forge(self.rows, {60}, chance) for _ in range(200)]
        self.assertEqual({one.row.minute for one in made if one is not None}, {60})
        self.assertIn(Forgery(Row("u1", 60, 3), None), made)
        self.assertIn(Forgery(Row("u1", 60, 3), 4), made)
        self.assertIn(Forgery(Row("u1", 60, 3), 2), made)
        self.assertIn(Forgery(Row("u1.forged", 60, 0), 1), made)
        self.assertIn(Forgery(Row("forged", 60, 0), 1), made)
        self.assertNotIn(Forgery(Row("u1.rig1", 60, 1), 0), made)
        self.assertIsNone(forge(self.rows, set(), chance))


class ClockTests(SynchronousTestCase):
    """A process with this clock sees another time of day, and no other monotonic time."""

    program = """
import select, sys, time
for _ in sys.stdin:
    print(int(time.time()), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
"""

    def test_steps(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock(Path(folder))
            process = subprocess.Popen(
                [sys.executable, "-c", self.program],
                env=dict(clock.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            assert process.stdin is not None
            assert process.stdout is not None
            wall, monotonic, boot = [], [], []
            for offset in (0, 40 * DAY, -DAY, 600):
                clock.set(offset)
                time.sleep(SEEN)
                process.stdin.write("\n")
                process.stdin.flush()
                one, two, three = process.stdout.readline().split()
                wall.append(int(one) - offset)
                monotonic.append(float(two))
                boot.append(float(three))
            process.stdin.close()
            process.wait(30)
            process.stdout.close()
        for times in (wall, monotonic, boot):
            self.assertEqual(times, sorted(times))
            self.assertLess(times[-1] - times[0], 600)

    def test_never_before_the_epoch(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock(Path(folder))
            clock.step(-(2**40))
            self.assertLess(-(2**40), clock.offset)


class ProxyTests(SynchronousTestCase):
    """The proxy loses what it is told to lose, and nothing else."""

    def setUp(self) -> None:
        self.target = socket.create_server(("127.0.0.1", 0))
        self.target.settimeout(10)
        self.addCleanup(self.target.close)
        self.proxy = Proxy(lambda: self.target.getsockname()[1])
        self.addCleanup(self.proxy.close)
        self.client = socket.create_connection(("127.0.0.1", self.proxy.port), 10)
        self.addCleanup(self.client.close)
        self.server, _ = self.target.accept()
        self.server.settimeout(10)
        self.addCleanup(self.server.close)
        self.client.sendall(b"a")
        self.assertEqual(self.server.recv(9), b"a")

    def assert_silent(self, sock: socket.socket) -> None:
        sock.settimeout(0.2)
        self.assertRaises(TimeoutError, sock.recv, 9)
        sock.settimeout(10)

    def test_open(self) -> None:
        """Much passes both ways, and the end as well."""
        much = bytes(3_000_000)
        received = bytearray()
        self.server.setblocking(False)
        sender = memoryview(much)
        self.client.setblocking(False)
        while len(received) < len(much):
            if sender:
                try:
                    sender = sender[self.client.send(sender) :]
                except BlockingIOError:
                    pass
            try:
                received += self.server.recv(65536)
            except BlockingIOError:
                pass
        self.assertEqual(bytes(received), much)
        self.server.settimeout(10)
        self.client.settimeout(10)
        self.server.sendall(b"last")
        self.server.close()
        self.assertEqual(self.client.recv(9), b"last")
        self.assertEqual(self.client.recv(9), b"")

    def test_hole(self) -> None:
        """Nothing passes until it is open again, and then all does."""
        self.proxy.set(HOLE)
        self.client.sendall(b"b")
        self.assert_silent(self.server)
        self.proxy.set(OPEN)
        self.assertEqual(self.server.recv(9), b"b")

    def test_mute(self) -> None:
        """What is asked arrives, what is answered never does."""
        self.proxy.set(MUTE)
        self.client.sendall(b"b")
        self.assertEqual(self.server.recv(9), b"b")
        self.server.sendall(b"c")
        self.assert_silent(self.client)
        self.proxy.set(OPEN)
        self.assertRaises(ConnectionResetError, self.client.recv, 9)

    def test_half(self) -> None:
        """The target's end is gone at once, the other hears of it at the end."""
        self.proxy.set(HALF)
        self.assertRaises(ConnectionResetError, self.server.recv, 9)
        self.client.sendall(b"b")
        self.assert_silent(self.client)
        self.proxy.set(OPEN)
        self.assertRaises(ConnectionResetError, self.client.recv, 9)

    def test_reset(self) -> None:
        """Both ends are gone, and a new connection is served."""
        self.proxy.reset()
        self.assertRaises(ConnectionResetError, self.client.recv, 9)
        self.assertRaises(ConnectionResetError, self.server.recv, 9)
        self.assertEqual(self.proxy.connections, 0)
        with socket.create_connection(("127.0.0.1", self.proxy.port), 10) as client:
            server, _ = self.target.accept()
            with server:
                server.sendall(b"d")
                self.assertEqual(client.recv(9), b"d")

    def test_nobody_listens(self) -> None:
        """Who comes while the target is away is sent away."""
        self.target.close()
        proxy = Proxy(lambda: 1)
        self.addCleanup(proxy.close)
        self.assertIn(self.end_of(proxy.port), (b"", ConnectionResetError))

    def end_of(self, port: int) -> object:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                return client.recv(9)
        except ConnectionResetError:
            return ConnectionResetError
