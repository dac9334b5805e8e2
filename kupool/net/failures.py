"""The exceptions and close reasons of the framework's servers."""

from __future__ import annotations

from kupool.errors import FRAME_TOO_LARGE

#: The close for a message over the limit, as servers send it that are configured by
#: ``application.json``; it has the meaning of ``frame too large``.
MESSAGE_TOO_LARGE = FRAME_TOO_LARGE._replace(reason="too large message data")


class ConnectionNotFound(KeyError):
    """No live connection has this id."""

    def __init__(self, connection_id: int) -> None:
        super().__init__(connection_id)
        self.connection_id = connection_id

    def __str__(self) -> str:
        return f"connection not found: {self.connection_id}"


__all__ = ["MESSAGE_TOO_LARGE", "ConnectionNotFound"]
