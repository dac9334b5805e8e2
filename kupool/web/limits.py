"""The routes ``/api/limits`` and ``/api/rooms``: what is limited with its use, and the rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from twisted.web.server import Request

from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource

LIMITS_PATH, ROOMS_PATH = "/api/limits", "/api/rooms"

#: The most rooms in one answer.
MAX_ROOMS = 1000


class LimitUse(NamedTuple):
    """A limit of the daemon, its ``setting``, and how much of it is used; 0: there is no limit.

    ``unit`` is ``bytes``, or empty for a number of things.
    """

    name: str
    setting: str
    used: int
    limit: int
    unit: str = ""


class RoomUse(NamedTuple):
    """A room of this node with its members, and those of them who are connected."""

    room: str
    members: int
    online: int


class LimitPages:
    """Answers the routes; ``rooms`` returns those of this node, and is None where rooms are off."""

    def __init__(
        self,
        uses: Callable[[], Awaitable[Iterable[LimitUse]]],
        rooms: Callable[[], Iterable[RoomUse]] | None,
    ) -> None:
        self._uses = uses
        self._rooms = rooms

    def routes(self, access: WebAccess) -> dict[str, ApiResource]:
        """Return the resources by their paths; without rooms they have no route."""
        found = {LIMITS_PATH: access.resource(LIMITS_PATH, {b"GET": self.limits})}
        if self._rooms is not None:
            found[ROOMS_PATH] = access.resource(ROOMS_PATH, {b"GET": self.rooms})
        return found

    async def limits(self, request: Request) -> object:
        """``GET /api/limits``: each limit with its use."""
        return {"limits": [use._asdict() for use in await self._uses()]}

    async def rooms(self, request: Request) -> object:
        """``GET /api/rooms``: the rooms of this node, those with the most members first."""
        assert self._rooms is not None
        rooms = sorted(self._rooms(), key=lambda room: (-room.members, room.room))
        return {
            "total": len(rooms),
            "rooms": [room._asdict() for room in rooms[:MAX_ROOMS]],
        }


__all__ = ["LIMITS_PATH", "MAX_ROOMS", "ROOMS_PATH", "LimitPages", "LimitUse", "RoomUse"]
