"""What rooms need of a connection: one of this process, or of another."""

from __future__ import annotations

from typing import Any, Protocol

from kupool.session.outbox import EventPolicy
from kupool.wire.framing import Framing


class Peer(Protocol):
    """The other end, as rooms see it; a :class:`kupool.session.connection.Connection` is one."""

    framing: Framing
    context: Any

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

    def hold(self) -> None:
        """Handle nothing more of this peer until ``release``."""

    def release(self) -> None:
        """Go on after ``hold``."""


__all__ = ["Peer"]
