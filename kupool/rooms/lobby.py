"""The lobby: all rooms of a process, and the way from a connection into one."""

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
    """What an application does in its rooms.

    Every hook but ``on_init`` may return a Deferred or a coroutine. Where a hook raises
    :class:`kupool.errors.RequestError`, the peer is answered with its row; every other
    exception goes to ``on_error``, and stops nothing.
    """

    def on_init(lobby: Lobby) -> None:
        """Called once, before anything else."""

    def on_parse_user(connection: Connection, body: object) -> object:
        """Say who is talking, from the first message of a connection that is in no room.

        Returns ``(room code, user)``, or a Deferred or coroutine of that; None refuses.
        The room is created where there is none; the user is then a member, and the
        message is the first that the room handles of them.
        """

    def on_create_room(room: Room) -> object:
        """Prepare a new room, ``room.data`` above all.

        The room handles nothing before a returned Deferred or coroutine has ended. When
        it fails, the room is closed.
        """

    def on_dispatch_message(room: Room, incoming: Incoming) -> object:
        """Handle a member's message; what it returns, or a Deferred or coroutine of it,
        answers the message. The room handles nothing else before that.
        """

    def on_dispatch_system_message(room: Room, event: object) -> object:
        """Handle what happened to the room (:mod:`kupool.rooms.events`), as above."""

    def on_error(room: Room | None, failure: Failure, subject: object) -> object:
        """Called with what failed: a message, an event, a connection's first message."""

    def on_match_players(lobby: Lobby, outcome: MatchOutcome) -> object:
        """Called with players that were matched, or with those whose time was up.

        Also with those who were matched, and then could not be let into their room: as if
        their time was up.
        """

    def on_parse_match(connection: Connection, body: object) -> object:
        """Return the :class:`~kupool.rooms.matchmaking.MatchRequest` of a message, or a
        Deferred or coroutine of it; None refuses.
        """


#: Gets a room's code, a user and the message that is to let them in; raises to refuse.
Admit = Callable[[str, str, object], object]


class Lobby:
    """Takes messages to the rooms, and keeps who waits for a match.

    ``members`` looks up users and connections, ``timers`` has every timer, ``tasks`` counts
    their runs, ``matchmaker.statistics()`` the matches, ``refusals.counts`` who was turned away
    by a limit. Starts nothing by itself: without
    rooms there is no timer. ``tick`` is that of the timers, in seconds. ``admit`` is called with
    the room's code, the user and the message before a message lets a user in; it refuses by
    raising :class:`RequestError`.
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
        """Iterate over the rooms of this moment."""
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
        """Make a room, which stays until it is closed or its last member has left.

        ``user`` and ``address`` are whose it is, for their quotas; empty names have none.
        Raises :class:`RequestError`: ``already exists``, or ``too many requests`` at the
        limit of rooms or of theirs, ``bad params`` for a code that is empty or too long, or ``not
        found`` when the lobby is closing.
        """
        if self._closing:
            raise RoomGone(code)
        return self._rooms.create(code, user, address)

    def owns(self, code: str) -> bool:
        """Say whether a room of this code is here, if there is one: it always is."""
        return True

    def code_of(self, connection: Connection) -> str | None:
        """Return the code of the room that a connection is in; None where it is in none."""
        member = self.members.of(connection)
        return None if member is None else member.room.code

    def new_code(self, prefix: str) -> str:
        """Return a code that begins so, and that nobody can guess, of a room to be made here."""
        return f"{prefix}{token_hex(8)}"

    def maker(self, code: str) -> tuple[str, str]:
        """Return the user and the address whose room it is; empty where it is nobody's."""
        return self._rooms.maker(code)

    def take_over(self, code: str, user: str, address: str) -> Room:
        """Make a room that has been somewhere else. It counts for its maker in any case.

        Raises :class:`RequestError` as :meth:`create` does.
        """
        if self._closing:
            raise RoomGone(code)
        return self._rooms.take_over(code, user, address)

    def ready(self, code: str) -> Deferred[None]:
        """Fire when no room of this code is ending: a new one may take its place then."""
        return succeed(None) if self._closing else self._rooms.free(code)

    def linger(self, room: Room, seconds: float) -> None:
        """Close a room in so many seconds, unless somebody is there by then."""
        self._rooms.linger(room, seconds)

    def _ended(self, room: Room, unhandled: list[Incoming]) -> None:
        self._rooms.remove(room, unhandled)
        self.members.dissolve(room)

    def detached(self, connection: Peer, member: Member) -> None:
        """Called with a connection of a member who has left, or whose room has ended."""

    # -- members

    def enter(self, code: str, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, which is created where there is none.

        Raises :class:`RequestError` as ``create`` and ``members.join`` do.
        """
        address = "" if connection is None else connection.host
        return self._into(
            code, user, address, lambda room: self.members.join(room, user, connection)
        )

    def move(self, user: str, code: str) -> Member:
        """Let a member go to another room, which is created where there is none.

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
        """Make a user a member of a room from wherever they are, online or not.

        Whoever is in another room leaves it as ``moved``, with all of their connections;
        so does the member who talks on the connection, whatever ``user`` they are called.
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

        See :meth:`bring`. Who has gone meanwhile is not among them. Who cannot be let in is
        in one more outcome, which is not matched; so are all of them where there can be no
        room. Raises :class:`RequestError` then, as ``create`` does.
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

        Fires when every room has it among what it sends.
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
        """Send to a user on all of their connections; returns how many those are.

        Raises :class:`RequestError` ``not found`` for a user who is in no room.
        """
        return self.members.get(user).send(payload, key=key, policy=policy)

    # -- messages

    def request(self, connection: Connection, body: object) -> Deferred[object]:
        """Take a message to its room; a handler for :class:`kupool.net.routing.router.Router`.

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
            except BaseException:
                self.refuse(None, Failure(), body, answer)
            else:
                self.place(connection, code, user, body, answer=answer)

        Identification(self.clock, connection, parsed).start(
            lambda: self.parse(connection, body), self.settings.handler_timeout
        )

    async def parse(self, connection: Connection, body: object) -> object:
        """Return what ``on_parse_user`` does, when that room can be entered."""
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
        """Let a user in, and take their first message to the room."""
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
        """Tell the sender why a message is not handled, or else the application."""
        if answer is None or not refusal(failure):
            called(self._hooks.on_error, room, failure, subject).addErrback(
                lambda failed: self._log.failure("The hook on_error failed", failed)
            )
        if answer is not None:
            answer.errback(failure)

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection that has ended; call it from the observer's ``closed``."""
        self.members.disconnected(connection)
        self._seeking.disconnected(connection)

    # -- matches

    def match(self, connection: Connection, body: object) -> object:
        """Let a player wait for a match; a handler for a router.

        Returns True, or a Deferred of it where ``on_parse_match`` takes time. The player
        waits no longer when the connection ends. Raises :class:`RequestError`, or the
        Deferred fails with it, where ``on_parse_match`` or the matchmaker refuses, or where
        the hook takes too long.
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
        """Let a player wait no longer; returns whether they did."""
        return self._seeking.cancel(player)

    # -- the end

    async def close(self, reason: str = "closed", *, handle_pending: bool = True) -> list[Incoming]:
        """Close every room; returns the messages that were not handled."""
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
    """Return what ``on_parse_user`` did; raises :class:`TypeError` for anything else."""
    match result:
        case (str(code), str(user)):
            return code, user
    raise TypeError(f"on_parse_user returned {result!r}")


__all__ = ["IRoomHooks", "Lobby", "code_and_user"]
