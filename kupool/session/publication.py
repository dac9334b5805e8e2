"""One message for many, encoded once for each framing among them. Pure.

What becomes of it at a peer that reads slowly is a part of it: see
:mod:`kupool.session.outbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

from kupool.session.outbox import EventPolicy
from kupool.wire.framing import Framing, Tlv


class Recipient(Protocol):
    """Whoever is sent something: a :class:`~kupool.session.connection.Connection` is one."""

    framing: Framing

    @property
    def sends(self) -> bool:
        """Whether what is sent now goes to the peer."""

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send bytes of the framing, which are never dropped."""

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send bytes that replace what still waits under ``key``."""

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send bytes that may be dropped; returns whether they were kept."""


class Packed(NamedTuple):
    """A message that is packed by the connection: it keeps to the limit of its server.

    It may have an id, where the framing has them.
    """

    message: bytes | Tlv


class ForEach(NamedTuple):
    """A payload of its own for each recipient, which ``make`` returns for it."""

    make: Callable[[Any], bytes]


#: What is sent: a payload, a function that makes a message's bytes for a framing, a message
#: that connections pack, or what makes a payload for each recipient.
Payload = bytes | Callable[[Framing], bytes] | Packed | ForEach

R = TypeVar("R", bound=Recipient)


class Publication:
    """A message, and what becomes of it at a peer that reads slowly.

    With a ``key`` only the newest of that key waits. Otherwise it is an event that obeys
    ``policy``, of which ``limit`` bytes may wait, by default the limit of the outbox; or,
    where ``policy`` is None, it is never dropped.
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
        #: The bytes, by what encodes them: framings of one name may encode differently.
        self._encoded: dict[object, bytes] = {}

    @property
    def droppable(self) -> bool:
        """Whether a peer may do without it."""
        return self.key is not None or self._policy is not None

    def send(self, recipient: Recipient) -> bool:
        """Send it; returns whether it was dropped, because the peer reads slowly.

        One that has ended gets nothing. Raises what its encoding does.
        """
        return recipient.sends and self._give(recipient, self._bytes_for(recipient))

    def send_all(
        self,
        recipients: Iterable[R],
        *,
        where: Callable[[R], bool] | None = None,
        failed: Callable[[R], object],
    ) -> int:
        """Send it to each for which ``where`` is true; returns for how many it was dropped.

        ``where`` is asked when it is a recipient's turn. An exception, whatever it is, costs
        that recipient alone: ``failed`` is called for it while it is handled.
        """
        if isinstance(self._payload, ForEach):
            return self._send_own(self._payload.make, recipients, where, failed)
        key, dropped = self.key, 0
        data, framing = b"", None  # mostly the next one has the framing of the last
        for recipient in recipients:
            try:
                if where is not None and not where(recipient):
                    continue
                if recipient.framing is not framing:
                    framing = None
                    data, framing = self._bytes_for(recipient), recipient.framing
                if key is not None:
                    recipient.send_latest(key, data)  # which sees for itself who has ended
                elif recipient.sends:
                    dropped += self._give(recipient, data)
            except BaseException:
                failed(recipient)
        return dropped

    def _send_own(
        self,
        make: Callable[[R], bytes],
        recipients: Iterable[R],
        where: Callable[[R], bool] | None,
        failed: Callable[[R], object],
    ) -> int:
        """Send each a payload of its own."""
        key, dropped = self.key, 0
        for recipient in recipients:
            try:
                if not recipient.sends or (where is not None and not where(recipient)):
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
        """Return the bytes for a recipient, made for it alone or for all with its framing."""
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


__all__ = ["ForEach", "Packed", "Payload", "Publication", "Recipient"]
