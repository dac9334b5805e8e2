"""Limits how many new names get into the statistics.

Each name costs rows in the store for every minute in which it counts. So new names are limited
when they authorize: a session that has authorized is always counted.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.net.networks import network_of
from kupool.timing.buckets import Bucket
from kupool.timing.shared_buckets import SharedBuckets

#: Most names that are looked up in the store at the same time.
MAX_LOOKUPS = 100

#: Seconds that the store has for one.
PATIENCE = 5.0


@dataclass(frozen=True)
class NameSettings:
    """How many names that are not remembered may authorize in a minute; 0 means no limit.

    ``a_minute`` of all addresses, after ``at_once`` that may come at any time, as after a restart;
    ``a_minute_per_address`` of one, after ``at_once_per_address``. Twice ``at_once`` are
    remembered. Hosts in ``shared`` are not limited as one address.
    """

    a_minute: float = 600.0
    at_once: int = 10_000
    a_minute_per_address: float = 60.0
    at_once_per_address: int = 5_000
    shared: Container[str] = ()


class Names:
    """Decides whether a name may authorize.

    ``counted`` asks the store whether it has counts of a name. The store is only asked when the
    allowance for new names is used up: names that it has may come back all the same, ``at_once``
    of them in a minute.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, settings: NameSettings, counted: Callable[[str], Deferred[bool]]
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._counted = counted
        now = clock.seconds()
        most = float(settings.at_once)
        self._new = Bucket(settings.a_minute / 60.0, most, now) if settings.a_minute else None
        self._returning = Bucket(most / 60.0, most, now)
        self._addresses: SharedBuckets | None = None
        if settings.a_minute_per_address:
            self._addresses = SharedBuckets(
                settings.a_minute_per_address / 60.0, float(settings.at_once_per_address)
            )
        #: The names that authorized lately, oldest first.
        self._remembered: dict[str, None] = {}
        self._lookups = 0

    def admit(self, name: str, host: str) -> str | Deferred[str]:
        """Return why a name may not authorize from an address now, or empty if it may.

        The Deferred never fails.
        """
        if name in self._remembered:
            self._remember(name)
            return ""
        now = self._clock.seconds()
        addresses, network = self._addresses, network_of(host)
        if not host or host in self._settings.shared:
            addresses = None
        elif addresses is not None and addresses.level(network, now) < 1.0:
            return "too many new names of one address"
        if self._new is None or self._new.spend(now):
            if addresses is not None:
                addresses.spend(network, now)
            self._remember(name)
            return ""
        if self._lookups >= MAX_LOOKUPS:
            return "too many new names"
        self._lookups += 1
        asked = self._counted(name).addTimeout(PATIENCE, self._clock)
        return asked.addErrback(self._not_known).addCallback(self._found, name)

    def _not_known(self, failure: object) -> bool:
        self._log.debug("The store could not tell whether it has a name: {why}", why=failure)
        return False

    def _found(self, counted: bool, name: str) -> str:
        self._lookups -= 1
        if not counted or not self._returning.spend(self._clock.seconds()):
            return "too many new names"
        self._remember(name)
        return ""

    def _remember(self, name: str) -> None:
        remembered = self._remembered
        remembered.pop(name, None)
        remembered[name] = None
        if len(remembered) > 2 * self._settings.at_once:
            del remembered[next(iter(remembered))]


__all__ = ["NameSettings", "Names"]
