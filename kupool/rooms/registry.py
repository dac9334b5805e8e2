"""The registry of a lobby's rooms by code."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kupool.errors import ALREADY_EXISTS, RequestError
from kupool.rooms.events import Created
from kupool.rooms.failures import RoomBusy
from kupool.rooms.names import check_name
from kupool.rooms.room import Incoming, Room, RoomSurroundings
from kupool.rooms.timers import RoomTimer

_LINGER = "room linger"


class Registry:
    """The existing rooms; a room that is closing stays until it has ended."""

    _log = Logger()

    def __init__(self, surroundings: RoomSurroundings) -> None:
        self._surroundings = surroundings
        self._settings = surroundings.settings
        self._quotas = surroundings.quotas
        self._rooms: dict[str, Room] = {}
        #: The user and the address that each room counts for.
        self._makers: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        """Return how many rooms there are."""
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the current rooms."""
        return iter(list(self._rooms.values()))

    def find(self, code: str) -> Room | None:
        """Return a room by its code, if there is one."""
        return self._rooms.get(code)

    def create(self, code: str, user: str, address: str) -> Room:
        """Make a room; raises as :meth:`kupool.rooms.lobby.Lobby.create` does."""
        check_name(code, self._settings.max_name)
        if code in self._rooms:
            raise RequestError(ALREADY_EXISTS.about(f"room {code}"))
        self._quotas.user_rooms.check(user)
        self._quotas.address_rooms.check(address)
        return self.take_over(code, user, address)

    def take_over(self, code: str, user: str, address: str) -> Room:
        """Make a room even if the quotas of the user and address that it counts for are used up."""
        quotas = self._quotas
        if code in self._rooms:
            raise RequestError(ALREADY_EXISTS.about(f"room {code}"))
        if len(self._rooms) >= self._settings.max_rooms:
            quotas.refusals.note("rooms")
            raise RoomBusy(f"{self._settings.max_rooms} rooms")
        if user or address:
            self._makers[code] = user, address
            quotas.user_rooms.take(user)
            quotas.address_rooms.take(address)
        room = self._rooms[code] = Room(code, self._surroundings)
        room.tell(Created())
        return room

    def maker(self, code: str) -> tuple[str, str]:
        """Return the user and the address that a room counts for; empty if none."""
        return self._makers.get(code, ("", ""))

    def remove(self, room: Room, unhandled: list[Incoming]) -> None:
        """Remove a room that has ended."""
        del self._rooms[room.code]
        user, address = self.maker(room.code)
        self._makers.pop(room.code, None)
        self._quotas.user_rooms.give_back(user)
        self._quotas.address_rooms.give_back(address)
        self._surroundings.timers.cancel((_LINGER, room.code), _LINGER)
        if unhandled:
            self._log.info(
                "Room {code} ended with {count} messages unhandled",
                code=room.code,
                count=len(unhandled),
            )

    def emptied(self, room: Room) -> None:
        """Close a room whose last member has left, now or after its linger time."""
        linger = self._settings.linger
        if room.closing or linger is None:
            return
        if linger:
            self.linger(room, linger)
        else:
            room.close("empty")

    def linger(self, room: Room, seconds: float) -> None:
        """Close a room in this many seconds, unless it has a member by then."""
        at = (_LINGER, room.code)
        timers = self._surroundings.timers
        timers.once(at, _LINGER, seconds, self._lingered, data=room, always=True)

    def _lingered(self, timer: RoomTimer) -> None:
        room = timer.data
        if isinstance(room, Room) and not room.members:
            room.close("empty")

    def free(self, code: str) -> Deferred[None]:
        """Fire when no room of this code is closing: a new one may be made then."""
        free: Deferred[None] = Deferred()
        room = self._rooms.get(code)
        if room is not None and room.closing:
            room.when_closed(lambda unhandled: free.callback(None))
        else:
            free.callback(None)
        return free


__all__ = ["Registry"]
