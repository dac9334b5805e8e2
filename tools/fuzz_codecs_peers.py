"""The other ends of the fuzzed servers: one that behaves badly, and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.wire.codecs import Codec
from kupool.wire.framing import Item
from kupool.wire.packets import UNLIMITED

#: Seconds after which a server must have ended a connection that its peer leaves alone.
LONGEST = 25.0

#: Seconds of running between two looks at whether the time is over.
STEP = 0.5


class Patience:
    """Calls something once this process, the server with it, has run for so many seconds.

    The server leaves out of account the time in which it did not run, and so does this: a
    step that took longer counts as one step. ``call`` is not made after :meth:`cancel`.
    """

    def __init__(self, reactor: Any, seconds: float, call: Callable[[], object]) -> None:
        self._reactor = reactor
        self._left = round(seconds / STEP)
        self._call = call
        self._next: IDelayedCall = reactor.callLater(STEP, self._step)

    def _step(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._next = self._reactor.callLater(STEP, self._step)
        else:
            self._call()

    def cancel(self) -> None:
        """Make no call any more; harmless after it."""
        if self._next.active():
            self._next.cancel()


@implementer(IHalfCloseableProtocol)
class HostilePeer(Protocol):
    """Sends what it is told; ``wrong`` says what it was sent that is no message."""

    transport: Any

    def __init__(self, reactor: Any, codec: Codec | None, *, stops_reading: bool) -> None:
        self._reactor = reactor
        self._splitter: Any = None if codec is None else codec.splitter(UNLIMITED)
        self._stops_reading = stops_reading
        self._patience: Patience | None = None
        self._reading: IDelayedCall | None = None
        self.over = self.refused = False
        self.wrong = ""
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Perhaps never read."""
        if self._stops_reading:
            self.transport.pauseProducing()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def leave(self, how: str) -> None:
        """Go, or leave it to the server to end the connection."""
        if self.over:
            return
        self._patience = Patience(self._reactor, LONGEST, self._too_long)
        if how == "finish":
            self.transport.loseWriteConnection()
        elif how == "abort":
            self.transport.abortConnection()
        elif how == "close":
            self.transport.loseConnection()
        if self._stops_reading:
            # A socket that is not read does not notice its end.
            self._reading = self._reactor.callLater(5.0, self.transport.resumeProducing)

    def _too_long(self) -> None:
        self.wrong = self.wrong or "nothing: the connection did not end"
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Look whether it is what the codec makes."""
        splitter = self._splitter
        if splitter is not None:
            splitter.feed(data)
            if splitter.too_large or splitter.corrupt:
                self.wrong = f"{data!r:.300}"

    def readConnectionLost(self) -> None:
        """The server sends no more: it is done with us."""
        self.refused = True
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Everything is sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say so."""
        self.over = True
        if self._patience is not None:
            self._patience.cancel()
        if self._reading is not None and self._reading.active():
            self._reading.cancel()
        self.ended.callback(None)


class GoodPeer(Protocol):
    """Asks one thing after the other."""

    transport: Any

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._splitter = codec.splitter(UNLIMITED)
        self._waiting: Deferred[Item] | None = None
        self._over: Failure | None = None
        self.ended: Deferred[None] = Deferred()

    def ask(self, message: Any) -> Deferred[Item]:
        """Return the answer; fails where the connection ends instead."""
        if self._over is not None:
            return fail(self._over)
        self._waiting = Deferred()
        self.transport.write(self._codec.pack(message))
        return self._waiting

    def dataReceived(self, data: bytes) -> None:
        """Take the answer."""
        for item in self._splitter.feed(data):
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                waiting.callback(item)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say so."""
        self._over = reason
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)
        self.ended.callback(None)


__all__ = ["STEP", "GoodPeer", "HostilePeer", "Patience"]
