"""Events of the pool: what they say, and who is told: a message bus, several, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from kupool.bus import IBus
from kupool.pool import ACCEPTED, CLOSED, JOB, OPENED, IEvents, SavedJob
from kupool.pool.session import Session
from kupool.wire.batches import Batch
from kupool.wire.submissions import accepted_of

#: Headers of every event, besides ``trace-id``, which is the event's own id.
HEADERS = {"content-type": "application/json"}


def job_event(job: SavedJob) -> dict[str, object]:
    """Return what is said about a new job."""
    at = int(job.created_at * 1000)
    return {"job_id": job.job_id, "server_nonce": job.server_nonce, "at": at}


def session_event(session: Session, at: int) -> dict[str, object]:
    """Return what is said about a session; ``at`` is in milliseconds since the epoch."""
    return {"session": session.session_id.hex(), "username": session.username, "at": at}


@implementer(IEvents)
class NoEvents:
    """Publishes nothing."""

    wants_accepted = False

    def job(self, job: SavedJob) -> None:
        """Do nothing."""

    def accepted(self, batch: Callable[[], Batch]) -> None:
        """Do nothing."""

    def opened(self, session: Session, peer: str) -> None:
        """Do nothing."""

    def closed(self, session: Session, reason: str) -> None:
        """Do nothing."""


@implementer(IEvents)
class BusEvents:
    """Publishes events on a bus. An event without subscribers is not encoded at all.

    ``listening`` returns whether a topic may have subscribers. ``max_data`` is the size limit of a
    message in bytes. ``wall`` returns seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self,
        bus: IBus,
        listening: Callable[[str], object],
        max_data: int,
        wall: Callable[[], float],
    ) -> None:
        self._bus: Any = bus
        self._listening = listening
        self._max_data = max_data
        self._wall = wall
        self.wants_accepted = True

    def look(self) -> None:
        """Find out whether accepted submissions have subscribers.

        For a bus that reports changes of its subscribers. While there are none, submissions cost
        nothing extra.
        """
        self.wants_accepted = bool(self._listening(ACCEPTED))

    def job(self, job: SavedJob) -> None:
        """Publish that there is a new job."""
        if self._listening(JOB):
            self._publish(JOB, f"job/{job.job_id}", msgspec.json.encode(job_event(job)))

    def accepted(self, batch: Callable[[], Batch]) -> None:
        """Publish the submissions of a batch, in as few messages as possible."""
        if self._listening(ACCEPTED):
            made = batch()
            for data in accepted_events(made, self._max_data):
                self._publish(ACCEPTED, made.batch, data)

    def opened(self, session: Session, peer: str) -> None:
        """Publish that a session has authorized."""
        if self._listening(OPENED):
            self._session(OPENED, session, {"peer": peer})

    def closed(self, session: Session, reason: str) -> None:
        """Publish that a session has ended."""
        if self._listening(CLOSED):
            self._session(CLOSED, session, {"reason": reason})

    def _session(self, topic: str, session: Session, more: dict[str, str]) -> None:
        event = {**session_event(session, int(self._wall() * 1000)), **more}
        self._publish(topic, session.session_id.hex(), msgspec.json.encode(event))

    def _publish(self, topic: str, event_id: str, data: bytes) -> None:
        headers = {**HEADERS, "trace-id": event_id}
        try:
            sent: Deferred[object] = self._bus.publish_unreliable_all(data, topic, headers=headers)
        except ValueError:
            self._log.failure("An event of topic {topic} could not be published", topic=topic)
            return
        sent.addErrback(
            lambda failure: self._log.failure("An event could not be published", failure)
        )


@implementer(IEvents)
class ManyEvents:
    """Tells several receivers, one after the other; one that raises affects nobody else."""

    _log = Logger()

    def __init__(self, receivers: Sequence[IEvents]) -> None:
        self._receivers: Sequence[Any] = receivers

    @property
    def wants_accepted(self) -> bool:
        """Whether one of them wants accepted submissions."""
        return any(each.wants_accepted for each in self._receivers)

    def job(self, job: SavedJob) -> None:
        """Tell that there is a new job."""
        self._tell_all(lambda each: each.job(job))

    def accepted(self, batch: Callable[[], Batch]) -> None:
        """Tell those who want it about the submissions of a batch."""
        self._tell_all(lambda each: each.wants_accepted and each.accepted(batch))

    def opened(self, session: Session, peer: str) -> None:
        """Tell that a session has authorized."""
        self._tell_all(lambda each: each.opened(session, peer))

    def closed(self, session: Session, reason: str) -> None:
        """Tell that a session has ended."""
        self._tell_all(lambda each: each.closed(session, reason))

    def _tell_all(self, tell: Callable[[Any], object]) -> None:
        for each in self._receivers:
            try:
                tell(each)
            except Exception:
                self._log.failure("An event of the pool could not be told")


def accepted_events(batch: Batch, max_data: int) -> Iterator[bytes]:
    """Yield the messages about a batch, each of at most ``max_data`` bytes.

    Each is ``{"batch":ID,"at":MS,"submissions":[{"id":"ID/0","username":..,"job_id":..,
    "client_nonce":..},..]}``; ``at`` is when the batch was opened.
    """
    head = b'{"batch":%b,"at":%d,"submissions":[' % (msgspec.json.encode(batch.batch), batch.at)
    tail = b"]}"
    rows: list[bytes] = []
    size = least = len(head) + len(tail)
    for submission in accepted_of(batch):
        row = msgspec.json.encode(submission)
        if rows and size + len(row) > max_data:  # the first row has no comma
            yield head + b",".join(rows) + tail
            rows, size = [], least
        rows.append(row)
        size += len(row) + 1
    if rows:
        yield head + b",".join(rows) + tail


__all__ = [
    "BusEvents",
    "ManyEvents",
    "NoEvents",
    "accepted_events",
    "job_event",
    "session_event",
]
