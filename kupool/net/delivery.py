"""Delivery policies for messages to slow readers.

If the outbound buffer is above its high-water mark, a message waits, is dropped, replaces
another, or ends the connection. The policies do not affect peers that read.
"""

from __future__ import annotations

from enum import Enum

from twisted.internet.defer import Deferred, succeed

from kupool.errors import SLOW_READER
from kupool.ranges import check, number, whole
from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed
from kupool.session.outbox import EventPolicy
from kupool.session.publication import Packed, Publication
from kupool.session.waiting import WaitingRoom
from kupool.wire.framing import Tlv

_EXPECTED = {"high": whole(), "low": whole(), "timeout": number()}


class Policy(Enum):
    """What happens to a message above the high-water mark."""

    #: The message waits until the low-water mark is reached, at most ``timeout`` seconds.
    WAIT = "wait"
    #: The message is dropped.
    DROP_NEW = "drop-new"
    #: The oldest messages with this policy or ``DROP_NEW`` are dropped instead.
    DROP_OLD = "drop-old"
    #: The message replaces a waiting one of the same key, at any mark.
    COALESCE = "coalesce"
    #: The connection is closed as ``slow reader``.
    CLOSE = "close"


#: The outbox's names of the policies that drop events.
_EVENTS = {Policy.DROP_NEW: EventPolicy.DROP_NEW, Policy.DROP_OLD: EventPolicy.DROP_OLDEST}


class Delivery:
    """Sends one kind of message to connections, by one policy.

    ``high`` and ``low`` are the marks, in bytes that wait for a peer. By default ``high``
    is the server's outbox limit, and ``low`` is half of ``high``. ``timeout`` is in
    seconds, by default the server's write timeout. ``key`` names the kind for
    :attr:`Policy.COALESCE`.

    Raises :class:`ValueError` for a number below 0, and for a low mark above the high one.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        high: int | None = None,
        low: int | None = None,
        timeout: float | None = None,
        key: str = "",
    ) -> None:
        given = {"high": high, "low": low, "timeout": timeout}
        check(_EXPECTED, **{name: value for name, value in given.items() if value is not None})
        if low is not None and high is not None and low > high:
            raise ValueError(f"low mark {low} is not between 0 and the high mark {high}")
        self._policy = policy
        self._high = high
        self._low = low
        self._timeout = timeout
        self._key = key

    def send(self, connection: Connection, message: bytes | Tlv) -> Deferred[bool]:
        """Send a message; fires with True if it was sent or queued, with False if it was dropped.

        It fires later only with :attr:`Policy.WAIT`. Raises :class:`ConnectionClosed`, and
        what :meth:`Connection.pack` raises.
        """
        if not connection.sends:
            raise ConnectionClosed(connection.id)
        high = connection.limits.outbox_limit if self._high is None else self._high
        if self._policy is Policy.WAIT:
            return self._wait(connection, connection.pack(message), high)
        return succeed(self._send_now(connection, message, high))

    def _send_now(self, connection: Connection, message: bytes | Tlv, high: int) -> bool:
        if self._policy is Policy.CLOSE:
            encoded = connection.pack(message)
            if connection.outbound and connection.outbound + len(encoded) > high:
                connection.close(SLOW_READER)
                return False
            connection.send_encoded(encoded)
            return True
        key = self._key if self._policy is Policy.COALESCE else None
        policy = _EVENTS.get(self._policy)
        return not Publication(Packed(message), key, policy, limit=high).send(connection)

    def _wait(self, connection: Connection, encoded: bytes, high: int) -> Deferred[bool]:
        if connection.waiting is None:
            if not connection.outbound or connection.outbound + len(encoded) <= high:
                connection.send_encoded(encoded)
                return succeed(True)
            connection.waiting = WaitingRoom(connection)
        low = high // 2 if self._low is None else min(self._low, high)
        timeout = self._timeout
        if timeout is None:
            timeout = connection.limits.write_timeout
        return _told(connection.waiting, encoded, low, timeout)


def _told(room: WaitingRoom, encoded: bytes, low: int, timeout: float) -> Deferred[bool]:
    """Let a message wait; cancelling the Deferred also cancels the message."""

    def cancelled(_: Deferred[bool]) -> None:
        if waiting is not None:
            room.forget(waiting)

    told: Deferred[bool] = Deferred(cancelled)
    waiting = room.add(encoded, low, timeout, told.callback)
    if waiting is None:
        told.callback(False)
    return told


__all__ = ["Delivery", "Policy"]
