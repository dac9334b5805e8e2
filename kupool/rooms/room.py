"""A room: members, data, and one thing handled after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import called
from kupool.rooms.events import Closing, Created, Incoming, RoomBusy, RoomGone
from kupool.rooms.flood import Flood
from kupool.rooms.peers import Peer
from kupool.rooms.running import Running, refusal
from kupool.rooms.settings import House
from kupool.rooms.timed import Timed, TimerCall, TimerRun

#: A closing room's own timer.
_CLOSE = "room close"


class Room(Timed):
    """A room with a ``code``; ``data`` is the application's own.

    Its logic runs one message at a time: events first, then messages in the order they
    came. A room is made by :meth:`kupool.rooms.lobby.Lobby.create`.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_flood",
        "_messages",
        "_running",
        "_system",
        "_unhandled",
        "_when_closed",
        "data",
        "failed",
        "handled",
    )

    def __init__(self, code: str, house: House) -> None:
        super().__init__(code, house)
        self.data: Any = None
        self.handled = self.failed = 0
        self._closed = False
        # Most rooms are idle: what only a busy one needs is made when it is.
        self._system: deque[object] | None = None
        self._messages: deque[Incoming] | None = None
        self._running: Running | None = None
        self._flood: Flood | None = None
        self._unhandled: list[Incoming] | None = None
        self._when_closed: list[Callable[[list[Incoming]], None]] = []

    # -- who is here

    @property
    def closed(self) -> bool:
        """Whether the room has ended."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many messages of members wait."""
        return 0 if self._messages is None else len(self._messages)

    @property
    def refused(self) -> int:
        """How many messages were refused because too many waited."""
        return 0 if self._flood is None else self._flood.refused

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
        if self._messages is None:
            self._messages = deque()
        if self._flood is None:
            self._flood = Flood(self._house)
        self._flood.admit(self.code, incoming, len(self._messages))
        member.last_seen = self._house.wall()
        self._messages.append(incoming)
        self._house.turns.wake(self)

    def post_system(self, event: object) -> None:
        """Queue an event; raises :class:`RoomBusy` when too many wait, or RoomGone."""
        if self._closing:
            raise RoomGone(self.code)
        if self.system_full:
            raise RoomBusy(f"events of room {self.code}")
        self.tell(event)

    @property
    def system_full(self) -> bool:
        """Whether so many events wait that no more should be caused."""
        waiting = 0 if self._system is None else len(self._system)
        return waiting >= self._house.settings.system_limit

    def tell(self, event: object) -> None:
        """Queue an event whatever waits; for what has happened already."""
        if self._closed:
            return
        if self._system is None:
            self._system = deque()
        self._system.append(event)
        self._house.turns.wake(self)

    # -- its turn

    @property
    def ready(self) -> bool:
        """Whether there is something to do that need not wait."""
        outgoing = self._outgoing
        if outgoing is not None and outgoing.pending:
            return True
        return self._running is None and bool(self._system or self._messages)

    def run(self, budget: int) -> int:
        """Handle what waits, up to ``budget`` messages, or sends."""
        spent = 0
        while spent < budget and self.ready:
            outgoing = self._outgoing
            if outgoing is not None and outgoing.pending:
                spent += max(1, outgoing.run(budget - spent))
            else:
                self._handle_next()
                spent += 1 + self._work
            self._work = 0
        return spent

    def _handle_next(self) -> None:
        if self._system:
            event = self._system.popleft()
            if isinstance(event, TimerRun) and not self.begin(event):
                self._go_on()
            else:
                self._start(event)
        elif self._messages:
            incoming = self._messages.popleft()
            if self._flood is not None:
                self._flood.taken(incoming, len(self._messages))
            if incoming.member.present:
                self._start(incoming)
            else:
                self._fail(incoming, Failure(RoomGone(self.code)))
                self._go_on()

    def _go_on(self) -> None:
        """See what is next, after something has ended."""
        if self._system or self._messages:
            self._house.turns.wake(self)
            return
        # An empty deque keeps its block of memory, which an idle room need not have.
        self._system = self._messages = None
        if self._closing and not self._closed:
            self._end()

    def _start(self, subject: object) -> None:
        running = self._running = Running(lambda result: self._ended(subject, result))
        settings = self._house.settings
        running.start(lambda: self._call(subject), self._house.clock, settings.handler_timeout)

    def _call(self, subject: object) -> object:
        hooks = self._house.hooks
        if isinstance(subject, Incoming):
            return hooks.on_dispatch_message(self, subject)
        if isinstance(subject, TimerRun):
            return self.call(subject)
        if isinstance(subject, Created):
            return hooks.on_create_room(self)
        return hooks.on_dispatch_system_message(self, subject)

    def _ended(self, subject: object, result: object) -> None:
        self._running = None
        self.handled += 1
        if isinstance(subject, TimerRun):
            self.end(subject)
        if isinstance(result, Failure):
            self._fail(subject, result)
            if isinstance(subject, Created):
                self.close("it could not be created", handle_pending=False)
        elif isinstance(subject, Incoming) and subject.answer is not None:
            subject.answer.callback(result)
        self._go_on()

    def _fail(self, subject: object, failure: Failure) -> None:
        """Tell the application, and the sender, what a message or an event came to."""
        self.failed += 1
        answer = subject.answer if isinstance(subject, Incoming) else None
        if answer is None or not refusal(failure):
            called(self._house.hooks.on_error, self, failure, subject).addErrback(
                _could_not, f"on_error of room {self.code}"
            )
        if answer is not None:
            answer.errback(failure)

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
            timeout = self._house.settings.close_timeout
            self._house.wheel.once(
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
        else:
            self._when_closed.append(call)

    def _drop_messages(self) -> None:
        """Handle nothing of what waits, but that the room is closing."""
        if self._system is not None:
            self._system = deque(e for e in self._system if isinstance(e, Closing))
        messages, self._messages = self._messages, None
        if messages:
            self._unhandled = [*(self._unhandled or ()), *messages]

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._house.wheel.cancel((_CLOSE, self.code), _CLOSE)
        gone = Failure(RoomGone(self.code))
        if self._running is not None:
            self._running.cancel(gone)
        self._drop_messages()
        self._system = None
        if self._flood is not None:
            self._flood.let_all_go()
        unhandled, self._unhandled = self._unhandled or [], None
        for incoming in unhandled:
            incoming.member.waiting -= 1
            self._fail(incoming, gone)
        calls, self._when_closed = self._when_closed, []
        for call in calls:
            called(call, unhandled).addErrback(_could_not, f"the end of room {self.code}")

    def let_go(self, connection: Peer) -> None:
        """Hold a connection back no longer that is no member's any more."""
        if self._flood is not None:
            self._flood.let_go(connection)


def _could_not(failure: Failure, what: str) -> None:
    # Not by a logger of ours: an event that is kept would keep the room.
    Logger(__name__).failure("Failed: {what}", failure, what=what)


__all__ = ["Room", "TimerCall"]
