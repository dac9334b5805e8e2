"""The direct transport: Twisted's TCP server transport without the deferred write.

The stock transport buffers every ``write``, asks the reactor for a second dispatch and only
then calls ``send``. That takes about half of the CPU time of a short request. This
transport joins everything that is written during one read, and sends it at once unless data
is already queued. Protocols need no change.

It uses two documented hooks: :attr:`twisted.internet.tcp.Port.transport`, and the
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

#: Size of one read, in bytes.
READ_SIZE = 65536


def direct_transport_available() -> bool:
    """Return whether this system supports the direct transport."""
    return hasattr(select, "epoll")


class DirectServer(tcp.Server):
    """An accepted connection that sends at once when it can."""

    #: A registered producer is paused as soon as any data has to wait. So unsent data
    #: stays in the outbox, where it can be conflated or dropped.
    bufferSize = 0

    reactor: DescriptorGroup

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._recv = sock.recv
        self._send = sock.send
        self._corked: list[bytes] | None = None
        self.disconnecting = False
        self._waiting = False
        self._aborted = False
        self.late = False
        tcp.Server.__init__(self, sock, *args, **kwargs)
        self._turn = self.reactor.turn
        #: Whether bytes may be sent at once; a single flag, because every write checks it.
        self._ready = True

    def _reconsider(self) -> None:
        self._ready = bool(self.connected) and not (self._waiting or self._aborted or self.TLS)

    def startWriting(self) -> None:
        """Note that Twisted's buffer has data, and watch the socket for writing."""
        self._waiting = True
        self._ready = False
        tcp.Server.startWriting(self)

    def stopWriting(self) -> None:
        """Note that Twisted's buffer is empty."""
        self._waiting = False
        self._reconsider()
        tcp.Server.stopWriting(self)

    def startTLS(self, *args: Any, **kwargs: Any) -> None:
        """Encrypt from here on; later writes use Twisted's buffer."""
        corked, self._corked = self._corked, None
        if corked is not None:
            # Earlier writes are sent unencrypted.
            tcp.Server.write(self, b"".join(corked))
        tcp.Server.startTLS(self, *args, **kwargs)
        self._reconsider()

    def write(self, data: bytes) -> None:
        """Send ``data`` now if nothing is queued, else queue it.

        While the group handles a turn, data is sent at the end of the turn.
        """
        if self._corked is not None:
            self._corked.append(data)
            return
        self._corked = [data]
        corked = self._turn.corked
        if corked is not None:
            corked.append(self)
        else:
            self.uncork()

    def uncork(self) -> None:
        """Send what was written since the turn began; the group is not corked then."""
        corked, self._corked = self._corked, None
        if corked is None:
            return
        data = corked[0] if len(corked) == 1 else b"".join(corked)
        if self._ready:
            send = self._send  # calling the attribute itself is slower
            try:
                sent = send(data)
            except OSError:
                sent = 0  # the buffer is full, or doWrite() will meet and report the error
            if sent != len(data):
                tcp.Server.write(self, data[sent:] if sent else data)
        elif not self._aborted:
            tcp.Server.write(self, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces as one; the inherited method would overtake :meth:`write`."""
        self.write(b"".join(iovec))

    def abortConnection(self) -> None:
        """Close the connection, and drop all unsent data."""
        self._aborted = True
        self._corked = None
        self._reconsider()
        tcp.Server.abortConnection(self)
        self.disconnecting = True  # data that was read in this turn is not handled

    def doRead(self) -> Any:
        """Read once; the group passes the data to the protocol after reading from all.

        Nothing is read while the group has not handled what was read before.
        """
        if self.late:
            return None
        recv = self._recv
        try:
            data = recv(READ_SIZE)
        except OSError as error:
            return None if error.errno in (EAGAIN, EWOULDBLOCK) else main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self._turn.arrived.append((self, data))
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket."""
        self._ready = False
        tcp.Server.connectionLost(self, reason)
        # Bound methods of the socket would keep the socket object alive.
        self.__dict__.pop("_recv", None)
        self.__dict__.pop("_send", None)


class DirectPort(RestingPort):
    """A listening TCP port that makes :class:`DirectServer` connections."""

    transport = DirectServer


class DirectEndpoint(PortEndpoint):
    """A TCP endpoint with the direct transport, like ``TCP4ServerEndpoint``."""

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
