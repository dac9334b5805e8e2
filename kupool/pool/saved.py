"""Jobs as they are kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SavedJob(NamedTuple):
    """A job as it is kept: ``created_at`` is in seconds since the epoch, UTC.

    Every submission for it is in the log above ``log_position``. It was made
    ``boot_seconds`` after the boot of that id. All three are None where a release saved it
    that did not know them.
    """

    job_id: int
    server_nonce: str
    created_at: float
    log_position: int | None = None
    boot_id: str | None = None
    boot_seconds: float | None = None


class SavedJobs(NamedTuple):
    """What a job store remembers at a restart.

    ``reserved_until`` is the highest id that may have been given out, saved or not; 0 where
    the store is new.
    """

    jobs: Sequence[SavedJob]
    reserved_until: int


__all__ = ["SavedJob", "SavedJobs"]
