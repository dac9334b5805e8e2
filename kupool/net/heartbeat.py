"""Finds peers that have gone without a word, by asking those that are silent."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.errors import IDLE_TIMEOUT
from kupool.net.manager import ConnectionManager
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.wire.framing import FRAME, OP_PING, encode_frame

#: Makes the bytes that ask a peer for a sign of life; None: it is not asked.
Ping = Callable[[Connection], bytes | None]

#: What becomes of a peer that did not answer.
Dead = Callable[[Connection], object]


def default_ping(connection: Connection) -> bytes:
    """Return a ping in the connection's framing: an opcode, or the notification ``ping``."""
    if connection.framing is FRAME:
        return encode_frame(b"", OP_PING)
    return connection.framing.encode(b'{"id":null,"method":"ping"}')


def close_idle(connection: Connection) -> None:
    """Close a connection as ``idle timeout``."""
    connection.close(IDLE_TIMEOUT)


class Heartbeat:
    """Pings the connections of a manager from which nothing came for ``interval`` seconds.

    Any whole message is a sign of life. After ``missed`` pings without one, ``dead`` is
    called with the connection, once, and by default closes it. Raises
    :class:`ValueError` for an interval or a number that is not above zero.
    """

    _log = Logger()

    def __init__(
        self,
        manager: ConnectionManager,
        interval: float,
        missed: int = 3,
        *,
        ping: Ping = default_ping,
        dead: Dead = close_idle,
    ) -> None:
        if interval <= 0 or missed < 1:
            raise ValueError(f"a heartbeat of {interval} s, {missed} missed: expected above zero")
        self._manager = manager
        self._interval = interval
        self._limit = missed
        self._ping = ping
        self._dead = dead
        #: The silent ones only: pings without an answer, and the message count they found.
        self._unanswered: dict[Connection, tuple[int, int]] = {}
        self._loop = LoopingCall(self.beat)
        self._loop.clock = manager.clock

    def start(self) -> None:
        """Start the beats; the first comes an interval later."""
        if not self._loop.running:
            self._loop.start(self._interval, now=False).addErrback(
                lambda failure: self._log.failure("The heartbeat stopped", failure)
            )

    def stop(self) -> None:
        """Stop the beats."""
        if self._loop.running:
            self._loop.stop()
        self._unanswered.clear()

    def beat(self) -> Deferred[None]:
        """Look at every connection once, a chunk in each reactor turn."""
        before, self._unanswered = self._unanswered, {}
        now = self._manager.now()

        def look(connection: Connection) -> None:
            heard = connection.messages_in
            pings, then = before.get(connection, (0, heard))
            silent = now - connection.last_seen >= self._interval
            if connection.state is not OPEN or heard != then or not silent:
                return
            self._unanswered[connection] = (pings + 1, heard)
            if pings < self._limit:
                data = self._ping(connection)
                if data is not None:
                    connection.send_encoded(data)
            elif pings == self._limit:
                # A callback that does not close the connection hears of it only once.
                self._dead(connection)

        return self._manager.each(look)


__all__ = ["Dead", "Heartbeat", "Ping", "close_idle", "default_ping"]
