"""Connections of this host whose rooms are on other hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import BAD_PARAMS, TIMEOUT, UNAVAILABLE, ErrorText, RequestError
from kupool.rooms.failures import RoomBusy, RoomGone
from kupool.rooms.spread.entries import Enter, Gone, Hold, Out, Push, RoomReply, Say, policy_of
from kupool.rooms.spread.exchange import Exchange
from kupool.rooms.spread.host_lobby import HostLobby
from kupool.rooms.spread.packing import Packing
from kupool.rooms.timers import RoomTimer
from kupool.session.connection import Connection
from kupool.session.publication import Publication

#: The reason for which a member has left: they were removed, or the room has ended.
LEFT = "left"

#: The reason for the end of a room that belongs to another host now; it is in the event
#: ``Closing``.
MOVED = "moved"

#: Seconds between two requests to a moved room's old host.
AGAIN = 0.2


@dataclass(slots=True, eq=False)
class Seat:
    """A connection with a member in a room of ``host``; ``number`` is its number between hosts.

    ``moving`` is True while the room's place is unknown. ``until`` is when to give up, in seconds
    of the clock: it is set until the room is found.
    """

    connection: Connection
    number: int
    code: str
    user: str
    host: str
    pending: dict[int, Deferred[object]] = field(default_factory=dict)
    moving: bool = False
    until: float | None = None
    held: bool = False
    held_there: bool = False


class Seats:
    """All seats, by connection and by number."""

    _log = Logger()

    def __init__(self, lobby: HostLobby, exchange: Exchange, packing: Packing) -> None:
        self._lobby = lobby
        self._exchange = exchange
        self._packing = packing
        self._numbers = count(1)
        self._messages = count(1)
        self._seats: dict[Connection, Seat] = {}
        self._by_number: dict[int, Seat] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._seats)

    def of(self, connection: Connection) -> Seat | None:
        """Return the seat of a connection, if it has one."""
        return self._seats.get(connection)

    def take(self, connection: Connection, code: str, user: str, host: str) -> Seat:
        """Give a connection a seat."""
        seat = Seat(connection, next(self._numbers), code, user, host)
        self._seats[connection] = self._by_number[seat.number] = seat
        return seat

    # -- to the room's host

    def say(
        self, seat: Seat, body: object, answer: Deferred[object] | None, *, first: bool = False
    ) -> None:
        """Send a message to the room."""
        spread = self._lobby.spread
        try:
            data = self._packing.pack(body)
            if len(data) > spread.max_entry:
                raise RequestError(BAD_PARAMS.about("too large for a room of another host"))
            if self._exchange.full(seat.host) or seat.moving:
                raise RequestError(UNAVAILABLE)
            if len(seat.pending) >= 2 * spread.sender_limit:
                raise RoomBusy(f"messages of room {seat.code}")
        except BaseException:  # the packing may be the application's
            self._lobby.refuse(None, Failure(), body, answer)
            if first:
                self.drop(seat)
            return
        number = 0
        if answer is not None:
            number = next(self._messages)
            seat.pending[number] = answer
            self._lobby.timers.once(
                seat, str(number), spread.answer_timeout, self._late, name="answer", always=True
            )
            if len(seat.pending) >= spread.sender_limit and not seat.held:
                seat.held = True
                seat.connection.hold()
        address = seat.connection.host
        say = Say(seat.number, seat.code, seat.user, number, data, first, address)
        self._exchange.send(seat.host, say)

    def _late(self, timer: RoomTimer) -> None:
        assert isinstance(timer.room, Seat)
        self._settle(timer.room, int(timer.key), Failure(RequestError(TIMEOUT)))

    def _settle(self, seat: Seat, number: int, result: object) -> None:
        answer = seat.pending.pop(number, None)
        if answer is None:
            return
        self._lobby.timers.cancel(seat, str(number))
        if seat.held and len(seat.pending) <= self._lobby.spread.sender_limit // 2:
            seat.held = False
            self._release(seat)
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)

    def _release(self, seat: Seat) -> None:
        # Later: held messages are handled at once, and a handler may be running now.
        self._lobby.clock.callLater(0, seat.connection.release)

    def _let_go(self, seat: Seat) -> None:
        """Resume the connection, whatever it was held for."""
        for held in (seat.held, seat.held_there, seat.moving):
            if held:
                self._release(seat)
        seat.held = seat.held_there = seat.moving = False

    # -- from the room's host

    def _from(self, host: str, number: int) -> Seat | None:
        seat = self._by_number.get(number)
        return seat if seat is not None and seat.host == host and not seat.moving else None

    def reply(self, host: str, entry: RoomReply) -> None:
        """Handle the answer to a message."""
        seat = self._from(host, entry.peer)
        if seat is None:
            return
        seat.until = None
        if entry.code:
            error = RequestError(ErrorText(entry.code, entry.text))
            self._settle(seat, entry.number, Failure(error))
        else:
            self._settle(seat, entry.number, self._packing.unpack_result(entry.data))

    def push(self, host: str, entry: Push) -> None:
        """Send a room's message to some of the connections."""
        publication = Publication(entry.data, entry.key, policy_of(entry.policy))
        for number in entry.peers:
            seat = self._from(host, number)
            if seat is not None:
                seat.until = None
                publication.send(seat.connection)

    def hold(self, host: str, entry: Hold) -> None:
        """A room pauses or resumes a connection."""
        seat = self._from(host, entry.peer)
        if seat is None:
            return
        if entry.on == seat.held_there:
            return
        seat.held_there = entry.on
        if entry.on:
            seat.connection.hold()
        else:
            self._release(seat)

    def out(self, host: str, entry: Out) -> None:
        """The user of a connection is not a member any more, or becomes one elsewhere."""
        seat = self._from(host, entry.peer)
        if seat is None or seat.code != entry.code:
            return
        if entry.moved:
            self.move(seat)
        elif seat.until is not None and entry.reason != LEFT:
            self.lose(seat, entry.reason)
        else:
            self.drop(seat)

    # -- rooms that move

    def move(self, seat: Seat) -> None:
        """Find out where the room of a seat is now."""
        clock = self._lobby.clock
        seat.moving = True
        seat.connection.hold()
        if seat.until is None:
            seat.until = clock.seconds() + self._lobby.spread.move_timeout
        self._fail_pending(seat, UNAVAILABLE)
        if self._lobby.owner(seat.code) == seat.host:  # one of the hosts does not know yet
            clock.callLater(AGAIN, self._look, seat)
        else:
            self._look(seat)

    def _look(self, seat: Seat) -> None:
        if self._seats.get(seat.connection) is not seat:
            return
        clock, owner = self._lobby.clock, self._lobby.owner(seat.code)
        if seat.until is not None and clock.seconds() >= seat.until:
            self.lose(seat, MOVED)
        elif owner == self._lobby.host:
            self._lobby.ready(seat.code).addBoth(self._arrive_here, seat)
        elif owner is None:
            clock.callLater(AGAIN, self._look, seat)
        else:
            self.settle_at(seat, owner)

    def settle_at(self, seat: Seat, host: str) -> None:
        """Become a member of the room at its new host."""
        seat.host = host
        enter = Enter(seat.number, seat.code, seat.user, seat.connection.host)
        self._exchange.send(host, enter)
        self._let_go(seat)

    def _arrive_here(self, result: object, seat: Seat) -> None:
        if self._seats.get(seat.connection) is not seat:
            return
        self.drop(seat)
        try:
            self._lobby.enter(seat.code, seat.user, seat.connection)
        except RequestError as error:
            self._tell_lost(seat, error.error.text)

    # -- the end

    def disconnected(self, connection: Connection) -> None:
        """A connection has ended."""
        seat = self._seats.get(connection)
        if seat is not None:
            self._exchange.send(seat.host, Gone(seat.number))
            self.drop(seat)

    def lost_host(self, host: str, reason: str) -> None:
        """A host is gone, with its rooms."""
        for seat in [seat for seat in self._seats.values() if seat.host == host]:
            if not seat.moving:
                self.lose(seat, reason)

    def lose_all(self, reason: str) -> None:
        """No other host can be reached any more."""
        for seat in list(self._seats.values()):
            self.lose(seat, reason)

    def close(self) -> None:
        """Remove all seats; open requests get no answer."""
        for seat in list(self._seats.values()):
            self.drop(seat)

    def lose(self, seat: Seat, reason: str) -> None:
        """Tell a connection that its room is lost."""
        self.drop(seat)
        self._tell_lost(seat, reason)

    def _tell_lost(self, seat: Seat, reason: str) -> None:
        if seat.connection.sends:
            self._lobby.tell_lost(seat.connection, seat.code, seat.user, reason)

    def drop(self, seat: Seat) -> None:
        """Remove a seat: the connection's next message is treated as its first."""
        if self._seats.get(seat.connection) is seat:
            del self._seats[seat.connection], self._by_number[seat.number]
        self._let_go(seat)
        self._fail_pending(seat, None)

    def _fail_pending(self, seat: Seat, error: ErrorText | None) -> None:
        gone = RoomGone(seat.code) if error is None else RequestError(error)
        for number in list(seat.pending):
            self._settle(seat, number, Failure(gone))


__all__ = ["LEFT", "MOVED", "Seat", "Seats"]
