"""Rooms and matches for connections of :mod:`kupool.net`, in any framing with JSON.

This is the service behind the methods ``room.*`` and ``match.*`` (docs/protocol.md, section 5). In
its rooms members send each other any messages; there are no other rules. An application with rooms
of its own implements :class:`~kupool.rooms.IRoomHooks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Annotated, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus import IBus
from kupool.errors import (
    ALREADY_EXISTS,
    BAD_PARAMS,
    FORBIDDEN,
    NOT_FOUND,
    CloseReason,
    ErrorText,
    RequestError,
)
from kupool.net.interfaces import IClosingObserver
from kupool.net.observer import Observer
from kupool.net.routing.router import Before, Router
from kupool.rooms.bodies import (
    EnterBody,
    HandedMember,
    LeaveBody,
    MembersBody,
    RoomBody,
    SayBody,
    decode_state,
    encode_state,
)
from kupool.rooms.events import Closing, TakenOver
from kupool.rooms.failures import RoomGone
from kupool.rooms.lobby import Lobby
from kupool.rooms.matchmaking import MatchOutcome, MatchRequest
from kupool.rooms.membership import Disconnected, Joined, Left, Returned
from kupool.rooms.room import Incoming, Member, Room
from kupool.rooms.settings import RoomSettings
from kupool.rooms.spread.hooks import SpreadHooks
from kupool.rooms.spread.listing import RoomLists, list_rooms
from kupool.rooms.spread.lobby import SpreadLobby
from kupool.rooms.spread.packing import StructPacking
from kupool.rooms.spread.seats import MOVED
from kupool.rooms.spread.settings import SpreadSettings
from kupool.session.connection import Connection

#: The actions that a peer may be allowed to do with a room, or with the players of a mode.
CREATE, JOIN, MATCH = "create", "join", "match"

#: The method of every notification.
NOTIFICATION = "room"

#: The most rooms or members in one answer, and the most users that one message can name as
#: receivers: with names of 255 characters they fit a message of 64 KiB.
PAGE = 50

#: The most players of one match, and bytes of JSON that each may show the others, for the same
#: reason.
MAX_PLAYERS = 32
MAX_SHOWN = 512

#: The largest start of a list: JSON numbers are exact up to it.
MAX_START = 2**53 - 1

#: The limits of the time that a player may wait for a match, in milliseconds.
MAX_WAIT = 3_600_000

#: The key of a moved room's timer for members who have not followed it.
_MISSING = "missing"

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class RoomParams(msgspec.Struct):
    """Params of ``room.create`` and ``room.join``."""

    room: _Name


class SendParams(msgspec.Struct):
    """Params of ``room.send``: any JSON value, for all others or for those named in ``to``."""

    data: msgspec.Raw
    to: Annotated[list[_Name], msgspec.Meta(min_length=1, max_length=PAGE)] | None = None


class ListParams(msgspec.Struct):
    """Params of ``room.list``: it lists rooms, or with ``room`` its members, from ``start`` on."""

    room: _Name | None = None
    start: Annotated[int, msgspec.Meta(ge=0, le=MAX_START)] = 0


class MatchParams(msgspec.Struct):
    """Params of ``match.join``; ``needed`` includes the player."""

    mode: _Name
    needed: Annotated[int, msgspec.Meta(ge=2, le=MAX_PLAYERS)]
    timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=MAX_WAIT)] = 30_000
    data: msgspec.Raw = msgspec.Raw(b"null")


class Happened(msgspec.Struct):
    """Params of a notification; ``user`` and ``data`` are null if there are none."""

    room: str | None
    event: str
    user: str | None = None
    data: object = None


class Present(msgspec.Struct):
    """A member in a list; times are in milliseconds since the epoch."""

    user: str
    online: bool
    joined_at: int
    last_seen: int


class _Hooks(SpreadHooks):
    """Tells the members of a room what happens in it.

    ``room.data`` has users who become members without a notification to the others: matched
    players, and the members of a room that has moved here. The latter have ``patience`` seconds to
    come. In a room that moves from here, ``room.data`` is the list of its members.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience

    def on_parse_user(self, connection: Connection, body: object) -> object:
        """Return the room that a connection without a room wants to enter, if any."""
        return (body.room, body.user) if isinstance(body, EnterBody) else None

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        """Pass on a member's message, or do what else the member asked for."""
        body, member = incoming.body, incoming.member
        match body:
            case SayBody():
                return self._say(room, member, body)
            case LeaveBody():
                member.leave()
                return True
            case MembersBody():
                return self._list(room, body)
            case EnterBody():
                return {"room": room.code, "members": len(room.members)}
        raise TypeError(f"no message of this service: {body!r}")

    def _say(self, room: Room, member: Member, body: SayBody) -> bool:
        said = Happened(room.code, "message", member.user, body.data)
        if body.to is None:
            room.notify(NOTIFICATION, said, without=[member])
            return True
        try:
            wanted = [room.members[user] for user in dict.fromkeys(body.to)]
        except KeyError as error:
            raise RequestError(NOT_FOUND.about(f"user {error.args[0]}")) from None
        for one in wanted:
            one.notify(NOTIFICATION, said)
        return True

    def _list(self, room: Room, body: MembersBody) -> dict[str, object]:
        if room.code != body.room:
            raise RoomGone(body.room)
        members, start = room.members, body.start
        some = list(islice(members.values(), start, start + PAGE))
        return _page("members", list(map(_present, some)), start + len(some), len(members))

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        """Notify the others of members who come and go, and everybody of the end of the room."""
        match event:
            case Joined(member):
                self._joined(room, member)
            case Disconnected(member):
                self._tell(room, "away", member)
            case Returned(member):
                self._tell(room, "back", member)
            case Left(member, reason):
                self._tell(room, "left", member, reason)
            case TakenOver(state):
                self._taken_over(room, state)
            case Closing(reason) if reason == MOVED:
                room.data = [
                    HandedMember(m.user, m.joined_at, m.online) for m in room.members.values()
                ]
            case Closing(reason):
                room.notify(NOTIFICATION, Happened(room.code, "closed", None, reason), policy=None)

    def _tell(self, room: Room, event: str, member: Member, data: object = None) -> None:
        room.notify(NOTIFICATION, Happened(room.code, event, member.user, data), without=[member])

    # -- rooms that move

    def on_hand_over(self, room: Room) -> bytes:
        """Return the members of a room that moves away."""
        return encode_state(room.data if isinstance(room.data, list) else [])

    def _taken_over(self, room: Room, state: bytes) -> None:
        """Expect the members of a moved room, who are not announced again."""
        room.data = {member.user: member for member in decode_state(state)}
        room.once(_MISSING, self._patience, self._given_up)

    def _joined(self, room: Room, member: Member) -> None:
        if not room.data or member.user not in room.data:
            self._tell(room, "joined", member)
            return
        before = room.data.pop(member.user)
        if before is not None:
            member.joined_at = before.joined_at
            if not before.online:
                self._tell(room, "back", member)

    def _given_up(self, room: Room, key: str) -> None:
        """Announce the leave of members who have not followed a moved room."""
        missing, room.data = room.data, None
        for user in missing or ():
            room.notify(NOTIFICATION, Happened(room.code, "left", user, "gone"))

    def on_parse_match(self, connection: Connection, body: object) -> object:
        """Return the match request that the service has made of the message."""
        return body

    def on_match_players(self, lobby: Lobby, outcome: MatchOutcome) -> None:
        """Put matched players into a room and notify them, or notify that no match was found."""
        mode = outcome.mode
        if not outcome.matched:
            self._tell_unmatched(outcome.players, {"mode": mode})
            return
        try:
            room = lobby.create(lobby.new_code("match-"))
        except RequestError as error:  # the limit of rooms may be reached
            self._tell_unmatched(outcome.players, {"mode": mode, "error": error.error.text})
            return
        for request in outcome.present:
            try:
                lobby.bring(room, request.player, request.connection)
            except RequestError as error:
                self._tell_unmatched([request], {"mode": mode, "error": error.error.text})
        if not room.members:
            room.close()
            return
        players = [
            {"user": request.player, "data": request.data}
            for request in outcome.players
            if request.player in room.members
        ]
        room.data = dict.fromkeys(room.members)
        found = Happened(room.code, "matched", None, {"mode": mode, "players": players})
        room.notify(NOTIFICATION, found, policy=None)

    def _tell_unmatched(self, players: Iterable[MatchRequest], data: object) -> None:
        for request in players:
            happened = Happened(None, "unmatched", request.player, data)
            request.notify(NOTIFICATION, happened)


@implementer(IClosingObserver)
class RoomService(Observer):
    """The observer of a server with rooms that any session may use.

    ``router`` may have methods already. ``user_of`` returns the user of a connection: a user is in
    one room at a time, with all of their connections that have joined it. ``before`` are steps
    before every method, such as a check of permissions. ``max_data`` is the size limit of a
    member's message in bytes of JSON. ``may`` returns whether a peer may :data:`CREATE` or
    :data:`JOIN` a room of a name, or :data:`MATCH` in a mode; lists leave out rooms that the peer
    may not join.

    With a ``bus``, all services on it share their rooms (:class:`SpreadLobby`) from :meth:`start`
    on; ``spread`` are the settings for that.
    """

    def __init__(
        self,
        clock: IReactorTime,
        user_of: Callable[[Connection], str],
        router: Router | None = None,
        before: Iterable[Before] = (),
        *,
        settings: RoomSettings | None = None,
        max_data: int = 4096,
        may: Callable[[Connection, str, str], bool] = lambda connection, action, name: True,
        wall: Callable[[], float] = time.time,
        bus: IBus | None = None,
        spread: SpreadSettings | None = None,
    ) -> None:
        methods = router or Router()
        super().__init__(methods)
        settings, spread = settings or RoomSettings(), spread or SpreadSettings()
        hooks = _Hooks(max(settings.grace, spread.move_timeout))
        self._spread: SpreadLobby | None = None
        self._lists: RoomLists | None = None
        if bus is None:
            self.lobby = Lobby(clock, hooks, settings, wall=wall, admit=self._admit)
        else:
            self.lobby = self._spread = SpreadLobby(
                clock,
                bus,
                hooks,
                StructPacking(RoomBody),
                settings=settings,
                spread=spread,
                wall=wall,
                admit=self._admit,
            )
            self._lists = RoomLists(clock, bus, spread, hosts=self._spread.hosts, rooms=self.lobby)
        self._user_of = user_of
        self._max_data = max_data
        self._may = may
        steps = tuple(before)
        methods.add("room.create", self._create, RoomParams, before=steps)
        methods.add("room.join", self._join, RoomParams, before=steps)
        methods.add("room.leave", self._leave, before=steps)
        methods.add("room.send", self._send, SendParams, before=steps)
        methods.add("room.list", self._list, ListParams, before=steps)
        methods.add("match.join", self._match, MatchParams, before=steps)
        methods.add("match.cancel", self._cancel, before=steps)

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """Do nothing: a member may come back."""

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Start the grace period of a member whose last connection has ended."""
        self.lobby.disconnected(connection)

    async def start(self, *, required: bool = True) -> None:
        """Find the other services on the bus, if there is one.

        Unless they are ``required``, the service starts without them while the bus is unavailable;
        until then every request is answered ``Temporarily unavailable``. Raises what
        :meth:`~kupool.rooms.spread.lobby.SpreadLobby.start` raises.
        """
        if self._spread is not None and self._lists is not None:
            await self._lists.start()
            await self._spread.start(required=required)

    async def close(self, reason: str) -> None:
        """Take no more requests, and move the rooms to other services on the bus or end them."""
        await self.lobby.close(reason, handle_pending=False)
        if self._lists is not None:
            await self._lists.stop()

    # -- methods

    def _create(self, connection: Connection, request: Any) -> object:
        code = request.params.room
        self._check(connection, CREATE, code)
        return self._enter(connection, EnterBody(code, self._user_of(connection), create=True))

    def _join(self, connection: Connection, request: Any) -> object:
        code = request.params.room
        body = EnterBody(code, self._user_of(connection), False, self._may(connection, JOIN, code))
        return self._enter(connection, body)

    def _enter(self, connection: Connection, body: EnterBody) -> Deferred[object]:
        code = self.lobby.code_of(connection)
        if code == body.room and body.create:
            raise RequestError(ALREADY_EXISTS.about(f"room {code}"))
        if code not in (None, body.room):
            if self.lobby.owns(body.room):
                self._admit(body.room, body.user, body)
            raise RequestError(ALREADY_EXISTS.about(f"{body.user} in room {code}"))
        return self.lobby.request(connection, body)

    def _admit(self, code: str, user: str, body: object) -> None:
        """Refuse to create a room that exists, or to join one that does not."""
        assert isinstance(body, EnterBody)
        room = self.lobby.find(code)
        if body.create:
            if room is not None:
                raise RequestError(ALREADY_EXISTS.about(f"room {code}"))
        elif room is None or user not in room.members:
            if not body.allowed:
                raise _forbidden(JOIN, code)
            self.lobby.get(code)

    def _leave(self, connection: Connection, request: Any) -> Deferred[object]:
        self._code(connection)
        elsewhere = self.lobby.members.of(connection) is None
        left = self.lobby.request(connection, LeaveBody())
        # Later requests of the peer, such as one to join another room, come after it.
        connection.hold()

        def go_on(result: object) -> object:
            self.lobby.clock.callLater(0, connection.release)
            if elsewhere and isinstance(result, Failure) and result.check(RoomGone):
                return True  # the room has removed the connection before it answered
            return result

        return left.addBoth(go_on)

    def _send(self, connection: Connection, request: Any) -> ErrorText | Deferred[object]:
        self._code(connection)
        params: SendParams = request.params
        size = len(params.data)
        if size > self._max_data:
            return BAD_PARAMS.about(f"data: {size} bytes, more than {self._max_data}")
        return self.lobby.request(connection, SayBody(params.data, params.to))

    def _list(self, connection: Connection, request: Any) -> Deferred[object]:
        code, start = request.params.room, request.params.start
        if code is None:
            return Deferred.fromCoroutine(self._list_rooms(connection, start))
        self._code(connection)
        return self.lobby.request(connection, MembersBody(code, start))

    async def _list_rooms(self, connection: Connection, start: int) -> object:
        if self._lists is None:
            page = list_rooms(self.lobby, start, PAGE)
        else:
            page = await self._lists.page(start, PAGE)
        shown = [
            {"room": room.room, "members": room.members}
            for room in page.rooms
            if self._may(connection, JOIN, room.room)
        ]
        return {"rooms": shown, "next": page.next}

    def _match(self, connection: Connection, request: Any) -> object:
        params: MatchParams = request.params
        self._check(connection, MATCH, params.mode)
        data = params.data.copy()  # the message that it is a part of need not be kept
        if len(data) > MAX_SHOWN:
            return BAD_PARAMS.about(f"data: {len(data)} bytes, more than {MAX_SHOWN}")
        player, timeout = self._user_of(connection), params.timeout_ms / 1000
        return self.lobby.match(
            connection, MatchRequest(player, params.mode, params.needed, timeout, data)
        )

    def _cancel(self, connection: Connection, request: Any) -> bool | ErrorText:
        player = self._user_of(connection)
        return self.lobby.cancel_match(player) or NOT_FOUND.about(f"player {player}")

    def _check(self, connection: Connection, action: str, name: str) -> None:
        if not self._may(connection, action, name):
            raise _forbidden(action, name)

    def _code(self, connection: Connection) -> str:
        code = self.lobby.code_of(connection)
        if code is None:
            raise RequestError(NOT_FOUND.about("room of this connection"))
        return code


def _forbidden(action: str, name: str) -> RequestError:
    what = "mode" if action == MATCH else "room"
    return RequestError(FORBIDDEN.about(f"{what} {name}"))


def _present(member: Member) -> Present:
    presence = member.presence
    joined, seen = (round(at * 1000) for at in (presence.joined_at, presence.last_seen))
    return Present(presence.user, presence.online, joined, seen)


def _page(name: str, items: list[Any], end: int, total: int) -> dict[str, object]:
    return {name: items, "next": end if end < total else None}


__all__ = [
    "CREATE",
    "JOIN",
    "MATCH",
    "MAX_PLAYERS",
    "MAX_SHOWN",
    "MAX_WAIT",
    "NOTIFICATION",
    "PAGE",
    "RoomService",
]
