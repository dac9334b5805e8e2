"""Threads for handlers and functions that block."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.python.failure import Failure

from kupool.net.routing.steps import RouteStep
from kupool.net.workers.crew import BlockingCall, Crew, Hand
from kupool.session.connection import Connection


class Threads(Crew):
    """Calls functions in threads of its own, as :class:`~kupool.net.workers.crew.Crew` says.

    Also middleware: a handler behind it runs in a thread, where it may read its arguments
    and return its answer, but not call anything of the connection's. An abandoned thread
    cannot be ended from outside: it goes when its function returns, or with the process.
    """

    def __call__(self, handler: RouteStep) -> RouteStep:
        """Return a handler that runs in a thread."""

        def threaded(connection: Connection, *message: Any) -> object:
            return self.run(handler, connection, *message)

        threaded.__doc__ = handler.__doc__
        return threaded

    def _hire(self) -> Hand:
        return _ThreadHand(self)


class _ThreadHand(Hand):
    prompt = False

    def __init__(self, crew: Threads) -> None:
        self._crew = crew
        self._inbox: SimpleQueue[BlockingCall | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="kupool-worker", daemon=True)
        self._thread.start()

    def take(self, call: BlockingCall) -> None:
        self._inbox.put(call)

    def dismiss(self) -> None:
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
            self._crew.reactor.callFromThread(self._crew.ended, self, result)


__all__ = ["Threads"]
