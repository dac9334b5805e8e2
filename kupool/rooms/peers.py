"""What rooms need of a connection: one of this process, or of another."""

from __future__ import annotations

from typing import Any, Protocol

from kupool.session.publication import Recipient


class Peer(Recipient, Protocol):
    """The other end, as rooms see it; a :class:`kupool.session.connection.Connection` is one."""

    context: Any

    @property
    def host(self) -> str:
        """The peer's address without its port; empty where that is not known."""

    def hold(self) -> None:
        """Handle nothing more of this peer until ``release``."""

    def release(self) -> None:
        """Go on after ``hold``."""


__all__ = ["Peer"]
