"""Identification: asks the application whose connection it is, from its first message."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kupool.errors import NOT_FOUND, RequestError
from kupool.rooms.running import Running
from kupool.session.connection import Connection


class Identification:
    """Identifies the user of a connection, whose messages are held meanwhile.

    ``parsed`` is called with the result of ``parse``, or a Failure.
    """

    def __init__(
        self, clock: IReactorTime, connection: Connection, parsed: Callable[[object], None]
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._parsed = parsed
        self._done = self._held = False

    def start(self, parse: Callable[[], object], timeout: float) -> None:
        """Call ``parse``, which may take ``timeout`` seconds (0: no limit)."""
        Running(self._end).start(parse, self._clock, timeout)
        if not self._done:
            self._held = True
            self._connection.hold()

    def _end(self, result: object) -> None:
        self._done = True
        if not self._connection.sends:
            result = Failure(RequestError(NOT_FOUND.about("connection")))
        if self._held:
            self._clock.callLater(0, self._connection.release)
        self._parsed(result)


__all__ = ["Identification"]
