"""What is known after a restart, from the log and from a spool before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.log import Entry, Extent, Identity, ISpool, LogStatus, LogUnavailable, Plan
from kupool.pool import SavedJob
from kupool.pool.jobs import LAST_ID, JobIdsUsedUp, id_of_clock
from kupool.pool.jobstore import MemoryJobStore
from kupool.pool.judge import Rules
from kupool.pool.restore import RestoredJobs, restore_jobs
from kupool.storage.clocks import BootClock
from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.fakes.pool_fixture import WALL, HeldLog, PoolBench, SteeredJobStore

NOW = WALL
PLAN = Plan(Identity("pool", ()), 0, 0, True)
ADOPT = PLAN._replace(adopt=True)

#: Entries of one turn, and those at the end of the log that are read for their ids.
CHUNK = 50
TAIL = 10_000

#: Ids that are left out where nobody knows them.
JUMP = 1000


def entry(position: int, job_id: int, *nonces: str, at: float = NOW) -> Entry:
    batch = Batch(
        VERSION,
        f"b{position}",
        int(at * 1000),
        ["alice.rig1"] * len(nonces),
        [job_id] * len(nonces),
        list(nonces),
    )
    return Entry(position, batch.batch, NOW, encode_batch(batch))


class Readable:
    """A log to be read; notes where it was."""

    persistent = True

    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)
        self.away = ""
        #: Where it was read from.
        self.begun: list[int] = []

    def status(self) -> LogStatus:
        return LogStatus(0, 0, 0, "", away=self.away)

    @property
    def extent(self) -> Extent:
        if not self.entries:
            return Extent(None, 1, 0, False)
        return Extent(None, self.entries[0].position, self.entries[-1].position, True)

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        self.begun.append(after)
        return succeed([e for e in self.entries if e.position > after][:limit])


@implementer(ISpool)
class Spooled(Readable):
    """The same with a spool before it, from which one entry moves on at each read."""

    def __init__(self, *entries: Entry, spool: Sequence[Entry] = ()) -> None:
        super().__init__(*entries)
        self.spool = list(spool)

    def read_spool(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        found = [e for e in self.spool if e.position > after][:limit]
        if self.spool:
            gone = self.spool.pop(0)
            self.entries.append(gone._replace(position=len(self.entries) + 1))
        return succeed(found)


class RestoreCase(SynchronousTestCase):
    """A store with two jobs, and a pool to go on with them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = SteeredJobStore()
        for job_id in (1, 2):
            self.save(job_id, 0)
        self.new_bench()

    def save(self, job_id: int, position: int | None) -> None:
        saved = SavedJob(job_id, "ab", WALL, position, "boot", 0.0)
        self.successResultOf(self.store.save(saved, job_id + 1))

    def new_bench(self) -> None:
        self.bench = PoolBench(store=self.store, clock=self.clock)
        self.book = self.bench.book

    def restore(
        self,
        log: Any,
        plan: Plan | None = PLAN,
        extent: Extent | None = None,
        scope: str = "user",
    ) -> RestoredJobs:
        done = Deferred.fromCoroutine(
            restore_jobs(
                self.clock,
                log,
                plan,
                extent or log.extent,
                coordinator=self.bench.coordinator,
                duplicate_scope=scope,
            )
        )
        while not done.called:
            self.clock.advance(0)
        return self.successResultOf(done)


class RememberTests(RestoreCase):
    """K-47: a nonce is a duplicate after a restart too."""

    def count_turns(self) -> list[float]:
        """Return the delays of all calls from now on."""
        later, turns = self.clock.callLater, list[float]()

        def call_later(delay: float, *call: Any) -> Any:
            turns.append(delay)
            return later(delay, *call)

        self.patch(self.clock, "callLater", call_later)
        return turns

    def remember(self, log: Any) -> int:
        return self.restore(log).used

    def used(self, job_id: int) -> set[str]:
        return set(self.book.jobs[job_id].nonces.scope("alice").used)

    def test_from_the_log(self) -> None:
        found = self.remember(Readable(entry(1, 1, "x", "y"), entry(2, 2, "x"), entry(3, 9, "z")))
        self.assertEqual(found, 3)
        self.assertEqual((self.used(1), self.used(2)), ({"x", "y"}, {"x"}))

    def test_twice_in_the_log(self) -> None:
        """K-50: what was sent twice is remembered, and weighs, once."""
        found = self.remember(Readable(entry(1, 1, "x", "y"), entry(2, 1, "x", "y")))
        self.assertEqual((found, self.book.jobs[1].remembered), (2, 2))

    def test_used_by_two_users(self) -> None:
        """K-47: in a batch of a time with another scope, each nonce is looked at."""
        batch = Batch(
            VERSION, "b", int(NOW * 1000), ["ann", "bob", "bob"], [1] * 3, ["x", "x", "y"]
        )
        log = Readable(Entry(1, "b", NOW, encode_batch(batch)))
        self.assertEqual(self.restore(log, scope="job").used, 2)
        self.assertEqual(set(self.book.jobs[1].nonces.scope("").used), {"x", "y"})

    def test_what_cannot_be_read(self) -> None:
        poison = Entry(1, "p", NOW, b"{")
        found = self.remember(Spooled(poison, entry(2, 1, "x"), spool=[poison]))
        self.assertEqual(found, 1)

    def test_from_the_spool(self) -> None:
        """K-47: what waits in the spool was accepted as well."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 1, "y"), entry(2, 2, "z")])
        self.assertEqual(self.remember(log), 3)
        self.assertEqual((self.used(1), self.used(2)), ({"x", "y"}, {"z"}))

    def test_a_log_that_cannot_be_read(self) -> None:
        """K-47: nobody knows then what was used, so nobody may submit for these jobs."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 2, "y")])
        self.patch(log, "read", lambda after, limit: fail(LogUnavailable("away")))
        self.assertEqual(self.remember(log), 0)
        self.assertEqual(list(self.book), [])

    def test_a_log_that_is_away(self) -> None:
        """K-47: it is not asked, as a start would wait for it."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 2, "y")])
        log.away = "RabbitMQ is away"
        self.patch(log, "read", lambda after, limit: self.fail("it was asked"))
        self.assertEqual(self.remember(log), 0)
        self.assertEqual(list(self.book), [])

    def test_a_log_that_could_not_be_compared(self) -> None:
        """K-47: it is away, and a spool takes its place."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 2, "y")])
        log.away = "RabbitMQ is away"
        restored = self.restore(log, None)
        self.assertEqual((restored.jobs, restored.used, list(self.book)), (0, 0, []))

    def test_the_whole_spool_is_read(self) -> None:
        """A part in each turn of the reactor."""
        log = Spooled()
        waiting = [entry(n, 1, f"s{n}") for n in range(1, 2 * CHUNK + 4)]
        self.patch(
            log,
            "read_spool",
            lambda after, limit: succeed([e for e in waiting if e.position > after][:limit]),
        )
        turns = self.count_turns()
        self.assertEqual(self.remember(log), 103)
        self.assertEqual(turns, [0, 0])

    def test_from_a_spool_that_drains_meanwhile(self) -> None:
        """K-47: an entry on its way from the spool to the log is in one of the two."""
        count = 3 * CHUNK
        spool = [entry(n, 1, f"s{n}") for n in range(1, count + 1)]
        self.assertEqual(self.remember(Spooled(entry(1, 1, "x"), spool=spool)), count + 1)
        self.assertEqual(len(self.used(1)), count + 1)

    def test_scope_session(self) -> None:
        """K-47: the log knows no sessions, so no old job can be gone on with."""
        restored = self.restore(Readable(entry(1, 1, "x")), scope="session")
        self.assertEqual((restored.jobs, restored.used, list(self.book)), (0, 0, []))

    def test_what_was_trimmed(self) -> None:
        """K-47: a job of which the log may have lost submissions is retired."""
        self.save(3, 7)
        log = Readable(entry(8, 3, "x"), entry(9, 2, "y"))
        restored = self.restore(log)
        self.assertEqual((restored.jobs, restored.used), (1, 1))
        self.assertEqual(list(self.book.jobs), [3])

    def logged(self, log: Any, plan: Plan | None) -> list[str | None]:
        with capturedLogs() as events:
            self.restore(log, plan)
        return [
            formatEvent(event) for event in events if event["log_namespace"].endswith("restore")
        ]

    def test_what_is_retired_is_logged(self) -> None:
        """With the reason, in one line."""
        lines = self.logged(Readable(entry(1, 1, "x")), PLAN._replace(keep_jobs=False))
        self.assertEqual(lines, ["Retired jobs: 2 jobs, whose nonces the log cannot tell"])

    def test_each_reason_is_logged(self) -> None:
        self.bench.coordinator._wall = lambda: WALL - 10.0
        self.successResultOf(self.store.save(SavedJob(3, "ab", WALL, 0, "other", 0.0), 4))
        self.store.jobs[1] = self.store.jobs[1]._replace(log_position=9)
        lines = self.logged(Readable(entry(1, 1, "x")), PLAN)
        self.assertEqual(
            lines,
            [
                "Retired jobs: 1 jobs, whose nonces the log cannot tell, "
                "and 1 jobs, whose age no clock can tell"
            ],
        )

    def test_a_log_that_is_away_is_logged(self) -> None:
        log = Readable()
        log.away = "RabbitMQ is away"
        self.assertEqual(
            self.logged(log, None),
            [
                "Retired jobs: 2 jobs, whose nonces the log cannot tell",
                "The log cannot be read, so all earlier jobs are retired: RabbitMQ is away",
            ],
        )

    def test_a_nonce_of_the_last_run_is_a_duplicate_at_once(self) -> None:
        """K-47: it does not wait for a batch of this run."""
        held = HeldLog()
        self.bench = PoolBench(store=self.store, clock=self.clock, log=held, rules=Rules(0, 0))
        self.restore(Readable(entry(1, 1, "x")))
        self.bench.start()
        bob, alice = (self.bench.connect().authorize(name) for name in ("bob", "alice"))
        bob.send(bob.submission("y"))
        alice.send(alice.submission("x", job_id=1, server_nonce="ab"))
        self.assertEqual([message["code"] for message in alice.hear()], [22])

    def test_a_plan_that_keeps_none(self) -> None:
        restored = self.restore(Readable(entry(1, 1, "x")), PLAN._replace(keep_jobs=False))
        self.assertEqual((restored.jobs, restored.used), (0, 0))

    def test_where_it_is_read_from(self) -> None:
        """Issue 11: from the first job that is kept on, whatever any clock shows."""
        self.store.jobs.clear()
        self.save(3, 5)
        self.save(4, 8)
        log = Readable(*(entry(n, 3, f"n{n}", at=0.0) for n in range(1, 11)))
        self.assertEqual(self.restore(log).used, 5)
        self.assertEqual(log.begun[0], 5)

    def test_others_have_their_turn(self) -> None:
        """A long log is read a part in each turn of the reactor."""
        log = Readable(*(entry(n, 1, f"n{n}") for n in range(1, 10 * CHUNK + 1)))
        turns = self.count_turns()
        self.assertEqual(self.remember(log), 10 * CHUNK)
        self.assertEqual(turns, [0] * 10)


class IdTests(RestoreCase):
    """K-34, issue 11: no id is given out twice, whatever became of store and log."""

    def next_id(self) -> int:
        return self.book.draft("ab", 0.0, 0.0).job_id

    def test_all_were_saved(self) -> None:
        self.restore(Readable(entry(1, 1, "x"), entry(2, 2, "x")))
        self.assertEqual(self.next_id(), 4)  # one more may have gone out

    def test_the_log_knows_more(self) -> None:
        self.restore(Readable(entry(1, 2, "x"), entry(2, 40, "x"), entry(3, 7, "x")))
        self.assertEqual(self.next_id(), 40 + JUMP + 1)

    def test_a_note(self) -> None:
        note = Batch(VERSION, "n", 0, [], [], [], 500)
        self.restore(Readable(Entry(1, "n", NOW, encode_batch(note))))
        self.assertEqual(self.next_id(), 500 + JUMP + 1)

    def test_in_the_spool(self) -> None:
        self.restore(Spooled(entry(1, 1, "x"), spool=[entry(1, 30, "y")]))
        self.assertEqual(self.next_id(), 30 + JUMP + 1)

    def test_no_job_is_kept(self) -> None:
        """The log is read for the ids all the same."""
        self.store.jobs.clear()
        self.save(3, 5)
        log = Readable(*(entry(n, n, "x") for n in range(1, 11)))
        self.restore(log, PLAN._replace(keep_jobs=False))
        self.assertEqual(log.begun[0], 5)
        self.assertEqual(self.next_id(), 10 + JUMP + 1)

    def test_a_new_store(self) -> None:
        """Only the end of the log is read, and the clock has a say too."""
        self.store.jobs.clear()
        self.store.reserved_until = 0
        log = Readable(entry(50_000, 40, "x"))
        self.restore(log, extent=Extent(None, 1, 50_000, True))
        self.assertEqual(log.begun[0], 50_000 - TAIL)
        self.assertEqual(self.next_id(), id_of_clock(WALL) + 1)
        self.patch(self.bench, "wall", lambda: 0.0)
        self.new_bench()
        self.bench.coordinator._wall = lambda: 0.0
        self.restore(log)
        self.assertEqual(self.next_id(), 40 + JUMP + self.book.max_jobs + 1)

    def test_ids_of_milliseconds(self) -> None:
        """The release before gave them out without a store: they are never reached."""
        self.restore(Readable(entry(1, 1_800_000_000_000, "x"), entry(2, LAST_ID + 1, "y")))
        self.assertEqual(self.next_id(), 4)
        self.restore(Readable(entry(1, LAST_ID, "x")))
        self.assertRaises(JobIdsUsedUp, self.next_id)

    def test_a_log_that_cannot_be_read(self) -> None:
        """Nobody knows how far the ids are, so many are left out."""
        log = Readable(entry(1, 1, "x"))
        log.away = "RabbitMQ is away"
        self.bench.coordinator._wall = lambda: 0.0
        self.restore(log)
        self.assertEqual(self.next_id(), 3 + JUMP + 1)

    def test_jobs_above_what_is_reserved(self) -> None:
        """Beside a log that cannot be read, the newest job says how far the ids are."""
        self.save(9, 0)
        self.store.reserved_until = 0
        log = Readable()
        log.away = "RabbitMQ is away"
        self.bench.coordinator._wall = lambda: 0.0
        self.restore(log)
        self.assertEqual(self.next_id(), 9 + JUMP + 1)

    def test_a_new_store_beside_a_short_log(self) -> None:
        """It is read from its first entry on."""
        self.store.jobs.clear()
        log = Readable(entry(5, 40, "x"))
        self.restore(log)
        self.assertEqual(log.begun[0], 4)

    def test_a_new_store_beside_a_log_that_cannot_be_read(self) -> None:
        """With a clock that tells nothing, ids begin at 1."""
        self.store.jobs.clear()
        self.store.reserved_until = 0
        log = Readable(entry(1, 1, "x"))
        log.away = "RabbitMQ is away"
        self.bench.coordinator._wall = lambda: 0.0
        self.restore(log)
        self.assertEqual(self.next_id(), 1)

    def test_the_second_of_the_start(self) -> None:
        """Ids of a clock begin in another second than those of a process just ended."""
        store = MemoryJobStore(self.bench.wall)
        for started, waits in ((0.0, True), (-0.5, True), (-1.5, False)):
            boot = BootClock("boot", self.clock.seconds, self.clock.seconds() + started)
            bench = PoolBench(store=store, clock=self.clock, boot=boot)
            bench.coordinator._wall = lambda: WALL + 0.7 + self.clock.seconds() % 1
            log = Readable()
            done = Deferred.fromCoroutine(
                restore_jobs(
                    self.clock,
                    log,
                    PLAN,
                    log.extent,
                    coordinator=bench.coordinator,
                    duplicate_scope="user",
                )
            )
            self.assertEqual(not done.called, waits)
            self.clock.advance(0.29)
            self.assertEqual(not done.called, waits)
            self.clock.advance(0.02)
            self.successResultOf(done)
            self.clock.advance(0.69)


class MinuteTests(RestoreCase):
    """Issue 11: where the minutes are that the release before counted."""

    def entries(self, first: int) -> list[Entry]:
        # Three minutes, the second and the third mixed.
        minutes = (0, 0, 1, 2, 1, 2)
        return [
            entry(first + n, 1, f"n{n}", at=NOW + 60 * minute) for n, minute in enumerate(minutes)
        ]

    def test_a_log_that_was_never_trimmed(self) -> None:
        minute = int(NOW)
        restored = self.restore(Readable(*self.entries(1)), ADOPT)
        self.assertEqual(restored.minutes, {minute: 0, minute + 60: 2, minute + 120: 3})

    def test_a_log_that_was_trimmed(self) -> None:
        """Parts of its first minute may be gone."""
        minute = int(NOW)
        restored = self.restore(Readable(*self.entries(11)), ADOPT)
        self.assertEqual(restored.minutes, {minute + 60: 12, minute + 120: 13})

    def test_a_log_whose_first_entry_is_the_second(self) -> None:
        """What came before it may have been of the same minute."""
        minute = int(NOW)
        restored = self.restore(Readable(*self.entries(2)), ADOPT)
        self.assertEqual(restored.minutes, {minute + 60: 3, minute + 120: 4})

    def test_a_first_entry_that_was_appended_late(self) -> None:
        """What was trimmed may have been of any minute up to then."""
        minute = int(NOW)
        for late, first in ((59.0, 60), (61.0, 120), (119.0, 120), (121.0, 180)):
            self.new_bench()
            log = Readable(*self.entries(11))
            log.entries[0] = log.entries[0]._replace(appended_at=NOW + late)
            restored = self.restore(log, ADOPT)
            expected = {minute + 60: 12, minute + 120: 13}
            self.assertEqual(
                restored.minutes,
                {begun: at for begun, at in expected.items() if begun >= minute + first},
            )

    def test_a_log_that_breaks_off(self) -> None:
        """The minutes that were read of it are not known to be whole."""
        log = Readable(*(entry(n, 1, f"n{n}") for n in range(1, CHUNK + 2)))
        read = log.read
        away: Deferred[Any] = fail(LogUnavailable("away"))
        self.patch(log, "read", lambda after, limit: away if after else read(after, limit))
        self.assertEqual(self.restore(log, ADOPT), RestoredJobs(0, 0, {}))

    def test_once(self) -> None:
        """Otherwise the store knows by itself."""
        self.assertEqual(self.restore(Readable(*self.entries(1))).minutes, {})

    def test_jobs_of_the_release_before(self) -> None:
        """K-34, K-47: they are gone on with, and the whole log is read for them."""
        self.store.jobs.clear()
        self.successResultOf(self.store.save(SavedJob(1, "ab", WALL - 5), 1001))
        log = Readable(*self.entries(11))
        restored = self.restore(log, ADOPT)
        self.assertEqual((restored.jobs, restored.used, log.begun[0]), (1, 6, 10))
        self.assertEqual(self.book.draft("ab", 0.0, 0.0).job_id, 1002)
        # From the next save on they are jobs like others.
        self.bench.coordinator.save_again()
        self.assertEqual(self.store.jobs[1].log_position, 10)
        self.new_bench()
        self.assertEqual(self.restore(log).used, 6)
