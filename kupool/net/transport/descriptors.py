"""Many descriptors that a reactor sees as one: what the direct transport runs on.

:class:`DescriptorGroup` holds an epoll descriptor of its own, so that the main reactor
sees one reader however many connections there are, and works under every reactor that
can watch a descriptor.
"""

from __future__ import annotations

import select
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

#: Descriptors served in one turn, so that a busy group leaves the reactor its turn.
EVENTS_PER_TURN = 512


class Corked(Protocol):
    """A transport of the group: it joins what is written to it until it is uncorked."""

    connected: Any
    disconnecting: Any
    protocol: Any

    def uncork(self) -> None:
        """Send what was written since the turn began."""


@implementer(IReactorFDSet, IReadDescriptor)
class DescriptorGroup:
    """A set of descriptors that a reactor sees as one.

    Stands in for the reactor of the ports and transports made with it; what it does
    not have itself, it takes from the real reactor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._readers: dict[int, Any] = {}
        self._writers: dict[int, Any] = {}
        self._done = Failure(main.CONNECTION_DONE)
        self._lost = Failure(main.CONNECTION_LOST)
        self._open = True
        #: What was read in this turn and is yet to be handled.
        self.arrived: list[tuple[Corked, bytes]] = []
        #: While that is being handled, the connections that have something to send.
        self.corked: list[Corked] | None = None
        self._at_end: list[Callable[[], object]] = []
        reactor.addReader(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def after_turn(self, call: Callable[[], object]) -> None:
        """Call something once all that was read in this turn has been handled.

        What it writes leaves with the other answers of the turn. Outside of a turn it
        is called in the reactor's next one.
        """
        if self.corked is None:
            self._reactor.callLater(0, call)
        else:
            self._at_end.append(call)

    def as_turn(self, call: Callable[[], object]) -> None:
        """Call something as a turn of its own: what it writes leaves together."""
        if self.corked is None:
            self._at_end.append(call)
            self._handle()
        else:
            call()

    def close(self) -> None:
        """Take the group from the reactor; what is still in it is disconnected."""
        if self._open:
            self._reactor.removeReader(self)
            self.connectionLost(self._lost)

    # IReadDescriptor, for the real reactor

    def fileno(self) -> int:
        """Return the descriptor of the group's own epoll."""
        return self._epoll.fileno() if self._open else -1

    def logPrefix(self) -> str:
        """Name the group in the reactor's log context."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """Pass the reactor's shutdown on to every descriptor of the group."""
        if not self._open:
            return
        for descriptor in self.removeAll():
            try:
                descriptor.connectionLost(reason)
            except BaseException:
                self._log.failure("Unhandled error at the end of a connection")
        self._open = False
        self._epoll.close()

    def doRead(self) -> None:
        """Serve the descriptors that are ready, at most one batch of them.

        In three passes: read from all, handle what was read, send what was answered.
        System calls and handlers in turn would cost a fifth more: each pushes the
        other's code and data out of the processor's caches.
        """
        readers = self._readers
        readable = select.EPOLLIN
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
                if why is not None:
                    self._disconnect(descriptor, why, reading=True)
            else:
                self._serve(fd, events)
        if self.arrived:
            self._handle()

    def _handle(self) -> None:
        """Give what was read to the protocols, then send what they wrote meanwhile."""
        arrived, self.arrived = self.arrived, []
        corked: list[Corked] = []
        self.corked = corked
        failed: list[tuple[Corked, BaseException]] = []
        for server, data in arrived:
            if server.disconnecting or not server.connected:
                continue
            try:
                server.protocol.dataReceived(data)
            except BaseException as error:  # as the reactor does: one peer's end, not all's
                self._log.failure("Unhandled error in a connection")
                failed.append((server, error))
        calls, self._at_end = self._at_end, []
        for call in calls:
            try:
                call()
            except BaseException:
                self._log.failure("A call at the end of a turn failed")
        self.corked = None
        for server in corked:
            try:
                server.uncork()
            except BaseException as error:
                self._log.failure("Unhandled error in a connection")
                failed.append((server, error))
        for server, why in failed:
            # Only now: the answers to what came before the error were due all the same.
            self._disconnect(server, why, reading=True)

    def _serve(self, fd: int, events: int) -> None:
        """Serve a descriptor that is writable, has gone, or both."""
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
        """End a descriptor as the reactor would."""
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

    # IReactorFDSet, for the ports and transports of the group

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
        """Stop watching everything, and return what was watched."""
        everything = {id(d): d for d in (*self._readers.values(), *self._writers.values())}
        for descriptor in everything.values():
            self.removeReader(descriptor)
            self.removeWriter(descriptor)
        return list(everything.values())

    def getReaders(self) -> list[Any]:
        """Return what is watched for bytes to read."""
        return list(self._readers.values())

    def getWriters(self) -> list[Any]:
        """Return what is watched for room to write."""
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
