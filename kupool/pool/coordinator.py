"""Job rotation: makes a new job at every interval, saves it, and sends it to all sessions."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.pool import IJobStore, SavedJob, SavedJobs
from kupool.pool.jobs import Job, JobBook, JobIdsUsedUp
from kupool.pool.keeping import Moment
from kupool.pool.notes import JobNotes
from kupool.storage.clocks import BootClock
from kupool.timing.chunks import Chunks
from kupool.timing.waiting import Waiters

#: Seconds that saving a job, or noting its id in the log, may take before the job is sent without
#: it.
SAVE_TIMEOUT = 2.0

#: Seconds between two notes in the log of the highest job id, or this many jobs if that is sooner.
#: A note that must exist before jobs are sent covers this many jobs.
NOTE_PAUSE = 1.0
NOTE_EVERY = 500

#: The store keeps this many times the jobs of the history.
KEPT_HISTORIES = 2

#: Nonces of retired jobs freed in one reactor turn.
FREE_PER_TURN = 5000


class RotationFailed(Exception):
    """No new job could be made; the text says why."""


class Coordinator:
    """Makes the jobs. ``publish`` sends a job; ``wall`` returns seconds since the epoch.

    If the store cannot save, a job is delayed by a few seconds at most. Jobs are still made, and
    unsaved jobs are saved later. A job is sent only after its id is known outside this process:
    saved, reserved by the store, or noted in the log. So no id is used twice, whenever the process
    ends.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        book: JobBook,
        store: IJobStore,
        *,
        publish: Callable[[Job], object],
        interval: float,
        notes: JobNotes,
        boot: BootClock,
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._book = book
        self._store: Any = store
        self._publish = publish
        self._notes = notes
        self._boot = boot
        self._random_hex = random_hex
        self.interval = interval
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._first: IDelayedCall | None = None
        self._rotating = False
        self._rotated = Waiters[None]()
        self._unsaved: list[SavedJob] = []
        self._saving = DeferredLock()
        self._freeing = Chunks(clock, lambda: book.sweep(FREE_PER_TURN))
        #: The highest id that the log certainly contains, and whether a note is being written.
        self._noted = 0
        self._noted_at = -inf
        self._new = True
        self._noting = False
        #: When the newest job of the last run was made, in seconds since the epoch.
        self.newest_save: float | None = None
        self.rotations = 0
        #: Why the last rotation or save failed; empty if it did not fail.
        self.problem = ""
        self._failed_last = False

    @property
    def stalled(self) -> bool:
        """Whether no new job can be made. This is worse than a job that cannot be saved."""
        return self._failed_last and bool(self.problem)

    @property
    def age(self) -> float:
        """Seconds since the newest job was made; infinity if there is none."""
        current = self._book.current
        return inf if current is None else self._clock.seconds() - current.created

    # -- for restarts, see :mod:`kupool.pool.restore`

    @property
    def book(self) -> JobBook:
        """The jobs."""
        return self._book

    @property
    def persistent(self) -> bool:
        """Whether jobs outlive the process."""
        return bool(self._store.persistent)

    def moment(self) -> Moment:
        """Return the current time of all clocks."""
        return Moment(self._wall(), self._boot.boot_id, self._boot.seconds())

    @property
    def running_for(self) -> float:
        """Seconds since the process began; 0 if unknown."""
        started = self._boot.started
        return 0.0 if started is None else max(0.0, self._boot.seconds() - started)

    async def load(self) -> SavedJobs:
        """Return what the last run saved, limited to the length of the history."""
        saved: SavedJobs = await self._store.load(self._book.max_jobs)
        self._new = not saved.jobs
        self.newest_save = max((job.created_at for job in saved.jobs), default=None)
        return saved

    def take_over(self, jobs: list[Job]) -> None:
        """Continue with jobs of the last run, oldest first."""
        self._book.restore(jobs, 0)

    def save_positions(self, jobs: list[Job]) -> None:
        """Save log positions that the previous release did not know, with the next job or
        sooner.
        """
        self._unsaved.extend(job.saved() for job in jobs)

    def go_on_above(self, job_id: int) -> None:
        """Use only ids above this one from now on, as lower ones may have been used."""
        self._book.skip_to(job_id)
        self._noted = job_id

    async def start(self) -> None:
        """Make the first job, or continue with the last run's newest job if it is still young.

        If the last run did not stop in order, it may have sent a job that is not known here. Then a
        new job is made, because ids must only grow. Raises :class:`RotationFailed` if there is no
        job at all.
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
            lambda failure: self._log.failure(
                "The rotation of jobs stopped because of an error", failure
            )
        )

    def set_interval(self, seconds: float) -> None:
        """Change the interval, from the next rotation on."""
        self.interval = seconds

    def _tick(self) -> Deferred[None]:
        rotated = Deferred.fromCoroutine(self.rotate())
        return rotated.addErrback(self._failed).addCallback(self._follow_interval)

    def _failed(self, failure: Failure) -> None:
        self._log.error("No new job could be made: {reason}", reason=failure.getErrorMessage())

    def _follow_interval(self, _: object) -> None:
        if self._loop.running and self._loop.interval != self.interval:
            self._loop.stop()
            self._first = self._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        self._first = None
        self._run(now=False)

    async def rotate(self) -> Job:
        """Make a new job now; raises :class:`RotationFailed`, and then the old job stays.

        A call during another call waits for that one and makes no job of its own.
        """
        if self._rotating:
            await self._rotated.wait()
        else:
            self._rotating = True
            try:
                await self._rotate()
            except RotationFailed:
                self._failed_last = True
                raise
            else:
                self._failed_last = False
            finally:
                self._rotating = False
                self._rotated.tell(None)
        if self._book.current is None:
            raise RotationFailed(self.problem)
        return self._book.current

    def _server_nonce(self) -> str:
        try:
            return self._random_hex(16)
        except BaseException as error:
            self.problem = f"no random source: {error}"
            raise RotationFailed(self.problem) from error

    async def _rotate(self) -> None:
        job = self._draft(self._server_nonce())
        await self._save(job)
        if not await self._cover(job):
            raise RotationFailed(self.problem)
        now = self._clock.seconds()
        if self._book.install(job, now):
            self.free()
        self.rotations += 1
        self._log.info("New job {job_id}", job_id=job.job_id)
        self._publish(job)
        self._note(job)

    def _draft(self, server_nonce: str) -> Job:
        wall, boot_id, boot_seconds = self.moment()
        try:
            return self._book.draft(
                server_nonce,
                self._clock.seconds(),
                wall,
                log_position=self._notes.position,
                boot_id=boot_id or None,
                boot_seconds=boot_seconds,
            )
        except JobIdsUsedUp as error:
            self.problem = str(error)
            raise RotationFailed(self.problem) from error

    async def _cover(self, job: Job) -> bool:
        """Make sure that the id of a job is never used again, saved or not; return whether that
        succeeded.

        The log is tried first. If the log is on the same full disk as the store, the store may
        still be able to save a number.
        """
        if self._book.covered(job):
            return True
        until = job.job_id + NOTE_EVERY
        if self._notes.durable and await self._kept(maybeDeferred(self._notes.write, until)):
            self._book.confirm(until)
            self._noted = until
            return True
        return await self._kept(maybeDeferred(self._store.reserve, job.job_id))

    async def _kept(self, asked: Deferred[None]) -> bool:
        try:
            await self._within(asked)
        except GeneratorExit:
            raise  # the coroutine is closed
        except BaseException as error:
            self._log.debug("A job id could not be saved: {reason}", reason=str(error))
            return False
        return True

    def _note(self, job: Job) -> None:
        """Note the highest job id in the log, in case the store is lost or replaced by an older
        one.

        The log does not know a job without submissions. A new store keeps its first id itself.
        """
        noted = job.job_id <= self._noted or (self._new and self.rotations == 1)
        if noted or self._noting or not self._notes.durable:
            return
        now = self._clock.seconds()
        if now - self._noted_at < NOTE_PAUSE and job.job_id < self._noted + NOTE_EVERY:
            return
        self._noting, self._noted_at = True, now

        def kept(_: object) -> None:
            self._noted = max(self._noted, job.job_id)

        def done(_: object) -> None:
            self._noting = False  # if this fails, the next job tries again

        written = self._within(maybeDeferred(self._notes.write, job.job_id))
        written.addCallback(kept).addErrback(
            lambda failure: self._log.debug("{why}", why=failure.getErrorMessage())
        ).addBoth(done)

    async def _save(self, job: Job) -> None:
        """Save a job and earlier unsaved jobs; the id of a saved job is covered."""
        self._unsaved.append(job.saved())
        del self._unsaved[: -self._book.max_jobs]
        await self._save_all()

    async def _save_all(self) -> None:
        await self._saving.acquire()
        try:
            await self._save_each()
        finally:
            self._saving.release()

    async def _save_each(self) -> None:
        reserve = self._book.wanted_reservation
        for saved in list(self._unsaved):
            try:
                await self._within(maybeDeferred(self._store.save, saved, reserve))
            except GeneratorExit:
                raise  # the coroutine is closed
            except BaseException as error:
                if not self.problem:
                    self._log.error("Jobs cannot be saved: {reason}", reason=str(error))
                self.problem = f"jobs cannot be saved: {error}"
                return
            self._unsaved.remove(saved)
            self._book.confirm(reserve)
        if self.problem:
            self._log.info("Jobs are saved again")
        self.problem = ""
        # Nobody waits for this: the job is saved, and old jobs do no harm.
        keep = KEPT_HISTORIES * self._book.max_jobs
        self._within(maybeDeferred(self._store.forget, keep)).addErrback(self._not_forgotten)

    def _within(self, asked: Deferred[Any]) -> Deferred[Any]:
        """Cancel a call that the store does not answer in time."""

        def late(*_: object) -> None:
            raise TimeoutError(f"no answer from the store within {SAVE_TIMEOUT:g} s")

        return asked.addTimeout(SAVE_TIMEOUT, self._clock, late)

    def save_again(self) -> None:
        """Try to save unsaved jobs now, without waiting for the next rotation."""
        if self._unsaved and not self._saving.locked:
            Deferred.fromCoroutine(self._save_all()).addErrback(
                lambda failure: self._log.failure("The jobs could not be saved again", failure)
            )

    def _not_forgotten(self, failure: Failure) -> None:
        self._log.warn("Old jobs could not be deleted: {reason}", reason=failure.getErrorMessage())

    def relieve(self) -> None:
        """Retire old jobs early because too many nonces are remembered."""
        retired = self._book.relieve()
        for job in retired:
            self._log.warn(
                "Job {job_id} is retired early, as too many nonces are remembered (max_nonces)",
                job_id=job.job_id,
            )
        if retired:
            self.free()
        if self._book.over_limit and not self._rotating:
            self._log.warn(
                "A new job is made early, as the current one has too many nonces (max_nonces)"
            )
            Deferred.fromCoroutine(self.rotate()).addCallbacks(
                lambda _: self.relieve(), self._failed
            )

    def free(self) -> None:
        """Free the nonces of retired jobs, some of them in each reactor turn."""
        self._freeing.wake()

    async def stop(self) -> None:
        """Stop the rotation, and release the reserved ids above the last used one."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._loop.running:
            self._loop.stop()
        current = self._book.current
        if current is not None and current.job_id == self._book.last_id:
            try:
                await self._within(maybeDeferred(self._store.save, current.saved(), current.job_id))
            except GeneratorExit:
                raise  # the coroutine is closed
            except BaseException as error:
                self._log.warn("The last job was not saved: {reason}", reason=str(error))
