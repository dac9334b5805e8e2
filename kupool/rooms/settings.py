"""The limits of rooms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FloodPolicy(Enum):
    """What happens to senders of a room whose queue is full."""

    #: Nothing more is read from them until there is room again.
    PAUSE = "pause"
    #: Their message is refused.
    REFUSE = "refuse"


@dataclass(frozen=True)
class RoomSettings:
    """The limits of rooms. Times are in seconds.

    ``queue_limit`` messages may wait in a room, and ``sender_limit`` of one member, who is
    then held back alone; ``system_limit`` events wait for the room. With ``max_members``,
    ``max_timers`` and ``handler_timeout`` 0 is none. A member without a connection is one
    for ``grace`` longer; a room whose last member has left is closed ``linger`` later, or
    not at all with None. A closing room handles what waits for ``close_timeout`` at most.
    Of ``remember`` users it is kept when they were last seen, after they left. Codes of
    rooms, users, players and modes have ``max_name`` characters at most. ``outgoing_limit``
    broadcasts of a room may wait to be sent; of more, those that may be dropped are.

    One user may have ``user_rooms`` rooms that they made, and ``user_connections`` in a
    room; one address ``address_rooms`` rooms, ``address_members`` members, and
    ``address_waiting`` players who wait for a match. 0 is none of these limits.
    """

    queue_limit: int = 1024
    sender_limit: int = 64
    system_limit: int = 4096
    flood: FloodPolicy = FloodPolicy.PAUSE
    handler_timeout: float = 30.0
    grace: float = 30.0
    linger: float | None = 0.0
    close_timeout: float = 10.0
    max_rooms: int = 10_000
    max_members: int = 10_000
    max_timers: int = 2_000_000
    max_waiting: int = 100_000
    remember: int = 10_000
    max_name: int = 255
    outgoing_limit: int = 1024
    user_rooms: int = 100
    user_connections: int = 100
    address_rooms: int = 2_000
    address_members: int = 5_000
    address_waiting: int = 10_000

    def __post_init__(self) -> None:
        """Raise :class:`ValueError` for limits that would let nothing through."""
        for name in ("queue_limit", "sender_limit", "system_limit", "max_rooms", "max_name"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


__all__ = ["FloodPolicy", "RoomSettings"]
