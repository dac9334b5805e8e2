"""What a room is told of itself; :mod:`kupool.rooms.membership` has what happens to members."""

from __future__ import annotations

from typing import NamedTuple


class Created(NamedTuple):
    """The room is new; handled by ``on_create_room``."""


class TimerFired(NamedTuple):
    """A timer of the room that has no callback of its own."""

    key: str


class TakenOver(NamedTuple):
    """The room has come from another host, with the state that it had there."""

    state: bytes


class Closing(NamedTuple):
    """The room takes nothing more, and ends after this and what waits."""

    reason: str


__all__ = ["Closing", "Created", "TakenOver", "TimerFired"]
