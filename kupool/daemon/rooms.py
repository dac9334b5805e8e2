"""The rooms of the daemon: for its sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kupool.daemon.pace import RequestPace
from kupool.daemon.room_access import RoomAccess
from kupool.daemon.tenants import user_of
from kupool.errors import GOING_DOWN
from kupool.pool.handlers import Handlers
from kupool.rooms import RoomSettings
from kupool.rooms.service import RoomService
from kupool.settings import Settings

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
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    handlers: Handlers,
) -> RoomsPart | None:
    """Make the rooms and give the pool's sessions their methods; None where they are off.

    While nobody is in a room or waits for a match, no timer is set.
    """
    if settings.rooms.offered == "off":
        return None
    pace = RequestPace(settings.rooms.rate)
    access = RoomAccess(settings.rooms, user_of)
    service = RoomService(
        reactor,
        user_of,
        handlers.router,
        before=[pace],
        settings=RoomSettings(
            max_rooms=settings.rooms.max_rooms,
            max_members=settings.rooms.members,
            # Without passwords anybody may use up what another user has.
            user_rooms=settings.rooms.user_rooms if settings.listen.auth else 0,
            user_connections=settings.rooms.user_connections if settings.listen.auth else 0,
            address_rooms=settings.rooms.address_rooms,
            address_members=settings.rooms.address_members,
            address_waiting=settings.rooms.address_waiting,
            max_waiting=settings.limits.max_connections,
            grace=settings.rooms.grace,
            close_timeout=LAST_WORDS,
        ),
        max_data=settings.rooms.max_data,
        may=access,
        wall=wall,
    )
    return RoomsPart(service, pace, access)


__all__ = ["RoomsPart", "make_rooms"]
