"""Where rooms are, as far as other hosts have shown."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime


class RoomHosts:
    """The host of each code that was noted, for so many seconds."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        #: The oldest come first.
        self._hosts: dict[str, tuple[str, float]] = {}

    def note(self, code: str, host: str) -> None:
        """Note the host of a code."""
        now = self._clock.seconds()
        while self._hosts and next(iter(self._hosts.values()))[1] <= now:
            del self._hosts[next(iter(self._hosts))]
        self._hosts.pop(code, None)
        self._hosts[code] = host, now + self._seconds

    def get(self, code: str) -> str | None:
        """Return the host of a code, if one was noted."""
        host, until = self._hosts.get(code, (None, 0.0))
        return host if self._clock.seconds() < until else None

    def drop(self, code: str) -> None:
        """Forget the host of a code."""
        self._hosts.pop(code, None)

    def drop_hosts(self, hosts: Collection[str]) -> None:
        """Forget which codes these hosts have."""
        self._hosts = {c: place for c, place in self._hosts.items() if place[0] not in hosts}


__all__ = ["RoomHosts"]
