"""A room and its members. A room handles one message at a time."""

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

#: The key of a closing room's own timer.
_CLOSE = "room close"


class Member:
    """A user in a room. ``data`` belongs to the application; times are in seconds since the epoch.

    ``waiting`` is the number of the member's messages that the room has not handled. ``address`` is
    the address that they came from, empty if unknown.
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
        #: The room, also after the member has left it; see ``present``.
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
        """Whether the user still is a member."""
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
        """Send to every connection of the member; returns how many there are.

        It is sent in order with the room's broadcasts. For ``key`` and ``policy`` see
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
        """End the membership; the connections stay open. Harmless when repeated."""
        if self.present:
            self.room.lobby.members.leave(self.user, reason)


@dataclass(slots=True, eq=False)
class Incoming:
    """A member's message; ``connection`` is None if the application sent it.

    ``answer``, if any, fires with the result of the room's handler, or fails.
    """

    member: Member
    connection: Peer | None
    body: Any
    answer: Deferred[object] | None = None


class RoomLogic(Protocol):
    """The hooks of an application in a room: a part of :class:`~kupool.rooms.lobby.IRoomHooks`."""

    def on_create_room(self, room: Room) -> object:
        """Prepare a new room."""

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        """Handle a member's message."""

    def on_dispatch_system_message(self, room: Room, event: object) -> object:
        """Handle an event of the room."""

    def on_error(self, room: Room | None, failure: Failure, subject: object) -> object:
        """Handle a failure."""


class LobbyMembers(Protocol):
    """The members of all rooms, as a room uses them.

    Implemented by :class:`~kupool.rooms.membership.Membership`.
    """

    def find(self, user: str) -> Member | None:
        """Return the member of a user, if any."""

    def get(self, user: str) -> Member:
        """Return the member of a user; raises ``not found``."""

    def of(self, connection: Peer) -> Member | None:
        """Return the member of a connection, if any."""

    def last_seen(self, user: str) -> float | None:
        """Return when a user was last seen, in seconds since the epoch, if known."""

    def join(self, room: Room, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room."""

    def move(self, room: Room, user: str) -> Member:
        """Move a member to another room."""

    def leave(self, user: str, reason: str = "left") -> Member:
        """Remove a member."""

    def rename(self, user: str, new: str) -> Member:
        """Rename a member."""


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
        """Make a room for a user and an address, if any."""

    def enter(self, code: str, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, which is created if needed."""

    def move(self, user: str, code: str) -> Member:
        """Move a member to another room, which is created if needed."""

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
        """Remove a player who waits for a match."""


@dataclass(frozen=True)
class RoomSurroundings:
    """The parts that all rooms of a lobby share.

    ``wall`` returns seconds since the epoch. ``ended`` is called with a room that has ended and its
    unhandled messages.
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
    """A room with a ``code``; ``data`` belongs to the application.

    It handles one message at a time: events first, then messages in the order they came.
    :meth:`kupool.rooms.lobby.Lobby.create` makes a room.
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
        #: The members by user. Do not change it: the lobby does.
        self.members = self._audience.members
        self._queue: RoomQueue[Incoming] = RoomQueue(code, surroundings.clock, settings)
        self._at_work = self._closing = self._closed = False
        # Most rooms are idle: parts that only a busy room needs are made later.
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
        """Whether the room takes no more messages."""
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
        """Return the current members, in the order they joined."""
        return [member.presence for member in self.members.values()]

    # -- sending

    def broadcast(
        self,
        payload: RoomPayload,
        *,
        without: Collection[object] = (),
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> None:
        """Send to every connection of every member, encoded once for each framing.

        ``without`` leaves out users, members and connections. For ``key`` and ``policy`` see
        :class:`~kupool.session.publication.Publication`. Broadcasts of a room arrive in order. A
        large one takes several turns of the reactor, and the room's next message waits for it.
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
        """Send to all members when it is the room's turn."""
        if self._audience.send(publication, self._audience.connections(), later=True):
            self._surroundings.turns.wake(self)

    # -- receiving

    def post(self, incoming: Incoming) -> None:
        """Queue a member's message.

        While too many messages of the member or of the room wait, the sending connection is paused
        or the message is refused: see :class:`~kupool.rooms.settings.FloodPolicy`. Raises
        :class:`RoomBusy` if it is refused, and :class:`RoomGone` if the room is closing or the
        sender is not a member.
        """
        member = incoming.member
        if self._closing or member.room is not self or not member.present:
            raise RoomGone(self.code)
        self._queue.add_message(incoming)
        member.last_seen = self._surroundings.wall()
        self._surroundings.turns.wake(self)

    def post_system(self, event: object) -> None:
        """Queue an event; raises :class:`RoomBusy` if too many wait, or :class:`RoomGone`."""
        if self._closing:
            raise RoomGone(self.code)
        if self._queue.events_full:
            raise RoomBusy(f"events of room {self.code}")
        self.tell(event)

    @property
    def system_full(self) -> bool:
        """Whether so many events wait that the caller should cause no more."""
        return self._queue.events_full

    def tell(self, event: object) -> None:
        """Queue an event however many wait; for events that have happened already."""
        if self._closed:
            return
        self._queue.add_event(event)
        self._surroundings.turns.wake(self)

    def let_go(self, connection: Peer) -> None:
        """Resume a connection that no longer belongs to a member."""
        self._queue.let_go(connection)

    # -- timers

    def once(self, key: str, delay: float, call: TimerCall | None = None) -> None:
        """Call a function in ``delay`` seconds, as one message of the room.

        Replaces a timer of the same key. Without ``call`` the room gets the event
        :class:`TimerFired`. Raises :class:`RoomGone` if the room is closing.
        """
        self._open_timers().once(key, delay, call)

    def repeat(self, key: str, interval: float, call: TimerCall | None = None) -> None:
        """Do so every ``interval`` seconds; a run is skipped while the previous one has not
        ended.
        """
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
        """Cancel a timer and its waiting run; returns whether there was a timer."""
        return self._timers is not None and self._timers.cancel(key)

    def cancel_prefix(self, prefix: str = "") -> int:
        """Cancel the timers whose keys have this prefix; returns how many there were."""
        return 0 if self._timers is None else self._timers.cancel_prefix(prefix)

    # -- its turn

    @property
    def ready(self) -> bool:
        """Whether there is something to do now."""
        return self._audience.pending or (not self._at_work and self._queue.size > 0)

    def run(self, budget: int) -> int:
        """Handle waiting messages and sends, up to ``budget`` of them."""
        spent = 0
        audience, queue = self._audience, self._queue
        while spent < budget:
            if audience.pending:
                spent += max(1, audience.run(budget - spent))
                audience.work_done()
            elif not self._at_work and queue.size:
                self._handle_next()
                spent += 1 + audience.work_done()
            else:
                break
        return spent

    def _handle_next(self) -> None:
        event = self._queue.next_event()
        if event is not None:
            timers = self._timers
            if timers is None or not isinstance(event, TimerRun) or timers.begin(event):
                self._start(event)
                return
        else:
            incoming = self._queue.next_message()
            if incoming is None:
                return
            if incoming.member.present:
                self._start(incoming)
                return
            self._fail(incoming, Failure(RoomGone(self.code)))
        self._go_on()

    def _go_on(self) -> None:
        """Continue with the next message, after something has ended."""
        if self._queue.shrink():
            self._surroundings.turns.wake(self)
        elif self._closing and not self._closed:
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
        """Tell the application and the sender that a message or an event failed."""
        self.failed += 1
        answer = subject.answer if isinstance(subject, Incoming) else None
        if answer is None or not refusal(failure):
            called(self._surroundings.logic.on_error, self, failure, subject).addErrback(
                _could_not, f"on_error of room {self.code}"
            )
        if isinstance(subject, Incoming):
            self._answer(subject, failure)

    def _answer(self, incoming: Incoming, result: object) -> None:
        """Answer the sender, unless the application or its router has done so already."""
        if incoming.answer is not None and not incoming.answer.called:
            incoming.answer.callback(result)

    # -- the end

    def close(
        self, reason: str = "closed", *, handle_pending: bool = True
    ) -> Deferred[list[Incoming]]:
        """Take no more messages, cancel the timers, and end.

        Waiting messages are handled first, for at most ``close_timeout`` seconds, unless
        ``handle_pending`` is False; a running handler has that time, too. Fires with the unhandled
        messages, each of which has failed with :class:`RoomGone`.
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
        """Call a function with the unhandled messages when the room has ended.

        If it has ended already, the function is called at once, without messages.
        """
        if self._closed:
            call([])
        elif self._when_closed is None:
            self._when_closed = [call]
        else:
            self._when_closed.append(call)

    def _drop_messages(self) -> None:
        """Discard everything that waits, except the events that the room is new and closing."""
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
    # Not with a logger of ours: a stored event would keep the room alive.
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
