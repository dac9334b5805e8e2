"""Properties of connections, and an index that finds connections by them.

Each connection keeps its own properties. Properties with an indexed name are also kept by
value, so that all connections of a user are found without a scan. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Any

from kupool.session.failures import PropertyNotFound


class PropertyIndex:
    """Sets the properties of a manager's connections, and finds connections by them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[str, dict[Hashable, dict[int, Any]]] = {}

    def declare(self, name: str) -> None:
        """Index a property from now on; does nothing if it is already indexed.

        Call it before connections are made: their existing properties are not indexed.
        """
        with self._lock:
            self._found.setdefault(name, {})

    def find(self, name: str, value: Hashable) -> list[Any]:
        """Return the live connections with that value of an indexed property, oldest first.

        Raises :class:`ValueError` for a property that is not indexed.
        """
        with self._lock:
            index = self._found.get(name)
            if index is None:
                raise ValueError(f"property {name!r} is not indexed")
            return list(index.get(value, {}).values())

    def set(self, connection: Any, name: str, value: object) -> None:
        """Set a property; raises :class:`TypeError` for an indexed value that is not hashable."""
        with self._lock:
            index = self._found.get(name)
            if index is not None:
                hash(value)
                self._remove(connection, name, index)
                # The hash() above checks that the value can be indexed.
                index.setdefault(value, {})[connection.id] = connection
            connection.properties[name] = value

    def get(self, connection: Any, name: str) -> object:
        """Return a property; raises :class:`PropertyNotFound`."""
        with self._lock:
            try:
                return connection.properties[name]
            except KeyError:
                raise PropertyNotFound(name) from None

    def remove(self, connection: Any, name: str) -> None:
        """Remove a property; raises :class:`PropertyNotFound`."""
        with self._lock:
            if name not in connection.properties:
                raise PropertyNotFound(name)
            index = self._found.get(name)
            if index is not None:
                self._remove(connection, name, index)
            del connection.properties[name]

    def forget(self, connection: Any) -> None:
        """Remove all properties of a connection that has ended."""
        with self._lock:
            for name, index in self._found.items():
                self._remove(connection, name, index)
            connection.properties.clear()

    def _remove(self, connection: Any, name: str, index: dict[Hashable, dict[int, Any]]) -> None:
        value = connection.properties.get(name)
        try:
            found = index.get(value)
        except TypeError:
            return  # it was set without the index, and cannot be indexed
        if found is not None:
            found.pop(connection.id, None)
            if not found:
                del index[value]


__all__ = ["PropertyIndex"]
