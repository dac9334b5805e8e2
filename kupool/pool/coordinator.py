"""Job rotation: a new job every interval, saved, and sent to everyone."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.pool import IJobStore, SavedJob
from kupool.pool.jobs import Job, JobBook

#: Seconds that a save may take before the job goes out without it.
SAVE_TIMEOUT = 2.0

#: Nonces of retired jobs freed in one reactor turn.
FREE_PER_TURN = 5000


class RotationFailed(Exception):
    """No new job could be made; says why."""


class Coordinator:
    """Makes the jobs. ``publish`` sends one out; ``wall`` is seconds since the epoch.

    A store that cannot save delays a job by two seconds at the most: jobs go on being
    made, within the ids reserved, and those not saved are saved later.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        book: JobBook,
        store: IJobStore,
        publish: Callable[[Job], object],
        interval: float,
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._book = book
        self._store: Any = store
        self._publish = publish
        self._random_hex = random_hex
        self.interval = interval
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._first: IDelayedCall | None = None
        self._rotating: Deferred[None] | None = None
        self._unsaved: list[SavedJob] = []
        self._saving = DeferredLock()
        self._freeing = False
        self.rotations = 0
        #: Why the last rotation or save failed; empty when it did not.
        self.problem = ""
        self._failed_last = False

    @property
    def stalled(self) -> bool:
        """Whether no new job can be made, rather than only none be saved."""
        return self._failed_last and bool(self.problem)

    async def restore(self, replayable: bool) -> list[Job]:
        """Take over the jobs of the last run; returns those that may be submitted for.

        Where the log cannot tell which nonces were used, old jobs are retired instead.
        """
        now, wall = self._clock.seconds(), self._wall()
        saved = await self._store.load(wall - self._book.window)
        jobs = [
            # A clock that was set back must not make a job younger than it is.
            Job(s.job_id, s.server_nonce, now - max(0.0, wall - s.created_at), s.created_at)
            for s in saved.jobs
        ]
        newest = saved.jobs[-1].job_id if saved.jobs else 0
        self._book.restore(jobs if replayable else [], max(saved.reserved_until, newest))
        self._book.trim(now)
        return list(self._book)

    async def start(self) -> None:
        """Make the first job, unless the last run's is still young, and go on from there.

        Where that run did not end in order, it may have sent jobs out after the newest
        that is known: then there is a new one, as ids only grow.
        """
        current, now = self._book.current, self._clock.seconds()
        age = self.interval
        if current is not None and current.job_id == self._book.last_id:
            age = now - current.created
        if age >= self.interval:
            await self.rotate()
            age = 0.0
        self._first = self._clock.callLater(self.interval - age, self._begin)

    def _begin(self) -> None:
        self._first = None
        self._run(now=True)

    def _run(self, now: bool) -> None:
        self._loop.start(self.interval, now=now).addErrback(
            lambda failure: self._log.failure("Job rotation stopped", failure)
        )

    def set_interval(self, seconds: float) -> None:
        """Change the interval; it counts from the next rotation on."""
        self.interval = seconds

    def _tick(self) -> Deferred[None]:
        rotated = Deferred.fromCoroutine(self.rotate())
        return rotated.addErrback(self._failed).addCallback(self._follow_interval)

    def _failed(self, failure: Failure) -> None:
        self._log.error("No new job: {reason}", reason=failure.getErrorMessage())

    def _follow_interval(self, _: object) -> None:
        if self._loop.running and self._loop.interval != self.interval:
            self._loop.stop()
            self._first = self._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        self._first = None
        self._run(now=False)

    async def rotate(self) -> Job:
        """Make a new job now; raises :class:`RotationFailed`, and the old one stays.

        A call while another is under way waits for it, and makes no job of its own.
        """
        if self._rotating is not None:
            waiter: Deferred[None] = Deferred()
            self._rotating.chainDeferred(waiter)
            await waiter
        else:
            self._rotating = Deferred()
            try:
                await self._rotate()
            except RotationFailed:
                self._failed_last = True
                raise
            else:
                self._failed_last = False
            finally:
                rotating, self._rotating = self._rotating, None
                rotating.callback(None)
        if self._book.current is None:
            raise RotationFailed(self.problem)
        return self._book.current

    async def _rotate(self) -> None:
        try:
            server_nonce = self._random_hex(16)
        except Exception as error:
            self.problem = f"no random source: {error}"
            raise RotationFailed(self.problem) from error
        job = self._book.draft(server_nonce, self._clock.seconds(), self._wall())
        saved = await self._save(job)
        if not saved and not self._book.covered(job):
            raise RotationFailed(self.problem)
        now = self._clock.seconds()
        if self._book.install(job, now):
            self.free()
        self.rotations += 1
        self._log.info("Job {job_id}", job_id=job.job_id)
        self._publish(job)

    async def _save(self, job: Job) -> bool:
        """Save a job and those before it that could not be; returns whether it is saved."""
        self._unsaved.append(job.saved())
        del self._unsaved[: -self._book.max_jobs]
        return await self._save_all()

    async def _save_all(self) -> bool:
        await self._saving.acquire()
        try:
            return await self._save_each()
        finally:
            self._saving.release()

    async def _save_each(self) -> bool:
        reserve = self._book.wanted_reservation
        for saved in list(self._unsaved):
            try:
                await self._within(maybeDeferred(self._store.save, saved, reserve))
            except Exception as error:
                if not self.problem:
                    self._log.error("Jobs cannot be saved: {reason}", reason=str(error))
                self.problem = f"jobs cannot be saved: {error}"
                return False
            self._unsaved.remove(saved)
            self._book.confirm(reserve)
        if self.problem:
            self._log.info("Jobs are saved again")
        self.problem = ""
        # Nobody waits for this: the job is saved, and old ones harm nobody.
        before = self._wall() - 2 * self._book.window - 60
        self._within(maybeDeferred(self._store.forget, before)).addErrback(self._not_forgotten)
        return True

    def _within(self, asked: Deferred[Any]) -> Deferred[Any]:
        """Give up what the store does not answer in time."""

        def late(*_: object) -> None:
            raise TimeoutError(f"no answer from the store within {SAVE_TIMEOUT:g} s")

        return asked.addTimeout(SAVE_TIMEOUT, self._clock, late)

    def save_again(self) -> None:
        """Try to save what could not be saved, without waiting for the next rotation."""
        if self._unsaved and not self._saving.locked:
            Deferred.fromCoroutine(self._save_all()).addErrback(
                lambda failure: self._log.failure("Saving jobs again", failure)
            )

    def _not_forgotten(self, failure: Failure) -> None:
        self._log.warn("Old jobs were not dropped: {reason}", reason=failure.getErrorMessage())

    def relieve(self) -> None:
        """Retire old jobs early, as too many nonces are remembered."""
        retired = self._book.relieve()
        for job in retired:
            self._log.warn(
                "Job {job_id} retired early: too many nonces remembered", job_id=job.job_id
            )
        if retired:
            self.free()
        if self._book.over_limit and self._rotating is None:
            self._log.warn("Rotating early: the current job has too many nonces")
            Deferred.fromCoroutine(self.rotate()).addCallbacks(
                lambda _: self.relieve(), self._failed
            )

    def free(self) -> None:
        """Free the nonces of retired jobs, a part in each reactor turn."""
        if not self._freeing:
            self._freeing = True
            self._clock.callLater(0, self._free)

    def _free(self) -> None:
        if self._book.sweep(FREE_PER_TURN):
            self._clock.callLater(0, self._free)
        else:
            self._freeing = False

    async def stop(self) -> None:
        """Stop rotating, and give the ids reserved beyond the last one back."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._loop.running:
            self._loop.stop()
        current = self._book.current
        if current is not None and current.job_id == self._book.last_id:
            try:
                await self._within(maybeDeferred(self._store.save, current.saved(), current.job_id))
            except Exception as error:
                self._log.warn("The last job was not saved: {reason}", reason=str(error))
