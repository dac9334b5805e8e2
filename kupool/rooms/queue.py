"""The queue of a room: events first, then messages in the order they came."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime

from kupool.rooms.flood import Flood, Sender
from kupool.rooms.peers import Peer
from kupool.rooms.settings import RoomSettings


class SentMessage(Protocol):
    """A message of a member, and the ``connection`` that it came from, if any."""

    @property
    def member(self) -> Sender:
        """The member who sent it."""

    @property
    def connection(self) -> Peer | None:
        """The connection that it came from; None if the application sent it."""


M = TypeVar("M", bound=SentMessage)


class RoomQueue(Generic[M]):
    """The waiting events and messages of the room with this ``code``."""

    __slots__ = ("_clock", "_code", "_events", "_flood", "_messages", "_settings", "size")

    def __init__(self, code: str, clock: IReactorTime, settings: RoomSettings) -> None:
        self._code = code
        self._clock = clock
        self._settings = settings
        #: How many events and messages wait.
        self.size = 0
        # Most rooms are idle: parts that only a busy room needs are made later.
        self._events: deque[object] | None = None
        self._messages: deque[M] | None = None
        self._flood: Flood | None = None

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return 0 if self._messages is None else len(self._messages)

    @property
    def refused(self) -> int:
        """How many messages were refused because too many waited."""
        return 0 if self._flood is None else self._flood.refused

    @property
    def events_full(self) -> bool:
        """Whether so many events wait that the caller should cause no more."""
        waiting = 0 if self._events is None else len(self._events)
        return waiting >= self._settings.system_limit

    def add_event(self, event: object) -> None:
        """Add an event, however many wait."""
        if self._events is None:
            self._events = deque()
        self._events.append(event)
        self.size += 1

    def add_message(self, message: M) -> None:
        """Add a message.

        Raises :class:`~kupool.rooms.failures.RoomBusy` if it is refused.
        """
        if self._messages is None:
            self._messages = deque()
        if self._flood is None:
            self._flood = Flood(self._clock, self._settings)
        self._flood.admit(self._code, message.member, message.connection, len(self._messages))
        self._messages.append(message)
        self.size += 1

    def next_event(self) -> object | None:
        """Remove and return the next event; None if there is none."""
        if not self._events:
            return None
        self.size -= 1
        return self._events.popleft()

    def next_message(self) -> M | None:
        """Remove and return the next message; None if there is none."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self.size -= 1
        if self._flood is not None:
            self._flood.taken(message.member, len(self._messages))
        return message

    def shrink(self) -> bool:
        """Free memory if the queue is empty: an empty deque keeps its block.

        Returns whether anything waits.
        """
        if self.size:
            return True
        self._events = self._messages = None
        return False

    def drop(self, keep: tuple[type, ...] = ()) -> list[M]:
        """Remove everything but events of some kinds; returns the removed messages."""
        if self._events is not None:
            kept = [e for e in self._events if isinstance(e, keep)]
            self._events = deque(kept) if kept else None
        self.size = len(self._events or ())
        messages, self._messages = self._messages, None
        for message in messages or ():
            message.member.waiting -= 1
        return list(messages or ())

    def let_go(self, connection: Peer) -> None:
        """Resume a connection that no longer belongs to a member."""
        if self._flood is not None:
            self._flood.let_go(connection)

    def let_all_go(self) -> None:
        """Resume all paused connections."""
        if self._flood is not None:
            self._flood.let_all_go()


__all__ = ["RoomQueue", "SentMessage"]
