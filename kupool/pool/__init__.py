"""The pool: sessions, jobs, the judgement of submissions, and the path of an accepted
submission.
"""

from __future__ import annotations

from kupool.pool.interfaces import IEvents, IJobStore
from kupool.pool.saved import SavedJob, SavedJobs
from kupool.pool.topics import ACCEPTED, CLOSED, EVENTS, JOB, OPENED

__all__ = [
    "ACCEPTED",
    "CLOSED",
    "EVENTS",
    "JOB",
    "OPENED",
    "IEvents",
    "IJobStore",
    "SavedJob",
    "SavedJobs",
]
