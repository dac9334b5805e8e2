"""Run blocking handlers and functions in threads."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread, get_native_id
from typing import Any

from twisted.python.failure import Failure

from kupool.net.routing.steps import RouteStep
from kupool.net.workers.executor import BlockingCall, Executor, ExecutorWorker
from kupool.session.connection import Connection

#: How much nicer than the reactor's thread a background thread is: it gets about a tenth of a
#: processor that both want. More could stop the reactor on a machine that is full of other work,
#: because a thread that waits for the processor may hold the interpreter's lock.
NICER = 10


class Threads(Executor):
    """Calls functions in threads; see :class:`~kupool.net.workers.executor.Executor`.

    It is also middleware: a handler behind it runs in a thread. There it may read its
    arguments and return its answer, but must not call methods of the connection. An
    abandoned thread cannot be stopped: it ends when its function returns, or with the
    process.

    ``background`` threads leave the processor to the reactor's thread where both want it, on
    Linux. It is for long calculations that release the interpreter's lock, such as of a hash.
    """

    def __init__(
        self,
        reactor: Any,
        size: int = 4,
        *,
        queue: int = 1024,
        most_stuck: int = 16,
        background: bool = False,
    ) -> None:
        super().__init__(reactor, size, queue=queue, most_stuck=most_stuck)
        self._background = background

    def __call__(self, handler: RouteStep) -> RouteStep:
        """Return a handler that runs in a thread."""

        def threaded(connection: Connection, *message: Any) -> object:
            return self.run(handler, connection, *message)

        threaded.__doc__ = handler.__doc__
        return threaded

    def _start_worker(self) -> ExecutorWorker:
        return _WorkerThread(self, self._background)


class _WorkerThread(ExecutorWorker):
    prompt = False

    def __init__(self, executor: Threads, background: bool) -> None:
        self._executor = executor
        self._background = background
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
        if self._background and sys.platform == "linux":  # where threads have their own priority
            with suppress(OSError):
                mine = get_native_id()
                os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + NICER)
        while (call := self._inbox.get()) is not None:
            result: object
            try:
                result = call.function(*call.arguments)
            except BaseException:
                result = Failure()
            self._executor.reactor.callFromThread(self._executor.ended, self, result)


__all__ = ["NICER", "Threads"]
