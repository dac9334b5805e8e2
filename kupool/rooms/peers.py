"""The interface of a connection in a room, on this process or on another one."""

from __future__ import annotations

from typing import Any, Protocol

from kupool.session.publication import Recipient


class Peer(Recipient, Protocol):
    """The peer as rooms see it; a :class:`kupool.session.connection.Connection` is one."""

    context: Any

    @property
    def host(self) -> str:
        """The peer's address without its port; empty if it is unknown."""

    def hold(self) -> None:
        """Pause the handling of this peer's messages until ``release``."""

    def release(self) -> None:
        """Resume after ``hold``."""


__all__ = ["Peer"]
