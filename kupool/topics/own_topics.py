"""The names of the topics that the daemon writes itself. Pure."""

from __future__ import annotations

#: What happens to the daemon.
EVENTS = "events"

#: The accepted submissions.
SUBMISSIONS = "submissions"

__all__ = ["EVENTS", "SUBMISSIONS"]
