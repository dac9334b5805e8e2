"""The scheduling that threads and processes for blocking calls share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import UNAVAILABLE, RequestError
from kupool.ranges import check, whole
from kupool.timing.waiting import Waiters

_EXPECTED = {"size": whole(1), "queue": whole(), "most_stuck": whole()}


class BlockingCall:
    """A function to call in a worker, and the Deferred of its result."""

    __slots__ = ("arguments", "deferred", "function", "worker")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.deferred: Deferred[Any] | None = None
        self.worker: ExecutorWorker | None = None


class ExecutorWorker(ABC):
    """A thread or process that runs one call at a time.

    With ``prompt`` it ends as soon as it is stopped, and then calls ``Executor.gone``.
    Without, it may continue its call, and calls ``Executor.gone`` at the end of it.
    """

    prompt: bool

    @abstractmethod
    def take(self, call: BlockingCall) -> None:
        """Start a call; ``Executor.ended`` is called with its result."""

    @abstractmethod
    def stop(self) -> None:
        """End; called when no call is running."""

    @abstractmethod
    def abandon(self) -> None:
        """End; called while a call is running that was abandoned."""


class Executor(ABC):
    """Runs blocking calls in up to ``size`` workers, which are started on demand.

    Cancelling the Deferred of a call abandons the call, and a new worker replaces its
    worker. So a timeout of a worker pool also works here. At most ``most_stuck`` abandoned
    calls may be running; beyond that there are fewer workers until some of those calls end.
    At most ``queue`` calls wait.

    Calls fail with :class:`RequestError` if the queue is full, if all workers are stuck,
    and if no worker is running and the system cannot start one.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, size: int = 4, *, queue: int = 1024, most_stuck: int = 16
    ) -> None:
        check(_EXPECTED, size=size, queue=queue, most_stuck=most_stuck)
        self.reactor = reactor
        self._size = size
        self._queue = queue
        self._most_stuck = most_stuck
        self._idle: list[ExecutorWorker] = []
        self._busy: dict[ExecutorWorker, BlockingCall] = {}
        self._stuck: set[ExecutorWorker] = set()
        self._leaving: set[ExecutorWorker] = set()
        self._waiting: deque[BlockingCall] = deque()
        self._stopping = False
        self._emptied = Waiters[None]()

    @property
    def stuck(self) -> int:
        """Number of abandoned calls that have not ended."""
        return len(self._stuck)

    @abstractmethod
    def _start_worker(self) -> ExecutorWorker:
        """Start another worker."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function in a worker; fires with its result or exception.

        Cancelling the Deferred abandons the call.
        """
        worker = None if self._stopping else self._free_worker()
        room = self._busy and len(self._waiting) < self._queue
        if self._stopping or (worker is None and not room):
            return fail(RequestError(UNAVAILABLE))
        call = BlockingCall(function, arguments)
        call.deferred = Deferred(lambda deferred: self._cancelled(call))
        result = call.deferred
        if worker is None:
            self._waiting.append(call)
        else:
            self._give(worker, call)
        return result

    def _free_worker(self) -> ExecutorWorker | None:
        if self._idle:
            return self._idle.pop()
        workers = len(self._busy)
        if workers < self._size and workers + len(self._stuck) < self._size + self._most_stuck:
            try:
                return self._start_worker()
            except Exception:  # the system has no thread, process or descriptor left
                self._log.failure("A worker could not be started")
        return None

    def _give(self, worker: ExecutorWorker, call: BlockingCall) -> None:
        self._busy[worker] = call
        call.worker = worker
        worker.take(call)

    def _cancelled(self, call: BlockingCall) -> None:
        call.deferred = None
        worker, call.worker = call.worker, None
        if worker is None:
            self._waiting.remove(call)
        elif self._busy.pop(worker, None) is not None:
            (self._leaving if worker.prompt else self._stuck).add(worker)
            worker.abandon()
            self._go_on()

    def ended(self, worker: ExecutorWorker, result: object, *, alive: bool = True) -> None:
        """Take the result of a call; its worker calls this in the reactor's thread."""
        call = self._busy.pop(worker, None)
        if call is None:
            self.gone(worker)
            return
        call.worker = None
        if not alive:
            pass
        elif self._stopping:
            self._stop_worker(worker)
        else:
            self._idle.append(worker)
        self._go_on()
        deferred, call.deferred = call.deferred, None
        if deferred is not None:
            deferred.callback(result)

    def gone(self, worker: ExecutorWorker) -> None:
        """Remove a worker that has ended; an idle or abandoned worker calls this."""
        self._stuck.discard(worker)
        self._leaving.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and (worker := self._free_worker()) is not None:
            self._give(worker, self._waiting.popleft())
        if self._waiting and not self._busy:
            self._refuse_waiting()  # every worker is stuck
        if not self._busy and not self._leaving:
            self._emptied.tell(None)

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            deferred, call.deferred = call.deferred, None
            if deferred is not None:
                deferred.callback(Failure(RequestError(UNAVAILABLE)))

    async def stop(self, deadline: float = 10.0) -> int:
        """Refuse waiting calls, and wait for running ones; returns how many were abandoned.

        Calls that have not ended after ``deadline`` seconds are abandoned; they fail as
        cancelled.
        """
        self._stopping = True
        idle, self._idle = self._idle, []
        for worker in idle:
            self._stop_worker(worker)
        self._refuse_waiting()
        if not self._busy and not self._leaving:
            return 0
        emptied = self._emptied.wait()
        left: list[BlockingCall] = []
        late = self.reactor.callLater(deadline, self._abandon_all, left)
        await emptied
        if late.active():
            late.cancel()
        return len(left)

    def _stop_worker(self, worker: ExecutorWorker) -> None:
        if worker.prompt:
            self._leaving.add(worker)
        worker.stop()

    def _abandon_all(self, left: list[BlockingCall]) -> None:
        for worker in self._leaving:
            worker.abandon()
        left += self._busy.values()
        for call in left:
            if call.deferred is not None:
                call.deferred.cancel()


__all__ = ["BlockingCall", "Executor", "ExecutorWorker"]
