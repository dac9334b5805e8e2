"""The rooms of a process: by their codes, as they come and go, and all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.errors import ALREADY_EXISTS, RequestError
from kupool.rooms.broadcast import Packet, Payload, notification
from kupool.rooms.events import Created, Incoming, RoomBusy, RoomGone
from kupool.rooms.interfaces import IRoomHooks
from kupool.rooms.matchmaking import MatchOutcome
from kupool.rooms.members import Member
from kupool.rooms.membership import Membership
from kupool.rooms.names import check_name
from kupool.rooms.peers import Peer
from kupool.rooms.room import Room
from kupool.rooms.settings import House, RoomSettings
from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.wheel import RoomTimer, Wheel
from kupool.session.outbox import EventPolicy
from kupool.timing.chunks import in_chunks
from kupool.timing.round_robin import RoundRobin

_LINGER = "room linger"


class Registry:
    """The rooms and their members; :class:`kupool.rooms.lobby.Lobby` is one."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        hooks: IRoomHooks,
        settings: RoomSettings | None,
        wall: Callable[[], float],
        *,
        tick: float,
    ) -> None:
        self.settings = settings = settings or RoomSettings()
        self.clock = clock
        self.tasks = TaskStatistics(clock.seconds)
        self.wheel = Wheel(clock, tick, tasks=self.tasks, limit=settings.max_timers)
        self._house = House(
            clock, wall, hooks, settings, self.wheel, RoundRobin(clock), self.tasks, cast(Any, self)
        )
        self._hooks = hooks
        self._rooms: dict[str, Room] = {}
        self._closing = False
        self.members = Membership(self._house, self._emptied)

    def __len__(self) -> int:
        """Return how many rooms there are."""
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the rooms of this moment."""
        return iter(list(self._rooms.values()))

    def find(self, code: str) -> Room | None:
        """Return a room by its code, if there is one."""
        return self._rooms.get(code)

    def get(self, code: str) -> Room:
        """Return a room by its code; raises :class:`RequestError` ``not found``."""
        room = self._rooms.get(code)
        if room is None:
            raise RoomGone(code)
        return room

    def create(self, code: str) -> Room:
        """Make a room, which stays until it is closed or its last member has left.

        Raises :class:`RequestError`: ``already exists``, or ``too many requests`` at the
        limit of rooms, ``bad params`` for a code that is empty or too long, or ``not
        found`` when the lobby is closing.
        """
        check_name(code, self.settings.max_name)
        if self._closing:
            raise RoomGone(code)
        if code in self._rooms:
            raise RequestError(ALREADY_EXISTS.about(f"room {code}"))
        if len(self._rooms) >= self.settings.max_rooms:
            raise RoomBusy(f"{self.settings.max_rooms} rooms")
        room = self._rooms[code] = Room(code, self._house)
        room.when_closed(lambda unhandled: self._closed(room, unhandled))
        room.tell(Created())
        return room

    def _closed(self, room: Room, unhandled: list[Incoming]) -> None:
        del self._rooms[room.code]
        self.wheel.cancel((_LINGER, room.code), _LINGER)
        self.members.dissolve(room)
        if unhandled:
            self._log.info(
                "Room {code} ended with {count} messages unhandled",
                code=room.code,
                count=len(unhandled),
            )

    def _emptied(self, room: Room) -> None:
        linger = self.settings.linger
        if room.closing or linger is None:
            return
        if linger:
            self.linger(room, linger)
        else:
            room.close("empty")

    def linger(self, room: Room, seconds: float) -> None:
        """Close a room in so many seconds, unless somebody is there by then."""
        at = (_LINGER, room.code)
        self.wheel.once(at, _LINGER, seconds, self._lingered, data=room, always=True)

    def _lingered(self, timer: RoomTimer) -> None:
        room = timer.data
        if isinstance(room, Room) and not room.members:
            room.close("empty")

    def ready(self, code: str) -> Deferred[None]:
        """Fire when no room of this code is ending: a new one may take its place then."""
        ready: Deferred[None] = Deferred()
        room = self._rooms.get(code)
        if room is not None and room.closing and not self._closing:
            room.when_closed(lambda unhandled: ready.callback(None))
        else:
            ready.callback(None)
        return ready

    # -- members

    def enter(self, code: str, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, which is created where there is none.

        Raises :class:`RequestError` as ``create`` and ``members.join`` do.
        """
        return self._into(code, lambda room: self.members.join(room, user, connection))

    def move(self, user: str, code: str) -> Member:
        """Let a member go to another room, which is created where there is none.

        Raises :class:`RequestError` as ``create`` and ``members.move`` do.
        """
        return self._into(code, lambda room: self.members.move(room, user))

    def _into(self, code: str, go: Callable[[Room], Member]) -> Member:
        room = self._rooms.get(code)
        if room is not None:
            return go(room)
        room = self.create(code)
        try:
            return go(room)
        except RequestError:
            room.close("nobody came")
            raise

    def gather(self, code: str, outcome: MatchOutcome) -> Room:
        """Create a room with the matched players as members.

        Who has gone meanwhile, or is in another room, is not among them. Raises
        :class:`RequestError` as ``create`` does.
        """
        room = self.create(code)
        for request in outcome.players:
            with suppress(RequestError):
                self.members.join(room, request.player, request.connection)
        return room

    # -- broadcasts

    def broadcast(
        self,
        payload: Payload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> Deferred[None]:
        """Send to all members of all rooms; see :meth:`Room.broadcast`.

        Fires when every room has it among what it sends.
        """
        packet = Packet(payload, key, policy)
        return in_chunks(self.clock, self._rooms.values(), lambda room: room.send_later(packet))

    def notify(
        self,
        method: str,
        params: object,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> Deferred[None]:
        """Broadcast a notification, ``{"id":null,"method":...,"params":...}``."""
        return self.broadcast(notification(method, params), key=key, policy=policy)

    def send_user(
        self,
        user: str,
        payload: Payload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send to a user on all of their connections; returns how many those are.

        Raises :class:`RequestError` ``not found`` for a user who is in no room.
        """
        return self.members.get(user).send(payload, key=key, policy=policy)


__all__ = ["Registry"]
