"""Run blocking handlers and functions in threads."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.python.failure import Failure

from kupool.net.routing.steps import RouteStep
from kupool.net.workers.executor import BlockingCall, Executor, ExecutorWorker
from kupool.session.connection import Connection


class Threads(Executor):
    """Calls functions in threads; see :class:`~kupool.net.workers.executor.Executor`.

    It is also middleware: a handler behind it runs in a thread. There it may read its
    arguments and return its answer, but must not call methods of the connection. An
    abandoned thread cannot be stopped: it ends when its function returns, or with the
    process.
    """

    def __call__(self, handler: RouteStep) -> RouteStep:
        """Return a handler that runs in a thread."""

        def threaded(connection: Connection, *message: Any) -> object:
            return self.run(handler, connection, *message)

        threaded.__doc__ = handler.__doc__
        return threaded

    def _start_worker(self) -> ExecutorWorker:
        return _WorkerThread(self)


class _WorkerThread(ExecutorWorker):
    prompt = False

    def __init__(self, executor: Threads) -> None:
        self._executor = executor
        self._inbox: SimpleQueue[BlockingCall | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="kupool-worker", daemon=True)
        self._thread.start()

    def take(self, call: BlockingCall) -> None:
        self._inbox.put(call)

    def stop(self) -> None:
        self._inbox.put(None)

    def abandon(self) -> None:
        self._inbox.put(None)

    def _work(self) -> None:
        while (call := self._inbox.get()) is not None:
            result: object
            try:
                result = call.function(*call.arguments)
            except BaseException:
                result = Failure()
            self._executor.reactor.callFromThread(self._executor.ended, self, result)


__all__ = ["Threads"]
