"""The daemon's rooms for its sessions, on this node or on all nodes of one RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kupool.daemon.pace import RequestPace
from kupool.daemon.room_access import RoomAccess
from kupool.daemon.tenants import user_of
from kupool.errors import GOING_DOWN
from kupool.net.routing.router import Router
from kupool.permissions.table import PermissionTable
from kupool.settings import NodeRoomsSettings

if TYPE_CHECKING:
    from kupool.bus.rabbit.bus import RabbitBus
    from kupool.rooms.service import RoomService

#: The size limit in bytes of the state of a room that moves to another node: it names the members.
MAX_STATE = 16 * 1024 * 1024

#: Seconds that a stop gives rooms to finish what they are doing.
LAST_WORDS = 1.0


@dataclass(frozen=True)
class RoomsPart:
    """The rooms, with the limit of requests to them.

    ``bus`` connects the nodes that share the rooms, if there is one.
    """

    service: RoomService
    pace: RequestPace
    bus: RabbitBus | None

    @property
    def problem(self) -> str:
        """Why the rooms of other nodes cannot be reached; empty if they can, or if there are
        none.
        """
        return "" if self.bus is None else self.bus.problem

    async def open(self) -> None:
        """Join the other nodes, if configured, or keep trying.

        Raises :class:`~kupool.bus.BusError` if RabbitMQ refuses the login.
        """
        if self.bus is not None:
            await self.bus.connect()
            await self.service.start(required=False)

    async def stop(self) -> None:
        """Move the rooms to other nodes, or notify the members of the end."""
        await self.service.close(GOING_DOWN.reason)
        if self.bus is not None:
            await self.bus.close()


def make_rooms(
    settings: NodeRoomsSettings,
    reactor: Any,
    wall: Callable[[], float],
    methods: Router,
    *,
    table: PermissionTable,
    max_waiting: int,
    known_users: bool,
    bus: RabbitBus | None,
) -> RoomsPart | None:
    """Make the rooms and add their methods for the pool's sessions; None if they are off.

    They go by the ``table`` of permissions. The nodes on ``bus`` share their rooms; no session may
    have access to that bus. ``max_waiting`` limits the players who wait for a match.
    ``known_users`` says whether passwords prove who a user is. Without members and waiting players,
    no timer runs.
    """
    if settings.offered == "off":
        return None
    # Off by default, and a start takes less time without them.
    from kupool.rooms import RoomSettings
    from kupool.rooms.service import RoomService
    from kupool.rooms.spread.settings import SpreadSettings

    pace = RequestPace(settings.rate)
    service = RoomService(
        reactor,
        user_of,
        methods,
        before=[pace],
        settings=RoomSettings(
            max_rooms=settings.max_rooms,
            max_members=settings.members,
            # Without passwords anybody could use up another user's quota.
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
        may=RoomAccess(table),
        wall=wall,
        bus=bus,
        spread=SpreadSettings(max_entry=MAX_STATE),
    )
    return RoomsPart(service, pace, bus)


__all__ = ["RoomsPart", "make_rooms"]
