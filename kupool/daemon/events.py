"""The daemon's events, for the topic ``events``: of the pool, and of what is seen by looking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import implementer

from kupool.pool import IEvents, SavedJob
from kupool.pool.events import job_event, session_event
from kupool.pool.session import Session
from kupool.wire.batches import Batch

if TYPE_CHECKING:
    from kupool.topics.events import EventWriter

#: The types of events.
JOB = "job"
OPENED = "session.opened"
CLOSED = "session.closed"
BAN = "ban"
BAN_OVER = "ban.over"
PROBLEM = "problem"
PROBLEM_OVER = "problem.over"
DEAD_LETTERS = "dead_letters"
DEAD_LETTER = "dead_letter"
STARTED = "started"
STOPPING = "stopping"
RELOADED = "reloaded"
NOT_RELOADED = "reload.refused"
ADMIN = "admin"

#: The longest text of a reason, in characters.
LONGEST = 500


@implementer(IEvents)
class TopicEvents:
    """Writes the events of the pool; accepted submissions have a topic of their own."""

    wants_accepted = False

    def __init__(self, writer: EventWriter, wall: Callable[[], float]) -> None:
        self._writer = writer
        self._wall = wall

    def job(self, job: SavedJob) -> None:
        """Write that there is a new job."""
        self._writer.tell(JOB, job_event(job))

    def accepted(self, batch: Callable[[], Batch]) -> None:
        """Do nothing."""

    def opened(self, session: Session, peer: str) -> None:
        """Write that a session has authorized."""
        self._session(OPENED, session, {"peer": peer})

    def closed(self, session: Session, reason: str) -> None:
        """Write that a session has ended, where it came from and since when it was there."""
        more: dict[str, object] = {"reason": reason[:LONGEST], "peer": session.peer}
        if session.since:
            more["since"] = int(session.since * 1000)
        self._session(CLOSED, session, more)

    def _session(self, kind: str, session: Session, more: Mapping[str, object]) -> None:
        event = {**session_event(session, int(self._wall() * 1000)), **more}
        self._writer.tell(kind, event, session.username)


class EventReceiver(Protocol):
    """Is told what happens to the daemon."""

    def tell(self, kind: str, event: Mapping[str, object], key: str = "") -> None:
        """Take an event of a type; does not wait."""


class DaemonNews:
    """Tells what happens to the daemon to all who want to know."""

    def __init__(self, receivers: Iterable[EventReceiver]) -> None:
        self._receivers = tuple(receivers)

    def started(self) -> None:
        """Tell that the daemon runs."""
        self.tell(STARTED, {})

    def stopping(self) -> None:
        """Tell that the daemon begins to stop."""
        self.tell(STOPPING, {})

    def reloaded(self, changed: Sequence[str], restart: Sequence[str]) -> None:
        """Tell which settings a reload has changed, and which need a restart."""
        self.tell(RELOADED, {"changed": changed, "restart": restart})

    def not_reloaded(self, reason: str) -> None:
        """Tell why a reload was refused."""
        self.tell(NOT_RELOADED, {"reason": reason[:LONGEST]})

    def tell(self, kind: str, event: Mapping[str, object], key: str = "") -> None:
        """Tell an event of a type."""
        for receiver in self._receivers:
            receiver.tell(kind, event, key)


class EventWatch:
    """Tells what changes between two looks at the status: bans, problems, dead letters."""

    def __init__(self, receiver: EventReceiver, status: Any) -> None:
        self._receiver = receiver
        self._status = status
        self._bans: set[str] = set()
        self._problems: dict[str, str] = {}
        self._dead_letters = 0

    def look(self) -> None:
        """Look once, and write what has changed."""
        tell = self._receiver.tell
        bans = self._status.bans()
        for address in sorted(bans.keys() - self._bans):
            tell(BAN, {"address": address, "seconds": round(bans[address])})
        for address in sorted(self._bans - bans.keys()):
            tell(BAN_OVER, {"address": address})
        self._bans = set(bans)
        stop = self._status.shutdown()
        ready = [reason for reason in self._status.ready() if reason != stop.phase]
        problems = _by_part([*ready, *self._status.concerns()])
        for part in problems.keys() - self._problems.keys():
            tell(PROBLEM, {"part": part, "reason": problems[part][:LONGEST]})
        for part in self._problems.keys() - problems.keys():
            tell(PROBLEM_OVER, {"part": part})
        self._problems = problems
        if stop.dead_letters > self._dead_letters:
            tell(DEAD_LETTERS, {"waiting": stop.dead_letters})
        self._dead_letters = stop.dead_letters


def _by_part(reasons: Iterable[str]) -> dict[str, str]:
    """Return the first reason of each part: what is before the colon, as in ``log: the disk``.

    The rest of a reason may change with every look.
    """
    found: dict[str, str] = {}
    for reason in reasons:
        part, _, text = reason.partition(": ")
        found.setdefault(part, text)
    return found


__all__ = [
    "ADMIN",
    "BAN",
    "BAN_OVER",
    "CLOSED",
    "DEAD_LETTER",
    "DEAD_LETTERS",
    "JOB",
    "LONGEST",
    "NOT_RELOADED",
    "OPENED",
    "PROBLEM",
    "PROBLEM_OVER",
    "RELOADED",
    "STARTED",
    "STOPPING",
    "DaemonNews",
    "EventReceiver",
    "EventWatch",
    "TopicEvents",
]
