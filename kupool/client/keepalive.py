"""Signs of life: pings, and the end of a connection that has none."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.client.connection import ClientConnection
from kupool.client.settings import ClientSettings


class KeepAlive:
    """Pings the server of a connection, and ends it when the server is silent.

    ``oldest`` returns when the submission was sent that waits longest for its answer;
    a server that owes one for too long is as good as gone. ``ping`` makes the request
    for the framings that have no opcode for it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connection: ClientConnection,
        settings: ClientSettings,
        oldest: Callable[[], float | None],
        ping: Callable[[], bytes],
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._settings = settings
        self._oldest = oldest
        self._ping = ping
        self._next_ping = clock.seconds() + settings.ping_interval
        self._call: IDelayedCall | None = None
        self._schedule()

    def stop(self) -> None:
        """Watch no longer."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _schedule(self) -> None:
        settings, now = self._settings, self._clock.seconds()
        due = min(
            self._next_ping,
            self._connection.last_heard + settings.silence_timeout,
            # Looking twice in the time allowed costs less than a timer for each answer.
            now + settings.answer_timeout / 2,
        )
        self._call = self._clock.callLater(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._call = None
        settings, now = self._settings, self._clock.seconds()
        oldest = self._oldest()
        if now - self._connection.last_heard >= settings.silence_timeout:
            self._connection.abort(f"the server was silent for {settings.silence_timeout:g} s")
        elif oldest is not None and now - oldest >= settings.answer_timeout:
            self._connection.abort(f"no answer for {settings.answer_timeout:g} s")
        else:
            if now >= self._next_ping:
                self._next_ping = now + settings.ping_interval
                self._connection.ping(self._ping())
            self._schedule()
