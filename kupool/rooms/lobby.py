"""The lobby: all rooms of a process, and how connections enter them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from secrets import token_hex
from warnings import warn

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from kupool.callbacks import awaited, called, deferred_of
from kupool.errors import FORBIDDEN, RequestError
from kupool.rooms.broadcast import RoomPayload, notification
from kupool.rooms.entrance import Identification
from kupool.rooms.failures import RoomGone
from kupool.rooms.matchmaking import MatchOutcome
from kupool.rooms.membership import Membership
from kupool.rooms.peers import Peer
from kupool.rooms.quotas import RoomQuotas
from kupool.rooms.registry import Registry
from kupool.rooms.room import Incoming, Member, Room, RoomSurroundings
from kupool.rooms.running import HandlerTimeout, Running, refusal
from kupool.rooms.seeking import Seeking
from kupool.rooms.settings import RoomSettings
from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.timers import LobbyTimers
from kupool.session.connection import Connection
from kupool.session.outbox import EventPolicy
from kupool.session.publication import Publication
from kupool.timing.chunks import in_chunks
from kupool.timing.round_robin import RoundRobin


class IRoomHooks(Interface):
    """The hooks that an application implements for its rooms.

    Every hook but ``on_init`` may return a Deferred or a coroutine. If a hook raises
    :class:`kupool.errors.RequestError`, the peer is answered with that error. Every other exception
    goes to ``on_error``, and does not stop the room.
    """

    def on_init(lobby: Lobby) -> None:
        """Called once, before every other hook."""

    def on_parse_user(connection: Connection, body: object) -> object:
        """Identify the user from the first message of a connection without a room.

        Returns ``(room code, user)``, or a Deferred or coroutine of that; None refuses. The room is
        created if it does not exist. The user is then a member, and the room handles the message as
        their first.
        """

    def on_create_room(room: Room) -> object:
        """Prepare a new room, above all ``room.data``.

        The room handles nothing before a returned Deferred or coroutine has finished. If it fails,
        the room is closed.
        """

    def on_dispatch_message(room: Room, incoming: Incoming) -> object:
        """Handle a member's message and return the answer, or a Deferred or coroutine of it.

        The room handles nothing else before that.
        """

    def on_dispatch_system_message(room: Room, event: object) -> object:
        """Handle an event of the room (:mod:`kupool.rooms.events`), in the same way."""

    def on_error(room: Room | None, failure: Failure, subject: object) -> object:
        """Called with a failure, and with the message, event or connection that failed."""

    def on_match_players(lobby: Lobby, outcome: MatchOutcome) -> object:
        """Called with players that were matched, or with players whose time was up.

        Matched players who could not be put into a room are passed as players whose time was up.
        """

    def on_parse_match(connection: Connection, body: object) -> object:
        """Return the :class:`~kupool.rooms.matchmaking.MatchRequest` for a message.

        Or a Deferred or coroutine of it; None refuses.
        """


#: Called with a room's code, a user and the message that would make the user a member; raises to
#: refuse.
Admit = Callable[[str, str, object], object]


class Lobby:
    """Passes messages to rooms, and keeps the players who wait for a match.

    ``members`` looks up users and connections. ``timers`` has every timer, and ``tasks`` counts
    their runs. ``matchmaker.statistics()`` counts the matches. ``refusals.counts`` counts requests
    that a limit refused. Without rooms no timer runs. ``tick`` is that of the timers, in seconds.
    ``admit`` is called with the room's code, the user and the message before a message makes a user
    a member; it refuses by raising :class:`RequestError`.
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
        admit: Admit | None = None,
    ) -> None:
        self.settings = settings = settings or RoomSettings()
        self.clock = clock
        self._admit = admit
        self.tasks = TaskStatistics(clock.seconds)
        self.timers = LobbyTimers(clock, tick, tasks=self.tasks, limit=settings.max_timers)
        self._hooks = hooks
        self._closing = False
        quotas = RoomQuotas(clock, settings)
        self.refusals = quotas.refusals
        surroundings = RoomSurroundings(
            clock=clock,
            wall=wall,
            logic=hooks,
            settings=settings,
            timers=self.timers,
            tasks=self.tasks,
            quotas=quotas,
            turns=RoundRobin(clock),
            lobby=self,
            ended=self._ended,
        )
        self._rooms = Registry(surroundings)
        self.members = Membership(surroundings, self._rooms.emptied, self.detached)
        self._seeking = Seeking(
            clock,
            self.timers,
            settings,
            quotas,
            call=lambda outcome: hooks.on_match_players(self, outcome),
            failed=lambda failure, outcome: self.refuse(None, failure, outcome, None),
        )
        self.matchmaker = self._seeking.matchmaker
        hooks.on_init(self)

    @property
    def wheel(self) -> LobbyTimers:
        """The old name of ``timers``, which warns."""
        warn("Lobby.wheel is called timers now", DeprecationWarning, stacklevel=2)
        return self.timers

    # -- rooms

    def __len__(self) -> int:
        """Return how many rooms there are."""
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the current rooms."""
        return iter(self._rooms)

    def find(self, code: str) -> Room | None:
        """Return a room by its code, if there is one."""
        return self._rooms.find(code)

    def get(self, code: str) -> Room:
        """Return a room by its code; raises :class:`RequestError` ``not found``."""
        room = self._rooms.find(code)
        if room is None:
            raise RoomGone(code)
        return room

    def create(self, code: str, *, user: str = "", address: str = "") -> Room:
        """Make a room, which exists until it is closed or its last member has left.

        ``user`` and ``address`` are those whose quotas it counts for; empty names have none. Raises
        :class:`RequestError`: ``already exists``; ``too many requests`` at the limit of rooms or at
        a quota; ``bad params`` for a code that is empty or too long; or ``not found`` if the lobby
        is closing.
        """
        if self._closing:
            raise RoomGone(code)
        return self._rooms.create(code, user, address)

    def owns(self, code: str) -> bool:
        """Return whether a room of this code belongs here: always True in one process."""
        return True

    def code_of(self, connection: Connection) -> str | None:
        """Return the code of the room that a connection is in; None where it is in none."""
        member = self.members.of(connection)
        return None if member is None else member.room.code

    def new_code(self, prefix: str) -> str:
        """Return an unguessable code with this prefix, for a new room here."""
        return f"{prefix}{token_hex(8)}"

    def maker(self, code: str) -> tuple[str, str]:
        """Return the user and the address that a room counts for; empty if none."""
        return self._rooms.maker(code)

    def take_over(self, code: str, user: str, address: str) -> Room:
        """Make a room that has moved here. It counts for its user and address in any case.

        Raises :class:`RequestError` as :meth:`create` does.
        """
        if self._closing:
            raise RoomGone(code)
        return self._rooms.take_over(code, user, address)

    def ready(self, code: str) -> Deferred[None]:
        """Fire when no room of this code is closing: a new one may be made then."""
        return succeed(None) if self._closing else self._rooms.free(code)

    def linger(self, room: Room, seconds: float) -> None:
        """Close a room in this many seconds, unless it has a member by then."""
        self._rooms.linger(room, seconds)

    def _ended(self, room: Room, unhandled: list[Incoming]) -> None:
        self._rooms.remove(room, unhandled)
        self.members.dissolve(room)

    def detached(self, connection: Peer, member: Member) -> None:
        """Called with a connection of a member who has left, or whose room has ended."""

    # -- members

    def enter(self, code: str, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, which is created if needed.

        Raises :class:`RequestError` as ``create`` and ``members.join`` do.
        """
        address = "" if connection is None else connection.host
        return self._into(
            code, user, address, lambda room: self.members.join(room, user, connection)
        )

    def move(self, user: str, code: str) -> Member:
        """Move a member to another room, which is created if needed.

        Raises :class:`RequestError` as ``create`` and ``members.move`` do.
        """
        address = self.members.get(user).address
        return self._into(code, user, address, lambda room: self.members.move(room, user))

    def _into(self, code: str, user: str, address: str, go: Callable[[Room], Member]) -> Member:
        room = self.find(code)
        if room is not None:
            return go(room)
        room = self.create(code, user=user, address=address)
        try:
            return go(room)
        except RequestError:
            room.close("nobody came")
            raise

    def bring(self, room: Room, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, wherever they are, online or not.

        A user in another room leaves it as ``moved``, with all of their connections. If the
        connection belongs to a member under another name than ``user``, that member leaves too.
        Raises :class:`RequestError` as ``members.join`` and ``members.move`` do.
        """
        member = None if connection is None else self.members.of(connection)
        member = member or self.members.find(user)
        if member is None:
            return self.members.join(room, user, connection)
        member = self.members.move(room, member.user)
        if connection is not None and self.members.of(connection) is None:
            self.members.join(room, member.user, connection)
        return member

    def gather(self, code: str, outcome: MatchOutcome) -> Room:
        """Create a room with the matched players as members, wherever they are now.

        See :meth:`bring`. Players who have disconnected are left out. Players who cannot become
        members are in another outcome, which is not matched; if the room cannot be created, all
        players are. Then :class:`RequestError` is raised, as by ``create``.
        """
        try:
            room = self.create(code)
        except RequestError:
            self._seeking.disappoint(outcome.mode, outcome.players)
            raise
        left_out = []
        for request in outcome.present:
            try:
                self.bring(room, request.player, request.connection)
            except RequestError:
                left_out.append(request)
        self._seeking.disappoint(outcome.mode, left_out)
        return room

    # -- broadcasts

    def broadcast(
        self,
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> Deferred[None]:
        """Send to all members of all rooms; see :meth:`Room.broadcast`.

        Fires when every room has queued it.
        """
        publication = Publication(payload, key, policy)
        return in_chunks(self.clock, self._rooms, lambda room: room.send_later(publication))

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
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send to a user on all of their connections; returns how many there are.

        Raises :class:`RequestError` ``not found`` for a user without a room.
        """
        return self.members.get(user).send(payload, key=key, policy=policy)

    # -- messages

    def request(self, connection: Connection, body: object) -> Deferred[object]:
        """Pass a message to its room; a handler for :class:`kupool.net.routing.router.Router`.

        Fires with the result of ``on_dispatch_message``, or fails with :class:`RequestError` if the
        message is refused.
        """
        answer: Deferred[object] = Deferred()
        self.receive(connection, body, answer)
        return answer

    def deliver(self, connection: Connection, body: object) -> None:
        """Pass a message to its room without an answer; a refusal goes to ``on_error``."""
        self.receive(connection, body, None)

    def receive(
        self, connection: Connection, body: object, answer: Deferred[object] | None
    ) -> None:
        """Pass a message to its room, after identifying its user if needed."""
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
            except BaseException:
                self.refuse(None, Failure(), body, answer)
            else:
                self.place(connection, code, user, body, answer=answer)

        Identification(self.clock, connection, parsed).start(
            lambda: self.parse(connection, body), self.settings.handler_timeout
        )

    async def parse(self, connection: Connection, body: object) -> object:
        """Return the result of ``on_parse_user``, when that room can be entered."""
        result = self._hooks.on_parse_user(connection, body)
        if awaited(result):
            result = await deferred_of(result)
        if result is not None:
            code, _ = code_and_user(result)
            await self.ready(code)
        return result

    def place(
        self,
        connection: Peer,
        code: str,
        user: str,
        body: object,
        *,
        answer: Deferred[object] | None,
    ) -> None:
        """Make a user a member, and pass their first message to the room."""
        try:
            member = self.members.of(connection)
            if member is None:
                if self._admit is not None:
                    self._admit(code, user, body)
                member = self.enter(code, user, connection)
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

    def refuse(
        self,
        room: Room | None,
        failure: Failure,
        subject: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Tell the sender why a message is refused; without a sender, tell the application."""
        if answer is None or not refusal(failure):
            called(self._hooks.on_error, room, failure, subject).addErrback(
                lambda failed: self._log.failure("The hook on_error failed", failed)
            )
        if answer is not None:
            answer.errback(failure)

    def disconnected(self, connection: Connection) -> None:
        """Remove a connection that has ended; call it from the observer's ``closed``."""
        self.members.disconnected(connection)
        self._seeking.disconnected(connection)

    # -- matches

    def match(self, connection: Connection, body: object) -> object:
        """Add a player who waits for a match; a handler for a router.

        Returns True, or a Deferred of it if ``on_parse_match`` takes time. The player is removed
        when the connection ends. Raises :class:`RequestError`, or the Deferred fails with it, if
        ``on_parse_match`` or the matchmaker refuses, or if the hook exceeds its time limit.
        """
        if self._closing:
            raise RequestError(FORBIDDEN)
        request = self._hooks.on_parse_match(connection, body)
        if not awaited(request):
            return self._seek(connection, request)
        parsed: Deferred[object] = Deferred()
        Running(parsed.callback).watch(
            deferred_of(request), self.clock, self.settings.handler_timeout
        )

        def late(failure: Failure) -> Failure:
            failure.trap(HandlerTimeout)
            self.refuse(None, failure, body, None)
            return failure

        parsed.addErrback(late)
        return parsed.addCallback(lambda request: self._seek(connection, request))

    def _seek(self, connection: Connection, request: object) -> bool:
        if self._closing or not connection.sends:
            raise RequestError(FORBIDDEN)
        self._seeking.start(connection, request)
        return True

    def cancel_match(self, player: str) -> bool:
        """Remove a waiting player; returns whether they waited."""
        return self._seeking.cancel(player)

    # -- the end

    async def close(self, reason: str = "closed", *, handle_pending: bool = True) -> list[Incoming]:
        """Close every room; returns the unhandled messages."""
        self._closing = True
        self._seeking.stop()
        closing: list[Deferred[list[Incoming]]] = []
        await in_chunks(
            self.clock,
            self._rooms,
            lambda room: closing.append(room.close(reason, handle_pending=handle_pending)),
        )
        unhandled: list[Incoming] = []
        for closed in closing:
            unhandled += await closed
        self.timers.stop()
        self.refusals.stop()
        return unhandled


def code_and_user(result: object) -> tuple[str, str]:
    """Return the result of ``on_parse_user``; raises :class:`TypeError` if it is not a pair of
    texts.
    """
    match result:
        case (str(code), str(user)):
            return code, user
    raise TypeError(f"on_parse_user returned {result!r}")


__all__ = ["IRoomHooks", "Lobby", "code_and_user"]
