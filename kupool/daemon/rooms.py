"""The rooms of the daemon: for its sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kupool.daemon.pace import RequestPace
from kupool.daemon.room_access import RoomAccess
from kupool.daemon.tenants import user_of
from kupool.errors import GOING_DOWN
from kupool.net.routing.router import Router
from kupool.settings import NodeRoomsSettings

if TYPE_CHECKING:
    from kupool.rooms.service import RoomService

#: Seconds that a stop leaves rooms that are in the middle of something.
LAST_WORDS = 1.0


@dataclass(frozen=True)
class RoomsPart:
    """The rooms, how often a session may ask for something in them, and for what."""

    service: RoomService
    pace: RequestPace
    access: RoomAccess

    async def stop(self) -> None:
        """Tell the members, and take no more."""
        await self.service.close(GOING_DOWN.reason)


def make_rooms(
    settings: NodeRoomsSettings,
    reactor: Any,
    wall: Callable[[], float],
    methods: Router,
    *,
    max_waiting: int,
    known_users: bool,
) -> RoomsPart | None:
    """Make the rooms and give the pool's sessions their methods; None where they are off.

    ``max_waiting`` is how many may wait for a match, and ``known_users`` whether passwords say
    who a user is. While nobody is in a room or waits for one, no timer is set.
    """
    if settings.offered == "off":
        return None
    # Off by default, and a start takes less time without them.
    from kupool.rooms import RoomSettings
    from kupool.rooms.service import RoomService

    pace = RequestPace(settings.rate)
    access = RoomAccess(settings, user_of)
    service = RoomService(
        reactor,
        user_of,
        methods,
        before=[pace],
        settings=RoomSettings(
            max_rooms=settings.max_rooms,
            max_members=settings.members,
            # Without passwords anybody may use up what another user has.
            user_rooms=settings.user_rooms if known_users else 0,
            user_connections=settings.user_connections if known_users else 0,
            address_rooms=settings.address_rooms,
            address_members=settings.address_members,
            address_waiting=settings.address_waiting,
            max_waiting=max_waiting,
            grace=settings.grace,
            close_timeout=LAST_WORDS,
        ),
        max_data=settings.max_data,
        may=access,
        wall=wall,
    )
    return RoomsPart(service, pace, access)


__all__ = ["RoomsPart", "make_rooms"]
