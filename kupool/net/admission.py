"""Admission of connections: limits, bans, the accept rate, and the grace of refused peers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.errors import BANNED, FRAME_TOO_LARGE, TOO_MANY_CONNECTIONS, CloseReason
from kupool.net.networks import network_of
from kupool.net.places import Places
from kupool.net.refusals import Refusals
from kupool.net.transport.proxied import ProxySettings, TrustedProxies
from kupool.ranges import a, check_fields, number, whole
from kupool.timing.buckets import Bucket
from kupool.timing.shared_buckets import SharedBuckets

_EXPECTED = {
    "max_frame": whole(),
    "max_connections": whole(),
    "max_connections_per_ip": whole(),
    "max_unauthorized": whole(),
    "max_unauthorized_per_ip": whole(),
    "max_refused": whole(),
    "refusals_per_ip": number(),
    "shared_hosts": a(TrustedProxies),
    "idle_timeout": number(),
    "write_timeout": number(),
    "max_errors": whole(),
    "outbox_limit": whole(),
    "message_timeout": number(),
    "accept_rate": number(),
    "accept_pace": number(),
    "too_large": a(CloseReason),
    "proxies": a(ProxySettings),
    "unix_mode": whole(),
}

#: Seconds of ``refusals_per_ip`` that an address may have at once.
REFUSALS_BURST = 10.0

#: Most banned addresses; beyond it the oldest ban is removed.
MAX_BANS = 10_000


@dataclass(frozen=True)
class ServerSettings:
    """The limits of a server. Sizes are in bytes, times in seconds; 0 turns a limit off.

    0 is not allowed for ``outbox_limit`` and ``write_timeout``. ``accept_rate`` is in
    connections a second, with a burst of one second's worth; further ones are refused.
    ``accept_pace`` is how many are accepted in a second; further ones wait in the system's queue,
    so that those who are connected get their answers in time. ``too_large`` is the close for
    a message over ``max_frame``. PROXY headers of ``proxies`` are trusted.
    ``unix_mode`` are the permissions of Unix sockets whose address names none.

    The limits of one address hold for an IPv6 /64 network as a whole, and not for
    ``shared_hosts``, behind which many peers may be. A connection is unauthorized until
    :meth:`~kupool.net.manager.ConnectionManager.welcome` is called for it. At most
    ``max_refused`` refused connections are told the reason at the same time. An address may have
    ``refusals_per_ip`` refusals a second, and ten times as many at once; beyond that its
    connections are closed without a word.

    Raises :class:`ValueError` for a value that is out of its range.
    """

    max_frame: int = 65536
    max_connections: int = 10_000
    max_connections_per_ip: int = 0
    max_unauthorized: int = 0
    max_unauthorized_per_ip: int = 0
    max_refused: int = 1000
    refusals_per_ip: float = 0.0
    idle_timeout: float = 180.0
    write_timeout: float = 10.0
    max_errors: int = 10
    outbox_limit: int = 262_144
    message_timeout: float = 0.0
    accept_rate: float = 0.0
    accept_pace: float = 0.0
    too_large: CloseReason = FRAME_TOO_LARGE
    proxies: ProxySettings = field(default_factory=ProxySettings)
    shared_hosts: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
    unix_mode: int = 0o666

    def __post_init__(self) -> None:
        check_fields(_EXPECTED, self)


class Admission:
    """Decides which connections a server accepts; times are of its clock, in seconds."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: The banned networks, and when each ban ends.
        self._bans: dict[str, float] = {}
        #: Number of bans so far, and of those that were lifted.
        self.banned = self.lifted = 0
        #: The refused connections and other refusals of peers, by reason.
        self.refusals = Refusals(clock)
        #: The token bucket of the accept rate.
        self._bucket = Bucket(1.0, 1.0, clock.seconds())
        self._rate = 0.0
        #: The refusals that each network may have.
        self._allowance = SharedBuckets(1.0, 1.0)
        self._allowed = 0.0
        self._pace = Bucket(1.0, 1.0, clock.seconds())
        self._paced = 0.0
        self._graces: dict[Any, IDelayedCall] = {}

    def refusal(
        self, limits: ServerSettings, places: Places, host: str
    ) -> tuple[CloseReason, float | None] | None:
        """Return why a connection from ``host`` is refused, and for how many seconds, or None.

        A refusal is counted and logged.
        """
        now = self._clock.seconds()
        until = self._bans.get(network_of(host)) if self._bans else None
        if until is not None and until > now:
            self.refusals.note("connection, banned", host)
            self.turned_away(limits, host)
            return BANNED, until - now
        crowded = places.why_none(
            host,
            most=limits.max_connections,
            per_address=limits.max_connections_per_ip,
            unauthorized=limits.max_unauthorized,
            unauthorized_per_address=limits.max_unauthorized_per_ip,
            shared=limits.shared_hosts,
        )
        if crowded:
            self.refusals.note(f"connection, {crowded}", host)
            self.turned_away(limits, host)
            return TOO_MANY_CONNECTIONS, None
        wait = self._admissions(limits.accept_rate).wait(now) if limits.accept_rate else 0.0
        if wait:
            self.refusals.note("connection, too many a second", host)
            return TOO_MANY_CONNECTIONS, wait
        return None

    def pause(self, limits: ServerSettings) -> float:
        """Return the seconds until another connection may be accepted; 0 if it may be now."""
        if not limits.accept_pace:
            return 0.0
        return self._paces(limits.accept_pace).wait(self._clock.seconds())

    def _paces(self, pace: float) -> Bucket:
        """Return the token bucket of the pace, a tenth of a second; a new one if it has changed."""
        if pace != self._paced:
            self._paced = pace
            self._pace = Bucket(pace, max(pace / 10.0, 1.0), self._clock.seconds())
        return self._pace

    def turned_away(self, limits: ServerSettings, host: str) -> None:
        """Count that a peer from ``host`` was refused for what it, or its address, did."""
        if limits.refusals_per_ip and host and host not in limits.shared_hosts:
            self._refusals_left(limits).spend(network_of(host), self._clock.seconds())

    def unwanted(self, limits: ServerSettings, places: Places, host: str) -> bool:
        """Return whether the address of ``host`` has used up its refusals.

        Once half of them are used up, each connection that has not authorized counts as one. The
        result True is counted and logged, and the caller closes the connection.
        """
        rate = limits.refusals_per_ip
        if not rate or not host or host in limits.shared_hosts:
            return False
        left = self._refusals_left(limits).level(network_of(host), self._clock.seconds())
        if left >= max(1.0, rate * REFUSALS_BURST / 2) or left - places.strangers(host) >= 1.0:
            return False
        self.refusals.note("connection, closed after too many refusals", host)
        return True

    def _refusals_left(self, limits: ServerSettings) -> SharedBuckets:
        """Return the buckets of the refusals; new ones if the limit has changed."""
        rate = limits.refusals_per_ip
        if rate != self._allowed:
            self._allowed = rate
            self._allowance = SharedBuckets(rate, max(1.0, rate * REFUSALS_BURST))
        return self._allowance

    def _admissions(self, rate: float) -> Bucket:
        """Return the token bucket of the accept rate; a new one if the rate has changed."""
        if rate != self._rate:
            self._rate = rate
            self._bucket = Bucket(rate, max(rate, 1.0), self._clock.seconds())
        return self._bucket

    def count(self, limits: ServerSettings) -> None:
        """Count an accepted connection."""
        if limits.accept_rate:
            self._admissions(limits.accept_rate).spend(self._clock.seconds())

    def accepted(self, limits: ServerSettings) -> None:
        """Count a connection that was taken from the system's queue."""
        if limits.accept_pace:
            self._paces(limits.accept_pace).spend(self._clock.seconds())

    def ban(self, host: str, seconds: float, why: str) -> None:
        """Refuse an address for some seconds; does nothing for an empty host or 0 seconds.

        Each session of the address may bring its ban; while it is banned, that only extends it.
        """
        if not host or not seconds:
            return
        network, now = network_of(host), self._clock.seconds()
        banned = self._bans.pop(network, 0.0) > now
        while len(self._bans) >= MAX_BANS:
            oldest = next(iter(self._bans))
            self._log.warn("Ban of {remote} removed: there are too many bans", remote=oldest)
            del self._bans[oldest]
        self._bans[network] = now + seconds
        if banned:
            return
        self.banned += 1
        self._log.warn(
            "Banned {remote} for {seconds:g} s: {reason}",
            remote=network,
            seconds=seconds,
            reason=why,
        )

    def bans(self) -> dict[str, float]:
        """Return the banned addresses, with the remaining seconds."""
        now = self._clock.seconds()
        return {host: until - now for host, until in self._bans.items() if until > now}

    def unban(self, host: str, by: str) -> bool:
        """Remove the ban of an address; returns whether it was banned. ``by`` is for the log."""
        network = network_of(host)
        banned = self._bans.pop(network, 0.0) > self._clock.seconds()
        if banned:
            self.lifted += 1
            self._log.warn("Ban of {remote} lifted by {username}", remote=network, username=by)
        return banned

    def sweep(self) -> None:
        """Remove the bans that have expired."""
        now = self._clock.seconds()
        for host in [host for host, until in self._bans.items() if until <= now]:
            del self._bans[host]
            self._log.info("Ban of {remote} is over", remote=host)

    # -- refused peers

    def grant_grace(self, transport: Any, seconds: float, most: int) -> bool:
        """Abort a refused peer after some seconds.

        Returns False if ``most`` other peers are already in that state.
        """
        if transport in self._graces:
            return True
        if len(self._graces) >= most:
            return False
        self._graces[transport] = self._clock.callLater(seconds, self._cut_off, transport)
        return True

    def end_grace(self, transport: Any) -> None:
        """Forget a refused peer that has disconnected; does nothing for other peers."""
        timer = self._graces.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def _cut_off(self, transport: Any) -> None:
        del self._graces[transport]
        transport.abortConnection()

    def stop(self) -> None:
        """Abort the connections of all refused peers, and log what is not logged yet."""
        self.refusals.stop()
        for transport in list(self._graces):
            self.end_grace(transport)
            transport.abortConnection()


__all__ = ["MAX_BANS", "Admission", "ServerSettings"]
