"""What goes wrong with a connection, in words that a caller can show."""

from __future__ import annotations

from kupool.errors import FRAME_TOO_LARGE

#: The close of a message over the limit, in the words of servers that are set up by
#: ``application.json``; it means what ``frame too large`` does.
MESSAGE_TOO_LARGE = FRAME_TOO_LARGE._replace(reason="too large message data")


class ConnectionNotFound(KeyError):
    """There is no live connection with this id."""

    def __init__(self, connection_id: int) -> None:
        super().__init__(connection_id)
        self.connection_id = connection_id

    def __str__(self) -> str:
        return f"connection not found: {self.connection_id}"


__all__ = ["MESSAGE_TOO_LARGE", "ConnectionNotFound"]
