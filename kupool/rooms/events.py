"""Events of a room; those of members are in :mod:`kupool.rooms.membership`."""

from __future__ import annotations

from typing import NamedTuple


class Created(NamedTuple):
    """The room is new; ``on_create_room`` handles it."""


class TimerFired(NamedTuple):
    """A timer without a callback has fired."""

    key: str


class TakenOver(NamedTuple):
    """The room was moved here from another host, with its state."""

    state: bytes


class Closing(NamedTuple):
    """The room takes no more messages, and ends after this event and the waiting messages."""

    reason: str


__all__ = ["Closing", "Created", "TakenOver", "TimerFired"]
