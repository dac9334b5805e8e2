"""Hooks for the start and the end of a connection.

The first message waits until the start hook has finished. The stop hook runs exactly once,
with the reason. It can still send, unless the connection was lost without a close.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.callbacks import attempt
from kupool.errors import CloseReason
from kupool.net.interfaces import IClosingObserver
from kupool.net.observer import Observer
from kupool.net.routing.interfaces import IRouter
from kupool.session.connection import Connection

#: May return a coroutine or a Deferred, which the first message waits for. If it
#: fails, the connection is aborted, and its stop hook does not run.
StartHook = Callable[[Connection], object]

#: Why a connection ends: a close from this side, or the failure of the transport. A peer
#: that has finished sending is a :class:`ConnectionDone`.
EndReason = CloseReason | Failure

#: May return a coroutine or a Deferred. The close waits for it for at most the
#: write timeout of the server, and then cancels it.
StopHook = Callable[[Connection, EndReason], object]


@implementer(IClosingObserver)
class HookedObserver(Observer):
    """Gives every connection the same router, and runs hooks at its start and its end."""

    _log = Logger()

    def __init__(
        self,
        router: IRouter,
        on_start: StartHook | None = None,
        on_stop: StopHook | None = None,
    ) -> None:
        super().__init__(router)
        self._on_start = on_start
        self._on_stop = on_stop
        #: Connections whose stop hook has not run, and the Deferreds of their start hooks.
        self._started: dict[int, Deferred[object] | None] = {}

    def set_on_conn_start(self, hook: StartHook | None) -> None:
        """Set the hook that runs before the first message of each connection."""
        self._on_start = hook

    def set_on_conn_stop(self, hook: StopHook | None) -> None:
        """Set the hook that runs when a connection ends."""
        self._on_stop = hook

    def opened(self, connection: Connection) -> None:
        """Set the router, and run the start hook."""
        super().opened(connection)
        self.call_on_conn_start(connection)

    def closing(
        self, connection: Connection, reason: CloseReason | None
    ) -> Deferred[object] | None:
        """Run the stop hook, while the connection can still send."""
        ended = Failure(ConnectionDone()) if reason is None else reason
        return self.call_on_conn_stop(connection, ended)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Run the stop hook of a connection that was lost."""
        self.call_on_conn_stop(connection, reason)

    def call_on_conn_start(self, connection: Connection) -> None:
        """Run the start hook; messages wait until it has finished. Raises what it raises."""
        started = None if self._on_start is None else attempt(self._on_start, connection)
        if isinstance(started, Failure):
            started.raiseException()
        if not isinstance(started, Deferred):
            self._started[connection.id] = None
            return
        self._started[connection.id] = started
        connection.hold()
        started.addCallbacks(
            lambda result: self._ready(connection),
            lambda failure: self._failed(failure, connection),
        )

    def _ready(self, connection: Connection) -> None:
        if connection.id in self._started:
            self._started[connection.id] = None
            connection.release()

    def _failed(self, failure: Failure, connection: Connection) -> None:
        if failure.check(CancelledError) and connection.id not in self._started:
            return  # the connection ended first
        self._log.failure("The start hook of connection {id} failed", failure, id=connection.id)
        self._started.pop(connection.id, None)
        connection.abort()

    def call_on_conn_stop(
        self, connection: Connection, reason: EndReason
    ) -> Deferred[object] | None:
        """Run the stop hook, unless it has already run; its exceptions are logged.

        Returns a Deferred of its end if it is asynchronous.
        """
        if connection.id not in self._started:
            return None
        starting = self._started.pop(connection.id)
        if starting is not None:
            starting.cancel()
        if self._on_stop is None:
            return None
        stopped = attempt(self._on_stop, connection, reason)
        if isinstance(stopped, Failure):
            self._stop_failed(stopped, connection)
        if not isinstance(stopped, Deferred):
            return None
        return stopped.addErrback(self._stop_failed, connection)

    def _stop_failed(self, failure: Failure, connection: Connection) -> None:
        self._log.failure("The stop hook of connection {id} failed", failure, id=connection.id)


__all__ = ["EndReason", "HookedObserver", "StartHook", "StopHook"]
