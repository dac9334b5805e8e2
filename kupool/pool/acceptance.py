"""Batching of accepted submissions: they are written to the log, then answered.

A submission that the judge accepts joins the open batch. The batch closes after a short delay, when
it is full, or when the minute ends. It closes earlier if waiting longer would not help. It is then
appended to the log. When the log confirms that the batch is durable, its submissions are answered
with ``true``. If the append fails, they are answered with ``Temporarily unavailable`` and their
nonces can be used again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import DUPLICATE, UNAVAILABLE, ErrorText
from kupool.log import ILog
from kupool.pool import IEvents
from kupool.pool.jobs import Job
from kupool.pool.session import Session
from kupool.pool.tally import RejectionTally
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters
from kupool.wire.batches import VERSION, Batch, encode_batch
from kupool.wire.messages import RequestId, encode_error, encode_success

#: Seconds between two batches whose time until the answer is measured.
SAMPLE = 0.05

#: Seconds without an answer after which the log counts as unavailable, not only as slow.
UNANSWERED = 2.0


@dataclass(frozen=True)
class BatchSettings:
    """When a batch closes, and how many batches may wait for the log at once.

    ``delay``, in seconds, is the longest time that a batch stays open while fewer than ``pipeline``
    batches wait for the log. When ``pipeline`` batches wait, the log is slow, and more small
    batches would only use up ``in_flight``. The open batch then stays open until it is full or the
    log decides one of the others. If the log has not answered for :data:`UNANSWERED` seconds,
    batches close after ``delay`` again. ``in_flight`` is then used up, and submissions are refused
    instead of kept waiting. With ``peers`` a batch has the session and the peer of each submission.
    """

    delay: float = 0.005
    size: int = 500
    in_flight: int = 100
    pipeline: int = 16
    peers: bool = False


class _Batch:
    """Submissions that become durable together."""

    __slots__ = (
        "at",
        "connections",
        "jobs",
        "message_ids",
        "minute_ends",
        "nonces",
        "read",
        "sent",
        "serial",
        "settled",
        "timer",
        "waiters",
    )

    def __init__(self, serial: int, at: int, began: float, minute_ends: float) -> None:
        self.serial = serial
        self.at = at
        #: When the batch was sent to the log. Until then, and for an instant log, when it was
        #: opened.
        self.sent = began
        self.minute_ends = minute_ends
        #: When its first submission was read, if the time until the answer is measured.
        self.read: float | None = None
        # One submission to each index. Five appends are cheaper than a tuple that
        # has to be taken apart again.
        self.connections: list[Connection] = []
        self.message_ids: list[RequestId] = []
        self.jobs: list[Job] = []
        self.nonces: list[str] = []
        #: Duplicates of submissions in this batch; they are answered when the batch is decided.
        self.waiters: list[tuple[Connection, RequestId]] = []
        #: Callers that wait until the batch is decided; None if there are none.
        self.settled: Waiters[None] | None = None
        self.timer: IDelayedCall | None = None


class Acceptance:
    """Writes accepted submissions to the log and answers them.

    ``instance`` makes the ids of this process's batches unique. ``wall`` returns seconds since the
    epoch. ``events`` is told about each durable batch.

    ``answered`` is called with the seconds from the time at which the first submission of a batch
    was read until it was answered with ``true``; not for each batch, but for at most one that
    begins in :data:`SAMPLE` seconds.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        log: ILog,
        settings: BatchSettings,
        *,
        instance: str,
        events: IEvents,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._store: Any = log
        self._delay = settings.delay
        self._size = settings.size
        self._most = settings.in_flight
        self._pipeline = min(settings.pipeline, settings.in_flight)
        self._peers = settings.peers
        self._instance = instance
        self._serial = 0
        self._open: _Batch | None = None
        #: Whether waiting for more submissions saves nothing.
        self._instant: bool = self._store.instant
        self._watch: IDelayedCall | None = None
        #: Whether the open batch stays open although its delay is over.
        self._held = False
        #: What the last check saw of the open batch, and the size of the last batch.
        self._seen = self._last_size = 0
        #: When a check last saw that the open batch had grown.
        self._grown = 0.0
        #: The seconds that the log took for the last batch.
        self._took = 0.0
        self._in_flight: dict[int, _Batch] = {}
        self.accepted = 0
        #: Submissions refused since the log last accepted a batch.
        self._refused = 0
        #: Counts rejections, both here and in the handlers.
        self.rejections = RejectionTally(wall)
        self.events = events
        self.answered: Callable[[float], object] = _nothing
        self._sample_at = float("-inf")

    @property
    def batches_in_flight(self) -> int:
        """Batches that the log has not confirmed yet."""
        return len(self._in_flight)

    @property
    def undecided(self) -> bool:
        """Whether some submissions are neither durable nor refused yet."""
        return self._open is not None or bool(self._in_flight)

    @property
    def unanswered(self) -> float:
        """Seconds since the oldest unconfirmed batch was sent to the log; 0 if there is none."""
        for batch in self._in_flight.values():  # the oldest comes first
            return max(0.0, self._clock.seconds() - batch.sent)
        return 0.0

    @property
    def used_up(self) -> bool:
        """Whether new submissions are refused because too many batches wait for the log."""
        return len(self._in_flight) >= self._most

    def add(self, connection: Connection, message_id: RequestId, job: Job, nonce: str) -> bool:
        """Add a submission that the judge has just accepted; it is answered later.

        Returns False if too many batches wait for the log already.
        """
        session: Session = connection.context
        now = connection.last_seen
        batch = self._open
        if batch is None or now >= batch.minute_ends:
            batch = self._begin(now, connection)
            if batch is None:
                return False
        nonces = session.nonces if session.job is job else session.begin(job)
        nonces.reserve(nonce, batch.serial)
        job.remembered += 1
        session.last_accepted = now
        session.accepted += 1
        if session.shared:
            for bucket in session.shared:
                bucket.spend(now)
        batch.connections.append(connection)
        batch.message_ids.append(message_id)
        batch.jobs.append(job)
        batch.nonces.append(nonce)
        if len(batch.nonces) >= self._size:
            self._close()
        return True

    def await_verdict(self, connection: Connection, message_id: RequestId, serial: int) -> bool:
        """Answer a duplicate once the batch that used its nonce is decided.

        Returns False if that batch is durable already: the caller then answers that it is a
        duplicate.
        """
        batch = self._in_flight.get(serial)
        if batch is None and self._open is not None and self._open.serial == serial:
            batch = self._open
        if batch is None:
            return False
        batch.waiters.append((connection, message_id))
        return True

    def flush(self) -> None:
        """Close the open batch now, without waiting for more submissions."""
        if self._open is not None:
            self._close()

    def settle(self) -> Deferred[None] | None:
        """Close the open batch; the Deferred fires when all batches are decided."""
        self.flush()
        if not self._in_flight:
            return None
        waiting = len(self._in_flight)
        done: Deferred[None] = Deferred()

        def one(_: object) -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                done.callback(None)

        for batch in self._in_flight.values():
            if batch.settled is None:
                batch.settled = Waiters()
            batch.settled.wait().addCallback(one)
        return done

    def _begin(self, now: float, connection: Connection) -> _Batch | None:
        self.flush()
        if len(self._in_flight) >= self._most:
            return None
        self._serial += 1
        wall = self._wall()
        batch = _Batch(self._serial, int(wall * 1000), now, now + 60.0 - wall % 60.0)
        self._open = batch
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE
            batch.read = now
        self._seen = 0
        if self._instant:
            connection.around.after_turn(self._look)
            return batch
        batch.timer = self._clock.callLater(self._delay, self._due)
        if not self._in_flight:
            self._watch = self._clock.callLater(0, self._look)
        return batch

    def _look(self) -> None:
        """Close the open batch early if no other submission is about to join it.

        Called one reactor turn after a submission joined, and when the log has finished what it was
        writing. While the log is busy there is no hurry. If each turn brings more submissions, more
        are still arriving. If the last batch was larger, more may be: clients that were answered
        together often submit together. To wait for them longer than the log takes for a batch would
        save nothing.
        """
        self._watch = None
        batch = self._open
        if batch is None:
            return  # it was full in the turn in which it was opened
        size = len(batch.nonces)
        if self._instant or (size == self._seen and size >= self._last_size):
            self._close()
            return
        wait, now = 0.0, self._clock.seconds()
        if size > self._seen:
            self._seen, self._grown = size, now
        else:
            wait = self._grown + self._took - now
            if wait <= 0:
                self._close()
                return
        self._watch = self._clock.callLater(wait, self._look)

    def _due(self) -> None:
        """Handle the end of the open batch's delay: close it, unless the log is slow."""
        batch = self._open
        if len(self._in_flight) < self._pipeline or (left := UNANSWERED - self.unanswered) <= 0:
            self._close()
        elif batch is not None:
            self._held = True
            batch.timer = self._clock.callLater(left, self._due)

    def _close(self) -> None:
        batch, self._open = self._open, None
        assert batch is not None
        if batch.timer is not None and batch.timer.active():
            batch.timer.cancel()
        batch.timer = None
        if not self._instant:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
            self._held = False
            batch.sent = self._clock.seconds()
        self._last_size = len(batch.nonces)
        self._in_flight[batch.serial] = batch
        entry = self._entry(batch)
        try:
            appended = self._store.append(entry.batch, encode_batch(entry))
        except BaseException:
            self._failed(Failure(), batch)
            return
        appended.addCallbacks(
            self._durable, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
        ).addErrback(
            lambda failure: self._log.failure(
                "Batch {serial} could not be finished", failure, serial=batch.serial
            )
        )

    def _entry(self, batch: _Batch) -> Batch:
        """Return a batch as an entry of the log."""
        entry = Batch(
            VERSION,
            f"{self._instance}-{batch.serial}",
            batch.at,
            [connection.context.username for connection in batch.connections],
            [job.job_id for job in batch.jobs],
            batch.nonces,
        )
        if self._peers:
            sessions: list[Session] = [connection.context for connection in batch.connections]
            entry.sessions = [session.session_id.hex() for session in sessions]
            entry.peers = [session.peer for session in sessions]
        return entry

    def _durable(self, _: object, batch: _Batch) -> None:
        """Answer every submission of a batch, with one write for each connection."""
        del self._in_flight[batch.serial]
        if not self._instant:
            self._took = self._clock.seconds() - batch.sent
        self.accepted += len(batch.nonces)
        if self._refused:
            self._log.info(
                "The log accepts submissions again; {count} were refused meanwhile",
                count=self._refused,
            )
            self._refused = 0
        connections, message_ids = batch.connections, batch.message_ids
        start, count = 0, len(connections)
        while start < count:
            connection = connections[start]
            end = start + 1
            while end < count and connections[end] is connection:
                end += 1
            message_id = message_ids[start]
            if end - start == 1 and type(message_id) is int:
                connection.send(b'{"id":%d,"result":true}' % message_id)
            else:
                payloads = [encode_success(i) for i in message_ids[start:end] if i is not None]
                if payloads:
                    connection.send_many(payloads)
            start = end
        if batch.read is not None:
            self.answered(self._clock.seconds() - batch.read)
        self._finish(batch, DUPLICATE)
        if self.events.wants_accepted:
            self.events.accepted(partial(self._entry, batch))

    def _failed(self, failure: Failure, batch: _Batch) -> None:
        """Release the nonces of a failed batch, and answer its submissions with the error."""
        del self._in_flight[batch.serial]
        if not self._refused:
            self._log.error(
                "Submissions are refused, because the log cannot store them: {reason}",
                reason=failure.getErrorMessage(),
            )
        self._refused += len(batch.nonces)
        now = self._clock.seconds()
        for connection, message_id, job, nonce in zip(
            batch.connections, batch.message_ids, batch.jobs, batch.nonces, strict=True
        ):
            session: Session = connection.context
            session.accepted -= 1
            session.rejected += 1
            job.nonces.scope(session.scope).release(nonce)
            job.remembered -= 1
            session.last_accepted = float("-inf")
            for bucket in session.shared:
                bucket.refund()
            self.rejections.add(session.username, UNAVAILABLE, now)
            if message_id is not None:
                connection.send(encode_error(message_id, UNAVAILABLE))
        self._finish(batch, UNAVAILABLE)

    def _finish(self, batch: _Batch, error: ErrorText) -> None:
        if batch.waiters:
            now = self._clock.seconds()
            for connection, message_id in batch.waiters:
                self.rejections.add(connection.context.username, error, now)
                if message_id is not None:
                    connection.send(encode_error(message_id, error))
        if batch.settled is not None:
            batch.settled.tell(None)
        if self._open is None or self._instant:
            return
        if self._held:
            if len(self._in_flight) < self._pipeline:
                self._close()
        elif not self._in_flight:
            self._watch = self._clock.callLater(0, self._look)


def _nothing(seconds: float) -> None:
    """Do nothing."""


__all__ = ["SAMPLE", "UNANSWERED", "Acceptance", "BatchSettings"]
