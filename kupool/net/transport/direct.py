"""The direct transport: Twisted's TCP server transport without the deferred write.

The stock transport buffers every ``write``, asks the reactor for a second dispatch
and only then calls ``send``: about half of the CPU of a short request and its answer.
This one joins all that is written during one read and sends it at once when nothing
is waiting before it. Protocols are the same on both.

Two documented hooks carry it: :attr:`twisted.internet.tcp.Port.transport`, and the
``reactor`` argument of a port, which may be any :class:`IReactorFDSet`. Ours is
:class:`kupool.net.transport.descriptors.DescriptorGroup`.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from errno import EAGAIN, EWOULDBLOCK
from typing import Any

from twisted.internet import main, tcp
from twisted.python.failure import Failure

from kupool.net.transport.descriptors import DescriptorGroup
from kupool.net.transport.ports import PortEndpoint, RestingPort

#: Bytes asked of the kernel in one read.
READ_SIZE = 65536


def direct_transport_available() -> bool:
    """Say whether this system has what the direct transport stands on."""
    return hasattr(select, "epoll")


class DirectServer(tcp.Server):
    """One accepted connection that writes at once when it can."""

    #: A registered producer is paused as soon as anything has to wait, so that what
    #: is not yet sent stays where it can be conflated or dropped: in the outbox.
    bufferSize = 0

    reactor: DescriptorGroup

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
        corked, self._corked = self._corked, None
        if corked is not None:
            # What was written before goes out as it is.
            tcp.Server.write(self, b"".join(corked))
        tcp.Server.startTLS(self, *args, **kwargs)
        self._reconsider()

    def write(self, data: bytes) -> None:
        """Send ``data`` now if nothing waits before it, else behind what waits.

        What is written while the group handles a turn is sent at its end.
        """
        if self._corked is not None:
            self._corked.append(data)
            return
        self._corked = [data]
        turn = self.reactor.corked
        if turn is not None:
            turn.append(self)
        else:
            self.uncork()

    def uncork(self) -> None:
        """Send what was written since the turn began; the group is not corked then."""
        corked, self._corked = self._corked, None
        if corked is None:
            return
        data = corked[0] if len(corked) == 1 else b"".join(corked)
        if self._ready:
            try:
                sent = self._send(data)
            except OSError:
                sent = 0  # no room, or an error that doWrite() meets again and reports
            if sent != len(data):
                tcp.Server.write(self, data[sent:] if sent else data)
        elif not self._aborted:
            tcp.Server.write(self, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces as one; the inherited one would overtake :meth:`write`."""
        self.write(b"".join(iovec))

    def abortConnection(self) -> None:
        """Drop the connection and everything that has not been sent."""
        self._aborted = True
        self._corked = None
        self._reconsider()
        tcp.Server.abortConnection(self)
        self.disconnecting = True  # what was read in this turn is not handled

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


class DirectPort(RestingPort):
    """A listening TCP port whose connections are :class:`DirectServer`."""

    transport = DirectServer


class DirectEndpoint(PortEndpoint):
    """Listens on TCP with the direct transport, like ``TCP4ServerEndpoint``."""

    def __init__(
        self, group: DescriptorGroup, port: int, interface: str = "", backlog: int = 1024
    ) -> None:
        super().__init__(DirectPort, group, port, interface, backlog=backlog)


__all__ = [
    "READ_SIZE",
    "DirectEndpoint",
    "DirectPort",
    "DirectServer",
    "direct_transport_available",
]
