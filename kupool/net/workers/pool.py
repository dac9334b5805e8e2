"""Worker pools: queues in front of handlers, so that a slow handler delays only its own queue.

A pool is middleware of a router. Each worker handles one message at a time from its own
queue, and takes the next one when the handler's Deferred or coroutine has ended. Handlers
run in the reactor's thread. For blocking handlers see :mod:`kupool.net.workers.threads` and
:mod:`kupool.net.workers.processes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import TIMEOUT, UNAVAILABLE, CloseReason
from kupool.net.routing.request import LATER
from kupool.net.routing.steps import RouteStep
from kupool.net.stopping import caller_waits
from kupool.net.workers.queue import QueuedMessage, QueueWorker
from kupool.net.workers.settings import Balance, Drained, Full, WorkerSettings
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters

#: Most messages that one worker takes in one reactor turn.
TURN = 100

#: The close of a connection whose queue is full. The wire contract gives it no
#: code of its own, so it has the code of its error text.
CLOSE_UNAVAILABLE = CloseReason(UNAVAILABLE.code, UNAVAILABLE.text, True)


class WorkerPool:
    """Distributes messages to workers. Use it as middleware: ``router.use(WorkerPool(reactor))``.

    ``key`` gets the arguments of the handler. It is required for ``by-key`` and unused
    otherwise: messages with equal keys go to the same worker. Raises :class:`ValueError` if
    it is missing.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: WorkerSettings | None = None,
        *,
        key: Callable[..., Hashable] | None = None,
    ) -> None:
        self.settings = settings or WorkerSettings()
        #: ``handled``, ``timeout``, ``late``; messages that found the queue full, as
        #: ``reject``, ``close``, ``drop``; ``stopped``, messages that came after the stop.
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._key = key
        self._full = Full(self.settings.full)
        self._balance = Balance(self.settings.balance)
        if self._balance is Balance.BY_KEY and key is None:
            raise ValueError("by-key needs a key")
        size = self.settings.size
        self._workers = (
            [QueueWorker(1) for _ in range(size)]
            if size
            else [QueueWorker(self.settings.concurrency)]
        )
        self._last = -1
        self._stuck: set[QueuedMessage] = set()
        #: Messages whose handlers wait for this stop.
        self._aside: set[QueuedMessage] = set()
        self._stopping = False
        self._emptied: Deferred[None] | None = None
        self._drained = Waiters[Drained]()
        self._report: Drained | None = None

    @property
    def loads(self) -> list[int]:
        """Number of each worker's messages: running, queued or waiting for a place."""
        return [worker.load for worker in self._workers]

    @property
    def stuck(self) -> int:
        """Number of handlers that timed out, were cancelled, and have not ended."""
        return len(self._stuck)

    # -- queueing

    def __call__(self, handler: RouteStep) -> RouteStep:
        """Return a handler whose messages go through the pool."""

        def queued(connection: Connection, *message: Any) -> object:
            return self.submit(handler, connection, *message)

        queued.__doc__ = handler.__doc__
        return queued

    def submit(self, handler: RouteStep, connection: Connection, *message: Any) -> object:
        """Assign a message to a worker; returns the outcome, or a Deferred of it."""
        if self._stopping:
            self.counters["stopped"] += 1
            return UNAVAILABLE
        worker = self._choose(connection, message)
        job = QueuedMessage(handler, connection, message, self._waits_for_a_stop)
        if worker.idle:
            return self._at_once(worker, job)
        done: Deferred[Any] = Deferred()
        job.done = done
        if worker.waiting or len(worker.queue) >= self.settings.queue:
            self._no_room(worker, job)
        else:
            worker.queue.append(job)
        return done

    def _choose(self, connection: Connection, message: tuple[Any, ...]) -> QueueWorker:
        workers = self._workers
        if self._balance is Balance.ROUND_ROBIN:
            self._last = number = (self._last + 1) % len(workers)
            return workers[number]
        if self._balance is Balance.BY_CONNECTION:
            return workers[connection.id % len(workers)]
        if self._balance is Balance.BY_KEY:
            assert self._key is not None
            return workers[hash(self._key(connection, *message)) % len(workers)]
        return min(workers, key=lambda worker: worker.load)

    def _no_room(self, worker: QueueWorker, job: QueuedMessage) -> None:
        wait = self.settings.wait
        if not wait:
            self._overflow(job)
            return
        # A connection has at most one message that waits: it is held until then.
        job.connection.hold()
        worker.waiting[job] = self._clock.callLater(wait, self._waited, worker, job)

    def _waited(self, worker: QueueWorker, job: QueuedMessage) -> None:
        del worker.waiting[job]
        self._overflow(job)
        job.connection.release()

    def _overflow(self, job: QueuedMessage) -> None:
        self.counters[self._full.value] += 1
        if self._full is Full.REJECT:
            job.settle(UNAVAILABLE)
        else:
            if self._full is Full.CLOSE:
                job.connection.close(CLOSE_UNAVAILABLE)
            job.settle(LATER)

    # -- handling

    def _at_once(self, worker: QueueWorker, job: QueuedMessage) -> object:
        """Handle a message without queueing, and without a Deferred if none is needed."""
        worker.turning = True
        try:
            outcome = job.begin()
        finally:
            worker.turning = False
            self.counters["handled"] += 1
            if worker.queue:
                self._clock.callLater(0, self._go_on, worker)
        if not isinstance(outcome, Deferred):
            return outcome
        done: Deferred[Any] = Deferred()
        job.done = done
        self._follow(worker, job, outcome)
        return done

    def _follow(self, worker: QueueWorker, job: QueuedMessage, work: Deferred[object]) -> None:
        """Wait for the end of a handler, for at most the timeout."""
        if job.waits_for_a_stop and self._stopping:
            self._aside.add(job)
        else:
            worker.running[job] = work
        if self.settings.timeout and not job.waits_for_a_stop:
            job.timer = self._clock.callLater(
                self.settings.timeout, self._timed_out, worker, job, work
            )
        work.addBoth(self._ended, worker, job)

    def _ended(self, result: object, worker: QueueWorker, job: QueuedMessage) -> None:
        if job in self._aside:
            self._aside.discard(job)
            job.settle(result)
            return
        if job not in worker.running:
            self._stuck.discard(job)
            if isinstance(result, Failure) and not result.check(CancelledError):
                self._log.failure(
                    "Message {label} failed after its timeout", result, label=job.label
                )
            self.counters["late"] += not isinstance(result, Failure)
            return
        del worker.running[job]
        job.settle(result)
        self._go_on(worker)

    def _timed_out(self, worker: QueueWorker, job: QueuedMessage, work: Deferred[object]) -> None:
        self.counters["timeout"] += 1
        self._log.warn(
            "Message {label} of connection {connection} took longer than {timeout} s",
            label=job.label,
            connection=job.connection.id,
            timeout=self.settings.timeout,
        )
        self._cut_off(worker, job, work)
        job.settle(TIMEOUT)
        self._go_on(worker)

    def _cut_off(self, worker: QueueWorker, job: QueuedMessage, work: Deferred[object]) -> None:
        """Cancel a handler, and stop waiting for it."""
        del worker.running[job]
        self._stuck.add(job)
        try:
            work.cancel()
        except BaseException:  # the canceller failed: do not wait for the handler anyway
            self._log.failure("Message {label} could not be cancelled", label=job.label)

    def _go_on(self, worker: QueueWorker) -> None:
        """Handle queued messages of this worker, as many as it has free slots."""
        if worker.turning:
            return
        worker.turning = True
        taken = 0
        try:
            while worker.free and worker.queue:
                if taken == TURN:
                    self._clock.callLater(0, self._go_on, worker)
                    break
                taken += 1
                job = worker.queue.popleft()
                self._let_in(worker)
                self._take(worker, job)
        finally:
            worker.turning = False
        self._perhaps_emptied()

    def _let_in(self, worker: QueueWorker) -> None:
        """Move waiting messages into the queue while it has room."""
        while worker.waiting and len(worker.queue) < self.settings.queue:
            job = next(iter(worker.waiting))
            worker.waiting.pop(job).cancel()
            worker.queue.append(job)
            job.connection.release()

    def _take(self, worker: QueueWorker, job: QueuedMessage) -> None:
        self.counters["handled"] += 1
        try:
            outcome = job.begin()
        except BaseException:  # SystemExit must not stop the worker either
            job.settle(Failure())
            return
        if isinstance(outcome, Deferred):
            self._follow(worker, job, outcome)
        else:
            job.settle(outcome)

    # -- stopping

    def _waits_for_a_stop(self, job: QueuedMessage) -> None:
        """Called when a handler waits for a stop: a stop of this pool then does not wait for it."""
        job.cancel_timer()  # the timeout would also cancel that stop
        if self._stopping and self._report is None:
            self._put_aside(job)

    def _put_aside(self, job: QueuedMessage) -> None:
        """Stop waiting for a handler, which goes on."""
        for worker in self._workers:
            if worker.running.pop(job, None) is not None:
                self._aside.add(job)
                self._go_on(worker)
        self._perhaps_emptied()

    def _perhaps_emptied(self) -> None:
        if self._emptied is not None and not any(self.loads):
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    def settled(self, connection: Connection) -> Deferred[None] | None:
        """Return what an observer's ``settle`` returns, for a peer that has finished sending.

        It fires when all messages of the connection have been handled. Returns None if it
        has none.
        """
        jobs = [job for w in self._workers for job in (*w.running, *w.queue, *w.waiting)]
        left = {job for job in jobs if job.connection is connection and job.done is not None}
        if not left:
            return None
        done: Deferred[None] = Deferred()

        def ended(result: object, job: QueuedMessage) -> object:
            left.discard(job)
            if not left:
                done.callback(None)
            return result

        for job in list(left):
            if job.done is not None:
                # The router's own callback ran first, so the answer has been sent.
                job.done.addBoth(ended, job)
        return done

    async def stop(self, deadline: float = 10.0) -> Drained:
        """Refuse new messages, handle the queued ones, and report what was dropped.

        Handlers that have not ended after ``deadline`` seconds are cancelled, and queued
        messages are dropped; their peers are answered ``Temporarily unavailable``. It may
        be called more than once, also by a handler of this pool. The stop does not wait for
        a handler that waits for this stop or for the stop of its server; that handler goes
        on afterwards.
        """
        with caller_waits():
            return await self._stop(deadline)

    async def _stop(self, deadline: float) -> Drained:
        if self._report is not None:
            return self._report
        if self._stopping:
            return await self._drained.wait()
        self._stopping = True
        for worker in self._workers:
            for job in [job for job in worker.running if job.waits_for_a_stop]:
                self._put_aside(job)
        before = sum(self.loads)
        if before:
            emptied: Deferred[None] = Deferred()
            self._emptied = emptied
            late = self._clock.callLater(deadline, self._give_up)
            await emptied
            if late.active():
                late.cancel()
        dropped = self._drop()
        self._report = Drained(before - dropped.total(), dropped)
        if dropped:
            self._log.warn("Messages dropped at the stop: {dropped}", dropped=dict(dropped))
        self._drained.tell(self._report)
        return self._report

    def _give_up(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied.callback(None)

    def _drop(self) -> Counter[str]:
        dropped: Counter[str] = Counter()
        for worker in self._workers:
            worker.turning = True  # no message is started from here on
            left = [*worker.running, *worker.queue, *worker.waiting]
            for job, work in list(worker.running.items()):
                self._cut_off(worker, job, work)
            for job, timer in worker.waiting.items():
                timer.cancel()
                job.connection.release()
            worker.queue.clear()
            worker.waiting.clear()
            for job in left:
                dropped[job.label] += 1
                job.settle(UNAVAILABLE)
        return dropped


__all__ = [
    "CLOSE_UNAVAILABLE",
    "Balance",
    "Drained",
    "Full",
    "WorkerPool",
    "WorkerSettings",
]
