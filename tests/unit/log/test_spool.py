"""The spool before a log that fails, hangs and comes back, on a fake clock."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.log import Epoch, Identity, IdentityMismatch, ILog, ISpool, LogUnavailable, Mark
from kupool.log.spool import HANDOVER
from kupool.log.spool_file import ROW_BYTES, SpoolFile
from tests.fakes.spool import SteppedDatabase, body_of
from tests.fakes.spool_world import NOW, World


class Case(SynchronousTestCase):
    def world(self, max_bytes: int = 1_000_000, **changes: Any) -> World:
        world = World(max_bytes, **changes)
        self.addCleanup(world.close)
        return world


MINE = Identity("mine", (Epoch("one", 0),))
THEIRS = Identity("theirs", (Epoch("one", 0),))


class IdentityTests(Case):
    """Issue 11, point 1: what waits in a spool belongs to a pool, too."""

    def identify(self, world: World, identity: Identity) -> Deferred[None]:
        done = world.log.identify(identity)
        world.work()
        return done

    def fill(self, world: World) -> None:
        """Leave three entries in the file."""
        world.remote.takes = False
        world.append(3)
        world.wait(1)
        world.restart()

    def test_nothing_is_sent_before_it_is_known_whose_it_is(self) -> None:
        world = self.world(hold=True)
        self.fill(world)
        world.remote.takes = True
        world.remote.asked.clear()
        world.wait(30)
        self.assertEqual(world.remote.asked, [])
        self.successResultOf(self.identify(world, MINE))
        world.wait(30)
        self.assertEqual(world.remote.taken, ["e0", "e1", "e2"])
        self.assertEqual(world.remote.identities, [MINE])

    def test_a_spool_of_another_pool(self) -> None:
        """It is refused with what to do, and nothing of it reaches the log."""
        world = self.world(hold=True)
        self.successResultOf(self.identify(world, THEIRS))
        self.fill(world)
        world.remote.takes = True
        world.remote.asked.clear()
        error = self.failureResultOf(self.identify(world, MINE), IdentityMismatch)
        self.assertIn("the 3 batches in the spool belong to pool theirs", error.getErrorMessage())
        world.wait(30)
        self.assertEqual(world.remote.asked, [])
        self.assertEqual(world.remote.identities, [THEIRS])

    def test_an_empty_spool_belongs_to_whoever_uses_it(self) -> None:
        world = self.world(hold=True)
        self.successResultOf(self.identify(world, THEIRS))
        world.restart()
        self.successResultOf(self.identify(world, MINE))
        self.assertEqual(world.file.pool_id, "mine")

    def test_a_spool_of_the_release_before(self) -> None:
        """One with entries that says nothing is taken over."""
        world = self.world()
        self.fill(world)
        self.successResultOf(self.identify(world, MINE))
        world.restart()
        self.assertEqual(world.file.pool_id, "mine")

    def test_refusing(self) -> None:
        """While log and store do not belong together nothing is taken, by the file neither."""
        world = self.world()
        world.log.refuse("not ours")
        self.assertEqual(world.remote.refusal, "not ours")
        world.append()
        self.assertEqual((world.failed, world.log.status().problem), (["e0"], "not ours"))
        self.assertEqual(world.reasons, ["not ours"])
        world.log.refuse("")
        world.append()
        self.assertEqual((world.acknowledged, world.log.status().problem), (["e1"], ""))

    def test_the_rest_is_the_logs(self) -> None:
        world = self.world()
        self.successResultOf(self.identify(world, MINE))
        extent = self.successResultOf(world.log.extent(MINE, Mark(7)))
        self.assertEqual((extent.identity, extent.acknowledged), (MINE, 7))
        self.assertIs(world.log.positional, False)
        told = [].clear
        world.log.watch(told)
        self.assertEqual(world.remote.told, [told])


class FlowingTests(Case):
    """K-52: while the log takes entries, the spool is only in between."""

    def test_interfaces(self) -> None:
        world = self.world()
        self.assertTrue(verifyObject(ILog, world.log))
        self.assertTrue(verifyObject(ISpool, world.log))
        self.assertIs(world.log.persistent, True)
        self.assertIs(world.log.instant, False)

    def test_straight_through(self) -> None:
        """K-52: nothing is written here, and an answer is the log's own."""
        world = self.world()
        world.append(3)
        self.assertEqual(world.acknowledged, ["e0", "e1", "e2"])
        world.remote.answers = False
        world.append(2)
        self.assertEqual(len(world.acknowledged), 3)
        world.remote.answer(1)
        self.assertEqual(world.acknowledged[3:], ["e4"])
        world.remote.answer(0)
        self.assertEqual(world.acknowledged[3:], ["e4", "e3"])
        self.assertTrue(world.database.idle)
        self.assertEqual(world.remote.taken, world.appended)
        self.assertEqual(world.log.status()[4:], (0, 0.0, ""))

    def test_everything_else_is_the_logs(self) -> None:
        world = self.world()
        world.append(2)
        log = world.log
        entries = self.successResultOf(log.read(1, 5))
        self.assertEqual([e.entry_id for e in entries], ["e1"])
        self.assertEqual(self.successResultOf(log.consume("g", None, 9, 4)), ("g", None, 9, 4))
        self.assertEqual(self.successResultOf(log.trim(1.0, 2.0, 3)), 7)
        self.assertEqual(log.status()[:4], (2, 3, 2, ""))

    def test_close(self) -> None:
        """K-85: twice, and nothing is taken any more."""
        world = self.world()
        world.close()
        world.close()
        world.append()
        self.assertEqual((world.failed, world.reasons), (["e0"], ["the log is closed"]))
        self.assertEqual(world.remote.closed, 1)

    def test_a_log_that_cannot_be_closed(self) -> None:
        """K-85: the error is in the log of the process, and the end goes on."""
        world = self.world()
        self.patch(world.remote, "close", lambda: fail(KeyError("close")))
        world.close()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_log_that_cannot_be_opened(self) -> None:
        """K-88: the start fails with the reason of the log behind."""
        world = self.world()
        world.close()
        world.remote.open_error = LogUnavailable("no such broker")
        world.database = SteppedDatabase(world.database.connection)
        world.start()
        self.assertEqual(str(self.failureResultOf(world.opening).value), "no such broker")


class AwayTests(Case):
    """K-81: while the log is away, entries are accepted here, and go there in order."""

    def test_refused(self) -> None:
        """K-81: an entry that the log refuses is durable here before it is answered."""
        world = self.world()
        world.remote.takes = False
        world.append(3)
        self.assertEqual(world.acknowledged, [])
        world.work()
        self.assertEqual(world.acknowledged, ["e0", "e1", "e2"])
        self.assertEqual(world.database.rows(), ["e0", "e1", "e2"])
        self.assertEqual(world.remote.asked, ["e0"])  # the others were spared the way
        world.remote.takes = True
        world.append(2)
        world.work()
        self.assertEqual(world.acknowledged, world.appended)
        world.wait(1)
        self.assertEqual(world.remote.taken, world.appended)
        self.assertEqual(world.database.rows(), [])
        world.append()
        self.assertTrue(world.database.idle)

    def test_what_is_said(self) -> None:
        """K-95: a line says why entries go to the spool, and is not repeated with each try."""
        world = self.world()
        world.remote.takes = False
        with capturedLogs() as events:
            world.append(2)
            world.wait(5)
        said = [formatEvent(event) for event in events]
        self.assertEqual(said, ["The log is not available, so entries go to the spool: gone"])

    def test_raises(self) -> None:
        """K-81: a log that raises is as one that fails."""
        world = self.world()
        self.patch(world.remote, "append", lambda entry_id, body: 1 / 0)
        world.append()
        world.work()
        self.assertEqual(world.acknowledged, ["e0"])
        self.assertIn("zero", world.log.status().away)

    def test_hangs(self) -> None:
        """K-81: after two seconds the entry is written here; that of all others too."""
        world = self.world()
        world.remote.answers = False
        world.append(2)
        world.wait(1.9)
        self.assertEqual((world.acknowledged, world.database.rows()), ([], []))
        world.append()
        world.wait(0.1)
        self.assertEqual(world.acknowledged, ["e0", "e1", "e2"])
        self.assertEqual(world.log.status().away, "no answer within 2 s")
        # It had taken them: they are sent again under the same ids.
        world.remote.answer_all()
        world.recover()
        self.assertEqual(world.remote.taken, ["e0", "e1", "e2"] * 2)

    def test_nobody_waits_for_a_probe(self) -> None:
        """K-81: while it is tried whether the log is back, entries are written here.

        An entry that is in the file has half a minute to be answered.
        """
        world = self.world()
        world.remote.answers = world.remote.takes = False
        world.append()
        world.wait(2.0)
        world.wait(0.2)
        self.assertEqual(world.remote.asked, ["e0", "e0"])
        world.append()
        world.work()
        self.assertEqual(world.acknowledged, ["e0", "e1"])
        world.wait(29)
        self.assertEqual(world.remote.asked, ["e0", "e0"])
        world.wait(2)
        self.assertEqual(world.remote.asked, ["e0", "e0", "e0"])

    def test_backoff(self) -> None:
        """K-81: tries come further and further apart, to a bound, less up to a half by chance."""
        self.assertEqual(self.waits(self.world(), 8), [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        world = self.world(longest_backoff=1.0)
        self.assertEqual(self.waits(world, 6), [0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
        hasty = self.world(longest_backoff=1.0)
        hasty.log._jitter = lambda: 1.0
        self.assertEqual(self.waits(hasty, 6), [0.05, 0.1, 0.2, 0.4, 0.5, 0.5])
        # Once it was back, the next time begins with the shortest.
        world.recover()
        world.remote.takes = False
        asked = len(world.remote.asked)
        world.append()
        world.wait(0.1)
        self.assertEqual(len(world.remote.asked) - asked, 2)

    def waits(self, world: World, count: int) -> list[float]:
        """The times between the first tries of a log that takes nothing."""
        world.remote.takes = False
        world.append()
        world.work()
        tries = [0.0]
        while len(tries) <= count:
            asked = len(world.remote.asked)
            due = min(call.getTime() for call in world.clock.getDelayedCalls())
            world.clock.advance(due - world.clock.seconds())
            world.work()
            if len(world.remote.asked) > asked:
                tries.append(world.clock.seconds())
        return [round(b - a, 2) for a, b in pairwise(tries)]

    def test_what_was_sent_after_it_is_sent_again(self) -> None:
        """K-81: the order holds also where a later entry was taken and an earlier not."""
        world = self.world()
        world.remote.answers = False
        world.append(3)
        world.remote.answer(1)
        world.remote.answer(0, lie=True)
        world.recover()
        self.assertEqual(sorted(world.acknowledged), ["e0", "e1", "e2"])
        self.assertEqual(world.remote.taken[-3:], ["e0", "e1", "e2"])

    def test_status(self) -> None:
        """K-95: depth, age, and why."""
        world = self.world()
        world.remote.takes = False
        world.append()
        world.wait(5)
        world.append(4)
        world.work()
        self.assertEqual(world.log.status()[3:], ("", 5, NOW, "gone"))
        world.remote.problem = "connection refused"
        self.assertEqual(world.log.status().away, "connection refused")
        world.remote.problem = ""
        world.recover()
        self.assertEqual(world.log.status()[3:], ("", 0, 0.0, ""))

    def test_a_log_that_is_away_without_an_entry(self) -> None:
        """K-95: also where nothing was appended meanwhile."""
        world = self.world()
        self.assertEqual(world.log.status()[3:], ("", 0, 0.0, ""))
        world.remote.problem = "connection refused"
        self.assertEqual(world.log.status()[3:], ("", 0, 0.0, "connection refused"))


class DrainTests(Case):
    """K-81: the way of what was spooled."""

    def away_with(self, count: int, **changes: Any) -> World:
        world = self.world(**changes)
        world.remote.takes = False
        world.append(count)
        world.work()
        return world

    def test_bounded(self) -> None:
        """K-82: after one that was taken, so many are on their way at once: 64 if not set."""
        for changes, most in (({}, 64), ({"in_flight": 10}, 10)):
            world = self.away_with(100, **changes)
            world.remote.takes, world.remote.answers = True, False
            world.wait(0.1)
            self.assertEqual(len(world.remote.waiting), 1)
            world.remote.answer(0)
            world.work()
            self.assertEqual(len(world.remote.waiting), most)
        world.remote.answer(0)
        world.work()
        self.assertEqual(len(world.remote.waiting), 10)
        world.remote.answer(5)  # not the oldest: it stays in the window
        world.work()
        self.assertEqual(len(world.remote.waiting), 9)
        world.recover()
        self.assertEqual(world.remote.taken, world.appended)

    def test_an_answer_while_there_is_no_room(self) -> None:
        """K-81: no read is under way that would hold up the next one."""
        world = self.away_with(1)
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.append()
        world.database.step()  # it is written, and cannot be sent yet
        world.remote.answer(0)
        world.work()
        self.assertEqual(world.remote.taken, ["e0", "e1"])

    def test_dropped_only_when_taken(self) -> None:
        """K-53: an entry leaves the file when it and all before it are in the log."""
        world = self.away_with(4, in_flight=10)
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.remote.answer(0)
        world.work()
        self.assertEqual(world.database.rows(), ["e1", "e2", "e3"])
        world.remote.answer(1)
        world.work()
        self.assertEqual(world.database.rows(), ["e1", "e2", "e3"])
        world.remote.answer(0)
        world.work()
        self.assertEqual(world.database.rows(), ["e3"])

    def test_fails_again(self) -> None:
        """K-81: from the first that was not taken."""
        world = self.away_with(4, in_flight=10)
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.remote.answer(0)
        world.work()
        world.remote.answer(1, lie=True)
        world.recover()
        self.assertEqual(world.remote.taken, ["e0", "e1", "e2", "e3", "e1", "e2", "e3"])
        self.assertEqual(world.database.rows(), [])

    def test_fails_again_before_the_first_is_dropped(self) -> None:
        """K-81: what the log has taken is not sent again while it is still in the file."""
        world = self.away_with(3, in_flight=10)
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.remote.answer(0)
        world.database.broken = True  # nothing can be dropped, but it can be read
        world.work()
        world.remote.answer(0, lie=True)
        world.recover()
        self.assertEqual(world.remote.taken, ["e0", "e1", "e2", "e1", "e2"])

    def test_fails_again_during_a_read_that_finds_nothing(self) -> None:
        """K-81: the file is read again from the first that was not taken."""
        world = self.away_with(5, in_flight=3)
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.remote.answer(0)
        world.work()
        world.append()  # it waits in memory
        world.remote.answer(0)
        world.remote.answer(0)
        world.clock.advance(world.settings.timeout)  # it is to be written
        world.database.step()  # dropped
        world.database.step()  # read
        self.assertEqual([entry_id for entry_id, _, _ in world.remote.waiting], ["e3", "e4"])
        world.remote.answer(0, lie=True)
        world.clock.advance(0.1)
        world.database.broken = True
        world.work()
        self.assertEqual(world.failed, ["e5"])
        self.assertEqual(world.remote.asked, ["e0", "e0", "e1", "e2", "e3", "e4", "e3"])

    def test_entries_keep_coming(self) -> None:
        """K-81: the file is empty at last although there is always something new: what
        comes near the end waits in memory for its turn.
        """
        world = self.away_with(200, in_flight=8)
        world.remote.takes = True
        world.clock.advance(0.1)
        spooled = []
        for _ in range(400):
            world.append()
            for _ in range(3):
                world.database.step()
            spooled.append(world.log.status().spooled)
            if spooled[-1] == 0:
                break
        self.assertEqual(spooled[-1], 0)
        world.recover()
        self.assertEqual(world.remote.taken, world.appended)
        self.assertEqual(sorted(world.acknowledged), sorted(world.appended))

    def near_the_end(self) -> World:
        """Little is left in the file, the disk is slow, and two entries wait in memory."""
        world = self.away_with(HANDOVER + 1)
        world.remote.takes = True
        world.clock.advance(0.1)
        world.database.step()  # read
        self.assertTrue(world.log._flowing)
        world.append(2)
        self.assertEqual(len(world.log._held), 2)
        return world

    def test_where_the_end_begins(self) -> None:
        """K-81: new entries wait in memory while at most 16 of the file are left to send.

        Then no entry is refused because of the file.
        """
        for left, written, problem in ((16, 0, ""), (17, 1, "the spool: no disk")):
            world = self.away_with(left + 1)
            world.remote.takes = True
            world.clock.advance(0.1)
            world.database.step()  # the first one is read, and taken
            world.database.problem = "no disk"
            self.assertEqual(world.log.status().problem, problem)
            world.append()
            self.assertEqual(world.file.count, left + 1 + written)

    def test_held_and_then_sent(self) -> None:
        world = self.near_the_end()
        world.work()
        self.assertEqual(world.remote.taken, world.appended)
        self.assertEqual(world.acknowledged, world.appended)

    def test_held_too_long(self) -> None:
        """K-81: what waits in memory is written after the timeout."""
        world = self.near_the_end()
        world.clock.advance(world.settings.timeout)
        self.assertEqual(len(world.log._held), 0)
        world.recover()
        self.assertEqual(world.remote.taken, world.appended)
        self.assertEqual(world.acknowledged, world.appended)

    def test_held_too_many(self) -> None:
        """K-83: 200 wait in memory; with one more all of them are written."""
        world = self.near_the_end()
        written = world.file.count
        world.append(198)
        self.assertEqual(world.file.count, written)
        world.append()
        self.assertEqual(world.file.count, written + 201)
        world.recover()
        self.assertEqual(world.remote.taken, world.appended)
        self.assertEqual(world.acknowledged, world.appended)

    def test_held_when_it_goes_away(self) -> None:
        """K-81: what waits in memory goes behind what is in the file."""
        world = self.near_the_end()
        world.remote.takes = False
        world.work()
        self.assertEqual(world.acknowledged, world.appended)
        world.recover()
        self.assertEqual(world.remote.taken, world.appended)


class BoundTests(Case):
    """K-83: the spool is bounded; beyond it submissions are refused."""

    def test_full(self) -> None:
        size = len(body_of("e0")) + ROW_BYTES
        world = self.world(max_bytes=3 * size)
        world.remote.takes = False
        world.append(5)
        world.work()
        self.assertEqual(world.acknowledged, ["e0", "e1", "e2"])
        self.assertEqual(world.failed, ["e3", "e4"])
        self.assertEqual(world.reasons, 2 * ["the spool is full"])
        self.assertEqual(world.log.status().problem, "the spool is full")
        self.assertEqual(world.file.size, 3 * size)
        world.recover()
        self.assertEqual(world.log.status().problem, "")
        self.assertEqual((world.file.size, world.file.count), (0, 0))
        world.append()
        self.assertEqual(world.acknowledged, ["e0", "e1", "e2", "e5"])
        self.assertEqual(world.remote.taken, world.acknowledged)

    def test_full_after_a_restart(self) -> None:
        """K-83: what the last run left counts."""
        world = self.world(max_bytes=3 * (len(body_of("e0")) + ROW_BYTES))
        world.remote.takes = False
        world.append(2)
        world.work()
        world.restart()
        world.append(2)
        world.work()
        self.assertEqual((world.acknowledged, world.failed), (["e0", "e1", "e2"], ["e3"]))


class DiskTests(Case):
    """K-52: the spool's own disk fails while the log is away."""

    def test_what_was_not_sent_is_refused(self) -> None:
        """K-52: it is nowhere, so it can be submitted again."""
        world = self.world()
        world.remote.takes = False
        world.append()
        world.work()
        world.database.broken = True
        world.append(2)
        world.work()
        self.assertEqual((world.acknowledged, world.failed), (["e0"], ["e1", "e2"]))
        self.assertIn("the spool: attempt to write", world.log.status().problem)
        world.database.broken = False
        world.wait(1.2)
        self.assertEqual(world.log.status().problem, "")
        world.append()
        world.work()
        world.recover()
        self.assertEqual(world.remote.taken, ["e0", "e3"])

    def test_what_was_sent_is_not_called_lost(self) -> None:
        """K-53: the log may have it; were it refused and submitted again, it would count
        twice. It is answered when one of the two certainly has it.
        """
        world = self.world()
        world.remote.answers = False
        world.append(2)
        world.database.broken = True
        world.remote.answer(0, lie=True)
        world.work()
        world.append()  # neither can take it
        self.assertEqual((world.acknowledged, world.failed), ([], ["e2"]))
        world.wait(20)
        self.assertEqual((world.acknowledged, world.failed), ([], ["e2"]))
        world.recover()
        self.assertEqual(world.acknowledged, ["e0", "e1"])
        self.assertEqual(world.remote.taken[-2:], ["e0", "e1"])
        self.assertNotIn("e2", world.remote.taken)

    def test_the_log_is_back_before_the_disk(self) -> None:
        """K-53: then it goes there."""
        world = self.world()
        world.remote.takes = False
        world.database.broken = True
        world.append(2)
        world.wait(1)
        self.assertEqual((world.acknowledged, world.failed), ([], ["e1"]))
        world.remote.takes = True
        world.wait(5)
        self.assertEqual(world.acknowledged, ["e0"])
        world.append()
        self.assertEqual(world.acknowledged, ["e0", "e2"])

    def test_the_disk_is_back_before_the_log(self) -> None:
        """K-53: then it goes there with the next try, and nobody waits for the log."""
        world = self.world()
        world.remote.takes = False
        world.database.broken = True
        world.append()
        world.work()
        world.database.broken, world.remote.answers = False, False
        world.wait(0.1)
        self.assertEqual((world.acknowledged, world.database.rows()), (["e0"], ["e0"]))

    def test_a_try_while_a_write_is_under_way_that_fails(self) -> None:
        """K-81: what is written after that is sent, although nothing else happens."""
        world = self.world()
        world.remote.takes = False
        world.append()
        world.work()
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.append()  # it waits for the disk
        unreadable = fail(sqlite3.OperationalError("disk I/O error"))
        reading = self.patch(world.file, "read", lambda after, limit: unreadable)
        world.remote.answer(0)
        reading.restore()
        world.database.broken = True
        world.clock.advance(0.1)
        world.work()
        self.assertEqual((world.acknowledged, world.failed), (["e0"], ["e1"]))
        world.database.broken, world.remote.answers = False, True
        world.append()
        world.work()
        self.assertEqual(world.remote.taken, ["e0", "e2"])

    def test_what_was_taken_cannot_be_dropped(self) -> None:
        """K-53: it is dropped later, and sent no second time meanwhile."""
        world = self.world()
        world.remote.takes = False
        world.append(2)
        world.work()
        world.remote.takes, world.database.broken = True, True
        world.wait(5)
        self.assertEqual(world.remote.taken, ["e0", "e1"])
        self.assertEqual(world.log.status().spooled, 2)
        self.assertIn("the spool: attempt to write", world.log.status().away)
        # The log behind takes entries, and nobody is refused.
        self.assertEqual(world.log.status().problem, "")
        world.database.broken = False
        world.wait(2)
        self.assertEqual((world.log.status()[3:]), ("", 0, 0.0, ""))
        self.assertEqual(world.database.rows(), [])
        self.assertEqual(world.remote.taken, ["e0", "e1"])

    def test_nothing_waits_and_the_file_cannot_be_read(self) -> None:
        """K-81: the next entry goes to the log, and the spool no longer calls it away."""
        world = self.world()
        world.remote.takes = False
        world.append()
        world.work()
        world.remote.takes, world.remote.answers = True, False
        world.wait(0.1)
        world.append()  # it waits for the disk
        unreadable = fail(sqlite3.OperationalError("disk I/O error"))
        self.patch(world.file, "read", lambda after, limit: unreadable)
        world.remote.answer(0)
        world.database.broken = True
        world.work()
        self.assertEqual((world.acknowledged, world.failed), (["e0"], ["e1"]))
        self.assertEqual(world.log.status().away, "the spool cannot be read: disk I/O error")
        world.database.broken, world.remote.answers = False, True
        world.wait(1)
        world.append()
        self.assertEqual(world.acknowledged, ["e0", "e2"])
        world.wait(2)  # the file drops what the log has taken
        self.assertEqual(world.log.status()[3:], ("", 0, 0.0, ""))

    def test_a_file_that_cannot_be_read_for_a_while(self) -> None:
        """K-81: it is read again, and what waits in it is sent."""
        world = self.world()
        world.remote.takes = False
        world.append(2)
        world.work()
        world.remote.takes = True
        unreadable = fail(sqlite3.OperationalError("disk I/O error"))
        reading = self.patch(world.file, "read", lambda after, limit: unreadable)
        world.wait(0.1)
        self.assertEqual(world.log.status().away, "the spool cannot be read: disk I/O error")
        reading.restore()
        world.wait(1)
        self.assertEqual(world.remote.taken, ["e0", "e1"])

    def test_closed_in_doubt(self) -> None:
        """K-85: a stop ends the wait."""
        world = self.world()
        world.remote.takes, world.database.broken = False, True
        world.append()
        world.wait(1)
        world.close()
        self.assertEqual((world.acknowledged, world.failed), ([], ["e0"]))


class RestartTests(Case):
    """K-81: what was spooled outlives the process."""

    def test_after_a_kill(self) -> None:
        world = self.world()
        world.remote.takes = False
        world.append(2)
        world.work()
        world.append()  # not on disk, and not answered
        world.kill()
        self.assertEqual(world.log.status().spooled, 2)
        self.assertEqual(world.log.status().spooled_since, NOW)
        world.append()
        world.work()
        world.recover()
        self.assertEqual(world.acknowledged, ["e0", "e1", "e3"])
        self.assertEqual(world.remote.taken, ["e0", "e1", "e3"])

    def test_the_log_is_there_at_the_next_start(self) -> None:
        """K-81: once it has taken what waits, entries go straight to it, and a line says so."""
        world = self.world()
        world.remote.takes = False
        world.append(3)
        world.work()
        world.close()
        world.remote.takes = True
        world.database = SteppedDatabase(world.database.connection)
        with capturedLogs() as events:
            world.start()
            world.append()
        said = [formatEvent(event) for event in events]
        self.assertIn("The log accepts entries again; 3 wait in the spool", said)
        self.assertEqual(world.acknowledged, world.appended)
        self.assertEqual(world.remote.taken, world.appended)
        self.assertTrue(world.database.idle)

    def test_killed_between_the_log_and_the_file(self) -> None:
        """K-53: what the log had taken is sent again, with what follows."""
        world = self.world()
        world.remote.takes = False
        world.append(3)
        world.work()
        world.remote.takes = True
        world.clock.advance(0.1)
        world.database.step()
        world.database.step()
        self.assertEqual(world.remote.taken, ["e0", "e1", "e2"][: len(world.remote.taken)])
        world.kill()
        world.recover()
        self.assertEqual(world.remote.taken[-2:], ["e1", "e2"])
        self.assertEqual(world.database.rows(), [])

    def test_a_stop_with_entries_on_their_way(self) -> None:
        """K-85: they are written here, and answered; the next run sends them."""
        world = self.world()
        world.remote.answers = world.remote.takes = False
        world.append(2)
        world.close()
        self.assertEqual(world.acknowledged, ["e0", "e1"])
        self.assertEqual(world.database.rows(), ["e0", "e1"])
        world.remote.waiting.clear()
        world.database = SteppedDatabase(world.database.connection)
        world.start()
        world.recover()
        self.assertEqual(world.remote.taken, ["e0", "e1"])

    def test_what_a_stop_says(self) -> None:
        """K-85: a line says how many entries wait for the next start, if there are any."""
        for count in (0, 2):
            world = self.world()
            world.remote.answers = world.remote.takes = False
            world.append(count)
            with capturedLogs() as events:
                world.close()
            said = [formatEvent(event) for event in events]
            left = [f"{count} entries stay in the spool until the next start"] if count else []
            self.assertEqual([line for line in said if "spool" in line], left)

    def test_read_spool(self) -> None:
        """K-47: what waits can be read, for the nonces that it used."""
        world = self.world()
        world.remote.takes = False
        world.append(5)
        world.work()
        first = world.log.read_spool(0, 3)
        world.work()
        entries = self.successResultOf(first)
        self.assertEqual([e.entry_id for e in entries], ["e0", "e1", "e2"])
        self.assertEqual({e.appended_at for e in entries}, {NOW})
        second = world.log.read_spool(entries[-1].position, 3)
        world.work()
        self.assertEqual([e.body for e in self.successResultOf(second)],
                         [body_of("e3"), body_of("e4")])  # fmt: skip

    def test_positions_are_never_used_twice(self) -> None:
        """K-47: a reader that goes on from a position passes nothing over."""
        world = self.world()
        for _ in range(2):
            world.remote.takes = False
            world.append(2)
            world.work()
            reading = world.log.read_spool(0, 9)
            world.work()
            last = [e.position for e in self.successResultOf(reading)]
            world.recover()
        self.assertEqual(last, [3, 4])


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30)),
        st.tuples(st.just("takes"), st.booleans()),
        st.tuples(st.just("answers"), st.booleans()),
        st.tuples(st.just("answer"), st.integers(0, 100)),
        st.tuples(st.just("lie"), st.integers(0, 100)),
        st.tuples(st.just("disk"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.sampled_from([0.05, 0.1, 0.5, 2.0, 30.0])),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("kill"), st.just(0)),
    ),
    max_size=60,
)


def act(world: World, step: str, value: Any) -> None:
    """Do one step of a script."""
    remote = world.remote
    if step == "append":
        world.append(value)
    elif step in ("takes", "answers"):
        setattr(remote, step, value)
    elif step in ("answer", "lie"):
        if remote.waiting:
            remote.answer(value % len(remote.waiting), lie=step == "lie")
    elif step == "disk":
        for _ in range(value):
            world.database.step()
    elif step == "wait":
        world.clock.advance(value)
    elif step in ("restart", "kill"):
        getattr(world, step)()
    else:
        world.database.broken = value


class AnyOrderTests(Case):
    """K-53, K-81: whatever fails, in whatever order."""

    @settings(max_examples=150, deadline=None)
    @given(_STEPS, st.integers(1, 6), st.sampled_from([500, 5_000, 1_000_000]))
    def test_everything_acknowledged_arrives_in_order(
        self, steps: list[tuple[str, Any]], in_flight: int, max_bytes: int
    ) -> None:
        """K-53, K-81: any interleaving of failures, restarts and drains: each entry that
        was acknowledged is in the log, and for the last time in the order of the appends.
        """
        world = World(max_bytes, in_flight=in_flight)
        for step, value in steps:
            act(world, step, value)
        self.settled(world)
        last = {entry_id: place for place, entry_id in enumerate(world.remote.taken)}
        acknowledged = set(world.acknowledged)
        in_order = [last[i] for i in world.appended if i in acknowledged]
        self.assertEqual(in_order, sorted(in_order))

    # A drop fails, and the probe behind it in the queue does not.
    @example(steps=[("takes", False), ("append", 1), ("broken", True), ("disk", 1)])
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.one_of(
                _STEPS.map(lambda steps: steps[0] if steps else ("disk", 1)),
                st.tuples(st.just("broken"), st.booleans()),
            ),
            max_size=60,
        )
    )
    def test_with_a_disk_that_fails(self, steps: list[tuple[str, Any]]) -> None:
        """K-52, K-53: and the disk too: nothing acknowledged is lost, nothing refused that
        arrived, but for what a stop cut off.
        """
        world = World(in_flight=4)
        for step, value in steps:
            act(world, step, value)
        self.settled(world)
        if "restart" not in {step for step, _ in steps}:
            self.assertEqual(set(world.failed) & set(world.remote.taken), set())

    def settled(self, world: World) -> None:
        """All is mended: everything acknowledged is there, and nothing is left here."""
        world.recover()
        self.assertEqual(set(world.acknowledged) - set(world.remote.taken), set())
        self.assertEqual(set(world.acknowledged) & set(world.failed), set())
        self.assertEqual(len(world.acknowledged), len(set(world.acknowledged)))
        self.assertEqual(world.database.rows(), [])
        self.assertEqual((world.file.count, world.file.size, world.file.since), (0, 0, 0.0))
        self.assertEqual(world.log.status()[3:], ("", 0, 0.0, ""))
        world.append()
        self.assertEqual(world.acknowledged[-1], world.appended[-1])
        world.close()


class FileTests(SynchronousTestCase):
    def opened(self, database: SteppedDatabase) -> tuple[SpoolFile, Clock]:
        clock = Clock()
        file = SpoolFile(cast(Any, database), clock, lambda: NOW + clock.seconds())
        opening = file.open()
        database.work()
        self.successResultOf(opening)
        return file, clock

    def test_before_it_is_opened(self) -> None:
        """K-95: nothing is known of entries, their age or their pool."""
        file = SpoolFile(cast(Any, SteppedDatabase()), Clock(), lambda: NOW)
        self.assertEqual((file.count, file.size, file.since, file.pool_id), (0, 0, 0.0, ""))

    def test_all_or_none(self) -> None:
        """K-52: several entries are written in a transaction; one alone needs none."""
        database = SteppedDatabase()
        file, _ = self.opened(database)
        database.singles.clear()
        for size in (1, 2, 3):
            done = file.put([(f"e{size}.{n}", b"") for n in range(size)])
            database.work()
            self.successResultOf(done)
        self.assertEqual(database.singles, [True, False, False])

    def test_a_write_that_fails_and_another_that_does_not(self) -> None:
        """K-52: the file accepts entries again, so it is not tried whether it does."""
        database = SteppedDatabase()
        file, clock = self.opened(database)
        for broken in (True, False):
            database.broken = broken
            put = file.put([(f"e{broken}", b"")])
            database.work()
            self.assertEqual(bool(file.problem), broken)
            if broken:
                self.failureResultOf(put, sqlite3.Error)
        clock.advance(1.0)
        self.assertTrue(database.idle)

    def test_a_disk_that_stays_broken(self) -> None:
        """K-52: the file says so until it can be written: that it can be read says nothing.

        It is tried once a second.
        """
        database = SteppedDatabase()
        file, clock = self.opened(database)
        database.broken = True
        self.failureResultOf(self.put(file, database, "a"), sqlite3.Error)
        for broken in (True, True, False):
            database.broken = broken
            clock.advance(0.5)
            self.assertTrue(database.idle)
            clock.advance(0.5)
            database.work()
            self.assertEqual(bool(file.problem), broken)
        self.assertEqual(clock.getDelayedCalls(), [])

    def put(self, file: SpoolFile, database: SteppedDatabase, entry_id: str) -> Deferred[None]:
        done = file.put([(entry_id, b"")])
        database.work()
        return done

    def test_how_old_the_oldest_is(self) -> None:
        """K-95: its time when the ones before are dropped; the present while it is written."""
        database = SteppedDatabase()
        file, clock = self.opened(database)
        for entry_id in "ab":
            self.put(file, database, entry_id)
            clock.advance(5)
        self.assertEqual(file.since, NOW)
        file.drop(1)
        database.work()
        self.assertEqual(file.since, NOW + 5)
        file.drop(2)
        file.put([("c", b"")])
        database.step()
        self.assertEqual(file.since, NOW + 10)
        database.work()
        file.drop(3)
        database.work()
        self.assertEqual(file.since, 0.0)

    def test_how_large_it_may_be(self) -> None:
        """K-74: a gibibyte, with 128 bytes for each entry beside its body."""
        file = SpoolFile(cast(Any, None), Clock(), lambda: 0.0)
        for size, room in ((2**30 - 128 - 1, True), (2**30 - 128, False)):
            file.size = size
            self.assertIs(file.has_room(b"x"), room)
