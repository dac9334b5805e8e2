"""A server of which a test says each word, and a pipe to the real one, on a fake clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.dialling.dialler import Place
from kupool.net.dialling.settings import framing_for
from kupool.wire.framing import Control, Framing, encode_frame


@implementer(ITCPTransport)
class ScriptedTransport(StringTransport):
    """The client's side of a connection; the test is the other side."""

    def __init__(self, framing: Framing) -> None:
        StringTransport.__init__(self)
        self.framing = framing
        self.half_closed = False
        self.aborted = False
        self.gone = False
        self.deaf = False
        self.protocol: Any = None
        self.splitter = framing.splitter(1 << 20)
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        StringTransport.write(self, data)

    def loseConnection(self) -> None:
        self.disconnecting = True
        if not self.deaf:
            self.drop(ConnectionDone())

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.drop(ConnectionLost())

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    setTcpKeepAlive = setTcpNoDelay

    def getTcpNoDelay(self) -> bool:
        return True

    getTcpKeepAlive = getTcpNoDelay

    def drop(self, why: Exception | None = None) -> None:
        """End the connection."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(why or ConnectionDone()))

    def heard(self) -> list[Any]:
        """Return what the client sent since the last call: messages, or Control."""
        items = self.splitter.feed(self.value())
        self.clear()
        return [i if isinstance(i, Control) else json.loads(i) for i in items]

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        """Send messages to the client, in one read."""
        parts = [m if isinstance(m, bytes) else json.dumps(m).encode() for m in messages]
        self.protocol.dataReceived(b"".join(map(self.framing.encode, parts)))

    def say_control(self, opcode: int, payload: bytes = b"") -> None:
        self.protocol.dataReceived(encode_frame(payload, opcode))

    def answer(self, result: object = True, **more: Any) -> Any:
        """Answer the one request that the client sent; returns it."""
        (request,) = self.heard()
        self.say({"id": request["id"], "result": result, **more})
        return request


@implementer(IStreamClientEndpoint)
class ScriptedEndpoint:
    """Connects as the test says: ``mood`` is accept, refuse or hang."""

    def __init__(self, framing: str = "frame") -> None:
        self.framing = framing_for(framing)
        self.mood = "accept"
        self.attempts = 0
        self.cancelled = 0
        self.sessions: list[ScriptedTransport] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        if self.mood == "refuse":
            return fail(Refused())
        if self.mood == "hang":
            return Deferred(self._cancel)
        transport = ScriptedTransport(self.framing)
        transport.protocol = factory.buildProtocol(None)
        self.sessions.append(transport)
        transport.protocol.makeConnection(transport)
        return succeed(transport.protocol)

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    @property
    def last(self) -> ScriptedTransport:
        return self.sessions[-1]

    def server(self, name: str = "here") -> Place:
        return Place(name, self)


class _End:
    """One end of a pipe: what is written arrives at the other end some time later."""

    disconnecting = False

    def __init__(self, clock: Clock, delay: Callable[[], float]) -> None:
        self._clock = clock
        self._delay = delay
        self._arrives = 0.0
        self.other: _End
        self.protocol: Any = None
        self.open = True

    def write(self, data: bytes) -> None:
        if self.open:
            self._later(self.other.arrive, data)

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        # In order, however the delays fall.
        self._arrives = max(self._arrives, self._clock.seconds() + self._delay())
        self._clock.callLater(self._arrives - self._clock.seconds(), call, *arguments)

    def arrive(self, data: bytes) -> None:
        if self.open:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        self._end(ConnectionDone())

    def abortConnection(self) -> None:
        self._end(ConnectionLost())

    def _end(self, why: Exception) -> None:
        if self.open:
            self._later(self.other.hung_up)
            self._clock.callLater(0, self.hung_up, why)

    def hung_up(self, why: Exception | None = None) -> None:
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(why or ConnectionDone()))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def getPeer(self) -> Any:
        return None

    def getHost(self) -> Any:
        return None


@implementer(IStreamClientEndpoint)
class PipeEndpoint:
    """Connects to a server's factory through memory; ``delay`` is for each write."""

    def __init__(self, clock: Clock, factory: Any, delay: Callable[[], float]) -> None:
        self._clock = clock
        self._factory = factory
        self._delay = delay

    def connect(self, factory: Any) -> Deferred[Any]:
        near, far = _End(self._clock, self._delay), _End(self._clock, self._delay)
        near.other, far.other = far, near
        near.protocol = factory.buildProtocol(None)
        far.protocol = self._factory.buildProtocol(None)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)
        return succeed(near.protocol)
