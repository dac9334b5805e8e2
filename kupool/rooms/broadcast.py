"""One payload for many connections, encoded once for each framing among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kupool.rooms.peers import Peer
from kupool.session.outbox import EventPolicy
from kupool.wire.framing import Framing
from kupool.wire.messages import encode_request

#: What is sent: a payload, or a function that makes a message's bytes for a framing.
Payload = bytes | Callable[[Framing], bytes]


def notification(method: str, params: object) -> bytes:
    """Return the payload of a notification; ``params`` is anything that msgspec encodes."""
    return encode_request(None, method, params)


class Packet:
    """A payload, and what becomes of it at a peer that reads slowly.

    With a ``key`` only the newest of that key waits. Otherwise it is an event that obeys
    ``policy``, or, where that is None, it is never dropped.
    """

    __slots__ = ("_encoded", "_key", "_payload", "_policy")

    def __init__(
        self,
        payload: Payload,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> None:
        self._payload = payload
        self._key = key
        self._policy = policy
        self._encoded: dict[Any, bytes] = {}

    @property
    def droppable(self) -> bool:
        """Whether a peer may do without it."""
        return self._key is not None or self._policy is not None

    def send(self, connection: Peer) -> bool:
        """Send it; returns whether it was dropped. One that has ended gets nothing."""
        if not connection.sends:
            return False
        framing = connection.framing
        data = self._encoded.get(framing.encode)
        if data is None:
            payload = self._payload
            data = framing.encode(payload) if isinstance(payload, bytes) else payload(framing)
            self._encoded[framing.encode] = data
        if self._key is not None:
            connection.send_latest(self._key, data)
        elif self._policy is not None:
            return not connection.send_event(data, self._policy)
        else:
            connection.send_encoded(data)
        return False


__all__ = ["Packet", "Payload", "notification"]
