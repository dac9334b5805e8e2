"""Rooms and matches for connections of :mod:`kupool.net`, in any framing that carries JSON.

The methods ``room.*`` and ``match.*`` of docs/protocol.md, section 5: rooms in which members
say what they like to each other, and nothing else happens. Rooms with rules of their own are
an application's: see :class:`~kupool.rooms.IRoomHooks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from secrets import token_hex
from typing import Annotated, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

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
from kupool.rooms.events import Closing
from kupool.rooms.failures import RoomGone
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.matchmaking import MatchOutcome, MatchRequest
from kupool.rooms.membership import Disconnected, Joined, Left, Returned
from kupool.rooms.room import Incoming, Member, Room
from kupool.rooms.settings import RoomSettings
from kupool.session.connection import Connection

#: What a peer may be allowed to do with a room, or with the players of a mode.
CREATE, JOIN, MATCH = "create", "join", "match"

#: The method of every notification.
NOTIFICATION = "room"

#: Rooms, or members, that one answer lists at most, and users that one message goes to by
#: their names: with names of 255 characters they fit a message of 64 KiB.
PAGE = 50

#: Players of one match, and bytes of JSON that each may show the others: as above.
MAX_PLAYERS = 32
MAX_SHOWN = 512

#: The largest number that a list may begin at: numbers of JSON are exact up to it.
MAX_START = 2**53 - 1

#: Milliseconds that a player may wait for a match.
MAX_WAIT = 3_600_000

#: What goes to the room in place of a message when a member leaves: what they said before
#: is heard first.
_LEAVE = object()

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class RoomParams(msgspec.Struct):
    """Of ``room.create`` and ``room.join``."""

    room: _Name


class SendParams(msgspec.Struct):
    """Of ``room.send``: any JSON value, for all others or for those named in ``to``."""

    data: msgspec.Raw
    to: Annotated[list[_Name], msgspec.Meta(min_length=1, max_length=PAGE)] | None = None


class ListParams(msgspec.Struct):
    """Of ``room.list``: rooms, or with ``room`` the members of that one, from ``start`` on."""

    room: _Name | None = None
    start: Annotated[int, msgspec.Meta(ge=0, le=MAX_START)] = 0


class MatchParams(msgspec.Struct):
    """Of ``match.join``; ``needed`` counts the player."""

    mode: _Name
    needed: Annotated[int, msgspec.Meta(ge=2, le=MAX_PLAYERS)]
    timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=MAX_WAIT)] = 30_000
    data: msgspec.Raw = msgspec.Raw(b"null")


class Happened(msgspec.Struct):
    """The params of a notification; ``user`` and ``data`` are null where there is none."""

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


class _Hooks(RoomHooks):
    """Tells the members of a room what happens in it."""

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> bool:
        """Pass on what a member says, or let them go."""
        if incoming.body is _LEAVE:
            incoming.member.leave()
            return True
        params: SendParams = incoming.body
        said = Happened(room.code, "message", incoming.member.user, params.data)
        if params.to is None:
            room.notify(NOTIFICATION, said, without=[incoming.member])
            return True
        try:
            wanted = [room.members[user] for user in dict.fromkeys(params.to)]
        except KeyError as error:
            raise RequestError(NOT_FOUND.about(f"user {error.args[0]}")) from None
        for member in wanted:
            member.notify(NOTIFICATION, said)
        return True

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        """Tell everybody else who comes and goes, and everybody that it is over."""
        match event:
            case Joined(member):
                if room.data is not None and member.user in room.data:
                    room.data.discard(member.user)  # they have been told of each other
                else:
                    self._tell(room, "joined", member)
            case Disconnected(member):
                self._tell(room, "away", member)
            case Returned(member):
                self._tell(room, "back", member)
            case Left(member, reason):
                self._tell(room, "left", member, reason)
            case Closing(reason):
                room.notify(NOTIFICATION, Happened(room.code, "closed", None, reason), policy=None)

    def _tell(self, room: Room, event: str, member: Member, data: object = None) -> None:
        room.notify(NOTIFICATION, Happened(room.code, event, member.user, data), without=[member])

    def on_parse_match(self, connection: Connection, body: object) -> object:
        """Return what the service has made of the message."""
        return body

    def on_match_players(self, lobby: Lobby, outcome: MatchOutcome) -> None:
        """Bring those together who are matched, and tell them; or tell that nobody came."""
        mode = outcome.mode
        if not outcome.matched:
            self._tell_unmatched(outcome.players, {"mode": mode})
            return
        try:
            room = lobby.create(f"match-{token_hex(8)}")
        except RequestError as error:  # there are as many rooms as there may be
            self._tell_unmatched(outcome.players, {"mode": mode, "error": error.error.text})
            return
        for request in outcome.present:
            try:
                lobby.bring(room, request.player, request.connection)
            except RequestError as error:
                self._tell_unmatched([request], {"mode": mode, "error": error.error.text})
        if not room.members:
            room.close("empty")
            return
        players = [
            {"user": request.player, "data": request.data}
            for request in outcome.players
            if request.player in room.members
        ]
        room.data = set(room.members)
        found = Happened(room.code, "matched", None, {"mode": mode, "players": players})
        room.notify(NOTIFICATION, found, policy=None)

    def _tell_unmatched(self, players: Iterable[MatchRequest], data: object) -> None:
        for request in players:
            happened = Happened(None, "unmatched", request.player, data)
            request.notify(NOTIFICATION, happened)


@implementer(IClosingObserver)
class RoomService(Observer):
    """The observer of a server with rooms for everybody.

    ``router`` may have methods of its own already. ``user_of`` returns whose connection it
    is: a user is in one room at a time, with all of their connections that have joined it.
    ``before`` are steps in front of every method, such as one that asks whether a peer may.
    ``max_data`` is how many bytes of JSON a member may say at once. ``may`` says whether a
    peer may :data:`CREATE` or :data:`JOIN` a room of a name, or :data:`MATCH` in a mode; rooms
    that it may not join are in no list.
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
    ) -> None:
        methods = router or Router()
        super().__init__(methods)
        self.lobby = Lobby(clock, _Hooks(), settings, wall=wall)
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
        """Have the grace period begin of a member whose last connection this was."""
        self.lobby.disconnected(connection)

    async def close(self, reason: str) -> None:
        """Tell every member that it is over, and take no more."""
        await self.lobby.close(reason, handle_pending=False)

    # -- methods

    def _create(self, connection: Connection, request: Any) -> object:
        code = request.params.room
        self._check(connection, CREATE, code)
        if self.lobby.find(code) is not None:
            return ALREADY_EXISTS.about(f"room {code}")
        return self._entered(self.lobby.enter(code, self._user_of(connection), connection))

    def _join(self, connection: Connection, request: Any) -> object:
        code, user = request.params.room, self._user_of(connection)
        room = self.lobby.find(code)
        if room is None or user not in room.members:
            self._check(connection, JOIN, code)
            room = self.lobby.get(code)
        return self._entered(self.lobby.members.join(room, user, connection))

    def _entered(self, member: Member) -> dict[str, object]:
        return {"room": member.room.code, "members": len(member.room.members)}

    def _leave(self, connection: Connection, request: Any) -> Deferred[object]:
        self._member(connection)
        left = self.lobby.request(connection, _LEAVE)
        # What the peer asks for next, such as to join another room, comes after it.
        connection.hold()

        def go_on(result: object) -> object:
            self.lobby.clock.callLater(0, connection.release)
            return result

        return left.addBoth(go_on)

    def _send(self, connection: Connection, request: Any) -> ErrorText | Deferred[object]:
        self._member(connection)
        size = len(request.params.data)
        if size > self._max_data:
            return BAD_PARAMS.about(f"data: {size} bytes, more than {self._max_data}")
        return self.lobby.request(connection, request.params)

    def _list(self, connection: Connection, request: Any) -> dict[str, object]:
        code, start = request.params.room, request.params.start
        if code is None:
            rooms = list(islice(self.lobby, start, start + PAGE))
            shown = [
                {"room": room.code, "members": len(room.members)}
                for room in rooms
                if self._may(connection, JOIN, room.code)
            ]
            return _page("rooms", shown, start + len(rooms), len(self.lobby))
        room = self._member(connection).room
        if room.code != code:
            raise RoomGone(code)
        members = room.members
        some = list(islice(members.values(), start, start + PAGE))
        return _page("members", list(map(_present, some)), start + len(some), len(members))

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
            what = "mode" if action == MATCH else "room"
            raise RequestError(FORBIDDEN.about(f"{what} {name}"))

    def _member(self, connection: Connection) -> Member:
        member = self.lobby.members.of(connection)
        if member is None:
            raise RequestError(NOT_FOUND.about("room of this connection"))
        return member


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
