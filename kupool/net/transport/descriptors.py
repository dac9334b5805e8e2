"""A group of descriptors that a reactor watches as one; the direct transport uses it.

:class:`DescriptorGroup` has an epoll descriptor of its own. So the main reactor watches one
reader for any number of connections, and every reactor that can watch a descriptor works.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import main
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IReactorFDSet,
    IReadDescriptor,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.timing.chunks import Chunks

#: Most descriptors served in one turn, so that a busy group does not block the reactor. The end of
#: a connection takes much longer than a message, so that there are fewer of these in a turn.
EVENTS_PER_TURN = 512
ENDS_PER_TURN = 16

#: Bytes of a read that is handled at once. Larger ones, which are several messages, are handled
#: after the small ones, for so many seconds of a turn. So a flood does not delay those who say
#: little.
SMALL = 512
SHARE = 0.008


class Corked(Protocol):
    """A transport of the group; it buffers writes until it is uncorked."""

    connected: Any
    disconnecting: Any
    protocol: Any
    #: Whether data of it is not handled yet; it reads nothing meanwhile.
    late: bool

    def uncork(self) -> None:
        """Send what was written since the turn began."""


class Turn:
    """What the transports of a group have read and written in this turn of the reactor.

    Every message uses it. It is separate from the group because the group has ``__getattr__``,
    which makes each of its attributes several times slower.
    """

    __slots__ = ("arrived", "corked")

    def __init__(self) -> None:
        #: Data that was read in this turn and is not handled yet.
        self.arrived: list[tuple[Corked, bytes]] = []
        #: Connections with data to send, while the data that was read is handled.
        self.corked: list[Corked] | None = None


@implementer(IReactorFDSet, IReadDescriptor)
class DescriptorGroup:
    """A set of descriptors that a reactor watches as one.

    It takes the place of the reactor for the ports and transports made with it. Attributes
    that it does not define come from the real reactor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._epoll = select.epoll()
        self._readers: dict[int, Any] = {}
        self._writers: dict[int, Any] = {}
        self._done = Failure(main.CONNECTION_DONE)
        self._lost = Failure(main.CONNECTION_LOST)
        self._open = True
        #: Number of descriptors that were disconnected.
        self._ended = 0
        self.turn = Turn()
        self._at_end: list[Callable[[], object]] = []
        #: Large reads that wait for their turn, in the order in which they came.
        self._late: deque[tuple[Corked, bytes]] = deque()
        self._rest = Chunks(reactor, self._go_on)
        reactor.addReader(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def after_turn(self, call: Callable[[], object]) -> None:
        """Call a function once all data that was read in this turn has been handled.

        What it writes is sent with the other answers of the turn. Outside of a turn it is
        called in the reactor's next turn.
        """
        if self.turn.corked is None:
            self._reactor.callLater(0, call)
        else:
            self._at_end.append(call)

    def as_turn(self, call: Callable[[], object]) -> None:
        """Call a function as a turn of its own: what it writes is sent together."""
        if self.turn.corked is None:
            self._at_end.append(call)
            self._handle(0.0)
        else:
            call()

    def close(self) -> None:
        """Remove the group from the reactor; descriptors still in it are disconnected."""
        if self._open:
            self._reactor.removeReader(self)
            self.connectionLost(self._lost)

    # IReadDescriptor, for the real reactor:

    def fileno(self) -> int:
        """Return the group's epoll descriptor."""
        return self._epoll.fileno() if self._open else -1

    def logPrefix(self) -> str:
        """Return the name of the group in the reactor's log context."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """Forward the reactor's shutdown to every descriptor of the group."""
        if not self._open:
            return
        for descriptor in self.removeAll():
            try:
                descriptor.connectionLost(reason)
            except BaseException:
                self._log.failure("Unhandled error while a connection ended")
        self._open = False
        self._epoll.close()

    def doRead(self) -> None:
        """Serve the descriptors that are ready, at most one batch of them.

        It has three passes: read from all, handle what was read, send the answers.
        Alternating system calls and handlers would cost a fifth more, because each evicts
        the other's code and data from the processor's caches.
        """
        readers = self._readers
        readable = select.EPOLLIN
        last = self._ended + ENDS_PER_TURN
        for fd, events in self._epoll.poll(0, EVENTS_PER_TURN):
            if events == readable:
                descriptor = readers.get(fd)
                if descriptor is None:
                    continue
                try:
                    why = descriptor.doRead()
                except BaseException as error:
                    self._log.failure("Unhandled error in a connection")
                    why = error
                if why is None:
                    continue
                self._disconnect(descriptor, why, reading=True)
            else:
                self._serve(fd, events)
            if self._ended >= last:
                break  # the others are ready still, in the next turn
        if self.turn.arrived:
            self._handle(0.0 if self._late else SHARE)
            if self._late:
                self._rest.wake()

    def _go_on(self) -> bool:
        """Handle large reads of earlier turns; returns whether there are more."""
        self._handle(SHARE)
        return bool(self._late)

    def _handle(self, share: float) -> None:
        """Pass the data to the protocols, then send what they wrote.

        Large reads are handled for ``share`` seconds, at least one of them unless it is 0.
        """
        turn = self.turn
        arrived, turn.arrived = turn.arrived, []
        corked: list[Corked] = []
        turn.corked = corked
        failed: list[tuple[Corked, BaseException]] = []
        late = self._late
        for server, data in arrived:
            if len(data) > SMALL:
                server.late = True
                late.append((server, data))
                continue
            if server.disconnecting or not server.connected:
                continue
            try:
                server.protocol.dataReceived(data)
            except BaseException as error:  # as in the reactor: it ends one connection only
                self._log.failure("Unhandled error in a connection")
                failed.append((server, error))
        if late and share:
            self._handle_late(share, failed)
        if self._at_end:
            self._call_at_end()
        turn.corked = None
        for server in corked:
            try:
                server.uncork()
            except BaseException as error:
                self._log.failure("Unhandled error in a connection")
                failed.append((server, error))
        for server, why in failed:
            # Disconnect only now: data before the error still gets its answers.
            self._disconnect(server, why, reading=True)

    def _handle_late(self, share: float, failed: list[tuple[Corked, BaseException]]) -> None:
        """Pass large reads to the protocols, until the share of this turn is used up."""
        until = self._seconds() + share
        while self._late:
            server, data = self._late.popleft()
            server.late = False
            if server.disconnecting or not server.connected:
                continue
            try:
                server.protocol.dataReceived(data)
            except BaseException as error:
                self._log.failure("Unhandled error in a connection")
                failed.append((server, error))
            if self._seconds() >= until:
                return

    def _call_at_end(self) -> None:
        calls, self._at_end = self._at_end, []
        for call in calls:
            try:
                call()
            except BaseException:
                self._log.failure("A function called at the end of a turn failed")

    def _serve(self, fd: int, events: int) -> None:
        """Serve a descriptor that is writable or disconnected, or both."""
        descriptor = self._readers.get(fd) or self._writers.get(fd)
        if descriptor is None:
            return
        why: BaseException | None = None
        reading = False
        try:
            if events & (select.EPOLLHUP | select.EPOLLERR) and not events & select.EPOLLIN:
                why, reading = main.CONNECTION_LOST, fd in self._readers
            else:
                if events & select.EPOLLIN and fd in self._readers:
                    why, reading = descriptor.doRead(), True
                if why is None and events & select.EPOLLOUT and fd in self._writers:
                    why, reading = descriptor.doWrite(), False
        except BaseException as error:
            self._log.failure("Unhandled error in a connection")
            why = error
        if why is not None:
            self._disconnect(descriptor, why, reading)

    def _disconnect(self, descriptor: Any, why: BaseException, reading: bool) -> None:
        """Disconnect a descriptor as the reactor would."""
        self._ended += 1
        self.removeReader(descriptor)
        if why is main.CONNECTION_DONE:
            if reading and IHalfCloseableDescriptor.providedBy(descriptor):
                descriptor.readConnectionLost(self._done)
                return
            reason = self._done
        elif why is main.CONNECTION_LOST:
            reason = self._lost
        else:
            reason = Failure(why)
        self.removeWriter(descriptor)
        descriptor.connectionLost(reason)

    # IReactorFDSet, for the ports and transports of the group:

    def addReader(self, reader: Any) -> None:
        """Watch ``reader`` for bytes to read."""
        self._add(reader, self._readers, self._writers, select.EPOLLIN)

    def addWriter(self, writer: Any) -> None:
        """Watch ``writer`` for room to write."""
        self._add(writer, self._writers, self._readers, select.EPOLLOUT)

    def removeReader(self, reader: Any) -> None:
        """Stop watching ``reader`` for bytes to read."""
        self._remove(reader, self._readers, self._writers, select.EPOLLOUT)

    def removeWriter(self, writer: Any) -> None:
        """Stop watching ``writer`` for room to write."""
        self._remove(writer, self._writers, self._readers, select.EPOLLIN)

    def removeAll(self) -> list[Any]:
        """Stop watching all descriptors, and return them."""
        everything = {id(d): d for d in (*self._readers.values(), *self._writers.values())}
        for descriptor in everything.values():
            self.removeReader(descriptor)
            self.removeWriter(descriptor)
        return list(everything.values())

    def getReaders(self) -> list[Any]:
        """Return the descriptors watched for reading."""
        return list(self._readers.values())

    def getWriters(self) -> list[Any]:
        """Return the descriptors watched for writing."""
        return list(self._writers.values())

    def _add(self, what: Any, mine: dict[int, Any], other: dict[int, Any], event: int) -> None:
        fd = what.fileno()
        if fd in mine:
            return
        if fd in other:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._epoll.register(fd, event)
        mine[fd] = what

    def _remove(self, what: Any, mine: dict[int, Any], other: dict[int, Any], rest: int) -> None:
        fd = what.fileno()
        if mine.get(fd) is not what:
            return
        if fd in other:
            self._epoll.modify(fd, rest)
        else:
            self._epoll.unregister(fd)
        del mine[fd]


__all__ = ["EVENTS_PER_TURN", "DescriptorGroup"]
