"""Job rotation on a fake clock."""

from __future__ import annotations

import re
import secrets
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Identity, Mark, Plan
from kupool.pool import SavedJob
from kupool.pool.coordinator import Coordinator, RotationFailed
from kupool.pool.jobs import LAST_ID, Job, id_of_clock
from kupool.pool.restore import restore_jobs
from kupool.storage.clocks import BootClock
from tests.fakes.peers import TurnClock
from tests.fakes.pool_fixture import (
    FRAME,
    WALL,
    HeldLog,
    KeptLog,
    PoolBench,
    SteeredJobStore,
    encode_frame,
)

#: A save reserves so many ids, a note so many, and a restart leaves so many out.
RESERVE_AHEAD = 1
NOTE_EVERY = 500
JUMP = 1000


class Random:
    """A random source that can be broken, and tells what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.broken = False

    def __call__(self, size: int) -> str:
        self.asked.append(size)
        if self.broken:
            raise OSError("no entropy")
        return secrets.token_hex(size)


class RotationTests(SynchronousTestCase):
    """K-24, K-25, K-26: a new job every interval."""

    def test_interval(self) -> None:
        """K-24: every 30 s, each id one more than the last, each nonce another."""
        bench = PoolBench().start()
        bench.at(29.9)
        self.assertEqual(len(bench.published), 1)
        for turn in range(1, 11):
            bench.at(30.0 * turn)
            self.assertEqual(len(bench.published), turn + 1)
        ids = [job.job_id for job in bench.published]
        self.assertEqual(ids, list(range(ids[0], ids[0] + 11)))
        self.assertEqual(len({job.server_nonce for job in bench.published}), 11)

    def test_nonce(self) -> None:
        """K-25: 128 bits from the source, in hex; the source is the system's."""
        source = Random()
        bench = PoolBench(random_hex=source).start()
        self.assertEqual(source.asked, [16])
        self.assertTrue(re.fullmatch("[0-9a-f]{32}", bench.published[0].server_nonce))
        boot = BootClock("", bench.clock.seconds)
        made = Coordinator(
            bench.clock,
            bench.wall,
            bench.book,
            bench.store,
            publish=print,
            interval=30.0,
            notes=bench.notes,
            boot=boot,
        )
        self.assertIs(made._random_hex, secrets.token_hex)

    def test_failing_source(self) -> None:
        """K-25: without randomness there is no new job and no weak nonce; the old job
        stays, the error is told, and rotation goes on when the source is back.
        """
        source = Random()
        bench = PoolBench(random_hex=source).start()
        source.broken = True
        bench.at(30.0)
        bench.at(60.0)
        self.assertEqual(len(bench.published), 1)
        self.assertIs(bench.book.current, bench.published[0])
        self.assertIn("no entropy", bench.coordinator.problem)
        self.failureResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()), RotationFailed)
        source.broken = False
        bench.at(90.0)
        self.assertEqual(len(bench.published), 2)
        self.assertEqual(bench.published[1].job_id, bench.published[0].job_id + 1)
        self.assertEqual(bench.coordinator.problem, "")

    def test_failing_source_at_start(self) -> None:
        """K-25: without a first job there is no start."""
        source = Random()
        source.broken = True
        self.assertRaises(RotationFailed, PoolBench(random_hex=source).start)

    def test_notification(self) -> None:
        """K-26: the bytes of the notification, to every session."""
        bench = PoolBench(random_hex=lambda size: "ab" * size).start()
        peers = [bench.connect(FRAME).authorize(f"user{n}") for n in range(3)]
        bench.at(30.0)
        expected = b'{"id":null,"method":"job","params":{"job_id":%d,"server_nonce":"%b"}}' % (
            bench.published[-1].job_id,
            b"ab" * 16,
        )
        for peer in peers:
            self.assertEqual(peer.raw(), encode_frame(expected))

    def test_slow_reader(self) -> None:
        """K-27, K-28: one that does not read delays nobody, and finds only the newest."""
        bench = PoolBench(interval=5.0).start()
        slow, other = bench.connect().authorize("slow"), bench.connect().authorize("other")
        slow.connection.pauseProducing()
        for turn in range(1, 11):
            bench.at(5.0 * turn)
            self.assertEqual(len(other.hear()), 1)
        self.assertEqual(slow.hear(), [])
        slow.connection.resumeProducing()
        (message,) = slow.hear()
        self.assertEqual(message["params"]["job_id"], bench.published[-1].job_id)
        self.assertEqual(bench.manager.counters.dropped, 9)

    def test_stall(self) -> None:
        """K-31: a process that stood still sends one job, not those it missed, and keeps
        its rhythm.
        """
        bench = PoolBench().start()
        bench.at(30.0)
        bench.clock.advance(30.0 * 19 + 7.0)
        self.assertEqual(len(bench.published), 3)
        bench.settle()
        self.assertEqual(len(bench.published), 3)
        bench.at(30.0 * 21)
        self.assertEqual(len(bench.published), 4)
        self.assertEqual(bench.published[-1].job_id, bench.published[0].job_id + 3)

    def test_wall_clock_does_not_matter(self) -> None:
        """K-31: rotation follows the monotonic clock, whatever the wall shows."""
        bench = PoolBench()
        bench.coordinator._wall = lambda: WALL - 1e6 * bench.clock.seconds()
        bench.start()
        for turn in range(1, 4):
            bench.at(30.0 * turn)
        self.assertEqual(len(bench.published), 4)


class StateTests(SynchronousTestCase):
    """K-95: what the pool says of its jobs."""

    def test_before_the_first_job(self) -> None:
        coordinator = PoolBench().coordinator
        self.assertEqual((coordinator.rotations, coordinator.problem), (0, ""))
        self.assertEqual((coordinator.stalled, coordinator.age), (False, float("inf")))

    def test_while_the_first_job_is_noted(self) -> None:
        """K-35: that it cannot be saved does not mean that there will be none."""
        store, log = SteeredJobStore(), HeldLog()
        store.broken = True
        coordinator = PoolBench(store=store, log=log).coordinator
        started = Deferred.fromCoroutine(coordinator.start())
        self.assertIn("the store is down", coordinator.problem)
        self.assertFalse(coordinator.stalled)
        log.decide(True)
        self.successResultOf(started)

    def test_rotations(self) -> None:
        bench = PoolBench().start()
        self.assertEqual(bench.coordinator.rotations, 1)
        bench.at(60.0)
        self.assertEqual(bench.coordinator.rotations, 3)

    def test_the_age_of_the_newest_job(self) -> None:
        bench = PoolBench()
        bench.clock.advance(7.0)
        bench.start()
        bench.clock.advance(5.0)
        self.assertEqual(bench.coordinator.age, 5.0)

    def test_how_long_the_process_runs(self) -> None:
        clock = Clock()
        for started, expected in ((-10.0, 10.25), (0.0, 0.25), (5.0, 0.0), (None, 0.0)):
            clock.rightNow = 0.25
            bench = PoolBench(clock=clock, boot=BootClock("boot", clock.seconds, started))
            self.assertEqual(bench.coordinator.running_for, expected)


class ControlTests(SynchronousTestCase):
    """K-32, K-33: at run time."""

    def test_set_interval(self) -> None:
        """K-32: a new interval counts from the next tick on."""
        bench = PoolBench().start()
        bench.at(30.0)
        bench.coordinator.set_interval(10.0)
        bench.at(45.0)
        self.assertEqual(len(bench.published), 2)
        bench.at(60.0)
        self.assertEqual(len(bench.published), 3)
        bench.settle()
        for turn in range(1, 4):
            bench.at(60.1 + 10.0 * turn)
            self.assertEqual(len(bench.published), 3 + turn)

    def test_stop_while_the_interval_changes(self) -> None:
        """K-32, K-85: a stop right after the change is a stop."""
        bench = PoolBench().start()
        bench.at(30.0)
        bench.coordinator.set_interval(10.0)
        bench.clock.advance(30.0)
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.stop()))
        bench.at(200.0)
        self.assertEqual(len(bench.published), 3)

    def test_rotate_now(self) -> None:
        """K-33: an operator's job comes at once, and the rhythm stays."""
        bench = PoolBench().start()
        peer = bench.connect().authorize()
        bench.at(10.0)
        job = self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
        (message,) = peer.hear()
        self.assertEqual(message["params"]["job_id"], job.job_id)
        self.assertIs(bench.book.current, job)
        bench.at(30.0)
        self.assertEqual(len(bench.published), 3)

    def test_two_at_once(self) -> None:
        """K-33, K-36: two rotations at the same time make one job."""
        store = SteeredJobStore()
        bench = PoolBench(store=store).start()
        waiting: list[Deferred[None]] = []

        def save(job: Any, reserved_until: int) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        store.save = save  # type: ignore[method-assign]
        one = Deferred.fromCoroutine(bench.coordinator.rotate())
        two = Deferred.fromCoroutine(bench.coordinator.rotate())
        self.assertEqual(len(waiting), 1)
        waiting[0].callback(None)
        self.assertIs(self.successResultOf(one), self.successResultOf(two))
        self.assertEqual(len(bench.published), 2)

    def test_submission_while_rotating(self) -> None:
        """K-36: what is submitted while a new job is saved is judged by the old one."""
        store = SteeredJobStore()
        bench = PoolBench(store=store).start()
        peer = bench.connect().authorize()
        store.hanging = True
        bench.at(30.0)
        self.assertEqual(len(bench.published), 1)
        self.assertTrue(peer.submit("a")["result"])
        bench.clock.advance(2.0)
        self.assertEqual(len(bench.published), 2)
        self.assertFalse(peer.submit("a")["result"])

    def test_stop(self) -> None:
        bench = PoolBench().start()
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.stop()))
        bench.at(100.0)
        self.assertEqual(len(bench.published), 1)

    def test_stop_before_the_first_job(self) -> None:
        store = SteeredJobStore()
        bench = PoolBench(store=store)
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.stop()))
        self.assertEqual(store.jobs, {})

    def test_stop_after_a_rotation_that_failed(self) -> None:
        """K-34: it took an id, so the stop releases none."""
        store = SteeredJobStore()
        bench = PoolBench(store=store).start()
        store.broken, store.reserving = True, False
        bench.at(30.0)
        bench.at(60.0)
        self.assertEqual(bench.book.last_id, bench.published[-1].job_id + 1)
        store.broken = False
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.stop()))
        self.assertEqual(list(store.jobs), [bench.published[0].job_id])

    def test_save_again(self) -> None:
        """K-35: it asks the store for what is not saved, and only while nothing is being saved."""
        store = SteeredJobStore()
        bench = PoolBench(store=store).start()
        asked: list[int] = []
        save = store.save

        def noted(job: SavedJob, reserved_until: int) -> Deferred[None]:
            asked.append(job.job_id)
            return save(job, reserved_until)

        self.patch(store, "save", noted)
        store.hanging = True
        bench.at(30.0)
        bench.coordinator.save_again()
        bench.at(32.0)
        second = bench.published[-1].job_id
        self.assertEqual(asked, [second])
        store.hanging = False
        bench.coordinator.save_again()
        self.assertEqual((asked, list(store.jobs)), ([second] * 2, [second - 1, second]))
        self.patch(store, "forget", self.fail)
        bench.coordinator.save_again()
        self.assertEqual(asked, [second] * 2)

    def test_retired_nonces_are_freed_in_parts(self) -> None:
        """K-50: 5,000 in each turn; a name counts as one beside its nonces."""
        clock = TurnClock()
        bench = PoolBench(clock=clock).start()
        job = bench.book.current
        assert job is not None
        for n in range(2600):
            job.nonces.scope(f"user{n}").reserve("n", 1)
        bench.book.retire(job)
        bench.coordinator.free()
        self.assertEqual(len(job.nonces), 2600)
        clock.turn()
        self.assertEqual(len(job.nonces), 100)


class RestartTests(SynchronousTestCase):
    """K-34: a restart goes on from where the last run ended."""

    def setUp(self) -> None:
        self.store = SteeredJobStore()
        self.clock = Clock()
        self.log = KeptLog(self.clock)
        self.boot = "boot"
        #: What the wall clock shows beyond the right time, in seconds.
        self.wrong = 0.0

    def run_pool(self, keep_jobs: bool = True, start: bool = True) -> PoolBench:
        """Begin a run of a pool over the store and the log."""
        boot = BootClock(self.boot, self.clock.seconds, -10.0)
        bench = PoolBench(store=self.store, log=self.log, clock=self.clock, boot=boot)
        bench.coordinator._wall = lambda: WALL + self.wrong + self.clock.seconds()
        plan = Plan(Identity("pool", ()), 0, 0, keep_jobs)
        extent = self.successResultOf(self.log.extent(None, Mark(0)))
        self.restored = self.successResultOf(
            Deferred.fromCoroutine(
                restore_jobs(
                    self.clock,
                    self.log,
                    plan,
                    extent,
                    coordinator=bench.coordinator,
                    duplicate_scope="user",
                )
            )
        )
        return bench.start() if start else bench

    def stop(self, bench: PoolBench) -> None:
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.stop()))

    def crash(self, bench: PoolBench) -> None:
        """End it without a word."""
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def advance_to(self, seconds: float) -> None:
        while self.clock.seconds() < seconds:
            self.clock.advance(min(10.0, seconds - self.clock.seconds()))

    def first_id(self) -> int:
        """The id of the first job of a new store."""
        return id_of_clock(WALL) + 1

    def test_history_comes_back(self) -> None:
        """K-34: the latest job and the history validate after a restart."""
        bench = self.run_pool()
        self.advance_to(100.0)
        jobs = [(job.job_id, job.server_nonce) for job in bench.book]
        self.assertEqual(len(jobs), 4)
        self.stop(bench)
        again = self.run_pool()
        self.assertEqual([(job.job_id, job.server_nonce) for job in again.book], jobs)
        self.assertEqual(again.published, [])  # the job of the last run is young
        peer = again.connect().authorize()
        self.assertEqual(peer.job, {"job_id": jobs[-1][0], "server_nonce": jobs[-1][1]})
        old = {"job_id": jobs[0][0], "server_nonce": jobs[0][1]}
        self.assertTrue(peer.submit("a", **old)["result"])

    def test_rhythm_comes_back(self) -> None:
        """K-34: the next job comes when it would have come."""
        bench = self.run_pool()
        self.advance_to(40.0)
        self.stop(bench)
        again = self.run_pool()
        self.advance_to(59.9)
        self.assertEqual(again.published, [])
        self.advance_to(60.0)
        third = self.first_id() + 2
        self.assertEqual([job.job_id for job in again.published], [third])
        self.advance_to(90.0)
        self.assertEqual([job.job_id for job in again.published], [third, third + 1])

    def test_a_job_that_is_due(self) -> None:
        """K-34: then the next one comes at once."""
        bench = self.run_pool()
        self.stop(bench)
        self.advance_to(30.0)
        self.assertEqual([job.job_id for job in self.run_pool().published], [self.first_id() + 1])

    def test_long_away(self) -> None:
        """K-34, K-29: what is too old has left the history, and a new job comes at once."""
        bench = self.run_pool()
        self.stop(bench)
        self.clock.advance(10_000.0)
        again = self.run_pool()
        self.assertEqual([job.job_id for job in again.published], [self.first_id() + 1])
        self.assertEqual([job.job_id for job in again.book], [self.first_id() + 1])

    def test_clock_set_back(self) -> None:
        """K-34: whatever the wall clock shows, a job is as old as it is since the boot."""
        for wrong in (-5000.0, 40 * 86400.0, -WALL):
            self.wrong = 0.0
            bench = self.run_pool()
            (job_id,) = [job.job_id for job in bench.published] or [bench.book.last_id]
            self.stop(bench)
            self.clock.advance(20.0)
            self.wrong = wrong
            again = self.run_pool(start=False)
            self.assertEqual([job.job_id for job in again.book], [job_id])
            self.assertEqual(again.book.jobs[job_id].created, 0.0)
            self.clock.rightNow = 0.0

    def test_after_a_reboot(self) -> None:
        """K-34: then the wall clock tells, unless it is before the newest job."""
        bench = self.run_pool()
        self.stop(bench)
        self.clock.advance(10.0)
        self.boot = "another"
        again = self.run_pool(start=False)
        self.assertEqual([job.created for job in again.book], [0.0])
        self.wrong = -20.0
        again = self.run_pool(start=False)
        self.assertEqual(list(again.book), [])

    def test_not_replayable(self) -> None:
        """K-34, K-47: where used nonces are not known, old jobs are retired; ids go on."""
        bench = self.run_pool()
        self.stop(bench)
        again = self.run_pool(keep_jobs=False)
        self.assertEqual([job.job_id for job in again.book], [self.first_id() + 1])

    def test_used_nonces_come_back(self) -> None:
        """K-47: whatever the wall clock showed when, and shows now (case 01)."""
        self.wrong = 7200.0
        bench = self.run_pool()
        self.stop(bench)
        self.wrong = 0.0
        bench = self.run_pool()
        self.advance_to(31.0)
        peer = bench.connect().authorize()
        self.assertTrue(peer.submit("a")["result"])
        self.crash(bench)
        again = self.run_pool()
        self.assertEqual(self.restored.used, 1)
        job = {"job_id": peer.job["job_id"], "server_nonce": peer.job["server_nonce"]}
        late = again.connect().authorize()
        self.assertEqual(late.submit("a", **job)["error"], "Duplicate submission")

    def test_clean_stop_wastes_no_ids(self) -> None:
        """K-24, K-34: after a clean stop the next id is one more."""
        ids: list[int] = []
        for turn in range(1, 6):
            bench = self.run_pool()
            self.advance_to(50.0 * turn)
            ids += [job.job_id for job in bench.published]
            self.stop(bench)
        first = self.first_id()
        self.assertEqual(ids, list(range(first, first + len(ids))))

    def test_no_leap_after_a_crash(self) -> None:
        """Issue 11: all jobs were saved, so at most the one reserved is left out."""
        bench = self.run_pool()
        self.advance_to(65.0)
        last = bench.published[-1].job_id
        self.crash(bench)
        again = self.run_pool()
        self.assertEqual([job.job_id for job in again.published], [last + RESERVE_AHEAD + 1])
        self.assertEqual(len(again.book), 4)

    def test_ids_after_a_crash(self) -> None:
        """K-34: ids never repeat, whenever it crashes and whatever was saved."""
        seen: list[int] = []
        for turn in range(1, 8):
            self.store.broken = self.log.broken = False
            bench = self.run_pool()
            self.store.broken = turn % 2 == 0  # the jobs of these runs are not saved
            self.log.broken = self.store.broken and turn % 4 == 0  # and not noted either
            self.advance_to(70.0 * turn)
            seen += [job.job_id for job in bench.published]
            self.crash(bench)
        self.assertGreaterEqual(len(seen), 12)
        self.assertEqual(len(set(seen)), len(seen))
        self.assertEqual(seen, sorted(seen))

    def test_unsaved_jobs_are_noted_in_the_log(self) -> None:
        """Issue 11: before they go out, so that a crash leaves their ids out."""
        bench = self.run_pool()
        self.store.broken, self.store.reserving = True, False
        self.advance_to(95.0)
        self.assertEqual(len(bench.published), 4)
        # The first was reserved; one note is enough for the others.
        ids = [job.job_id for job in bench.published]
        self.assertEqual(self.log.notes(), [ids[1], ids[2] + NOTE_EVERY])
        self.crash(bench)
        self.store.broken = False
        again = self.run_pool()
        self.assertEqual(
            [job.job_id for job in again.published],
            [bench.published[2].job_id + NOTE_EVERY + JUMP + 1],
        )

    def test_a_note_is_good_for_all_its_ids(self) -> None:
        """Issue 11: also for the last of them; the job after that needs another."""
        bench = self.run_pool()
        self.store.broken, self.store.reserving = True, False

        def rotate(count: int) -> None:
            self.clock.advance(2.0)
            for _ in range(count):
                self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))

        rotate(2)
        first, until = self.log.notes()
        self.assertEqual((first, until), (self.first_id() + 1, self.first_id() + 2 + NOTE_EVERY))
        rotate(until - bench.book.last_id - 1)
        rotate(1)
        self.assertEqual((bench.book.last_id, self.log.notes()), (until, [first, until]))
        rotate(1)
        self.assertEqual(self.log.notes(), [first, until, until + 1 + NOTE_EVERY])

    def test_notes_are_few(self) -> None:
        """Issue 11: at most one a second, or for so many jobs, however fast these come."""
        bench = self.run_pool()

        def rotate(count: int, later: float = 0.0) -> int:
            self.clock.advance(later)
            for _ in range(count):
                self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
            return bench.book.last_id

        expected = [rotate(1, later=5.0)]
        rotate(5)
        rotate(1, later=0.5)
        self.assertEqual(self.log.notes(), expected)
        expected.append(rotate(1, later=0.5))
        self.assertEqual(self.log.notes(), expected)
        rotate(NOTE_EVERY - 1)
        self.assertEqual(self.log.notes(), expected)
        expected.append(rotate(1))
        self.assertEqual(self.log.notes(), expected)

    def test_one_note_at_a_time(self) -> None:
        """Issue 11: none is written while another one is on its way."""
        log = HeldLog()
        bench = PoolBench(store=self.store, log=log, clock=self.clock).start()
        for later, notes in ((5.0, 1), (1.5, 1)):
            self.clock.advance(later)
            self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
            self.assertEqual(len(log.appended), notes)
        log.decide(True)
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
        self.assertEqual(len(log.appended), 2)

    def test_neither_saved_nor_noted(self) -> None:
        """Issue 11: a job whose id nobody could know of after a crash does not go out."""
        bench = self.run_pool()
        self.store.broken = self.log.broken = True
        self.store.reserving = False
        self.advance_to(125.0)
        self.assertEqual(len(bench.published), 2)
        self.assertTrue(bench.coordinator.stalled)
        self.store.broken = False
        self.advance_to(155.0)
        self.assertEqual(len(bench.published), 3)
        self.assertFalse(bench.coordinator.stalled)

    def test_reserved_on_a_full_disk(self) -> None:
        """K-35: where neither store nor log take a row, a number in a file will do."""
        bench = self.run_pool()
        self.store.broken = self.log.broken = True
        self.advance_to(125.0)
        self.assertEqual(len(bench.published), 5)
        self.assertIn("the store is down", bench.coordinator.problem)
        self.assertFalse(bench.coordinator.stalled)
        last = bench.published[-1].job_id
        self.assertEqual(self.store.in_file, last)
        self.crash(bench)
        self.store.broken = self.log.broken = False
        again = self.run_pool()
        self.assertEqual([job.job_id for job in again.published], [last + 1])

    def test_an_older_copy_of_the_store(self) -> None:
        """Issue 11: the log tells that more ids were given out than the store knows."""
        bench = self.run_pool()
        copy = dict(self.store.jobs), self.store.reserved_until
        self.advance_to(125.0)
        peer = bench.connect().authorize()
        self.assertTrue(peer.submit("a")["result"])
        given_out = bench.published[-1].job_id
        self.stop(bench)
        self.store.jobs, self.store.reserved_until = copy
        again = self.run_pool()
        self.assertEqual([j.job_id for j in again.published], [given_out + JUMP + 1])

    def test_an_older_copy_of_the_store_of_an_idle_pool(self) -> None:
        """Issue 11: the same where nothing was submitted for any of those jobs."""
        bench = self.run_pool()
        copy = dict(self.store.jobs), self.store.reserved_until
        self.advance_to(125.0)
        given_out = bench.published[-1].job_id
        self.crash(bench)
        self.store.jobs, self.store.reserved_until = copy
        again = self.run_pool()
        self.assertEqual([j.job_id for j in again.published], [given_out + JUMP + 1])

    def test_a_store_that_is_new(self) -> None:
        """Issue 11: the log and the clock tell where ids begin."""
        self.wrong = -WALL  # a clock in 1970 tells nothing
        bench = self.run_pool()
        self.assertEqual([job.job_id for job in bench.published], [1])
        self.advance_to(30.0 * 40 + 5)
        given_out = bench.published[-1].job_id
        self.assertEqual(self.log.notes(), list(range(2, given_out + 1)))
        self.crash(bench)
        self.store = SteeredJobStore()
        again = self.run_pool()
        self.assertGreater(again.published[0].job_id, given_out)
        self.assertLess(again.published[0].job_id, given_out + 3 * JUMP)

    def test_ids_are_used_up(self) -> None:
        """Issue 11: ids stay below 2^31, and the end of them is said clearly."""
        bench = self.run_pool()
        bench.book.skip_to(LAST_ID - 1)
        self.advance_to(30.0)
        self.assertEqual(bench.published[-1].job_id, 2**31 - 1)
        self.advance_to(60.0)
        self.assertEqual(bench.published[-1].job_id, 2**31 - 1)
        self.assertIn("all job ids up to 2147483647 are used up", bench.coordinator.problem)
        self.assertTrue(bench.coordinator.stalled)

    def test_old_jobs_are_forgotten(self) -> None:
        """K-29: the store keeps what a restart needs by number, whatever the clock shows."""
        bench = PoolBench(store=self.store, clock=self.clock, max_jobs=5).start()
        self.wrong = -1e6
        self.advance_to(3000.0)
        self.assertEqual(sorted(self.store.jobs), [j.job_id for j in bench.published][-10:])


class OutageTests(SynchronousTestCase):
    """K-35: a store outage does not stop the jobs."""

    def setUp(self) -> None:
        self.store = SteeredJobStore()
        self.bench = PoolBench(store=self.store).start()

    def test_goes_on_and_catches_up(self) -> None:
        peer = self.bench.connect().authorize()
        self.store.broken = True
        for turn in range(1, 6):
            self.bench.at(30.0 * turn)
            self.assertEqual(len(peer.hear()), 1)
        self.assertEqual(len(self.store.jobs), 1)
        self.assertIn("the store is down", self.bench.coordinator.problem)
        self.store.broken = False
        self.bench.at(180.0)
        self.assertEqual(sorted(self.store.jobs), [job.job_id for job in self.bench.published])
        self.assertEqual(self.bench.coordinator.problem, "")

    def test_an_outage_is_logged_once(self) -> None:
        """K-35, K-91: its beginning and its end, whatever their number of jobs."""
        lines: list[str | None] = []

        def see(event: Any) -> None:
            if event["log_namespace"].startswith("kupool.pool.coordinator"):
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(see)
        self.addCleanup(globalLogPublisher.removeObserver, see)
        down, again = "Jobs cannot be saved: the store is down", "Jobs are saved again"
        steps = ((False, []), (True, [down]), (True, []), (False, [again]), (False, []))
        for turn, (self.store.broken, expected) in enumerate(steps, 1):
            lines.clear()
            self.bench.at(30.0 * turn)
            self.assertEqual([line for line in lines if line and "saved" in line], expected)

    def test_store_that_hangs(self) -> None:
        """K-35: a save that takes too long delays a job by two seconds."""
        self.store.hanging = True
        self.bench.at(30.0)
        self.assertEqual(len(self.bench.published), 1)
        self.bench.at(32.0)
        self.assertEqual(len(self.bench.published), 2)
        self.bench.at(60.0)
        self.bench.at(62.0)
        self.assertEqual(len(self.bench.published), 3)

    def test_store_that_cannot_forget(self) -> None:
        """K-35: what only tidies up stops nothing."""
        self.store.forget_broken = True
        for turn in range(1, 4):
            self.bench.at(30.0 * turn)
        self.assertEqual(len(self.bench.published), 4)
        self.assertEqual(len(self.store.jobs), 4)
        self.assertEqual(self.bench.coordinator.problem, "")

    def test_forget_that_hangs(self) -> None:
        """K-35: nor does waiting for it."""
        self.store.forget = lambda keep: Deferred()  # type: ignore[method-assign]
        for turn in range(1, 4):
            self.bench.at(30.0 * turn)
        self.assertEqual(len(self.bench.published), 4)

    def test_no_id_without_a_reservation(self) -> None:
        """K-34, K-35: where an id can be kept nowhere, no unsaved job goes out."""
        self.store.broken, self.store.reserving = True, False
        for turn in range(1, 5):
            self.bench.at(30.0 * turn)
        # The next one was reserved with the last save.
        self.assertEqual(len(self.bench.published), 1 + RESERVE_AHEAD)
        self.store.broken = False
        self.bench.at(150.0)
        self.assertEqual(len(self.bench.published), 2 + RESERVE_AHEAD)

    def test_down_at_the_first_start(self) -> None:
        """K-35: with nothing ever reserved there is no job to begin with."""
        store = SteeredJobStore()
        store.broken, store.reserving = True, False
        with self.assertRaises(RotationFailed) as caught:
            PoolBench(store=store).start()
        self.assertIn("the store is down", str(caught.exception))


class PublishTests(SynchronousTestCase):
    def test_publish_that_fails(self) -> None:
        """K-35: a rotation whose broadcast fails is logged, and the next one comes."""
        bench = PoolBench().start()
        calls: list[Job] = []

        def broken(job: Job) -> None:
            calls.append(job)
            raise OSError("no network")

        bench.coordinator._publish = broken
        for turn in range(1, 4):
            bench.at(30.0 * turn)
        self.assertEqual(len(calls), 3)

    def test_broadcast_in_chunks(self) -> None:
        """K-27: a turn serves so many sessions and no more; all get the job."""
        bench = PoolBench(max_connections=0, interval=100.0).start()
        peers = [bench.connect().authorize(f"user{n}") for n in range(1201)]
        done = Deferred.fromCoroutine(bench.coordinator.rotate())
        self.successResultOf(done)
        heard = [len(peer.hear()) for peer in peers]
        self.assertEqual(sum(heard), 500)
        bench.clock.advance(0)
        bench.clock.advance(0)
        heard = [h + len(peer.hear()) for h, peer in zip(heard, peers, strict=True)]
        self.assertEqual(heard, [1] * 1201)
