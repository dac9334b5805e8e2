"""How many may use the HTTP port at once, and who makes room for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kupool.net.refusals import Refusals

#: Requests of operators that are answered while too many others are.
OPERATORS = 10

#: Connections that no request can have but those for ``/health`` and ``/ready``, and
#: :data:`OPERATORS` of operators.
RESERVED = 20


#: Seconds that a connection has for its request before it may have to go for another: in a
#: burst of them, some would never come so far.
PATIENCE = 0.25


@dataclass(frozen=True)
class HttpLimits:
    """The limits of the HTTP server; times are in seconds, and 0 turns a limit off.

    ``max_connections`` are those of HTTP: a new one takes the place of the one that has
    waited longest for a request, first of those that never sent any. ``max_requests`` are
    answered at the same time; ``/health`` and ``/ready`` are not among them.
    ``max_websockets`` are among the connections of the pool, too, and none of HTTP once they
    are open. ``request_timeout`` is for a whole request to arrive, from the connection's
    beginning or the answer before. ``ping_interval`` is that of WebSockets.
    """

    max_connections: int = 2000
    max_requests: int = 200
    max_websockets: int = 5000
    request_timeout: float = 30.0
    ping_interval: float = 30.0

    @property
    def requests(self) -> int:
        """How many may be answered at once, so that connections are left for ``/health``;
        0: any number.
        """
        if not self.max_connections:
            return self.max_requests
        most = max(1, self.max_connections - min(RESERVED, self.max_connections // 2))
        return min(self.max_requests or most, most)

    @property
    def operator_requests(self) -> int:
        """How many more of operators are answered; they leave connections for ``/health``, too."""
        if not self.max_connections:
            return OPERATORS
        return min(OPERATORS, (self.max_connections - self.requests) // 2)


class Guest(Protocol):
    """A connection to the HTTP port."""

    def make_room(self) -> None:
        """End at once: somebody else needs the place."""


class Crowd:
    """The HTTP connections that there are, and the requests that are being answered."""

    def __init__(self, clock: IReactorTime, limits: HttpLimits, refusals: Refusals) -> None:
        self._clock = clock
        self._limits = limits
        self._refusals = refusals
        # Each with the time since when it waits, in that order: of these a dict is a queue.
        self._silent: dict[Guest, float] = {}
        self._idle: dict[Guest, float] = {}
        self._busy: set[Guest] = set()
        self._requests = 0

    def __len__(self) -> int:
        return len(self._silent) + len(self._idle) + len(self._busy)

    def has_room(self, host: str) -> bool:
        """Say whether one more may come; one that waits has to go for it where it must."""
        most = self._limits.max_connections
        if not most or len(self) < most:
            return True
        for waiting, which in ((self._silent, "that sent no request"), (self._idle, "idle")):
            for longest, since in waiting.items():
                if self._clock.seconds() - since < PATIENCE:
                    break
                self._refusals.note(f"HTTP connections, {which}, for newer ones")
                self.leave(longest)
                longest.make_room()
                return True
        self._refusals.note("HTTP connections, too many at once", host)
        return False

    def enter(self, guest: Guest) -> None:
        """Count one more, which waits."""
        self._silent[guest] = self._clock.seconds()

    def begins(self, guest: Guest) -> None:
        """A connection has sent a whole request."""
        if self.waits(guest):
            self.leave(guest)
            self._busy.add(guest)

    def ends(self, guest: Guest) -> None:
        """Its request has been answered."""
        if guest in self._busy:
            self._busy.discard(guest)
            self._idle[guest] = self._clock.seconds()

    def waits(self, guest: Guest) -> bool:
        """Say whether a connection is here and has no request that is being answered."""
        return guest in self._silent or guest in self._idle

    def leave(self, guest: Guest) -> None:
        """Forget a connection; harmless for one that has left."""
        self._silent.pop(guest, None)
        self._idle.pop(guest, None)
        self._busy.discard(guest)

    def take_request(self, host: str, is_operator: Callable[[], bool]) -> bool:
        """Count a request that is to be answered; False where there are too many.

        Of operators a few more are answered; ``is_operator`` is asked only where it matters.
        """
        most = self._limits.requests
        if (
            most
            and self._requests >= most
            and not (self._requests < most + self._limits.operator_requests and is_operator())
        ):
            self._refusals.note("HTTP requests, too many at once", host)
            return False
        self._requests += 1
        return True

    def end_request(self) -> None:
        """Count one less."""
        self._requests -= 1


__all__ = ["Crowd", "Guest", "HttpLimits"]
