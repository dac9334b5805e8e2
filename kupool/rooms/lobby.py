"""The lobby: all rooms of a process, and the way from a connection into one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import isawaitable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import ALREADY_EXISTS, FORBIDDEN, RequestError
from kupool.net.connection import Connection
from kupool.net.outbox import EventPolicy
from kupool.rooms import IRoomHooks
from kupool.rooms.broadcast import Packet, Payload, notification
from kupool.rooms.entrance import introduce
from kupool.rooms.events import Created, Incoming, RoomBusy, RoomGone
from kupool.rooms.matchmaking import MatchOutcome
from kupool.rooms.members import Member
from kupool.rooms.membership import Membership
from kupool.rooms.names import check_name
from kupool.rooms.peers import Peer
from kupool.rooms.room import Room
from kupool.rooms.running import refusal
from kupool.rooms.seeking import Seeking
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
        turns = Turns(clock)
        self._house = House(clock, wall, hooks, settings, self.wheel, turns, self.tasks, self)
        self.clock = clock
        self._hooks = hooks
        self._rooms: dict[str, Room] = {}
        self._closing = False
        self.members = Membership(self._house, self._emptied)
        self._seeking = Seeking(
            self._house, lambda failure, outcome: self.refuse(None, failure, outcome, None)
        )
        self.matchmaker = self._seeking.matchmaker
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
        self.receive(connection, body, answer)
        return answer

    def deliver(self, connection: Connection, body: object) -> None:
        """Take a message to its room without an answer; ``on_error`` hears of a refusal."""
        self.receive(connection, body, None)

    def receive(
        self, connection: Connection, body: object, answer: Deferred[object] | None
    ) -> None:
        """Take a message to its room, or first ask whose it is."""
        member = self.members.of(connection)
        if member is not None:
            self._post(Incoming(member, connection, body, answer))
            return

        def parsed(result: object) -> None:
            try:
                if isinstance(result, Failure):
                    result.raiseException()
                if result is None:
                    raise RequestError(FORBIDDEN)
                code, user = code_and_user(result)
            except Exception:
                self.refuse(None, Failure(), body, answer)
            else:
                self.place(connection, code, user, body, answer)

        introduce(self._house, connection, lambda: self.parse(connection, body), parsed)

    async def parse(self, connection: Connection, body: object) -> object:
        """Return what ``on_parse_user`` does, when that room can be entered."""
        result = self._hooks.on_parse_user(connection, body)
        if isawaitable(result):
            result = await result
        if result is not None:
            code, _ = code_and_user(result)
            await self.ready(code)
        return result

    def ready(self, code: str) -> Deferred[None]:
        """Fire when no room of this code is ending: a new one may take its place then."""
        ready: Deferred[None] = Deferred()
        room = self._rooms.get(code)
        if room is not None and room.closing and not self._closing:
            room.when_closed(lambda unhandled: ready.callback(None))
        else:
            ready.callback(None)
        return ready

    def place(
        self,
        connection: Peer,
        code: str,
        user: str,
        body: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Let a user in, and take their first message to the room."""
        try:
            member = self.members.of(connection) or self.enter(code, user, connection)
        except RequestError:
            self.refuse(None, Failure(), body, answer)
        else:
            self._post(Incoming(member, connection, body, answer))

    def _post(self, incoming: Incoming) -> None:
        room = incoming.member.room
        try:
            room.post(incoming)
        except RequestError:
            self.refuse(room, Failure(), incoming.body, incoming.answer)

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

    def refuse(
        self,
        room: Room | None,
        failure: Failure,
        subject: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Tell the sender why a message is not handled, or else the application."""
        if answer is None or not refusal(failure):
            try:
                self._hooks.on_error(room, failure, subject)
            except Exception:
                self._log.failure("on_error failed")
        if answer is not None:
            answer.errback(failure)

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection that has ended; call it from the observer's ``closed``."""
        self.members.disconnected(connection)
        self._seeking.disconnected(connection)

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

    # -- matches

    def match(self, connection: Connection, body: object) -> bool:
        """Let a player wait for a match; a handler for a router.

        The player waits no longer when the connection ends. Raises :class:`RequestError`
        where ``on_parse_match`` or the matchmaker refuses.
        """
        if self._closing:
            raise RequestError(FORBIDDEN)
        self._seeking.start(connection, body)
        return True

    def cancel_match(self, player: str) -> bool:
        """Let a player wait no longer; returns whether they did."""
        return self._seeking.cancel(player)

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

    # -- the end

    async def close(self, reason: str = "closed", *, handle_pending: bool = True) -> list[Incoming]:
        """Close every room; returns the messages that were not handled."""
        self._closing = True
        self._seeking.stop()
        closing: list[Deferred[list[Incoming]]] = []
        await in_chunks(
            self.clock,
            self._rooms.values(),
            lambda room: closing.append(room.close(reason, handle_pending=handle_pending)),
        )
        unhandled: list[Incoming] = []
        for closed in closing:
            unhandled += await closed
        self.wheel.stop()
        return unhandled


def code_and_user(result: object) -> tuple[str, str]:
    """Return what ``on_parse_user`` did; raises :class:`TypeError` for anything else."""
    match result:
        case (str(code), str(user)):
            return code, user
    raise TypeError(f"on_parse_user returned {result!r}")


__all__ = ["Lobby", "code_and_user"]
