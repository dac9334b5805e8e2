"""Jobs and their history. Pure: the caller gives the times, the randomness and the storage.

A job has two times. ``created_at`` is wall-clock time, which is saved across restarts. ``created``
is on the clock of this process, and ages are measured against it.
"""

from __future__ import annotations

from collections.abc import Iterator

from kupool.pool.nonces import JobNonces
from kupool.pool.saved import SavedJob
from kupool.storage.clocks import YEAR_2024

#: Ids that a save reserves above the newest one: after a crash, numbering continues above them.
#: More jobs that cannot be saved are sent only after their ids are noted elsewhere.
RESERVE_AHEAD = 1

#: The highest id: clients of the first implementation keep ids as signed 32-bit numbers.
LAST_ID = 2**31 - 1

#: A new store starts with ids from a clock, as long as at least half of the ids stay free.
_LAST_OF_CLOCK = LAST_ID // 2


class JobIdsUsedUp(Exception):
    """There are no free ids left."""


def id_of_clock(wall: float) -> int:
    """Return the seconds since 2024 as an id, which is above all ids of slower pools.

    0 if the wall clock shows a time before 2024 or after 2057: then it is wrong, and must not use
    up the ids.
    """
    seconds = int(wall - YEAR_2024)
    return seconds if seconds in range(_LAST_OF_CLOCK + 1) else 0


class Job:
    """One job: what is hashed, since when, and the nonces used for it.

    ``created`` is on the clock of this process; the rest is as in :class:`SavedJob`.
    """

    __slots__ = (
        "boot_id",
        "boot_seconds",
        "created",
        "created_at",
        "job_id",
        "log_position",
        "nonces",
        "remembered",
        "server_nonce",
    )

    def __init__(
        self,
        job_id: int,
        server_nonce: str,
        created: float,
        created_at: float,
        *,
        log_position: int | None = None,
        boot_id: str | None = None,
        boot_seconds: float | None = None,
    ) -> None:
        self.job_id = job_id
        self.server_nonce = server_nonce
        self.created = created
        self.created_at = created_at
        self.log_position = log_position
        self.boot_id = boot_id
        self.boot_seconds = boot_seconds
        self.nonces = JobNonces()
        #: How many nonces were used for it.
        self.remembered = 0

    @classmethod
    def restored(cls, saved: SavedJob, created: float) -> Job:
        """Return a job as it was kept, made at a time of the clock of this process."""
        return cls(
            saved.job_id,
            saved.server_nonce,
            created,
            saved.created_at,
            log_position=saved.log_position,
            boot_id=saved.boot_id,
            boot_seconds=saved.boot_seconds,
        )

    def saved(self) -> SavedJob:
        """Return the job in the form in which it is saved."""
        return SavedJob(
            self.job_id,
            self.server_nonce,
            self.created_at,
            self.log_position,
            self.boot_id,
            self.boot_seconds,
        )


class JobBook:
    """The current job, and earlier jobs that submissions may still name.

    ``window`` limits the history by age in seconds, ``max_jobs`` by number, and ``max_nonces`` by
    the total of remembered nonces. 0 turns a limit off.
    """

    def __init__(self, window: float, max_jobs: int, max_nonces: int) -> None:
        self.window = window
        self.max_jobs = max_jobs
        self.max_nonces = max_nonces
        self.current: Job | None = None
        self.retired_early = 0
        #: Nonces of all jobs that were ever retired.
        self.retired_nonces = 0
        #: The jobs that submissions may name, by id, oldest first. Do not change it.
        self.jobs: dict[int, Job] = {}
        self._last_id = 0
        self._reserved_until = 0
        self._retired: list[Iterator[int]] = []

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Job]:
        """Iterate over the jobs, oldest first."""
        return iter(list(self.jobs.values()))

    @property
    def last_id(self) -> int:
        """The highest id in use."""
        return self._last_id

    def restore(self, jobs: list[Job], reserved_until: int) -> None:
        """Restore jobs of the last run, oldest first; the next id is above all that was used."""
        for job in jobs:
            self.jobs[job.job_id] = job
        if jobs:
            self.current = jobs[-1]
        newest = jobs[-1].job_id if jobs else 0
        self._last_id = self._reserved_until = max(newest, reserved_until)

    def skip_to(self, job_id: int) -> None:
        """Use no ids up to this one."""
        self._last_id = max(self._last_id, job_id)
        self._reserved_until = max(self._reserved_until, job_id)

    def draft(
        self,
        server_nonce: str,
        now: float,
        wall: float,
        *,
        log_position: int | None = None,
        boot_id: str | None = None,
        boot_seconds: float | None = None,
    ) -> Job:
        """Make the next job; it takes effect when it is installed.

        The store should first confirm it, with :attr:`wanted_reservation`. If it cannot, the job
        may still be installed if it is ``covered``. Raises :class:`JobIdsUsedUp`.
        """
        if self._last_id >= LAST_ID:
            raise JobIdsUsedUp(
                f"all job ids up to {LAST_ID} are used up; only a new store and a new log "
                "begin again"
            )
        self._last_id += 1
        return Job(
            self._last_id,
            server_nonce,
            now,
            wall,
            log_position=log_position,
            boot_id=boot_id,
            boot_seconds=boot_seconds,
        )

    @property
    def wanted_reservation(self) -> int:
        """The highest id to reserve with the next save."""
        return self._last_id + RESERVE_AHEAD

    def confirm(self, reserved_until: int) -> None:
        """Note that the ids up to one are known outside this process."""
        self._reserved_until = max(self._reserved_until, reserved_until)

    def covered(self, job: Job) -> bool:
        """Return whether a job's id is safe from reuse after a crash, whether the job is saved or
        not.
        """
        return job.job_id <= self._reserved_until

    def install(self, job: Job, now: float) -> list[Job]:
        """Make a drafted job the current one; returns the jobs retired because of their age."""
        self.jobs[job.job_id] = job
        self.current = job
        return self.trim(now)

    def trim(self, now: float) -> list[Job]:
        """Retire the jobs that exceed the history by age or number; returns them."""
        gone = []
        for job in list(self.jobs.values()):
            old = now - job.created > self.window
            if job is self.current or not (old or len(self.jobs) > self.max_jobs):
                break
            gone.append(self.retire(job))
        return gone

    def relieve(self) -> list[Job]:
        """Retire the oldest jobs early while too many nonces are remembered.

        The current job stays: the caller rotates if the current job alone has too many.
        """
        gone = []
        while self.over_limit and len(self.jobs) > 1:
            # With others behind it, it is not the current one: that comes last.
            gone.append(self.retire(next(iter(self.jobs.values()))))
            self.retired_early += 1
        return gone

    @property
    def remembered(self) -> int:
        """The total of nonces remembered for all jobs."""
        return sum(job.remembered for job in self.jobs.values())

    @property
    def over_limit(self) -> bool:
        """Whether more nonces are remembered than ``max_nonces``."""
        if not self.max_nonces:
            return False
        # Scopes count too: each takes memory. Only accepted submissions make them.
        scopes = sum(len(job.nonces) for job in self.jobs.values())
        return self.remembered + scopes > self.max_nonces

    def retire(self, job: Job) -> Job:
        """Remove a job from the history; its nonces are freed by :meth:`sweep`."""
        del self.jobs[job.job_id]
        if job is self.current:
            self.current = None
        self.retired_nonces += job.remembered
        self._retired.append(job.nonces.dismantle())
        return job

    def sweep(self, at_least: int) -> bool:
        """Free about this many nonces of retired jobs; returns whether more are left."""
        freed = 0
        while self._retired:
            for count in self._retired[0]:
                freed += count
                if freed >= at_least:
                    return True
            del self._retired[0]
        return False
