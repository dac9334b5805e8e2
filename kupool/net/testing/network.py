"""The in-memory network, which is also the fake clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from errno import EADDRINUSE
from functools import partial
from typing import Any, TypeVar

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTCP
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.testing.ends import MemoryConnector, MemoryPort
from kupool.net.testing.names import MemoryNames
from kupool.net.testing.peer import MemoryPeer
from kupool.net.testing.transport import MemoryTransport
from kupool.wire.codecs import Codec

T = TypeVar("T")

#: The first port that is chosen for port 0.
FIRST_PORT = 40_000

#: Steps after which an exchange of messages counts as endless.
MOST_STEPS = 1_000_000


class NeverAtRest(AssertionError):
    """The two sides of a connection answer each other endlessly."""


@implementer(IReactorTCP, IReactorPluggableNameResolver)
class MemoryNetwork(Clock):
    """Listens and connects in memory; pass it to servers and clients as their reactor.

    - ``chunk`` is the most bytes of one read, or None for no limit. With 1, every message
      arrives byte by byte.
    - ``window`` is the number of unread bytes at which the sender's producer is paused.
    - Connections to ``unreachable`` ports are neither accepted nor refused.
    - ``names`` maps host names to addresses, or to none. Other names resolve to 127.0.0.1.

    ``chunk`` and ``window`` apply to connections made after they are set. A port is the
    same at every address.
    """

    def __init__(self, *, chunk: int | None = None, window: int = 65536) -> None:
        super().__init__()
        self.chunk = chunk
        self.window = window
        self.unreachable: set[int] = set()
        self.names: dict[str, list[str]] = {}
        self.nameResolver = MemoryNames(self.names)
        self._listeners: dict[int, MemoryPort] = {}
        self._transports: list[MemoryTransport] = []
        self._next_port = FIRST_PORT
        #: Calls from other threads.
        self._from_threads: deque[Callable[[], object]] = deque()
        self._triggers: dict[str, list[Any]] = {"before": [], "during": [], "after": []}

    # -- time

    def advance(self, amount: float) -> None:
        """Let ``amount`` seconds pass, and make all calls that are due, in order."""
        end = self.seconds() + amount
        self.settle()
        while (due := self._next_due()) is not None and due <= end:
            self.rightNow = max(due, self.seconds())
            super().advance(0)
            self.settle()
        self.rightNow = max(end, self.seconds())

    def settle(self) -> None:
        """Deliver data, and the answers to it, until nothing more happens.

        No time passes. Raises :class:`NeverAtRest` if there is no end.
        """
        for _ in range(MOST_STEPS):
            while self._from_threads:
                self.callLater(0, self._from_threads.popleft())
            moved = False
            for transport in list(self._transports):
                moved = transport.step() or moved
            self._transports = [t for t in self._transports if t.connected]
            due = self._next_due()
            if due is not None and due <= self.seconds():
                super().advance(0)
            elif not moved:
                return
        raise NeverAtRest(f"{MOST_STEPS} steps, and no end")

    def run(self, work: Awaitable[T], patience: float = 0.0) -> T:
        """Return the result of a coroutine or Deferred that needs at most ``patience`` seconds.

        Raises what it raises, and :class:`AssertionError` if it has not ended by then.
        """
        results: list[Any] = []
        deferred: Deferred[T] = ensureDeferred(work)  # type: ignore[arg-type]
        deferred.addBoth(results.append)
        self.settle()
        end = self.seconds() + patience
        while not results and (due := self._next_due()) is not None and due <= end:
            self.advance(due - self.seconds())
        if not results:
            due = self._next_due()
            waits = "nothing is due" if due is None else f"the next is due in {due - end:g} s"
            raise AssertionError(f"not done within {patience:g} s, and {waits} after that")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: T = results[0]
        return result

    def _next_due(self) -> float | None:
        return min((call.getTime() for call in self.getDelayedCalls()), default=None)

    # -- shutdown of a program

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Any,  # noqa: A002
        *args: Any,
        **kwargs: Any,
    ) -> tuple[str, Any]:
        """Register a function to call when the test shuts the program down."""
        if phase not in self._triggers or eventType != "shutdown":
            raise ValueError(f"no event {phase!r} {eventType!r} happens here")
        trigger = (phase, lambda: callable(*args, **kwargs))
        self._triggers[phase].append(trigger[1])
        return trigger

    def removeSystemEventTrigger(self, triggerID: tuple[str, Any]) -> None:
        """Remove a registered function; raises :class:`ValueError` if it is not registered."""
        phase, call = triggerID
        self._triggers[phase].remove(call)

    def shut_down(self, patience: float = 30.0) -> None:
        """Do what a reactor does on SIGINT, and wait for it up to ``patience`` seconds."""
        for phase in self._triggers:
            calls, self._triggers[phase] = self._triggers[phase], []
            waited = [maybeDeferred(call) for call in calls]
            self.run(gatherResults(waited), patience)

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:  # noqa: A002
        """Call a function at the network's next turn. Thread-safe."""
        self._from_threads.append(partial(callable, *args, **kwargs))

    # -- connections

    def connect(
        self, port: int, codec: str | Codec = "line", host: str = "192.0.2.1"
    ) -> MemoryPeer:
        """Return a peer, controlled by the test, that is connected to ``port`` from ``host``.

        ``codec`` is a name in :data:`kupool.wire.codecs.CODECS`, or a codec object. Raises
        :class:`ConnectionRefusedError` if nothing listens on the port.
        """
        peer = MemoryPeer(self, codec)
        if not self._join(peer, port, host):
            known = ", ".join(map(str, sorted(self._listeners))) or "nowhere"
            raise error.ConnectionRefusedError(
                f"nothing listens on {port}; listening ports: {known}"
            )
        self.settle()
        return peer

    def cut(self) -> None:
        """Break every connection, like a pulled cable or a host that was reset."""
        for transport in self._transports:
            transport.abortConnection()
        self.settle()

    @property
    def connections(self) -> int:
        """Number of connections of which at least one side is open."""
        live = [t for t in self._transports if t.connected]
        return len({min(id(t), id(t.other)) for t in live})

    def _join(
        self, client: Any, port: int, host: str, connector: MemoryConnector | None = None
    ) -> bool:
        listener = self._listeners.get(port)
        if listener is None:
            return False
        here = IPv4Address("TCP", host, self._port())
        there = IPv4Address("TCP", listener.interface or "127.0.0.1", port)
        server = listener.factory.buildProtocol(here)
        accepting = MemoryPeer(self, "line") if server is None else server
        near = MemoryTransport(client, here, there, chunk=self.chunk, window=self.window)
        far = MemoryTransport(accepting, there, here, chunk=self.chunk, window=self.window)
        near.other, far.other = far, near
        self._transports += [near, far]
        if connector is not None:
            connector.attach(near)
        client.makeConnection(near)
        if server is None:
            far.abortConnection()
        else:
            server.makeConnection(far)
        return True

    def _port(self) -> int:
        self._next_port += 1
        return self._next_port

    def installNameResolver(self, resolver: Any) -> Any:
        """Install another name resolver; returns the old one."""
        before, self.nameResolver = self.nameResolver, resolver
        return before

    # -- IReactorTCP

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> MemoryPort:
        """Listen; raises ``CannotListenError`` if the port is in use. 0 chooses a free port."""
        listening = MemoryPort(self, port or self._port(), factory, interface)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> MemoryConnector:
        """Connect a client to a port of any host; refused if nothing listens on the port."""
        connector = MemoryConnector(self, host, port, factory, timeout=timeout)
        connector.connect()
        return connector

    def add_listener(self, port: MemoryPort) -> None:
        """Register a listening port; called by the port."""
        if port.number in self._listeners:
            problem = OSError(EADDRINUSE, "Address already in use")
            raise error.CannotListenError(port.interface, port.number, problem)
        self._listeners[port.number] = port

    def remove_listener(self, port: MemoryPort) -> None:
        """Remove a listening port; called by the port."""
        if self._listeners.get(port.number) is port:
            del self._listeners[port.number]

    def attempt(self, connector: MemoryConnector) -> None:
        """Try to connect a client; called by its connector."""
        if connector.port in self.unreachable:
            return
        if connector.port not in self._listeners:
            connector.failed(Failure(error.ConnectionRefusedError()))
            return
        address = IPv4Address("TCP", connector.host, connector.port)
        protocol = connector.factory.buildProtocol(address)
        if protocol is None:
            connector.failed(Failure(error.UserError()))
        else:
            self._join(protocol, connector.port, "127.0.0.1", connector)


__all__ = ["MemoryNetwork", "NeverAtRest"]
