"""Publications: one message for many peers, encoded once for each framing. Pure.

A publication also has a policy for slow readers: see :mod:`kupool.session.outbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any, NamedTuple, Protocol, TypeVar

from kupool.session.outbox import EventPolicy
from kupool.wire.framing import Framing, Tlv


class Recipient(Protocol):
    """A peer that gets publications, such as a :class:`~kupool.session.connection.Connection`."""

    @property
    def framing(self) -> Framing:
        """The framing in which it gets data."""

    @property
    def sends(self) -> bool:
        """Whether data sent now goes to the peer."""

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send encoded messages, which are never dropped."""

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send an encoded message that replaces an unsent one of the same ``key``."""

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send an encoded message that may be dropped; returns whether it was kept."""


class Packed(NamedTuple):
    """A message that the connection encodes, within its server's limits.

    It may have an id, if the framing has ids.
    """

    message: bytes | Tlv


class ForEach(NamedTuple):
    """A separate payload for each recipient, made by ``make``."""

    make: Callable[[Any], bytes]


#: The content: a payload, a function that encodes it for a framing, a message
#: that connections encode, or a function that makes a payload for each recipient.
Payload = bytes | Callable[[Framing], bytes] | Packed | ForEach

R = TypeVar("R", bound=Recipient)


class Publication:
    """A message for many, with its policy for slow readers.

    With a ``key``, only the newest message of that key waits. Otherwise it is an event
    under ``policy``: at most ``limit`` bytes of events wait, by default the outbox limit.
    With a ``policy`` of None it is never dropped.
    """

    __slots__ = ("_encoded", "_limit", "_payload", "_policy", "key")

    def __init__(
        self,
        payload: Payload,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
        *,
        limit: int | None = None,
    ) -> None:
        self.key = key
        self._payload = payload
        self._policy = policy
        self._limit = limit
        #: The encoded bytes by encoder: framings with the same name may encode differently.
        self._encoded: dict[object, bytes] = {}

    @property
    def droppable(self) -> bool:
        """Whether the message may be dropped."""
        return self.key is not None or self._policy is not None

    @property
    def urgent(self) -> bool:
        """Whether it may be pending where others are dropped already."""
        return False

    def send(self, recipient: Recipient) -> bool:
        """Send it; returns whether it was dropped because the peer reads slowly.

        A peer whose connection has ended gets nothing. Raises what encoding raises.
        """
        return recipient.sends and self._give(recipient, self._bytes_for(recipient))

    def send_all(
        self,
        recipients: Iterable[R],
        *,
        where: Callable[[R], bool] | None = None,
        changed: Sized = (True,),
        failed: Callable[[R], object],
    ) -> int:
        """Send it to each recipient for which ``where`` is true; returns how many dropped it.

        ``where`` is called in each recipient's turn, but not while ``changed`` is empty. If
        a recipient raises any exception, ``failed`` is called for it while the exception is
        handled, and the others are not affected.
        """
        if where is None:
            changed = ()
        asked = where or _everybody
        if isinstance(self._payload, ForEach):
            return self._send_own(
                self._payload.make, recipients, where=asked, changed=changed, failed=failed
            )
        key, dropped = self.key, 0
        data, framing = b"", None  # the next one usually has the same framing
        for recipient in recipients:
            try:
                if changed and not asked(recipient):
                    continue
                if recipient.framing is not framing:
                    data, framing = self._bytes_for(recipient), recipient.framing
                if key is not None:
                    recipient.send_latest(key, data)  # send() checks whether the peer has ended
                elif recipient.sends:
                    dropped += self._give(recipient, data)
            except BaseException:
                failed(recipient)
        return dropped

    def _send_own(
        self,
        make: Callable[[R], bytes],
        recipients: Iterable[R],
        *,
        where: Callable[[R], bool],
        changed: Sized,
        failed: Callable[[R], object],
    ) -> int:
        """Send each recipient a payload of its own."""
        key, dropped = self.key, 0
        for recipient in recipients:
            try:
                if not recipient.sends or (changed and not where(recipient)):
                    continue
                data = recipient.framing.encode(make(recipient))
                if key is not None:
                    recipient.send_latest(key, data)
                else:
                    dropped += self._give(recipient, data)
            except BaseException:
                failed(recipient)
        return dropped

    def _give(self, recipient: Recipient, data: bytes) -> bool:
        if self.key is not None:
            recipient.send_latest(self.key, data)
        elif self._policy is not None:
            return not recipient.send_event(data, self._policy, self._limit)
        else:
            recipient.send_encoded(data)
        return False

    def _bytes_for(self, recipient: Any) -> bytes:
        """Return the bytes for a recipient: its own, or those of its framing."""
        framing, payload = recipient.framing, self._payload
        data: bytes | None
        if isinstance(payload, ForEach):
            data = framing.encode(payload.make(recipient))
            return data
        data = self._encoded.get(framing.encode)
        if data is None:
            if isinstance(payload, bytes):
                data = framing.encode(payload)
            elif isinstance(payload, Packed):
                data = recipient.pack(payload.message)
            else:
                data = payload(framing)
            self._encoded[framing.encode] = data
        return data


def _everybody(recipient: object) -> bool:
    """Return True: exclude no recipient."""
    return True


__all__ = ["ForEach", "Packed", "Payload", "Publication", "Recipient"]
