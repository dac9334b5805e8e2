"""What goes wrong with a connection, in words that a caller can show."""

from __future__ import annotations

from kupool.errors import FRAME_TOO_LARGE

#: The close of a message over the limit, in the words of servers that are set up by
#: ``application.json``; it means what ``frame too large`` does.
MESSAGE_TOO_LARGE = FRAME_TOO_LARGE._replace(reason="too large message data")


class ConnectionClosed(Exception):
    """Something was to be sent on a connection that has ended, or is about to."""

    def __init__(self, connection_id: int) -> None:
        super().__init__(f"connection closed: {connection_id}")
        self.connection_id = connection_id


class ConnectionNotFound(KeyError):
    """There is no live connection with this id."""

    def __init__(self, connection_id: int) -> None:
        super().__init__(connection_id)
        self.connection_id = connection_id

    def __str__(self) -> str:
        return f"connection not found: {self.connection_id}"


class PropertyNotFound(KeyError):
    """A connection has no property of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no property found: {self.name}"


__all__ = ["MESSAGE_TOO_LARGE", "ConnectionClosed", "ConnectionNotFound", "PropertyNotFound"]
