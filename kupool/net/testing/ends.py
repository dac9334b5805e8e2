"""Listening ports and connectors of the in-memory network, for listenTCP and connectTCP."""

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
    """What ports and connectors need of an in-memory network."""

    def callLater(self, delay: float, callable: Any, *args: Any) -> Any:  # noqa: A002
        """Schedule a call."""

    def add_listener(self, port: MemoryPort) -> None:
        """Register a port that accepts connections."""

    def remove_listener(self, port: MemoryPort) -> None:
        """Remove a port."""

    def attempt(self, connector: MemoryConnector) -> None:
        """Try to connect a client."""


@implementer(IListeningPort)
class MemoryPort:
    """A listening port in memory."""

    def __init__(self, network: MemoryExchange, number: int, factory: Any, interface: str) -> None:
        self.network = network
        self.number = number
        self.factory = factory
        self.interface = interface

    def startListening(self) -> None:
        """Start listening; raises ``CannotListenError`` if the port is in use."""
        self.network.add_listener(self)
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Stop accepting connections; open connections stay."""
        self.network.remove_listener(self)
        self.factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        """Return the address."""
        return IPv4Address("TCP", self.interface or "0.0.0.0", self.number)  # noqa: S104


@implementer(IConnector)
class MemoryConnector:
    """A client's connection attempt, and its connection."""

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
        """Start connecting; the result is known in a later turn."""
        self.factory.doStart()
        self.factory.startedConnecting(self)
        late = Failure(error.TimeoutError())
        self._calls = [
            self.network.callLater(0, self.network.attempt, self),
            self.network.callLater(self._timeout, self.failed, late),
        ]

    def attach(self, transport: MemoryTransport) -> None:
        """Keep the transport of the connection."""
        self._end_calls()
        self._transport = transport
        transport.on_lost = self._lost

    def failed(self, reason: Failure) -> None:
        """Notify the factory that the attempt has failed."""
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
        """Cancel the attempt."""
        self.failed(Failure(error.UserError()))

    def disconnect(self) -> None:
        """Close the connection, or cancel the attempt."""
        if self._transport is None:
            self.stopConnecting()
        else:
            self._transport.loseConnection()

    def getDestination(self) -> IPv4Address:
        """Return the address that this connects to."""
        return IPv4Address("TCP", self.host, self.port)


__all__ = ["MemoryConnector", "MemoryExchange", "MemoryPort"]
