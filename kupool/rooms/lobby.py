"""The lobby: all rooms of a process, and the way from a connection into one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import ALREADY_EXISTS, FORBIDDEN, RequestError
from kupool.net.connection import Connection
from kupool.net.outbox import EventPolicy
from kupool.rooms import IRoomHooks
from kupool.rooms.broadcast import Packet, Payload
from kupool.rooms.entrance import introduce
from kupool.rooms.events import Created, Incoming, RoomBusy, RoomGone
from kupool.rooms.matchmaking import Matchmaker, MatchOutcome, MatchRequest
from kupool.rooms.members import Member
from kupool.rooms.membership import Membership
from kupool.rooms.room import Room
from kupool.rooms.running import Running
from kupool.rooms.settings import House, RoomSettings
from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.turns import Turns, in_chunks
from kupool.rooms.wheel import Timer, Wheel

_LINGER = "room linger"


class Lobby:
    """Keeps the rooms by their codes, their members, and who waits for a match.

    ``members`` looks up users and connections, ``wheel`` has every timer, ``tasks`` counts
    their runs, ``matchmaker.statistics()`` the matches. Starts nothing by itself: without
    rooms there is no timer. ``tick`` is the wheel's, in seconds.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        hooks: IRoomHooks,
        settings: RoomSettings | None = None,
        *,
        wall: Callable[[], float] = time.time,
        tick: float = 0.05,
    ) -> None:
        self.settings = settings = settings or RoomSettings()
        self.tasks = TaskStatistics(clock.seconds)
        self.wheel = Wheel(clock, tick, tasks=self.tasks, limit=settings.max_timers)
        self._house = House(clock, wall, hooks, settings, self.wheel, Turns(clock), self.tasks)
        self._clock = clock
        self._hooks = hooks
        self._rooms: dict[str, Room] = {}
        self._closing = False
        self.members = Membership(self._house, self._emptied)
        self.matchmaker = Matchmaker(clock, self.wheel, self._outcome, settings.max_waiting)
        self._seeking: dict[Connection, str] = {}
        self._sought: dict[str, Connection] = {}
        hooks.on_init(self)

    # -- the rooms

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
        limit of rooms, or ``not found`` when the lobby is closing.
        """
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
            at = (_LINGER, room.code)
            self.wheel.once(at, _LINGER, linger, self._lingered, data=room, always=True)
        else:
            room.close("empty")

    def _lingered(self, timer: Timer) -> None:
        room = timer.data
        if isinstance(room, Room) and not room.members:
            room.close("empty")

    # -- messages

    def request(self, connection: Connection, body: object) -> Deferred[object]:
        """Take a message to its room; a handler for :class:`kupool.net.router.Router`.

        Fires with what ``on_dispatch_message`` returned, or fails, with
        :class:`RequestError` where the message is refused.
        """
        answer: Deferred[object] = Deferred()
        self._take(connection, body, answer)
        return answer

    def deliver(self, connection: Connection, body: object) -> None:
        """Take a message to its room without an answer; ``on_error`` hears of a refusal."""
        self._take(connection, body, None)

    def _take(self, connection: Connection, body: object, answer: Deferred[object] | None) -> None:
        member = self.members.of(connection)
        if member is not None:
            self._post(Incoming(member, connection, body, answer))
            return

        def parsed(result: object) -> None:
            self._parsed(connection, body, answer, result)

        introduce(self._house, connection, body, parsed)

    def _post(self, incoming: Incoming) -> None:
        room = incoming.member.room
        try:
            room.post(incoming)
        except RequestError:
            self._refuse(room, Failure(), incoming.body, incoming.answer)

    def enter(self, code: str, user: str, connection: Connection | None = None) -> Member:
        """Make a user a member of a room, which is created where there is none.

        Raises :class:`RequestError` as ``create`` and ``members.join`` do.
        """
        room = self._rooms.get(code)
        if room is not None:
            return self.members.join(room, user, connection)
        room = self.create(code)
        try:
            return self.members.join(room, user, connection)
        except RequestError:
            room.close("nobody came")
            raise

    def _parsed(
        self,
        connection: Connection,
        body: object,
        answer: Deferred[object] | None,
        result: object,
    ) -> None:
        """Let the user of a first message in, as ``on_parse_user`` says."""
        try:
            if isinstance(result, Failure):
                result.raiseException()
            if result is None:
                raise RequestError(FORBIDDEN)
            code, user = _strings(result)
            member = self.members.of(connection) or self.enter(code, user, connection)
        except Exception:
            self._refuse(None, Failure(), body, answer)
        else:
            self._post(Incoming(member, connection, body, answer))

    def _refuse(
        self,
        room: Room | None,
        failure: Failure,
        subject: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Tell the sender why a message is not handled, or else the application."""
        if answer is None or not failure.check(RequestError):
            try:
                self._hooks.on_error(room, failure, subject)
            except Exception:
                self._log.failure("on_error failed")
        if answer is not None:
            answer.errback(failure)

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection that has ended; call it from the observer's ``closed``."""
        self.members.disconnected(connection)
        player = self._seeking.pop(connection, None)
        if player is not None:
            del self._sought[player]
            self.matchmaker.cancel(player)

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
        return in_chunks(self._clock, self._rooms.values(), lambda room: room.send_later(packet))

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
        member = self.members.get(user)
        member.room.send(Packet(payload, key, policy), list(member.connections))
        return len(member.connections)

    # -- matches

    def match(self, connection: Connection, body: object) -> bool:
        """Let a player wait for a match; a handler for a router.

        The player waits no longer when the connection ends. Raises :class:`RequestError`
        where ``on_parse_match`` or the matchmaker refuses.
        """
        request: Any = self._hooks.on_parse_match(connection, body)
        if request is None or self._closing:
            raise RequestError(FORBIDDEN)
        if not isinstance(request, MatchRequest):
            raise TypeError(f"on_parse_match returned {request!r}")
        if connection in self._seeking:
            raise RequestError(ALREADY_EXISTS.about(f"player {self._seeking[connection]}"))
        if request.player in self.matchmaker:
            raise RequestError(ALREADY_EXISTS.about(f"player {request.player}"))
        self._seeking[connection] = request.player
        self._sought[request.player] = connection
        try:
            self.matchmaker.join(request._replace(connection=connection))
        except RequestError:
            self._stopped_seeking(request.player)
            raise
        return True

    def cancel_match(self, player: str) -> bool:
        """Let a player wait no longer; returns whether they did."""
        self._stopped_seeking(player)
        return self.matchmaker.cancel(player)

    def _stopped_seeking(self, player: str) -> None:
        connection = self._sought.pop(player, None)
        if connection is not None:
            del self._seeking[connection]

    def _outcome(self, outcome: MatchOutcome) -> None:
        for request in outcome.players:
            self._stopped_seeking(request.player)

        def done(result: object) -> None:
            if isinstance(result, Failure):
                self._refuse(None, result, outcome, None)

        def call() -> object:
            return self._hooks.on_match_players(self, outcome)

        Running(done).start(call, self._clock, self.settings.handler_timeout)

    # -- the end

    async def close(self, reason: str = "closed", *, handle_pending: bool = True) -> list[Incoming]:
        """Close every room; returns the messages that were not handled."""
        self._closing = True
        for request in self.matchmaker.stop():
            self._stopped_seeking(request.player)
        closing: list[Deferred[list[Incoming]]] = []
        await in_chunks(
            self._clock,
            self._rooms.values(),
            lambda room: closing.append(room.close(reason, handle_pending=handle_pending)),
        )
        unhandled: list[Incoming] = []
        for closed in closing:
            unhandled += await closed
        self.wheel.stop()
        return unhandled


def _strings(result: object) -> tuple[str, str]:
    match result:
        case (str(code), str(user)):
            return code, user
    raise TypeError(f"on_parse_user returned {result!r}")


__all__ = ["Lobby"]
