"""Which events a partition has more than once. Pure."""

from __future__ import annotations

from typing import NamedTuple


class RepeatedEvent(NamedTuple):
    """An event that was found again: its id, the offset of its record, and the first one."""

    event_id: str
    offset: int
    first: int


class SeenEvents:
    """The offsets of up to ``most`` event ids of a partition; the oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._offsets: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def see(self, event_id: str, offset: int) -> RepeatedEvent | None:
        """Remember an id with its offset; returns what it is if it was seen at another one."""
        first = self._offsets.setdefault(event_id, offset)
        if first != offset:
            return RepeatedEvent(event_id, offset, first)
        if len(self._offsets) > self._most:
            del self._offsets[next(iter(self._offsets))]
        return None


__all__ = ["RepeatedEvent", "SeenEvents"]
