"""Which jobs of the last run can be gone on with."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Epoch, Extent, Identity, Plan
from kupool.pool import SavedJob
from kupool.pool.keeping import Moment, choose

WALL = 1_800_000_000.0
NOW = Moment(WALL, "boot", 5000.0)
PLAN = Plan(Identity("pool", ()), 0, 0, True)


def saved(job_id: int, position: int | None, ago: float, boot: str | None = "boot") -> SavedJob:
    """A job made ``ago`` seconds ago, on every clock."""
    return SavedJob(job_id, "ab", WALL - ago, position, boot, NOW.boot_seconds - ago)


def extent(first: int, last: int) -> Extent:
    return Extent(None, first, last, True)


class ChoiceTests(SynchronousTestCase):
    """K-47, issue 11, point 2: positions say which nonces are known."""

    def test_what_the_log_holds(self) -> None:
        """A job is kept where the log holds all that was appended after it was made."""
        jobs = [saved(1, 8, 30), saved(2, 9, 20), saved(3, 15, 10)]
        choice = choose(jobs, PLAN, extent(10, 20), NOW, window=600.0)
        self.assertEqual([kept.job.job_id for kept in choice.kept], [2, 3])
        self.assertEqual((choice.unknown, choice.ageless, choice.after), (1, 0, 9))

    def test_an_empty_log(self) -> None:
        choice = choose([saved(1, 0, 5)], PLAN, extent(1, 0), NOW, window=600.0)
        self.assertEqual((len(choice.kept), choice.after), (1, 0))

    def test_an_epoch_ago(self) -> None:
        """Positions 13 to 18 were in the log that an older copy took the place of: what was
        retired then stays so at each later start.
        """
        plan = PLAN._replace(identity=Identity("pool", (Epoch("one", 0), Epoch("two", 18))))
        jobs = [saved(1, 9, 40), saved(2, 14, 30), saved(3, 18, 20), saved(4, 20, 10)]
        choice = choose(jobs, plan, extent(1, 24), NOW, window=600.0)
        self.assertEqual([kept.job.job_id for kept in choice.kept], [3, 4])
        self.assertEqual((choice.unknown, choice.after), (2, 18))

    def test_beyond_the_end(self) -> None:
        """What was appended after the end of the log is not in it."""
        choice = choose([saved(1, 30, 5)], PLAN, extent(1, 24), NOW, window=600.0)
        self.assertEqual((list(choice.kept), choice.unknown), ([], 1))

    def test_a_plan_that_keeps_none(self) -> None:
        jobs = [saved(1, 15, 10), saved(2, 16, 5)]
        choice = choose(jobs, PLAN._replace(keep_jobs=False), extent(10, 20), NOW, window=600.0)
        self.assertEqual((list(choice.kept), choice.unknown), ([], 2))

    def test_jobs_of_the_release_before(self) -> None:
        """They have no position: kept only where the whole log is taken over, and read."""
        jobs = [SavedJob(1, "ab", WALL - 20), SavedJob(2, "cd", WALL - 10)]
        choice = choose(jobs, PLAN, extent(1, 20), NOW, window=600.0)
        self.assertEqual((list(choice.kept), choice.unknown), ([], 2))
        choice = choose(jobs, PLAN._replace(adopt=True), extent(5, 20), NOW, window=600.0)
        self.assertEqual([kept.age for kept in choice.kept], [20.0, 10.0])
        self.assertEqual(choice.after, 4)

    def test_what_is_as_old_as_the_window(self) -> None:
        """K-29: it is still in the history."""
        jobs = [saved(1, 1, 601), saved(2, 2, 600), saved(3, 3, 0)]
        choice = choose(jobs, PLAN, extent(1, 20), NOW, window=600.0)
        self.assertEqual([kept.job.job_id for kept in choice.kept], [2, 3])

    def test_what_is_too_old(self) -> None:
        """K-29: what has left the history need not be read, but the newest is kept."""
        jobs = [saved(1, 1, 5000), saved(2, 11, 700), saved(3, 12, 650)]
        choice = choose(jobs, PLAN, extent(1, 20), NOW, window=600.0)
        self.assertEqual([kept.job.job_id for kept in choice.kept], [3])
        self.assertEqual((choice.unknown, choice.ageless, choice.after), (0, 0, 12))


class AgeTests(SynchronousTestCase):
    """Issue 11, point 2: how old a job is, whatever the wall clock shows."""

    def age(self, job: SavedJob, now: Moment, *others: SavedJob) -> float | None:
        choice = choose([job, *others], PLAN, extent(1, 0), now, window=1e12)
        ages = [kept.age for kept in choice.kept if kept.job is job]
        self.assertEqual(len(choice.kept) + choice.ageless, 1 + len(others))
        return ages[0] if ages else None

    def test_since_the_same_boot(self) -> None:
        for wall in (0.0, WALL - 100, WALL, WALL + 1e6):
            for ago in (30.0, 0.5, 0.0):
                self.assertEqual(self.age(saved(1, 0, ago), NOW._replace(wall=wall)), ago)

    def test_after_a_reboot(self) -> None:
        now = Moment(WALL, "other", 40.0)
        self.assertEqual(self.age(saved(1, 0, 30), now), 30.0)
        self.assertEqual(self.age(saved(1, 0, 30, boot=None), now), 30.0)
        self.assertEqual(self.age(saved(1, 0, 0), now), 0.0)

    def test_a_wall_clock_before_the_newest_save(self) -> None:
        now = Moment(WALL - 25, "other", 40.0)
        self.assertIsNone(self.age(saved(1, 0, 30), now, saved(2, 0, 20)))
        self.assertEqual(self.age(saved(1, 0, 30), now), 5.0)

    def test_no_boot_ids(self) -> None:
        """A system without boot ids cannot say that two boots are the same."""
        now = Moment(WALL, "", 40.0)
        self.assertEqual(self.age(saved(1, 0, 30, boot=""), now), 30.0)

    def test_a_machine_that_was_set_back(self) -> None:
        """A snapshot of a virtual machine has the same boot id and less time since it."""
        now = Moment(WALL, "boot", 100.0)
        self.assertEqual(self.age(saved(1, 0, 30), now), 30.0)
