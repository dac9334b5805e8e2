"""Limits of the HTTP port, and which connection is closed for a new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kupool.net.networks import network_of
from kupool.net.refusals import Refusals

#: Requests of operators that are answered beyond the limit of requests.
OPERATORS = 10

#: Connections that are reserved for ``/health`` and ``/ready``, and for :data:`OPERATORS` requests
#: of operators.
RESERVED = 20


#: Bodies of more than 64 KiB that are in memory at once, and those of one address.
LARGE_BODIES = 32
LARGE_BODIES_PER_IP = 8

#: Seconds that a connection has for its request before it may be closed for another one. Otherwise
#: some connections of a burst would never get to send it.
PATIENCE = 0.25


@dataclass(frozen=True)
class HttpLimits:
    """The limits of the HTTP server; times are in seconds, and 0 turns a limit off.

    ``max_connections`` limits the HTTP connections. A new one replaces the one that has waited
    longest for a request; those that never sent a request go first. ``max_requests`` limits the
    requests that are answered at the same time, except ``/health`` and ``/ready``, and
    ``max_requests_per_ip`` those of one address, unless it is in ``shared_hosts``.
    ``max_polls`` limits the requests that wait for something to happen, and ``max_polls_per_ip``
    those of one address; they do not count towards the limits above while they wait.
    ``max_websockets`` limits the WebSockets, which also count as connections of the pool; an open
    WebSocket is not an HTTP connection. ``request_timeout`` is the time for a whole request, from
    the start of the connection or the answer before. ``ping_interval`` is that of WebSockets.
    """

    max_connections: int = 2000
    max_requests: int = 200
    max_requests_per_ip: int = 50
    shared_hosts: Container[str] = ()
    max_polls: int = 500
    max_polls_per_ip: int = 100
    max_websockets: int = 5000
    request_timeout: float = 30.0
    ping_interval: float = 30.0

    @property
    def requests(self) -> int:
        """The most requests at once, so that connections are left for ``/health``; 0: no limit."""
        if not self.max_connections:
            return self.max_requests
        most = max(1, self.max_connections - min(RESERVED, self.max_connections // 2))
        return min(self.max_requests or most, most)

    @property
    def polls(self) -> int:
        """The most requests that wait at once, so that connections are left for others."""
        if not self.max_connections:
            return self.max_polls
        return min(self.max_polls, max(1, (self.max_connections - self.requests) // 2))

    @property
    def operator_requests(self) -> int:
        """How many more of operators are answered; they leave connections for ``/health``, too."""
        if not self.max_connections:
            return OPERATORS
        return min(OPERATORS, (self.max_connections - self.requests) // 2)


class Guest(Protocol):
    """A connection to the HTTP port."""

    def make_room(self) -> None:
        """Close at once, to make room for another connection."""


class Crowd:
    """The open HTTP connections, and the number of requests that are being answered."""

    def __init__(self, clock: IReactorTime, limits: HttpLimits, refusals: Refusals) -> None:
        self._clock = clock
        self._limits = limits
        self._refusals = refusals
        # Each with the time since which it waits; the dict keeps them in that order.
        self._silent: dict[Guest, float] = {}
        self._idle: dict[Guest, float] = {}
        self._busy: set[Guest] = set()
        self._requests = 0
        self._of_networks = Counter[str]()
        self._polls = Counter[str]()
        self._large = Counter[str]()

    def __len__(self) -> int:
        return len(self._silent) + len(self._idle) + len(self._busy)

    def has_room(self, host: str) -> bool:
        """Say whether there is room for one more; a waiting connection is closed if needed."""
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
        """Add a connection, which waits."""
        self._silent[guest] = self._clock.seconds()

    def begins(self, guest: Guest) -> None:
        """Note that a connection has sent a whole request."""
        if self.waits(guest):
            self.leave(guest)
            self._busy.add(guest)

    def ends(self, guest: Guest) -> None:
        """Note that its request has been answered."""
        if guest in self._busy:
            self._busy.discard(guest)
            self._idle[guest] = self._clock.seconds()

    def waits(self, guest: Guest) -> bool:
        """Say whether a connection is open and no request of it is being answered."""
        return guest in self._silent or guest in self._idle

    def leave(self, guest: Guest) -> None:
        """Remove a connection; does nothing if it was removed already."""
        self._silent.pop(guest, None)
        self._idle.pop(guest, None)
        self._busy.discard(guest)

    def take_request(self, host: str, is_operator: Callable[[], bool]) -> bool:
        """Count a request that is to be answered; False if there are too many.

        A few more of operators are answered; ``is_operator`` is called only where it matters.
        """
        limits, network = self._limits, network_of(host)
        mine, more = self._of_networks[network], limits.operator_requests
        if limits.requests and self._requests >= limits.requests:
            crowded, left = "HTTP requests, too many at once", limits.requests - self._requests
        elif (
            limits.max_requests_per_ip
            and mine >= limits.max_requests_per_ip
            and host not in limits.shared_hosts
        ):
            crowded = "HTTP requests, too many at once of one address"
            left = limits.max_requests_per_ip - mine
        else:
            crowded, left = "", 1
        if crowded and not (left + more > 0 and is_operator()):
            self._refusals.note(crowded, host)
            return False
        self._requests += 1
        self._of_networks[network] += 1
        return True

    def end_request(self, host: str) -> None:
        """Count a request as answered."""
        self._requests -= 1
        _subtract(self._of_networks, network_of(host))

    def begin_poll(self, host: str) -> bool:
        """Count a request as waiting, and no more as one to be answered; False if too many wait."""
        limits, network = self._limits, network_of(host)
        if self._polls.total() >= limits.polls:
            self._refusals.note("HTTP requests that wait, too many at once", host)
            return False
        most = limits.max_polls_per_ip
        if most and self._polls[network] >= most and host not in limits.shared_hosts:
            self._refusals.note("HTTP requests that wait, too many at once of one address", host)
            return False
        self._polls[network] += 1
        self.end_request(host)
        return True

    def end_poll(self, host: str) -> None:
        """Count a request that waited as answered."""
        _subtract(self._polls, network_of(host))

    def take_large(self, host: str) -> bool:
        """Count a large body that is read into memory; False if there are too many."""
        network = network_of(host)
        few = self._large[network] < LARGE_BODIES_PER_IP or host in self._limits.shared_hosts
        if self._large.total() >= LARGE_BODIES or not few:
            self._refusals.note("HTTP requests, too many large ones at once", host)
            return False
        self._large[network] += 1
        return True

    def end_large(self, host: str) -> None:
        """Count a large body as forgotten."""
        _subtract(self._large, network_of(host))


class RequestPlace:
    """The place of one request in the crowd; it may wait for something to happen."""

    def __init__(self, crowd: Crowd, host: str) -> None:
        self._crowd = crowd
        self._host = host
        self._waits = False

    def wait(self) -> bool:
        """Count the request as one that waits; False if too many wait."""
        self._waits = self._waits or self._crowd.begin_poll(self._host)
        return self._waits

    def leave(self) -> None:
        """Count the request as answered."""
        if self._waits:
            self._crowd.end_poll(self._host)
        else:
            self._crowd.end_request(self._host)


def _subtract(counts: Counter[str], network: str) -> None:
    counts[network] -= 1
    if not counts[network]:
        del counts[network]


__all__ = ["Crowd", "Guest", "HttpLimits", "RequestPlace"]
