"""What a room is told: messages of its members, and what happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from kupool.errors import NOT_FOUND, TOO_MANY_REQUESTS, RequestError
from kupool.rooms.members import Member
from kupool.rooms.peers import Peer


class RoomBusy(RequestError):
    """Too much waits already, or too many are there already."""

    def __init__(self, what: str) -> None:
        super().__init__(TOO_MANY_REQUESTS.about(what))


class RoomGone(RequestError):
    """The room is closing or closed, or the sender is no member of it any more."""

    def __init__(self, code: str) -> None:
        super().__init__(NOT_FOUND.about(f"room {code}"))


@dataclass(slots=True, eq=False)
class Incoming:
    """A member's message; ``connection`` is None for what the application sent itself.

    ``answer``, if any, fires with what the room's handler returns, or fails.
    """

    member: Member
    connection: Peer | None
    body: Any
    answer: Deferred[object] | None = None


class Created(NamedTuple):
    """The room is new; handled by ``on_create_room``."""


class Joined(NamedTuple):
    """A user has become a member."""

    member: Member


class Disconnected(NamedTuple):
    """The last connection of a member has ended; the grace period begins."""

    member: Member


class Returned(NamedTuple):
    """A member has come back within the grace period."""

    member: Member


class Renamed(NamedTuple):
    """A member has another id than ``before``."""

    member: Member
    before: str


class Left(NamedTuple):
    """A user is no member any more: ``left``, ``gone``, or what the caller gave."""

    member: Member
    reason: str


class TimerFired(NamedTuple):
    """A timer of the room that has no callback of its own."""

    key: str


class TakenOver(NamedTuple):
    """The room has come from another host, with the state that it had there."""

    state: bytes


class Closing(NamedTuple):
    """The room takes nothing more, and ends after this and what waits."""

    reason: str


__all__ = [
    "Closing",
    "Created",
    "Disconnected",
    "Incoming",
    "Joined",
    "Left",
    "Renamed",
    "Returned",
    "RoomBusy",
    "RoomGone",
    "TakenOver",
    "TimerFired",
]
