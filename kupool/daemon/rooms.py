"""The rooms of the daemon: for its sessions, on this node or on all nodes of one RabbitMQ."""

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
    from kupool.bus.rabbit.bus import RabbitBus
    from kupool.rooms.service import RoomService

#: Bytes of the largest state of a room that moves to another node: it names the members.
MAX_STATE = 16 * 1024 * 1024

#: Seconds that a stop leaves rooms that are in the middle of something.
LAST_WORDS = 1.0


@dataclass(frozen=True)
class RoomsPart:
    """The rooms, how often a session may ask for something in them, and for what.

    ``bus`` is what nodes share the rooms by, where they do.
    """

    service: RoomService
    pace: RequestPace
    access: RoomAccess
    bus: RabbitBus | None

    @property
    def problem(self) -> str:
        """Why the rooms of the other nodes cannot be reached; empty where they can, or there are
        none.
        """
        return "" if self.bus is None else self.bus.problem

    async def open(self) -> None:
        """Join the other nodes, if there are to be any, or go on trying to.

        Raises :class:`~kupool.bus.BusError` where RabbitMQ will not have us.
        """
        if self.bus is not None:
            await self.bus.connect()
            await self.service.start(required=False)

    async def stop(self) -> None:
        """Hand the rooms over to the other nodes, or tell the members that it is over."""
        await self.service.close(GOING_DOWN.reason)
        if self.bus is not None:
            await self.bus.close()


def make_rooms(
    settings: NodeRoomsSettings,
    reactor: Any,
    wall: Callable[[], float],
    methods: Router,
    *,
    max_waiting: int,
    known_users: bool,
    bus: RabbitBus | None,
) -> RoomsPart | None:
    """Make the rooms and give the pool's sessions their methods; None where they are off.

    The nodes on ``bus`` share their rooms. It must be one that no session can reach.
    ``max_waiting`` is how many may wait for a match, and ``known_users`` whether passwords say
    who a user is. While nobody is in a room or waits for one, no timer is set.
    """
    if settings.offered == "off":
        return None
    # Off by default, and a start takes less time without them.
    from kupool.rooms import RoomSettings
    from kupool.rooms.service import RoomService
    from kupool.rooms.spread.settings import SpreadSettings

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
        bus=bus,
        spread=SpreadSettings(max_entry=MAX_STATE),
    )
    return RoomsPart(service, pace, access, bus)


__all__ = ["RoomsPart", "make_rooms"]
