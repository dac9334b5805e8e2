"""What a worker pool is made of: a message on its way, and the worker that has it."""

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
    """One message and the handler that it is for."""

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
        #: What the router waits for, once there is something to wait for.
        self.done: Deferred[Any] | None = None
        #: Ends the handler when its time is over.
        self.timer: IDelayedCall | None = None

    @property
    def label(self) -> str:
        """The method or the id of the message."""
        return label_of(self.message)

    def begin(self) -> object:
        """Call the handler; returns the outcome, or a Deferred of it. Raises what it does."""
        return self.run(self._begin)

    def _begin(self) -> object:
        outcome = self.handler(self.connection, *self.message)
        return deferred_of(outcome) if awaited(outcome) else outcome

    def cancel_timer(self) -> None:
        """Let the handler take as long as it does."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def settle(self, result: object) -> None:
        """Hand on the outcome, or the Failure."""
        self.cancel_timer()
        done, self.done = self.done, None
        if done is not None:
            done.callback(result)


class QueueWorker:
    """Handles up to ``slots`` messages at a time, the others queue."""

    __slots__ = ("queue", "running", "slots", "turning", "waiting")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        #: Messages whose handlers have not ended.
        self.running: dict[QueuedMessage, Deferred[object]] = {}
        self.queue: deque[QueuedMessage] = deque()
        #: Messages that wait for a place in the queue, and the end of their patience.
        self.waiting: dict[QueuedMessage, IDelayedCall] = {}
        #: Whether a handler is being called just now, or must not be.
        self.turning = False

    @property
    def free(self) -> bool:
        """Whether one more message can be handled."""
        return len(self.running) < self.slots

    @property
    def idle(self) -> bool:
        """Whether a message that comes now can be handled now."""
        return not (self.turning or self.queue or self.waiting) and self.free

    @property
    def load(self) -> int:
        """Messages in its hands, in its queue, and before it."""
        return len(self.running) + len(self.queue) + len(self.waiting)


__all__ = ["QueueWorker", "QueuedMessage"]
