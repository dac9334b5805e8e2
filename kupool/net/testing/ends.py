"""Who listens in memory, and who connects: what a network gives for listenTCP and connectTCP."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.testing.transport import MemoryTransport


class MemoryExchange(Protocol):
    """What listens and what connects need of a network in memory."""

    def callLater(self, delay: float, callable: Any, *args: Any) -> Any:  # noqa: A002
        """Call something later."""

    def add_listener(self, port: MemoryPort) -> None:
        """Let a port accept connections."""

    def remove_listener(self, port: MemoryPort) -> None:
        """Let a port accept no more."""

    def attempt(self, connector: MemoryConnector) -> None:
        """Try to connect a client."""


@implementer(IListeningPort)
class MemoryPort:
    """A port that listens in memory."""

    def __init__(self, network: MemoryExchange, number: int, factory: Any, interface: str) -> None:
        self.network = network
        self.number = number
        self.factory = factory
        self.interface = interface

    def startListening(self) -> None:
        """Begin; raises ``CannotListenError`` for a port that is taken."""
        self.network.add_listener(self)
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those there are stay."""
        self.network.remove_listener(self)
        self.factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        """Return the address."""
        return IPv4Address("TCP", self.interface or "0.0.0.0", self.number)  # noqa: S104


@implementer(IConnector)
class MemoryConnector:
    """A client's attempt to connect, and what became of it."""

    def __init__(
        self, network: MemoryExchange, host: str, port: int, factory: Any, *, timeout: float
    ) -> None:
        self.network = network
        self.host = host
        self.port = port
        self.factory = factory
        self._timeout = timeout
        self._calls: list[Any] = []
        self._transport: MemoryTransport | None = None

    def connect(self) -> None:
        """Begin; what becomes of it is known in a later turn."""
        self.factory.doStart()
        self.factory.startedConnecting(self)
        late = Failure(error.TimeoutError())
        self._calls = [
            self.network.callLater(0, self.network.attempt, self),
            self.network.callLater(self._timeout, self.failed, late),
        ]

    def attach(self, transport: MemoryTransport) -> None:
        """Take note of the connection."""
        self._end_calls()
        self._transport = transport
        transport.on_lost = self._lost

    def failed(self, reason: Failure) -> None:
        """Tell the factory that there is no connection."""
        self._end_calls()
        self.factory.clientConnectionFailed(self, reason)
        self.factory.doStop()

    def _lost(self, reason: Failure) -> None:
        self.factory.clientConnectionLost(self, reason)
        self.factory.doStop()

    def _end_calls(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()

    def stopConnecting(self) -> None:
        """Give up the attempt."""
        self.failed(Failure(error.UserError()))

    def disconnect(self) -> None:
        """End the connection, or the attempt."""
        if self._transport is None:
            self.stopConnecting()
        else:
            self._transport.loseConnection()

    def getDestination(self) -> IPv4Address:
        """Return where this connects to."""
        return IPv4Address("TCP", self.host, self.port)


__all__ = ["MemoryConnector", "MemoryExchange", "MemoryPort"]
