"""The limits of rooms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FloodPolicy(Enum):
    """What happens to senders of a room with a full queue."""

    #: The room stops reading from them until there is room again.
    PAUSE = "pause"
    #: Their message is refused.
    REFUSE = "refuse"


@dataclass(frozen=True)
class RoomSettings:
    """The limits of rooms. Times are in seconds.

    ``queue_limit`` messages may wait in a room, and ``sender_limit`` of one member; a member above
    that is paused alone. ``system_limit`` events may wait for the room. For ``max_members``,
    ``max_timers`` and ``handler_timeout``, 0 means no limit. A member stays one for ``grace`` after
    its last connection ended. A room is closed ``linger`` after its last member has left; None
    means never. A closing room handles its waiting messages for at most ``close_timeout``. The
    times at which ``remember`` users were last seen are kept after they left. Codes of rooms and
    names of users, players and modes have at most ``max_name`` characters. ``outgoing_limit``
    broadcasts of a room may wait to be sent; above that, those that may be dropped are dropped.

    One user may have ``user_rooms`` rooms that they created, and ``user_connections`` in a room.
    One address may have ``address_rooms`` rooms, ``address_members`` members, and
    ``address_waiting`` players who wait for a match. 0 turns each of these off.
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
        """Raise :class:`ValueError` for limits that would refuse everything."""
        for name in ("queue_limit", "sender_limit", "system_limit", "max_rooms", "max_name"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


__all__ = ["FloodPolicy", "RoomSettings"]
