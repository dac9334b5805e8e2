"""One side of a connection in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport)
class MemoryTransport:
    """The transport of a protocol in memory; the network delivers its data step by step.

    It behaves like Twisted's TCP transport:

    - nothing is delivered from within a call;
    - data piles up for a side that does not read;
    - a registered producer is paused at ``window`` bytes, and resumed when all are delivered;
    - either direction can end alone.

    ``chunk`` is the most bytes of one read, or None for no limit.
    """

    def __init__(
        self,
        protocol: Any,
        here: IPv4Address,
        there: IPv4Address,
        *,
        chunk: int | None,
        window: int,
    ) -> None:
        self.chunk = chunk
        self.window = window
        self.protocol = protocol
        self.other: MemoryTransport
        #: Called with the reason when this side of the connection has ended.
        self.on_lost: Callable[[Failure], object] = lambda reason: None
        self.connected = True
        self.disconnecting = False
        #: Whether this side reads.
        self.reading = True
        #: Whether the other side has finished sending, and this side has been notified.
        self.ended = False
        #: May be an ``IPullProducer``, which is never paused.
        self.producer: IPushProducer | None = None
        self._here, self._there = here, there
        self._outgoing = bytearray()
        self._finishing = self._finished = False
        self._producer_paused = self._streaming = False
        self._aborted: BaseException | None = None
        self._no_delay = self._keep_alive = False

    @property
    def outgoing(self) -> int:
        """Bytes written here that the other side has not read."""
        return len(self._outgoing)

    # -- ITransport, as protocols use it

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not isinstance(data, bytes):
            raise TypeError(f"a transport takes bytes, not {type(data).__name__}")
        if not self.connected or self._finishing or self._aborted is not None:
            return
        self._outgoing += data
        over = len(self._outgoing) > self.window
        if over and self.producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close the connection when everything has been delivered."""
        if self.connected:
            self.disconnecting = True

    def abortConnection(self) -> None:
        """Abort the connection; the other side loses it."""
        if self.connected and self._aborted is None:
            self.disconnecting = True
            self._outgoing.clear()
            self._aborted = ConnectionAborted()

    def loseWriteConnection(self) -> None:
        """Finish sending; the other side may still send."""
        self._finishing = True

    def getPeer(self) -> IPv4Address:
        """Return the other side's address."""
        return self._there

    def getHost(self) -> IPv4Address:
        """Return this side's address."""
        return self._here

    def getTcpNoDelay(self) -> bool:
        """Return the value that was set."""
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Store the value."""
        self._no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Return the value that was set."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Store the value."""
        self._keep_alive = bool(enabled)

    # -- flow control

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause a producer while the other side does not read; raises if there is already one."""
        if self.producer is not None:
            raise RuntimeError("a producer is already registered")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Remove the producer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    # -- the network's side

    def step(self) -> bool:
        """Do the next pending step on this side; returns whether there was one."""
        if not self.connected:
            return False
        if self._aborted is not None:
            self._lost(self._aborted)
            return True
        if not self.other.connected and not self.other.closed_in_order:
            self._lost(ConnectionLost())
            return True
        return self._deliver() or self._end_writing() or self._hear_end() or self._end()

    @property
    def closed_in_order(self) -> bool:
        """Whether this side has closed, and the other may still read pending data."""
        return not self.connected and self._aborted is None

    def _deliver(self) -> bool:
        """Deliver pending data to the other side, at most one read."""
        if not self._outgoing:
            return False
        if not self.other.connected:
            self._lost(ConnectionLost())  # the other side has no protocol
            return True
        if not self.other.reading or self.other.disconnecting:
            return self.other.disconnecting and self._drop()
        size = len(self._outgoing) if self.chunk is None else self.chunk
        data = bytes(self._outgoing[:size])
        del self._outgoing[:size]
        self.other.protocol.dataReceived(data)
        if not self._outgoing and self.connected:
            self._resume_producer()
        return True

    def _drop(self) -> bool:
        """Drop data for a side that reads no more."""
        self._outgoing.clear()
        self._resume_producer()
        return True

    def _resume_producer(self) -> None:
        if self.producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self.producer.resumeProducing()

    def _end_writing(self) -> bool:
        """Notify this side's protocol that everything has been sent."""
        if not self._finishing or self._finished or self._outgoing:
            return False
        self._finished = True
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.writeConnectionLost()
        return True

    def _hear_end(self) -> bool:
        """Notify this side that the other has finished sending."""
        other = self.other
        over = (other.closed_in_order or other.finished) and not other.outgoing
        if self.ended or self.disconnecting or not over or not self.reading:
            return False
        self.ended = True
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self._outgoing.clear()  # a protocol without half-close ends at once
            self._lost(ConnectionDone())
        return True

    @property
    def finished(self) -> bool:
        """Whether this side has finished sending."""
        return self._finished

    def _end(self) -> bool:
        both_ended = self._finished and self.ended
        if (self.disconnecting or both_ended) and not self._outgoing:
            self._lost(ConnectionDone())
            return True
        return False

    def _lost(self, why: BaseException) -> None:
        self.connected = False
        if not isinstance(why, ConnectionDone):
            self._aborted = why
            self._outgoing.clear()
        reason = Failure(why)
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(reason)
        self.on_lost(reason)


__all__ = ["MemoryTransport"]
