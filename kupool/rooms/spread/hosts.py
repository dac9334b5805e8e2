"""The hosts that share the rooms: who is there, who serves rooms, and do we count among them.

The bus knows: each host is a member of one topic, and once more while it serves rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.bus import SILENCE, BusError, IBus, Message, TopicMember
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.settings import SpreadSettings

#: How long a host that goes waits for the bus to take that, in seconds.
PARTING = 2.0

#: Seconds between two looks whether this host is heard, and one of its name has gone.
LOOK = 0.5

#: What a host is a member as: the first word of its key, before its epoch and its name.
THERE, SERVES = "there", "serves"


def parted(clock: IReactorTime, done: Deferred[None]) -> Deferred[None]:
    """Wait for the end of a subscription, but not for long: the bus may be away."""
    done.addTimeout(PARTING, clock)
    done.addErrback(lambda failure: None)
    return done


class HostExists(Exception):
    """Another process has the name that this one was given."""


class _Place:
    """This host as a member of the topic; another one each time, as members are."""

    def __init__(self, kind: str, epoch: str, host: str) -> None:
        self.key = f"{kind} {epoch} {host}"

    def handle(self, message: Message) -> None:
        """Do nothing: it is there to be a member."""


class Hosts:
    """Keeps the :class:`Ring` of the hosts that serve rooms now.

    ``changed`` is called when ``ring`` is another one, ``lost`` with a host that is gone or
    has begun anew, and ``cut_off`` when this one may count as gone elsewhere on the bus.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: SpreadSettings,
        host: str,
        *,
        changed: Callable[[], object],
        lost: Callable[[str], object],
        cut_off: Callable[[], object],
    ) -> None:
        self.host = host
        self.ring = Ring((), settings.points)
        self._clock = clock
        self._bus = bus
        self._settings = settings
        self._changed = changed
        self._lost = lost
        self._cut_off = cut_off
        self._topic = f"{settings.name}.members"
        #: The epoch of each other host: another one whenever it has begun anew.
        self._known: dict[str, str] = {}
        self._serving_there: set[str] = set()
        self._epoch = token_hex(8)
        self._there: _Place | None = None
        self._serves: _Place | None = None
        self._heard = self._away = self._twin = self._stopped = False
        self._joining: IDelayedCall | None = None

    def __contains__(self, host: object) -> bool:
        """Say whether another host is there, serving rooms or not."""
        return host in self._known

    def epoch_of(self, host: str) -> str:
        """Return the epoch of a host that is there, or of this one; empty for others."""
        return self._epoch if host == self.host else self._known.get(host, "")

    @property
    def others(self) -> list[str]:
        """The other hosts that are there."""
        return list(self._known)

    @property
    def heard(self) -> bool:
        """Whether this host is heard on the bus."""
        return self._heard

    async def start(self, *, required: bool = True) -> None:
        """Look for the others, and be one of them after a while.

        Raises :class:`HostExists`, :class:`BusError` where this host is no member of a bus that
        is ``required``, and what the bus raises.
        """
        self._there = place = _Place(THERE, self._epoch, self.host)
        await self._bus.subscribe([self._topic], place.handle, keys=[place.key])
        await self._bus.watch(self._topic, self._told)
        await self._seconds(self._settings.settle)
        # For SILENCE seconds a new server of the bus reports no members, and a host that was killed
        # still counts as a member.
        end = self._clock.seconds() + SILENCE + LOOK
        while (self._twin or (required and not self._heard)) and self._clock.seconds() < end:
            await self._seconds(LOOK)
        if self._twin:
            await self.stop()
            raise HostExists(f"a host {self.host} is there already")
        if self._heard:
            self._join()
        elif required:
            await self.stop()
            raise BusError(f"host {self.host} is not heard on the bus")
        else:
            self._away = True

    def _seconds(self, seconds: float) -> Deferred[None]:
        passed: Deferred[None] = Deferred()
        self._clock.callLater(seconds, passed.callback, None)
        return passed

    def _join(self) -> None:
        self._joining = None
        if self._stopped:
            return
        self._away = not self._heard  # then it joins a while after it is heard again
        if self._heard:
            self._serves = place = _Place(SERVES, self._epoch, self.host)
            self._ask(self._bus.subscribe([self._topic], place.handle, keys=[place.key]))
            self._renew()

    def leave(self) -> None:
        """Serve no rooms any more, but be there still."""
        self._away = False
        self._do_not_join()
        self._give_up_serving()
        self._renew()

    def _do_not_join(self) -> None:
        if self._joining is not None:
            self._joining.cancel()
        self._joining = None

    def _give_up_serving(self) -> None:
        place, self._serves = self._serves, None
        if place is not None:
            self._ask(self._bus.unsubscribe(place.handle))

    def _ask(self, done: Deferred[Any]) -> None:
        """Go on before the bus has taken something; where it does not, the members tell."""
        done.addErrback(
            lambda failure: self._log.warn(
                "Host {host} could not tell of itself: {why}", host=self.host, why=failure.value
            )
        )

    async def stop(self) -> None:
        """Be gone; harmless when repeated."""
        if self._stopped:
            return
        self._stopped = True
        self._do_not_join()
        self._give_up_serving()
        await parted(self._clock, self._bus.unwatch(self._told))
        if self._there is not None:
            await parted(self._clock, self._bus.unsubscribe(self._there.handle))

    # -- what the bus tells

    def _told(self, members: tuple[TopicMember, ...] | None) -> None:
        if self._stopped:
            return
        if members is None:
            self._not_heard()
            return
        epochs: dict[str, list[str]] = {}
        serving: set[tuple[str, str]] = set()
        for member in members:
            for key in member.keys:
                kind, _, rest = key.partition(" ")
                epoch, _, host = rest.partition(" ")
                if kind == THERE:
                    epochs.setdefault(host, []).append(epoch)
                elif kind == SERVES:
                    serving.add((host, epoch))
        mine = epochs.pop(self.host, [])
        self._heard = self._epoch in mine
        self._twin = any(epoch != self._epoch for epoch in mine)
        self._know(epochs, serving)
        if self._away and self._heard:
            self._away = False
            self._joining = self._clock.callLater(self._settings.settle, self._join)

    def _know(self, epochs: dict[str, list[str]], serving: set[tuple[str, str]]) -> None:
        gone = [host for host, epoch in self._known.items() if epoch not in epochs.get(host, ())]
        for host in gone:
            del self._known[host]
        for host, found in epochs.items():
            if host not in self._known and len(self._known) < self._settings.max_hosts:
                # Of two with one name the second sees that, or the first is about to go.
                self._known[host] = found[0]
        self._serving_there = {h for h, epoch in self._known.items() if (h, epoch) in serving}
        self._renew()
        for host in gone:  # after that: what was on its way there may have to go elsewhere
            self._log.info("Host {other} is there no more", other=host)
            self._lost(host)

    def _not_heard(self) -> None:
        """Count as gone, as the others soon do, or have done: begin anew when heard again."""
        was_serving = self._serves is not None
        waits = was_serving or self._joining is not None
        self._heard = False
        self._do_not_join()
        self._give_up_serving()
        others, self._known = self.others, {}
        self._serving_there = set()
        if waits:
            self._away = True
            self._begin_anew()
        # Before anything else: what follows may ask whose a room is, and it is nobody's.
        self._renew()
        if was_serving:
            self._log.error("Host {host} is cut off from the bus", host=self.host)
            self._cut_off()
        for host in others:
            self._lost(host)

    def _begin_anew(self) -> None:
        if self._there is not None:
            self._ask(self._bus.unsubscribe(self._there.handle))
        self._epoch = token_hex(8)
        self._there = place = _Place(THERE, self._epoch, self.host)
        self._ask(self._bus.subscribe([self._topic], place.handle, keys=[place.key]))

    def _renew(self) -> None:
        hosts = set(self._serving_there)
        if self._serves is not None:
            hosts.add(self.host)
        if hosts != self.ring.hosts:
            self.ring = Ring(hosts, self._settings.points)
            self._changed()


__all__ = ["HostExists", "Hosts", "parted"]
