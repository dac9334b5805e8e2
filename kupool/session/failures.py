"""The exceptions of connections."""

from __future__ import annotations


class ConnectionClosed(Exception):
    """A message was to be sent on a connection that has ended, or is about to."""

    def __init__(self, connection_id: int) -> None:
        super().__init__(f"connection closed: {connection_id}")
        self.connection_id = connection_id


class PropertyNotFound(KeyError):
    """A connection has no property of this name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"no property found: {self.name}"


__all__ = ["ConnectionClosed", "PropertyNotFound"]
