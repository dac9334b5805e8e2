"""The form in which jobs are saved. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SavedJob(NamedTuple):
    """A saved job: ``created_at`` is in seconds since the epoch, UTC.

    All of its submissions are in the log above ``log_position``. It was made ``boot_seconds`` after
    the boot with ``boot_id``. These three are None if an older release, which did not know them,
    saved the job.
    """

    job_id: int
    server_nonce: str
    created_at: float
    log_position: int | None = None
    boot_id: str | None = None
    boot_seconds: float | None = None


class SavedJobs(NamedTuple):
    """What a job store returns at a restart.

    ``reserved_until`` is the highest id that may have been used, saved or not; 0 if the store is
    new.
    """

    jobs: Sequence[SavedJob]
    reserved_until: int


__all__ = ["SavedJob", "SavedJobs"]
