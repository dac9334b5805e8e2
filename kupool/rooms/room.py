"""A room and its members: one thing handled after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import attempt, called
from kupool.rooms.audience import Audience, Presence
from kupool.rooms.broadcast import RoomPayload, notification
from kupool.rooms.events import Closing, Created, TimerFired
from kupool.rooms.failures import RoomBusy, RoomGone
from kupool.rooms.peers import Peer
from kupool.rooms.queue import RoomQueue
from kupool.rooms.quotas import RoomQuotas
from kupool.rooms.room_timers import RoomTimers, TimerCall, TimerRun
from kupool.rooms.running import Running, refusal
from kupool.rooms.settings import RoomSettings
from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.timers import LobbyTimers
from kupool.session.outbox import EventPolicy
from kupool.session.publication import Publication
from kupool.timing.round_robin import RoundRobin

#: A closing room's own timer.
_CLOSE = "room close"


class Member:
    """A user in a room. ``data`` is the application's own; times are since the epoch.

    ``waiting`` is how many of the member's messages the room has not handled yet, ``address``
    the one that they came from, empty where that is not known.
    """

    __slots__ = (
        "address",
        "connections",
        "data",
        "joined_at",
        "last_seen",
        "room",
        "user",
        "waiting",
    )

    def __init__(self, room: Room, user: str, now: float, address: str = "") -> None:
        #: The room, also after the member has left it: ``present`` tells.
        self.room = room
        self.user = user
        self.address = address
        self.connections: list[Peer] = []
        self.joined_at = self.last_seen = now
        self.waiting = 0
        self.data: Any = None

    @property
    def online(self) -> bool:
        """Whether the member has a connection."""
        return bool(self.connections)

    @property
    def present(self) -> bool:
        """Whether the member still is one."""
        return self.room.members.get(self.user) is self

    @property
    def presence(self) -> Presence:
        """The member as others see them."""
        return Presence(self.user, self.online, self.joined_at, self.last_seen)

    def send(
        self,
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send to every connection of the member; returns how many those are.

        In order with the room's broadcasts; for ``key`` and ``policy`` see
        :class:`~kupool.session.publication.Publication`.
        """
        self.room.send(Publication(payload, key, policy), list(self.connections))
        return len(self.connections)

    def notify(
        self,
        method: str,
        params: object,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send the member a notification, ``{"id":null,"method":...,"params":...}``."""
        return self.send(notification(method, params), key=key, policy=policy)

    def leave(self, reason: str = "left") -> None:
        """Be a member no more; the connections stay open. Harmless when repeated."""
        if self.present:
            self.room.lobby.members.leave(self.user, reason)


@dataclass(slots=True, eq=False)
class Incoming:
    """A member's message; ``connection`` is None for what the application sent itself.

    ``answer``, if any, fires with what the room's handler returns, or fails.
    """

    member: Member
    connection: Peer | None
    body: Any
    answer: Deferred[object] | None = None


class RoomLogic(Protocol):
    """What an application does in a room: a part of :class:`~kupool.rooms.lobby.IRoomHooks`."""

    def on_create_room(self, room: Room) -> object:
        """Prepare a new room."""

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        """Handle a member's message."""

    def on_dispatch_system_message(self, room: Room, event: object) -> object:
        """Handle what happened to the room."""

    def on_error(self, room: Room | None, failure: Failure, subject: object) -> object:
        """Hear what failed."""


class LobbyMembers(Protocol):
    """The members of all rooms, as a room knows them: a
    :class:`~kupool.rooms.membership.Membership`.
    """

    def find(self, user: str) -> Member | None:
        """Return the member that a user is, if any."""

    def get(self, user: str) -> Member:
        """Return the member that a user is; raises ``not found``."""

    def of(self, connection: Peer) -> Member | None:
        """Return the member that talks on a connection, if any."""

    def last_seen(self, user: str) -> float | None:
        """Return when a user was last heard of, in seconds since the epoch, if known."""

    def join(self, room: Room, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room."""

    def move(self, room: Room, user: str) -> Member:
        """Let a member go to another room."""

    def leave(self, user: str, reason: str = "left") -> Member:
        """Let a member go."""

    def rename(self, user: str, new: str) -> Member:
        """Give a member another id."""


class RoomLobby(Protocol):
    """The lobby, as its rooms know it: a :class:`~kupool.rooms.lobby.Lobby`."""

    @property
    def members(self) -> LobbyMembers:
        """The members of all rooms."""

    def find(self, code: str) -> Room | None:
        """Return a room by its code, if there is one."""

    def get(self, code: str) -> Room:
        """Return a room by its code; raises ``not found``."""

    def create(self, code: str, *, user: str = "", address: str = "") -> Room:
        """Make a room, which a user at an address asks for, if any."""

    def enter(self, code: str, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, which is created where there is none."""

    def move(self, user: str, code: str) -> Member:
        """Let a member go to another room, which is created where there is none."""

    def broadcast(
        self,
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> Deferred[None]:
        """Send to all members of all rooms."""

    def notify(
        self,
        method: str,
        params: object,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> Deferred[None]:
        """Notify all members of all rooms."""

    def send_user(
        self,
        user: str,
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send to a user on all of their connections."""

    def cancel_match(self, player: str) -> bool:
        """Let a player wait for a match no longer."""


@dataclass(frozen=True)
class RoomSurroundings:
    """What all rooms of a lobby share.

    ``wall`` returns seconds since the epoch. ``ended`` is called with a room that has ended
    and its messages that were not handled.
    """

    clock: IReactorTime
    wall: Callable[[], float]
    logic: RoomLogic
    settings: RoomSettings
    timers: LobbyTimers
    tasks: TaskStatistics
    quotas: RoomQuotas
    turns: RoundRobin
    lobby: RoomLobby
    ended: Callable[[Room, list[Incoming]], object]


class Room:
    """A room with a ``code``; ``data`` is the application's own.

    Its logic runs one message at a time: events first, then messages in the order they
    came. A room is made by :meth:`kupool.rooms.lobby.Lobby.create`.
    """

    __slots__ = (
        "__weakref__",
        "_at_work",
        "_audience",
        "_closed",
        "_closing",
        "_queue",
        "_running",
        "_surroundings",
        "_timers",
        "_unhandled",
        "_when_closed",
        "code",
        "data",
        "failed",
        "handled",
        "members",
        "queued",
    )

    def __init__(self, code: str, surroundings: RoomSurroundings) -> None:
        self.code = code
        self.data: Any = None
        self.handled = self.failed = 0
        #: Whether the room waits for its turn: see :class:`~kupool.timing.round_robin.Runnable`.
        self.queued = False
        self._surroundings = surroundings
        settings = surroundings.settings
        self._audience: Audience[Member] = Audience(code, settings.outgoing_limit)
        #: The members by user, for reading: they come and go by the lobby.
        self.members = self._audience.members
        self._queue: RoomQueue[Incoming] = RoomQueue(code, surroundings.clock, settings)
        self._at_work = self._closing = self._closed = False
        # Most rooms are idle: what only a busy one needs is made when it is.
        self._timers: RoomTimers | None = None
        self._running: Running | None = None
        self._unhandled: list[Incoming] | None = None
        self._when_closed: list[Callable[[list[Incoming]], None]] | None = None

    @property
    def lobby(self) -> RoomLobby:
        """The lobby that the room is in."""
        return self._surroundings.lobby

    @property
    def closing(self) -> bool:
        """Whether the room takes nothing more."""
        return self._closing

    @property
    def closed(self) -> bool:
        """Whether the room has ended."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many messages of members wait."""
        return self._queue.waiting

    @property
    def refused(self) -> int:
        """How many messages were refused because too many waited."""
        return self._queue.refused

    @property
    def dropped(self) -> int:
        """How many messages were dropped because members read slowly."""
        return self._audience.dropped

    def presence(self) -> list[Presence]:
        """Return the members of this moment, in the order they joined."""
        return [member.presence for member in self.members.values()]

    # -- what goes out

    def broadcast(
        self,
        payload: RoomPayload,
        *,
        without: Collection[object] = (),
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> None:
        """Send to every connection of every member, encoded once for each framing.

        ``without`` leaves out users, members and connections. For ``key`` and ``policy``
        see :class:`~kupool.session.publication.Publication`. Broadcasts of a room arrive in order;
        large ones take several turns of the reactor, and the room's next message waits for
        them.
        """
        self.send(Publication(payload, key, policy), self._audience.connections(without))

    def notify(
        self,
        method: str,
        params: object,
        *,
        without: Collection[object] = (),
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> None:
        """Broadcast a notification, ``{"id":null,"method":...,"params":...}``."""
        self.broadcast(notification(method, params), without=without, key=key, policy=policy)

    def send(self, publication: Publication, connections: list[Peer]) -> None:
        """Send to some connections, in order with the room's broadcasts."""
        if self._audience.send(publication, connections):
            self._surroundings.turns.wake(self)

    def send_later(self, publication: Publication) -> None:
        """Send to everybody here when it is the room's turn."""
        if self._audience.send(publication, self._audience.connections(), later=True):
            self._surroundings.turns.wake(self)

    # -- what comes in

    def post(self, incoming: Incoming) -> None:
        """Queue a member's message.

        While too much waits, of the member or in the room, the sending connection is
        paused or the message refused: see :class:`~kupool.rooms.settings.FloodPolicy`.
        Raises :class:`RoomBusy` where it is refused, and :class:`RoomGone` where the room
        is closing or the sender no member.
        """
        member = incoming.member
        if self._closing or member.room is not self or not member.present:
            raise RoomGone(self.code)
        self._queue.add_message(incoming)
        member.last_seen = self._surroundings.wall()
        self._surroundings.turns.wake(self)

    def post_system(self, event: object) -> None:
        """Queue an event; raises :class:`RoomBusy` when too many wait, or RoomGone."""
        if self._closing:
            raise RoomGone(self.code)
        if self._queue.events_full:
            raise RoomBusy(f"events of room {self.code}")
        self.tell(event)

    @property
    def system_full(self) -> bool:
        """Whether so many events wait that no more should be caused."""
        return self._queue.events_full

    def tell(self, event: object) -> None:
        """Queue an event whatever waits; for what has happened already."""
        if self._closed:
            return
        self._queue.add_event(event)
        self._surroundings.turns.wake(self)

    def let_go(self, connection: Peer) -> None:
        """Hold a connection back no longer that is no member's any more."""
        self._queue.let_go(connection)

    # -- timers

    def once(self, key: str, delay: float, call: TimerCall | None = None) -> None:
        """Call something, ``delay`` seconds from now, as one message of the room.

        Replaces a timer of the same key. Without ``call`` the room gets the event
        :class:`TimerFired`. Raises :class:`RoomGone` in a room that is closing.
        """
        self._open_timers().once(key, delay, call)

    def repeat(self, key: str, interval: float, call: TimerCall | None = None) -> None:
        """Do so every ``interval`` seconds; skipped while the last run has not ended."""
        self._open_timers().repeat(key, interval, call)

    def _open_timers(self) -> RoomTimers:
        if self._closing:
            raise RoomGone(self.code)
        if self._timers is None:
            surroundings = self._surroundings
            self._timers = RoomTimers(surroundings.timers, surroundings.tasks, self)
        return self._timers

    def has_timer(self, key: str) -> bool:
        """Say whether a timer is set, or a run of it waits."""
        return self._timers is not None and self._timers.has(key)

    def cancel(self, key: str) -> bool:
        """Cancel a timer; returns whether there was one. A run that waits comes no more."""
        return self._timers is not None and self._timers.cancel(key)

    def cancel_prefix(self, prefix: str = "") -> int:
        """Cancel the timers whose keys begin so; returns how many there were."""
        return 0 if self._timers is None else self._timers.cancel_prefix(prefix)

    # -- its turn

    @property
    def ready(self) -> bool:
        """Whether there is something to do that need not wait."""
        return self._audience.pending or (not self._at_work and bool(self._queue))

    def run(self, budget: int) -> int:
        """Handle what waits, up to ``budget`` messages, or sends."""
        spent = 0
        audience, queue = self._audience, self._queue
        while spent < budget:
            if audience.pending:
                spent += max(1, audience.run(budget - spent))
                audience.work_done()
            elif queue and not self._at_work:
                self._handle_next()
                spent += 1 + audience.work_done()
            else:
                break
        return spent

    def _handle_next(self) -> None:
        if self._queue.has_event:
            event = self._queue.next_event()
            timers = self._timers
            if timers is None or not isinstance(event, TimerRun) or timers.begin(event):
                self._start(event)
            else:
                self._go_on()
            return
        incoming = self._queue.next_message()
        if incoming is None:
            return
        if incoming.member.present:
            self._start(incoming)
        else:
            self._fail(incoming, Failure(RoomGone(self.code)))
            self._go_on()

    def _go_on(self) -> None:
        """See what is next, after something has ended."""
        if self._queue:
            self._surroundings.turns.wake(self)
            return
        self._queue.shrink()
        if self._closing and not self._closed:
            self._end()

    def _start(self, subject: object) -> None:
        self._at_work = True
        result = attempt(self._call, subject)
        if isinstance(result, Deferred):
            running = self._running = Running(lambda result: self._ended(subject, result))
            surroundings = self._surroundings
            running.watch(result, surroundings.clock, surroundings.settings.handler_timeout)
        else:
            self._ended(subject, result)

    def _call(self, subject: object) -> object:
        logic = self._surroundings.logic
        if isinstance(subject, Incoming):
            return logic.on_dispatch_message(self, subject)
        if isinstance(subject, TimerRun):
            tasks = self._surroundings.tasks
            return tasks.run(subject.name, subject.due, self._call_timer, subject)
        if isinstance(subject, Created):
            return logic.on_create_room(self)
        return logic.on_dispatch_system_message(self, subject)

    def _call_timer(self, run: TimerRun) -> object:
        if run.function is not None:
            return run.function(self, run.key)
        return self._surroundings.logic.on_dispatch_system_message(self, TimerFired(run.key))

    def _ended(self, subject: object, result: object) -> None:
        self._at_work = False
        self._running = None
        self.handled += 1
        if self._timers is not None and isinstance(subject, TimerRun):
            self._timers.end(subject)
        if isinstance(result, Failure):
            self._fail(subject, result)
            if isinstance(subject, Created):
                self.close("it could not be created", handle_pending=False)
        elif isinstance(subject, Incoming):
            self._answer(subject, result)
        self._go_on()

    def _fail(self, subject: object, failure: Failure) -> None:
        """Tell the application, and the sender, what a message or an event came to."""
        self.failed += 1
        answer = subject.answer if isinstance(subject, Incoming) else None
        if answer is None or not refusal(failure):
            called(self._surroundings.logic.on_error, self, failure, subject).addErrback(
                _could_not, f"on_error of room {self.code}"
            )
        if isinstance(subject, Incoming):
            self._answer(subject, failure)

    def _answer(self, incoming: Incoming, result: object) -> None:
        """Tell the sender, unless the application or its router has done so already."""
        if incoming.answer is not None and not incoming.answer.called:
            incoming.answer.callback(result)

    # -- the end

    def close(
        self, reason: str = "closed", *, handle_pending: bool = True
    ) -> Deferred[list[Incoming]]:
        """Take nothing more, cancel the timers, and end.

        What waits is handled first, for ``close_timeout`` seconds at most, unless
        ``handle_pending`` is False; a handler at work has that time, too. Fires with the
        messages that were not handled, each of which has failed with :class:`RoomGone`.
        """
        fired: Deferred[list[Incoming]] = Deferred()
        self.when_closed(fired.callback)
        if not self._closing:
            self.tell(Closing(reason))
            self._closing = True
            self.cancel_prefix()
            timeout = self._surroundings.settings.close_timeout
            self._surroundings.timers.once(
                (_CLOSE, self.code), _CLOSE, timeout, lambda timer: self._end(), always=True
            )
        if not handle_pending:
            self._drop_messages()
        return fired

    def when_closed(self, call: Callable[[list[Incoming]], None]) -> None:
        """Call something with the messages that were not handled, when the room has ended.

        Of a room that has ended already it is called at once, with none.
        """
        if self._closed:
            call([])
        elif self._when_closed is None:
            self._when_closed = [call]
        else:
            self._when_closed.append(call)

    def _drop_messages(self) -> None:
        """Handle nothing of what waits, but that the room is new, and that it is closing."""
        messages = self._queue.drop(keep=(Created, Closing))
        if messages:
            self._unhandled = [*(self._unhandled or ()), *messages]

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._surroundings.timers.cancel((_CLOSE, self.code), _CLOSE)
        gone = Failure(RoomGone(self.code))
        if self._running is not None:
            self._running.cancel(gone)
        self._drop_messages()
        self._queue.drop()
        self._queue.let_all_go()
        unhandled, self._unhandled = self._unhandled or [], None
        for incoming in unhandled:
            self._fail(incoming, gone)
        called(self._surroundings.ended, self, unhandled).addErrback(
            _could_not, f"the end of room {self.code}"
        )
        calls, self._when_closed = self._when_closed or (), None
        for call in calls:
            called(call, unhandled).addErrback(_could_not, f"the end of room {self.code}")


def _could_not(failure: Failure, what: str) -> None:
    # Not by a logger of ours: an event that is kept would keep the room.
    Logger(__name__).failure("Failed: {what}", failure, what=what)


__all__ = [
    "Incoming",
    "LobbyMembers",
    "Member",
    "Room",
    "RoomLobby",
    "RoomLogic",
    "RoomSurroundings",
]
