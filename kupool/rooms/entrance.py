"""A connection's first message: the application says whose it is."""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from kupool.errors import NOT_FOUND, RequestError
from kupool.rooms.running import Running
from kupool.rooms.settings import House
from kupool.session.connection import Connection


def introduce(
    house: House,
    connection: Connection,
    parse: Callable[[], object],
    parsed: Callable[[object], None],
) -> None:
    """Call ``parse``, and ``parsed`` with what came of it or a Failure.

    Nothing more of the connection is handled meanwhile.
    """
    _Introduction(house, connection, parse, parsed).start()


class _Introduction:
    def __init__(
        self,
        house: House,
        connection: Connection,
        parse: Callable[[], object],
        parsed: Callable[[object], None],
    ) -> None:
        self._house = house
        self._connection = connection
        self._parse = parse
        self._parsed = parsed
        self._done = self._held = False

    def start(self) -> None:
        Running(self._end).start(
            self._parse, self._house.clock, self._house.settings.handler_timeout
        )
        if not self._done:
            self._held = True
            self._connection.hold()

    def _end(self, result: object) -> None:
        self._done = True
        if not self._connection.sends:
            result = Failure(RequestError(NOT_FOUND.about("connection")))
        if self._held:
            self._house.clock.callLater(0, self._connection.release)
        self._parsed(result)


__all__ = ["introduce"]
