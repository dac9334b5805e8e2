"""Who may come in: limits, bans, the rate of admissions, and the last moments of the refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.errors import BANNED, FRAME_TOO_LARGE, TOO_MANY_CONNECTIONS, CloseReason
from kupool.net.networks import network_of
from kupool.net.transport.proxied import ProxySettings
from kupool.ranges import a, check_fields, number, whole
from kupool.timing.buckets import Bucket

_EXPECTED = {
    "max_frame": whole(),
    "max_connections": whole(),
    "max_connections_per_ip": whole(),
    "idle_timeout": number(),
    "write_timeout": number(),
    "max_errors": whole(),
    "outbox_limit": whole(),
    "message_timeout": number(),
    "accept_rate": number(),
    "too_large": a(CloseReason),
    "proxies": a(ProxySettings),
}

#: Addresses remembered as banned; beyond it the oldest ban is forgotten.
MAX_BANS = 10_000


@dataclass(frozen=True)
class ServerSettings:
    """The limits of a server. Sizes are in bytes, times in seconds; 0 turns one off,
    except for ``outbox_limit`` and ``write_timeout``; ``accept_rate`` is in connections
    a second, of which one second's may come at once. ``too_large`` is what a peer is told
    whose message is over ``max_frame``; ``proxies`` are those whose headers are believed.

    Raises :class:`ValueError` for a value that is out of its range.
    """

    max_frame: int = 65536
    max_connections: int = 10_000
    max_connections_per_ip: int = 0
    idle_timeout: float = 180.0
    write_timeout: float = 10.0
    max_errors: int = 10
    outbox_limit: int = 262_144
    message_timeout: float = 0.0
    accept_rate: float = 0.0
    too_large: CloseReason = FRAME_TOO_LARGE
    proxies: ProxySettings = field(default_factory=ProxySettings)

    def __post_init__(self) -> None:
        check_fields(_EXPECTED, self)


class Admission:
    """Decides for one server who may come in; times are of its clock, in seconds."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: The networks that are banned, and until when.
        self._bans: dict[str, float] = {}
        #: How many bans there were.
        self.banned = 0
        #: Those who may come now, and the rate at which they become more.
        self._bucket = Bucket(1.0, 1.0, clock.seconds())
        self._rate = 0.0
        self._graces: dict[Any, IDelayedCall] = {}

    def refusal(
        self, limits: ServerSettings, connections: int, from_there: int, host: str
    ) -> tuple[CloseReason, float | None] | None:
        """Say why one more from ``host`` may not come in, and for how long.

        ``connections`` are there already, ``from_there`` of them from that host.
        """
        now = self._clock.seconds()
        until = self._bans.get(network_of(host)) if self._bans else None
        if until is not None and until > now:
            return BANNED, until - now
        full = limits.max_connections and connections >= limits.max_connections
        crowded = (
            limits.max_connections_per_ip and host and from_there >= limits.max_connections_per_ip
        )
        if full or crowded:
            return TOO_MANY_CONNECTIONS, None
        wait = self._admissions(limits.accept_rate).wait(now) if limits.accept_rate else 0.0
        return (TOO_MANY_CONNECTIONS, wait) if wait else None

    def _admissions(self, rate: float) -> Bucket:
        """Return the bucket of those who may come, a new one where the rate is another."""
        if rate != self._rate:
            self._rate = rate
            self._bucket = Bucket(rate, max(rate, 1.0), self._clock.seconds())
        return self._bucket

    def count(self, limits: ServerSettings) -> None:
        """Count one that came in."""
        if limits.accept_rate:
            self._admissions(limits.accept_rate).spend(self._clock.seconds())

    def ban(self, host: str, seconds: float, why: str) -> None:
        """Refuse an address for some time; nothing for an empty one, or for 0 seconds."""
        if not host or not seconds:
            return
        network = network_of(host)
        self._bans.pop(network, None)
        while len(self._bans) >= MAX_BANS:
            oldest = next(iter(self._bans))
            self._log.warn("Ban of {remote} forgotten: there are too many", remote=oldest)
            del self._bans[oldest]
        self._bans[network] = self._clock.seconds() + seconds
        self.banned += 1
        self._log.warn(
            "Banned {remote} for {seconds:g} s: {reason}",
            remote=network,
            seconds=seconds,
            reason=why,
        )

    def bans(self) -> dict[str, float]:
        """Return the addresses that are banned, with the seconds that are left."""
        now = self._clock.seconds()
        return {host: until - now for host, until in self._bans.items() if until > now}

    def unban(self, host: str) -> bool:
        """Let an address in again; returns whether it was banned."""
        network = network_of(host)
        banned = self._bans.pop(network, 0.0) > self._clock.seconds()
        if banned:
            self._log.warn("Ban of {remote} lifted by hand", remote=network)
        return banned

    def sweep(self) -> None:
        """Forget the bans that are over."""
        now = self._clock.seconds()
        for host in [host for host, until in self._bans.items() if until <= now]:
            del self._bans[host]
            self._log.info("Ban of {remote} is over", remote=host)

    # -- those that are refused

    def grant_grace(self, transport: Any, seconds: float, most: int) -> bool:
        """Let a refused peer be for some time, then cut it off.

        Returns False when ``most`` others have that grace already.
        """
        if transport in self._graces:
            return True
        if len(self._graces) >= most:
            return False
        self._graces[transport] = self._clock.callLater(seconds, self._cut_off, transport)
        return True

    def end_grace(self, transport: Any) -> None:
        """Forget a refused peer that has gone; harmless for one that has no grace."""
        timer = self._graces.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def _cut_off(self, transport: Any) -> None:
        del self._graces[transport]
        transport.abortConnection()

    def stop(self) -> None:
        """Cut off all that were refused."""
        for transport in list(self._graces):
            self.end_grace(transport)
            transport.abortConnection()


__all__ = ["MAX_BANS", "Admission", "ServerSettings"]
