"""Detect dead peers by pinging silent connections."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.callbacks import called
from kupool.errors import IDLE_TIMEOUT
from kupool.net.manager import ConnectionManager
from kupool.ranges import check, number, whole
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.session.running import RunningTime
from kupool.wire.framing import FRAME, OP_PING, encode_frame

_EXPECTED = {"interval": number(above=True), "missed": whole(1)}

#: Returns the bytes of a ping, or None to send none.
Ping = Callable[[Connection], bytes | None]

#: Returns whether a peer answers a ping, by its framing.
AnswersPing = Callable[[Connection], bool]

#: Called for a peer that did not answer.
Dead = Callable[[Connection], object]


def default_ping(connection: Connection) -> bytes:
    """Return a ping in the connection's framing: an opcode, or the notification ``ping``."""
    if connection.framing is FRAME:
        return encode_frame(b"", OP_PING)
    return connection.framing.encode(b'{"id":null,"method":"ping"}')


def default_answers(connection: Connection) -> bool:
    """Return whether a peer has to answer :func:`default_ping`.

    Peers answer an opcode, but not the notification ``ping``: docs/protocol.md requires no
    answer to a notification. The notification only keeps middleboxes from dropping the
    connection.
    """
    return connection.framing is FRAME


def close_idle(connection: Connection) -> None:
    """Close a connection as ``idle timeout``."""
    connection.close(IDLE_TIMEOUT)


class Heartbeat:
    """Pings the connections of a manager that were silent for ``interval`` seconds.

    - With ``always``, it also pings the other connections, for clients that expect pings.
    - Any whole message is a sign of life. After ``missed`` pings without one, ``dead`` is
      called once with the connection; the default closes it.
    - ``answers`` decides which peers have to answer. With a custom ``ping`` the default is all
      of them; otherwise those whose framing has a ping opcode. The others are subject to the
      idle timeout.
    - Time in which this process did not run does not count.

    Raises :class:`ValueError` for an interval or a number that is not above zero.
    """

    _log = Logger()

    def __init__(
        self,
        manager: ConnectionManager,
        interval: float,
        missed: int = 3,
        *,
        ping: Ping = default_ping,
        answers: AnswersPing | None = None,
        dead: Dead = close_idle,
        always: bool = False,
    ) -> None:
        check(_EXPECTED, interval=interval, missed=missed)
        self._manager = manager
        self._interval = interval
        self._limit = missed
        self._ping = ping
        self._dead = dead
        self._always = always
        if answers is None:
            answers = default_answers if ping is default_ping else lambda connection: True
        self._answers = answers
        self._running = RunningTime(manager.now, interval, slack=1.5)
        #: Silent connections: unanswered pings, and the message count at the last ping.
        self._unanswered: dict[Connection, tuple[int, int]] = {}
        self._loop = LoopingCall(self.beat)
        self._loop.clock = manager.clock

    def start(self) -> None:
        """Start the heartbeat; the first beat is one interval later."""
        if not self._loop.running:
            self._running.start()
            self._loop.start(self._interval, now=False).addErrback(
                lambda failure: self._log.failure(
                    "The heartbeat stopped because of an error", failure
                )
            )

    def stop(self) -> None:
        """Stop the heartbeat."""
        if self._loop.running:
            self._loop.stop()
        self._unanswered.clear()

    def beat(self) -> Deferred[None] | None:
        """Check every connection once, a chunk in each reactor turn.

        Does nothing right after a pause: what arrived meanwhile has not been read yet.
        """
        if self._running.beat():
            return None
        before, self._unanswered = self._unanswered, {}
        return self._manager.each(lambda connection: self._look(connection, before))

    def _look(self, connection: Connection, before: dict[Connection, tuple[int, int]]) -> None:
        if connection.state is not OPEN:
            return
        heard = connection.messages_in
        pings, then = before.get(connection, (0, heard))
        silent = self._running.elapsed(connection.last_seen) >= self._interval
        if heard != then or not silent:
            if self._always:
                self._send_ping(connection)
            return
        asked = pings if self._answers(connection) else 0
        self._unanswered[connection] = (asked + 1, heard)
        if asked < self._limit:
            self._send_ping(connection)
        elif asked == self._limit:
            # A callback that does not close the connection is called only once.
            called(self._dead, connection).addErrback(
                lambda why: self._log.failure("A dead connection could not be closed", why)
            )

    def _send_ping(self, connection: Connection) -> None:
        data = self._ping(connection)
        if data is not None:
            connection.send_encoded(data)


__all__ = [
    "AnswersPing",
    "Dead",
    "Heartbeat",
    "Ping",
    "close_idle",
    "default_answers",
    "default_ping",
]
