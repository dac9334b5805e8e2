"""The hosts that share the rooms: who is there, who has gone, and are we still heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.bus import BusError, IBus, Kind, Message, Outcome
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.settings import SpreadSettings

#: How long a host that goes waits for the bus to take that, in seconds.
PARTING = 2.0


class HostBeat(msgspec.Struct):
    """What a host says of itself: ``serving`` rooms or not, or ``gone``.

    ``epoch`` is another one whenever it has begun anew; ``asks`` wants to hear the others.
    """

    host: str
    epoch: str
    serving: bool
    gone: bool = False
    asks: bool = False


@dataclass(slots=True)
class _Known:
    epoch: str
    seen: float
    serving: bool


def parted(clock: IReactorTime, done: Deferred[None]) -> Deferred[None]:
    """Wait for the end of a subscription, but not for long: the bus may be away."""
    done.addTimeout(PARTING, clock)
    done.addErrback(lambda failure: None)
    return done


class HostExists(Exception):
    """Another process has the name that this one was given."""


class Hosts:
    """Keeps the :class:`Ring` of the hosts that serve rooms now.

    ``changed`` is called when ``ring`` is another one, ``lost`` with a host that is gone or
    has begun anew, and ``cut_off`` when this one has not heard itself on the bus.
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
        self._topic = f"{settings.name}.hosts"
        self._known: dict[str, _Known] = {}
        self._epoch = token_hex(8)
        #: When the bus last took, and last brought back, what this host says.
        self._taken: float | None = None
        self._heard: float | None = None
        self._serving = self._away = self._twin = self._stopped = False
        self._timer: IDelayedCall | None = None
        self._joining: IDelayedCall | None = None

    def __contains__(self, host: object) -> bool:
        """Say whether another host is there, serving rooms or not."""
        return host in self._known

    @property
    def others(self) -> list[str]:
        """The other hosts that are there."""
        return list(self._known)

    async def start(self, *, required: bool = True) -> None:
        """Listen for the others, and be one of them after a while.

        Raises :class:`HostExists`, :class:`BusError` where nothing comes back from a bus that
        is ``required``, and what the bus raises.
        """
        await self._bus.subscribe([self._topic], self._received)
        self._tell(asks=True)
        self._timer = self._clock.callLater(self._settings.beat, self._beat)
        settled: Deferred[None] = Deferred()
        self._clock.callLater(self._settings.settle, settled.callback, None)
        await settled
        heard = self._heard is not None and self._taken is not None
        if not (heard or required or self._twin):
            self._away = True
            return
        if self._twin or not heard:
            await self.stop()
            if self._twin:
                raise HostExists(f"a host {self.host} is there already")
            raise BusError(f"the bus did not bring host {self.host} what it said itself")
        self._join()

    def _join(self) -> None:
        self._joining = None
        if not self._stopped:
            self._serving = True
            self._tell()
            self._renew()

    def leave(self) -> None:
        """Serve no rooms any more, but be there still."""
        self._serving = self._away = False
        if self._joining is not None and self._joining.active():
            self._joining.cancel()
        self._tell()
        self._renew()

    async def stop(self) -> None:
        """Be gone; harmless when repeated."""
        if self._stopped:
            return
        self._stopped, self._serving = True, False
        for timer in (self._timer, self._joining):
            if timer is not None and timer.active():
                timer.cancel()
        self._tell(gone=True)
        await parted(self._clock, self._bus.unsubscribe(self._received))

    def _tell(self, *, gone: bool = False, asks: bool = False) -> None:
        beat = HostBeat(self.host, self._epoch, self._serving, gone, asks)
        try:
            said = self._bus.publish_unreliable_all(msgspec.json.encode(beat), self._topic)
        except BaseException:
            self._log.failure("Host {host} could not say that it is there", host=self.host)
        else:
            said.addCallback(self._said)

    def _said(self, outcome: Outcome) -> None:
        if outcome.kind is Kind.SENT:
            self._taken = self._clock.seconds()
            self._be_back()

    @property
    def _silent(self) -> bool:
        """Whether this host is not heard: a bus may bring it what it says, and nobody else."""
        least = self._clock.seconds() - self._settings.step_down
        return min(self._taken or 0.0, self._heard or 0.0) < least

    def _beat(self) -> None:
        self._timer = self._clock.callLater(self._settings.beat, self._beat)
        now = self._clock.seconds()
        for host, known in list(self._known.items()):
            if now - known.seen > self._settings.dead_after:
                self._log.warn("Host {other} is not heard any more", other=host)
                self._forget(host)
        if self._serving and self._silent:
            self._log.error("Host {host} is cut off from the bus", host=self.host)
            self._serving, self._away = False, True
            self._epoch = token_hex(8)
            for host in list(self._known):
                self._forget(host)
            self._renew()
            self._cut_off()
        self._tell()

    def _received(self, message: Message) -> None:
        beat = msgspec.json.decode(message.data, type=HostBeat)
        if beat.host == self.host:
            self._hear_self(beat)
            return
        if beat.asks and not self._stopped:
            self._tell()
        known = self._known.get(beat.host)
        if known is not None and known.epoch != beat.epoch and not beat.serving:
            return  # it has this name as yet; the other may be about to see that
        if not beat.gone:
            self._hear(beat)
        elif known is not None:
            self._forget(beat.host)

    def _hear_self(self, beat: HostBeat) -> None:
        if beat.epoch != self._epoch:
            self._twin = self._twin or not beat.gone
            if beat.asks and not self._stopped:
                self._tell()  # so that one who comes with our name hears of us
            return
        self._heard = self._clock.seconds()
        self._be_back()

    def _be_back(self) -> None:
        """Serve rooms again, some time after this host is heard again."""
        if self._away and not self._silent and not self._stopped:
            self._away = False
            self._tell(asks=True)
            self._joining = self._clock.callLater(self._settings.settle, self._join)

    def _hear(self, beat: HostBeat) -> None:
        known = self._known.get(beat.host)
        if known is not None and known.epoch != beat.epoch:
            self._forget(beat.host)
            known = None
        now = self._clock.seconds()
        if known is None:
            if len(self._known) >= self._settings.max_hosts:
                return
            known = self._known[beat.host] = _Known(beat.epoch, now, False)
        known.seen = now
        if known.serving != beat.serving:
            known.serving = beat.serving
            self._renew()

    def _forget(self, host: str) -> None:
        known = self._known.pop(host, None)
        if known is not None:
            self._lost(host)
            if known.serving:
                self._renew()

    def _renew(self) -> None:
        hosts = {host for host, known in self._known.items() if known.serving}
        if self._serving:
            hosts.add(self.host)
        if hosts != self.ring.hosts:
            self.ring = Ring(hosts, self._settings.points)
            self._changed()

    def forget(self, host: str) -> None:
        """Take a host for gone until it is heard again."""
        self._forget(host)


__all__ = ["HostBeat", "HostExists", "Hosts", "parted"]
