"""One connection of a client to a server with a bus: messages out, messages in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus.remote.messages import Incoming, decode_incoming
from kupool.wire.framing import OP_CLOSE, Control, Framing
from kupool.wire.messages import encode_request

#: Seconds between two signs of life, and without one until the connection is given up.
PING_INTERVAL = 20.0
SILENCE = 45.0


@implementer(IPushProducer)
class Link(Protocol):
    """Speaks ``framing``; tells of every message, and of the end, exactly once."""

    def __init__(
        self,
        clock: IReactorTime,
        framing: Framing,
        max_frame: int,
        received: Callable[[Link, Incoming], object],
        ended: Callable[[Link], object],
    ) -> None:
        self._clock = clock
        self._framing = framing
        self._splitter = framing.splitter(max_frame)
        self._received = received
        self._ended = ended
        self._heard = clock.seconds()
        self._ping: IDelayedCall | None = None
        self._over = False
        #: Whether the server reads what it is sent.
        self.writable = True

    def connectionMade(self) -> None:
        """Get ready."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._heard = self._clock.seconds()
        self._ping = self._clock.callLater(PING_INTERVAL, self._stay_alive)

    def dataReceived(self, data: bytes) -> None:
        """Take the messages apart; what is none ends the connection."""
        self._heard = self._clock.seconds()
        for item in self._splitter.feed(data):
            if self._over:
                return
            if isinstance(item, bytes):
                try:
                    message = decode_incoming(item)
                except (ValueError, RecursionError):
                    self.abort()
                    return
                if message.method == "close" and message.id is None:
                    self.lose()
                else:
                    self._received(self, message)
            elif isinstance(item, Control) and item.opcode == OP_CLOSE:
                self.lose()
        if self._splitter.too_large:
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say that it is over."""
        self._over = True
        if self._ping is not None and self._ping.active():
            self._ping.cancel()
        self._ended(self)

    def send(self, payload: bytes) -> None:
        """Send one message; does nothing on a connection that is over."""
        transport: Any = self.transport
        if not self._over:
            transport.write(self._framing.encode(payload))

    def lose(self) -> None:
        """End the connection: what has been sent still leaves."""
        transport: Any = self.transport
        if not self._over:
            self._over = True
            transport.unregisterProducer()
            transport.loseConnection()

    def abort(self) -> None:
        """Cut the connection off."""
        transport: Any = self.transport
        self._over = True
        transport.abortConnection()

    def _stay_alive(self) -> None:
        if self._clock.seconds() - self._heard >= SILENCE:
            self.abort()
            return
        self._ping = self._clock.callLater(PING_INTERVAL, self._stay_alive)
        self.send(encode_request("ping", "ping", {}))

    def pauseProducing(self) -> None:
        """The server reads slowly."""
        self.writable = False

    def resumeProducing(self) -> None:
        """The server reads again."""
        self.writable = True

    def stopProducing(self) -> None:
        """The transport has ended; :meth:`connectionLost` follows."""


class LinkFactory(Factory):
    """Builds the link of one connection."""

    noisy = False

    def __init__(self, make: Callable[[], Link]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> Link:
        """Return the link."""
        return self._make()


__all__ = ["PING_INTERVAL", "SILENCE", "Link", "LinkFactory"]
