"""Jobs and their history."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.pool import SavedJob
from kupool.pool.jobs import LAST_ID, Job, JobBook, JobIdsUsedUp, id_of_clock
from kupool.storage.clocks import YEAR_2024


def filled(book: JobBook, count: int, every: float = 30.0) -> list[Job]:
    jobs = []
    for n in range(count):
        job = book.draft(f"nonce{n}", n * every, 1e9 + n * every)
        book.install(job, n * every)
        jobs.append(job)
    return jobs


class HistoryTests(SynchronousTestCase):
    """K-29: history is bounded by age, by number and by remembered nonces."""

    def test_age(self) -> None:
        """K-29: a job leaves the history when it is older than the window."""
        book = JobBook(600.0, 1000, 0)
        jobs = filled(book, 21)
        self.assertEqual(len(book), 21)  # the first is exactly 600 s old
        book.install(book.draft("x", 601.0, 0.0), 601.0)
        self.assertNotIn(jobs[0].job_id, book.jobs)
        self.assertIn(jobs[1].job_id, book.jobs)

    def test_number(self) -> None:
        """K-29: and when there are too many."""
        book = JobBook(1e9, 10, 0)
        jobs = filled(book, 25)
        self.assertEqual(list(book), jobs[-10:])

    def test_current_job_stays(self) -> None:
        """K-29: however old, the current job can be submitted for."""
        book = JobBook(10.0, 1, 1)
        (job,) = filled(book, 1)
        self.assertEqual(book.trim(1e9), [])
        job.remembered = 1000
        self.assertEqual(book.relieve(), [])
        self.assertTrue(book.over_limit)
        self.assertIs(book.current, job)

    def test_nonces(self) -> None:
        """K-50: over the bound the oldest jobs retire early, and that is counted."""
        book = JobBook(1e9, 1000, 100)
        jobs = filled(book, 5)
        for job in jobs:
            job.remembered = 30
        self.assertEqual(book.relieve(), jobs[:2])
        self.assertEqual(book.retired_early, 2)
        self.assertEqual((book.remembered, book.retired_nonces), (90, 60))
        self.assertFalse(book.over_limit)
        self.assertEqual(book.relieve(), [])

    def test_names_without_nonces(self) -> None:
        """K-50: the memory of a name that is remembered for a job counts, as that of a nonce."""
        book = JobBook(1e9, 1000, 100)
        jobs = filled(book, 2)
        for n in range(101):
            jobs[0].nonces.scope(f"user{n}")
        self.assertTrue(book.over_limit)
        self.assertEqual(book.relieve(), jobs[:1])

    def test_the_bound(self) -> None:
        """K-50: so many may be remembered, names and nonces together."""
        book = JobBook(1e9, 1000, 100)
        (job,) = filled(book, 1)
        job.nonces.scope("ann")
        for remembered, over in ((99, False), (100, True)):
            job.remembered = remembered
            self.assertEqual(book.over_limit, over)

    def test_no_bound(self) -> None:
        book = JobBook(1e9, 1000, 0)
        filled(book, 2)[0].remembered = 10**9
        self.assertFalse(book.over_limit)

    def test_sweep(self) -> None:
        """K-50: the nonces of retired jobs are freed a part at a time, and all."""
        book = JobBook(1e9, 1, 0)
        jobs = filled(book, 1)
        for user in range(100):
            for n in range(10):
                jobs[0].nonces.scope(f"user{user}").reserve(f"n{n}", 1)
        book.install(book.draft("x", 1.0, 1.0), 1.0)
        turns = 1
        while book.sweep(200):
            turns += 1
        self.assertEqual(len(jobs[0].nonces), 0)
        # Each frees the 11 of one scope after the other until it has 200.
        self.assertEqual(turns, 6)
        self.assertFalse(book.sweep(200))

    def test_a_sweep_frees_no_less_than_it_is_told(self) -> None:
        book = JobBook(1e9, 1, 0)
        (job,) = filled(book, 1)
        for user in ("ann", "bob", "carol"):
            job.nonces.scope(user).reserve("n", 1)
        book.retire(job)
        self.assertTrue(book.sweep(2))  # a nonce and its scope
        self.assertEqual(len(job.nonces), 2)
        self.assertTrue(book.sweep(3))
        self.assertEqual(len(job.nonces), 0)
        self.assertFalse(book.sweep(1))

    def test_a_sweep_goes_through_several_jobs(self) -> None:
        book = JobBook(1e9, 3, 0)
        jobs = filled(book, 3)
        for job in jobs:
            job.nonces.scope("ann").reserve("n", 1)
            book.retire(job)
        self.assertTrue(book.sweep(4))
        self.assertEqual([len(job.nonces) for job in jobs], [0, 0, 1])
        self.assertFalse(book.sweep(4))
        self.assertEqual(len(jobs[2].nonces), 0)


class ClockTests(SynchronousTestCase):
    """K-34: where nothing else is known, ids begin at the seconds since 2024."""

    def test_ids_of_a_clock(self) -> None:
        for seconds, job_id in ((0.0, 0), (1.0, 1), (5.9, 5), (2.0**30 - 1, 2**30 - 1)):
            self.assertEqual(id_of_clock(YEAR_2024 + seconds), job_id)

    def test_a_clock_that_is_wrong(self) -> None:
        """It must not use the ids up."""
        for wall in (0.0, YEAR_2024 - 1.0, YEAR_2024 + 2.0**30, 1e12):
            self.assertEqual(id_of_clock(wall), 0)


class IdTests(SynchronousTestCase):
    """K-34: ids only grow, whatever was saved."""

    def test_one_by_one(self) -> None:
        """K-24: each job's id is one more."""
        ids = [job.job_id for job in filled(JobBook(600.0, 1000, 0), 10)]
        self.assertEqual(ids, list(range(1, 11)))

    def test_restore_goes_on_above(self) -> None:
        book = JobBook(600.0, 1000, 0)
        book.restore([Job(n, "a", 0.0, 0.0) for n in (4, 5, 6)], 1006)
        self.assertEqual(book.draft("x", 2.0, 2.0).job_id, 1007)
        self.assertEqual([job.job_id for job in book], [4, 5, 6])
        assert book.current is not None
        self.assertEqual(book.current.job_id, 6)

    def test_restore_with_too_little_reserved(self) -> None:
        book = JobBook(600.0, 1000, 0)
        book.restore([Job(n, "a", 0.0, 0.0) for n in (3, 4, 5)], 0)
        self.assertEqual(book.draft("x", 2.0, 2.0).job_id, 6)

    def test_covered(self) -> None:
        """K-35: a job is only given out unsaved where its id is reserved."""
        book = JobBook(600.0, 1000, 0)
        job = book.draft("x", 0.0, 0.0)
        self.assertFalse(book.covered(job))
        book.confirm(book.wanted_reservation)
        self.assertTrue(book.covered(job))
        # A save reserves one id more.
        self.assertTrue(book.covered(book.draft("x", 0.0, 0.0)))
        self.assertFalse(book.covered(book.draft("x", 0.0, 0.0)))

    def test_skip_to(self) -> None:
        """K-34: ids that others may have had are left out, and only those."""
        book = JobBook(600.0, 1000, 0)
        book.restore([Job(5, "a", 0.0, 0.0)], 6)
        book.skip_to(3)
        self.assertEqual(book.draft("x", 2.0, 2.0).job_id, 7)
        book.skip_to(100)
        self.assertEqual(book.draft("x", 2.0, 2.0).job_id, 101)

    def test_used_up(self) -> None:
        """Issue 11: an id stays below 2^31, for clients with 32 bits."""
        book = JobBook(600.0, 1000, 0)
        book.skip_to(LAST_ID - 1)
        self.assertEqual(book.draft("x", 2.0, 2.0).job_id, 2**31 - 1)
        self.assertRaises(JobIdsUsedUp, book.draft, "x", 2.0, 2.0)

    def test_what_is_saved_comes_back(self) -> None:
        job = Job(5, "a", 1.0, 2.0, log_position=3, boot_id="boot", boot_seconds=4.0)
        again = Job.restored(job.saved(), 9.0)
        self.assertEqual((again.saved(), again.created), (job.saved(), 9.0))
        self.assertEqual(job.saved(), SavedJob(5, "a", 2.0, 3, "boot", 4.0))
