"""Keepalive of a client's connection, and detection of dead servers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.net.dialling.deadlines import Look, Reading
from kupool.net.dialling.settings import DialSettings
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.session.running import RunningTime
from kupool.timing.timers import TICK

#: Seconds of delay from which on a timer shows that this process or its reactor was stopped.
PAUSE = 1.0


class KeepAlive:
    """Monitors one connection until it is stopped.

    ``ask`` sends a ping to the server. ``leave`` is called with the reason to end the
    connection: the server was silent for too long, or it reads nothing. Time in which this
    process did not run does not count as silence.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connection: Connection,
        settings: DialSettings,
        *,
        reading: Reading,
        ask: Callable[[], object],
        leave: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._settings = settings
        self._reading = reading
        self._ask = ask
        self._leave = leave
        now = clock.seconds()
        self._next_ping = now + settings.keepalive
        self._stuck_since = now
        self._written = 0
        self._running = RunningTime(clock.seconds, PAUSE)
        self._due = now
        self._call: IDelayedCall | None = None
        self._reads: Look | None = None
        self._schedule()

    def stop(self) -> None:
        """Stop monitoring."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._reads is not None:
            self._reads.cancel()
            self._reads = None

    def _schedule(self) -> None:
        settings, now = self._settings, self._clock.seconds()
        due = now + max(settings.write_timeout / 2, 0.1)
        if settings.keepalive:
            due = min(due, self._next_ping)
        if settings.silence:
            silent = self._running.elapsed(self._connection.last_seen)
            due = min(due, now + settings.silence - silent)
        self._due = max(due, now + TICK)  # where rounding makes it a little early
        self._call = self._clock.callLater(self._due - now, self._look)

    def _look(self) -> None:
        self._call = None
        self._running.fired(self._due)
        self._note_progress()
        if self._trouble():
            self._reads = self._reading.then(lambda _: self._judge())
        else:
            self._go_on()

    def _judge(self) -> None:
        self._reads = None
        self._note_progress()
        trouble = self._trouble()
        if trouble:
            self._leave(trouble)
        else:
            self._go_on()

    def _note_progress(self) -> None:
        connection, now = self._connection, self._clock.seconds()
        if connection.bytes_out != self._written or not connection.outbound:
            self._written, self._stuck_since = connection.bytes_out, now

    def _trouble(self) -> str:
        settings, elapsed = self._settings, self._running.elapsed
        if settings.silence and elapsed(self._connection.last_seen) >= settings.silence:
            return f"the server was silent for {settings.silence:g} s"
        if elapsed(self._stuck_since) >= settings.write_timeout:
            return f"the server read nothing for {settings.write_timeout:g} s"
        return ""

    def _go_on(self) -> None:
        now = self._clock.seconds()
        if self._settings.keepalive and now >= self._next_ping:
            self._next_ping = now + self._settings.keepalive
            if self._connection.state is OPEN:
                self._ask()
        self._schedule()


__all__ = ["PAUSE", "KeepAlive"]
