"""Listening ports that back off when ``accept`` fails, instead of spinning.

A listening socket stays readable while connections wait. When ``accept`` fails for lack of
memory or descriptors, a reactor retries at once. These ports retry after 5 ms, then double
the delay up to one second, until ``accept`` succeeds.

Twisted accepts more connections in each turn of the reactor the more of them wait, without a
limit, so a flood of connections would delay everybody else. These ports accept a few in each turn.
A factory may have a :class:`Gate`. It sets the pace, and says which connections are reset before
anything is made for them, which costs a tenth of a refusal with a reason.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from errno import EAGAIN, ECONNABORTED, EPERM, EWOULDBLOCK
from typing import Any, Protocol

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.transport.leftovers import remove_leftovers
from kupool.timing.doubling import Doubling

#: The first and the longest delay before ``accept`` is retried, in seconds.
FIRST_REST = 0.005
LONGEST_REST = 1.0

#: The most connections that one port accepts in one turn of the reactor, and unwanted ones that it
#: resets meanwhile.
ACCEPTS = 3
RESETS = 20

#: ``SO_LINGER`` so that closing a socket resets the connection, and leaves nothing in the kernel.
_RESET = struct.pack("ii", 1, 0)

_RESTS = Doubling(FIRST_REST, LONGEST_REST)

#: Errors of one connection, which do not affect the next one.
_PASSING = frozenset((0, EAGAIN, EWOULDBLOCK, EPERM, ECONNABORTED))


class Gate(Protocol):
    """Decides when a port accepts connections, and which."""

    def pause(self) -> float:
        """Return the seconds for which no connection is accepted."""

    def taken(self) -> None:
        """Count a connection that was accepted."""

    def unwanted(self, host: str) -> bool:
        """Return whether a connection from a host is reset without a word."""


class ListeningSocket(socket.socket):
    """A socket that remembers the result of its last ``accept``."""

    #: The error number of the last ``accept``, 0 after a success.
    outcome = 0
    gate: Gate | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one connection, and reset unwanted ones before it."""
        for _ in range(RESETS):
            if self.gate is not None and self.gate.pause():
                break
            try:
                accepted = super().accept()
            except OSError as error:
                self.outcome = error.errno or 0
                raise
            self.outcome = 0
            if self.gate is None:
                return accepted
            sock, address = accepted
            if sock.family == socket.AF_UNIX or not self.gate.unwanted(address[0]):
                self.gate.taken()
                return accepted
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        raise BlockingIOError(EAGAIN, "others in the next turn")


class AdoptedSocket(ListeningSocket):
    """A socket that is already listening, such as those that systemd passes."""

    def bind(self, address: object, /) -> None:
        """Do nothing: the socket is already bound."""

    def listen(self, backlog: int = 0, /) -> None:
        """Do nothing: the socket is already listening."""


class RestingPort(tcp.Port):
    """A TCP port that backs off when ``accept`` fails."""

    #: The listening socket to adopt, if any.
    adopted: AdoptedSocket | None = None
    _resting: IDelayedCall | None = None
    _rest = 0.0

    def createInternetSocket(self) -> socket.socket:
        """Return a socket that remembers the result of its last ``accept``."""
        listening: ListeningSocket | None = self.adopted
        if listening is None:
            made = super().createInternetSocket()  # type: ignore[no-untyped-call]
            listening = ListeningSocket(fileno=made.detach())
        listening.setblocking(False)
        listening.gate = _gate_of(self.factory)
        return listening

    def doRead(self) -> None:
        """Accept some of the waiting connections; pause if that fails, or for the pace."""
        listening: Any = self.socket
        gate: Gate | None = listening.gate
        pause = 0.0 if gate is None else gate.pause()
        if not pause:
            self.numberAccepts = min(self.numberAccepts, ACCEPTS)
            super().doRead()  # type: ignore[no-untyped-call]
            if listening.outcome in _PASSING:
                self._rest = 0.0
                return
            pause = self._rest = _RESTS.after(self._rest)
        if self.connected and self._resting is None:
            reactor: Any = self.reactor
            reactor.removeReader(self)
            self._resting = reactor.callLater(pause, self._try_again)

    def _try_again(self) -> None:
        self._resting = None
        self.reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket."""
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class RestingUnixPort(RestingPort, unix.Port):
    """A Unix port that backs off when ``accept`` fails.

    It removes what a killed process left at the address.
    """

    def startListening(self) -> None:
        """Listen; raises ``CannotListenError``, for example if another process listens there."""
        path: bytes = self._bindPath
        if self.wantPID and not path.startswith(b"\0"):
            in_use = remove_leftovers(path)
            if in_use:
                raise CannotListenError(None, path, in_use)
        try:
            super().startListening()  # type: ignore[no-untyped-call]
        except BaseException:
            self._unlock()
            raise

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, even if its file has been removed."""
        try:
            super().connectionLost(reason)
        except FileNotFoundError:
            self._unlock()
            tcp.Port.connectionLost(self, reason)

    def _unlock(self) -> None:
        if self.lockFile is not None and self.lockFile.locked:
            with suppress(OSError, ValueError):  # another process has removed or replaced it
                self.lockFile.unlock()


def _gate_of(factory: Any) -> Gate | None:
    """Return the gate of a factory, or of the one that it wraps, as for TLS."""
    while factory is not None:
        gate: Gate | None = getattr(factory, "gate", None)
        if gate is not None:
            return gate
        factory = getattr(factory, "wrappedFactory", None)
    return None


class RestingListeners:
    """Stands in for a reactor to make ports that back off.

    Attributes that it does not define come from the reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen on a TCP port; raises ``CannotListenError``."""
        return _listening(RestingPort(port, factory, backlog, interface, self._reactor))

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        """Listen for TLS on a TCP port; raises ``CannotListenError``."""
        from twisted.protocols.tls import TLSMemoryBIOFactory  # an optional dependency

        inner = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, inner, backlog, interface)

    def listenUNIX(
        self,
        address: bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> IListeningPort:
        """Listen on a Unix socket; raises ``CannotListenError``."""
        port = RestingUnixPort(address, factory, backlog, mode, self._reactor, wantPID)
        return _listening(port)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """Listen on a socket that is already listening; the caller keeps the descriptor."""
        adopted = AdoptedSocket(fileno=os.dup(fileDescriptor))
        name = adopted.getsockname()
        port: RestingPort
        if addressFamily == socket.AF_UNIX:
            port = RestingUnixPort(name, factory, reactor=self._reactor)
        else:
            port = RestingPort(name[1], factory, 50, name[0], self._reactor)
        port.adopted = adopted
        return _listening(port)


def _listening(port: RestingPort) -> IListeningPort:
    port.startListening()
    return port


@implementer(IStreamServerEndpoint)
class PortEndpoint:
    """A server endpoint of one of our port classes, like ``TCP4ServerEndpoint``.

    ``reactor`` is the real reactor or a stand-in for it.
    """

    def __init__(
        self,
        port_class: type[RestingPort],
        reactor: Any,
        port: int,
        interface: str = "",
        *,
        backlog: int = 1024,
    ) -> None:
        self._class = port_class
        self._reactor = reactor
        self._port = port
        self._interface = interface
        self._backlog = backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; fails with ``CannotListenError`` if that is impossible."""
        try:
            port = self._class(
                self._port, protocolFactory, self._backlog, self._interface, self._reactor
            )
            port.startListening()
        except BaseException:  # the factory may be the application's
            return fail()
        return succeed(port)


__all__ = [
    "FIRST_REST",
    "LONGEST_REST",
    "AdoptedSocket",
    "Gate",
    "ListeningSocket",
    "PortEndpoint",
    "RestingListeners",
    "RestingPort",
    "RestingUnixPort",
]
