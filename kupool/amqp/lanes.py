"""What a channel receives again and again: confirms, and the messages of one consumer.

pika makes some objects of each frame, which takes several times as long as reading it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from kupool.amqp.frames import (
    ACK,
    BODY,
    DELIVER,
    HEADER,
    METHOD,
    NACK,
    Properties,
    Unreadable,
    confirmed_tag,
    delivery_tag,
    framed,
    read_properties,
)

#: Handles a message: its tag, whether it came before, its properties, and its body.
Arrived = Callable[[int, bool, Properties, bytes], object]


class ConfirmLane:
    """Knows which published messages are confirmed; ``refused`` makes the error of one that is."""

    def __init__(self, refused: Callable[[], Exception]) -> None:
        self._refused = refused
        self._number = 0
        #: By number, and so in order.
        self._waiting: dict[int, Deferred[Any]] = {}

    def published(self) -> Deferred[Any]:
        """Return a Deferred for the confirm of the next message."""
        self._number += 1
        done = self._waiting[self._number] = Deferred()
        return done

    def take(self, kind: int, payload: bytes) -> bytes | None:
        """Take a confirm or a refusal."""
        if kind != METHOD:
            return None
        method = payload[:4]
        if method not in (ACK, NACK):
            return None
        number, and_before = confirmed_tag(payload)
        if and_before:
            numbers = []
            for each in self._waiting:
                if each > number:
                    break
                numbers.append(each)
        else:
            numbers = [number] if number in self._waiting else []
        for done in [self._waiting.pop(each) for each in numbers]:
            if method == ACK:
                done.callback(None)
            else:
                done.errback(self._refused())
        return b""

    def end(self, reason: Exception) -> None:
        """Fail what waits: the channel is closed."""
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done.errback(reason)


class DeliveryLane:
    """Puts the frames of each message together, and has it handled."""

    def __init__(self, channel: int, arrived: Arrived) -> None:
        self._channel = channel
        self._arrived = arrived
        #: What has come of a message by now: its first frame, its properties, and its body.
        self._first = b""
        self._properties: Properties | None = None
        self._pieces: list[bytes] = []
        self._left = 0

    def take(self, kind: int, payload: bytes) -> bytes | None:
        """Take a frame of a message. One that pika has begun to read is left to it."""
        if kind == BODY and self._properties is not None:
            self._pieces.append(payload)
            self._left -= len(payload)
            if self._left <= 0:
                self._hand_over()
            return b""
        if kind == METHOD and payload[:4] == DELIVER:
            self._first = payload
            return b""
        if kind == HEADER and self._first:
            try:
                self._properties = read_properties(payload)
            except (Unreadable, UnicodeDecodeError):
                first, self._first = self._first, b""
                return framed(METHOD, self._channel, first) + framed(HEADER, self._channel, payload)
            self._left = self._properties.size
            if not self._left:
                self._hand_over()
            return b""
        return None

    def _hand_over(self) -> None:
        properties, pieces, first = self._properties, self._pieces, self._first
        assert properties is not None
        self._properties, self._pieces, self._first = None, [], b""
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        tag, again = delivery_tag(first)
        self._arrived(tag, again, properties, body)


__all__ = ["Arrived", "ConfirmLane", "DeliveryLane"]
