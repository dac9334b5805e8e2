"""The direct transport: Twisted's TCP server transport without the deferred write.

The stock transport buffers every ``write``, asks the reactor for a second dispatch
and only then calls ``send``: about half of the CPU of a short request and its answer.
This one joins all that is written during one read and sends it at once when nothing
is waiting before it. Protocols are the same on both.

Two documented hooks carry it: :attr:`twisted.internet.tcp.Port.transport`, and the
``reactor`` argument of a port, which may be any :class:`IReactorFDSet`. Ours,
:class:`DescriptorGroup`, holds an epoll descriptor of its own, so that the main
reactor sees one reader however many connections there are, and works under every
reactor that can watch a descriptor.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from errno import EAGAIN, EWOULDBLOCK
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IListeningPort,
    IProtocolFactory,
    IReactorFDSet,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: Bytes asked of the kernel in one read.
READ_SIZE = 65536

#: Descriptors served in one turn, so that a busy group leaves the reactor its turn.
EVENTS_PER_TURN = 512


def direct_transport_available() -> bool:
    """Say whether this system has what the direct transport stands on."""
    return hasattr(select, "epoll")


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
        self.arrived: list[tuple[DirectServer, bytes]] = []
        #: While that is being handled, the connections that have something to send.
        self.corked: list[DirectServer] | None = None
        reactor.addReader(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

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
            descriptor.connectionLost(reason)
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
                except Exception as error:
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
        self.corked = corked = []  # type: list[DirectServer]
        failed: list[tuple[DirectServer, Exception]] = []
        for server, data in arrived:
            if server.disconnecting or not server.connected:
                continue
            try:
                server.protocol.dataReceived(data)
            except Exception as error:
                self._log.failure("Unhandled error in a connection")
                failed.append((server, error))
        self.corked = None
        for server in corked:
            server.uncork()
        for server, error in failed:
            # Only now: the answers to what came before the error were due all the same.
            self._disconnect(server, error, reading=True)

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
        except Exception as error:
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
        self._add(reader, self._readers, self._writers, select.EPOLLIN, select.EPOLLOUT)

    def addWriter(self, writer: Any) -> None:
        """Watch ``writer`` for room to write."""
        self._add(writer, self._writers, self._readers, select.EPOLLOUT, select.EPOLLIN)

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

    def _add(
        self, what: Any, mine: dict[int, Any], other: dict[int, Any], event: int, also: int
    ) -> None:
        fd = what.fileno()
        if fd in mine:
            return
        if fd in other:
            self._epoll.modify(fd, event | also)
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


class DirectServer(tcp.Server):
    """One accepted connection that writes at once when it can."""

    #: A registered producer is paused as soon as anything has to wait, so that what
    #: is not yet sent stays where it can be conflated or dropped: in the outbox.
    bufferSize = 0

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._recv = sock.recv
        self._send = sock.send
        self._corked: list[bytes] | None = None
        self.disconnecting = False
        self._waiting = False
        self._aborted = False
        tcp.Server.__init__(self, sock, *args, **kwargs)
        #: Whether bytes may be sent at once; one flag, as every write looks at it.
        self._ready = True

    def _reconsider(self) -> None:
        self._ready = bool(self.connected) and not (self._waiting or self._aborted or self.TLS)

    def startWriting(self) -> None:
        """Note that bytes wait in Twisted's buffer, and have it sent when it can be."""
        self._waiting = True
        self._ready = False
        tcp.Server.startWriting(self)

    def stopWriting(self) -> None:
        """Note that Twisted's buffer is empty."""
        self._waiting = False
        self._reconsider()
        tcp.Server.stopWriting(self)

    def startTLS(self, *args: Any, **kwargs: Any) -> None:
        """Encrypt from here on; what is written goes the stock way then."""
        tcp.Server.startTLS(self, *args, **kwargs)
        self._reconsider()

    def write(self, data: bytes) -> None:
        """Send ``data`` now if nothing waits before it, else behind what waits.

        What is written while the group handles a turn is sent at its end.
        """
        if self._corked is not None:
            self._corked.append(data)
        elif self.reactor.corked is not None:
            self._corked = [data]
            self.reactor.corked.append(self)
        elif self._ready:
            send = self._send
            try:
                sent = send(data)
            except OSError:
                sent = 0  # no room, or an error that doWrite() meets again and reports
            if sent != len(data):
                tcp.Server.write(self, data[sent:] if sent else data)
        elif not self._aborted:
            tcp.Server.write(self, data)

    def uncork(self) -> None:
        """Send what was written since the turn began; the group is not corked then."""
        corked, self._corked = self._corked, None
        if corked is not None:
            self.write(corked[0] if len(corked) == 1 else b"".join(corked))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces as one; the inherited one would overtake :meth:`write`."""
        self.write(b"".join(iovec))

    def abortConnection(self) -> None:
        """Drop the connection and everything that has not been sent."""
        self._aborted = True
        self._corked = None
        self._reconsider()
        tcp.Server.abortConnection(self)

    def doRead(self) -> Any:
        """Read once; the group hands it to the protocol when it has read from all."""
        recv = self._recv
        try:
            data = recv(READ_SIZE)
        except OSError as error:
            return None if error.errno in (EAGAIN, EWOULDBLOCK) else main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.reactor.arrived.append((self, data))
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Let go of the socket."""
        self._ready = False
        tcp.Server.connectionLost(self, reason)
        # Bound methods of the socket would keep its descriptor's object alive.
        self.__dict__.pop("_recv", None)
        self.__dict__.pop("_send", None)


class DirectPort(tcp.Port):
    """A listening TCP port whose connections are :class:`DirectServer`."""

    transport = DirectServer


@implementer(IStreamServerEndpoint)
class DirectEndpoint:
    """Listens on TCP with the direct transport, like ``TCP4ServerEndpoint``."""

    def __init__(
        self, group: DescriptorGroup, port: int, interface: str = "", backlog: int = 1024
    ) -> None:
        self._group = group
        self._port = port
        self._interface = interface
        self._backlog = backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; fails with ``CannotListenError`` where that is impossible."""
        try:
            port = DirectPort(
                self._port, protocolFactory, self._backlog, self._interface, self._group
            )
            port.startListening()
        except Exception:
            return fail()
        return succeed(port)


__all__ = [
    "READ_SIZE",
    "DescriptorGroup",
    "DirectEndpoint",
    "DirectPort",
    "DirectServer",
    "direct_transport_available",
]
