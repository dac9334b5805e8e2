"""The parts of a worker pool: a queued message, and a worker with its queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from kupool.callbacks import awaited, deferred_of
from kupool.net.routing.steps import RouteStep, label_of
from kupool.net.stopping import Work
from kupool.session.connection import Connection


class QueuedMessage(Work):
    """A message and its handler."""

    __slots__ = ("connection", "done", "handler", "message", "timer")

    def __init__(
        self,
        handler: RouteStep,
        connection: Connection,
        message: tuple[Any, ...],
        waits: Callable[[QueuedMessage], object],
    ) -> None:
        super().__init__(waits)
        self.handler = handler
        self.connection = connection
        self.message = message
        #: The Deferred that the router waits for, if the message was not handled at once.
        self.done: Deferred[Any] | None = None
        #: The timeout of the handler.
        self.timer: IDelayedCall | None = None

    @property
    def label(self) -> str:
        """The method or the id of the message."""
        return label_of(self.message)

    def begin(self) -> object:
        """Call the handler; returns the outcome, or a Deferred of it. Raises what it raises."""
        return self.run(self._begin)

    def _begin(self) -> object:
        outcome = self.handler(self.connection, *self.message)
        return deferred_of(outcome) if awaited(outcome) else outcome

    def cancel_timer(self) -> None:
        """Cancel the timeout of the handler."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def settle(self, result: object) -> None:
        """Fire the Deferred with the outcome or Failure."""
        self.cancel_timer()
        done, self.done = self.done, None
        if done is not None:
            done.callback(result)


class QueueWorker:
    """Handles up to ``slots`` messages at a time, and queues the others."""

    __slots__ = ("queue", "running", "slots", "turning", "waiting")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        #: Messages whose handlers are running.
        self.running: dict[QueuedMessage, Deferred[object]] = {}
        self.queue: deque[QueuedMessage] = deque()
        #: Messages that wait for a place in the queue, and their timeouts.
        self.waiting: dict[QueuedMessage, IDelayedCall] = {}
        #: Whether a handler is being called now, or must not be called.
        self.turning = False

    @property
    def free(self) -> bool:
        """Whether it can handle one more message."""
        return len(self.running) < self.slots

    @property
    def idle(self) -> bool:
        """Whether it can handle a new message at once."""
        return not (self.turning or self.queue or self.waiting) and self.free

    @property
    def load(self) -> int:
        """Number of messages: running, queued and waiting for a place."""
        return len(self.running) + len(self.queue) + len(self.waiting)


__all__ = ["QueueWorker", "QueuedMessage"]
