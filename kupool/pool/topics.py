"""The bus topics of the pool's events."""

from __future__ import annotations

#: The topics of the pool's events: the pattern of all, and each one.
EVENTS = "kupool.>"
JOB = "kupool.job"
ACCEPTED = "kupool.submission.accepted"
OPENED = "kupool.session.opened"
CLOSED = "kupool.session.closed"

__all__ = ["ACCEPTED", "CLOSED", "EVENTS", "JOB", "OPENED"]
