"""Through which all publications of clients go: the limit of devices, and degraded mode.

===========  ============================  ==========================================
priority     normal mode                   degraded mode
===========  ============================  ==========================================
emergency    at once                       at once
high         at once                       in batches
normal       at once                       with a device: merged by ``device:type``
===========  ============================  ==========================================

Nothing passes an older publication of the same device in the same channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.live.devices import DeviceLimit, DeviceVerdict
from kupool.live.failures import LiveLimitExceeded
from kupool.live.held import HeldPublications, Publish
from kupool.live.overload import LoadChange, LoadSources, OverloadLimits, OverloadWatch
from kupool.live.publications import NewPublication, PublicationPriority, PublishedRecord
from kupool.net.refusals import Refusals

#: The part of the time that held publications have for themselves, so that the daemon can read.
SHARE = 0.3

#: Is told when degraded mode begins or ends; must not raise.
WatchLoad = Callable[[LoadChange], object]

#: What is refused, for the counts and the log.
TOO_OFTEN = "live publications over the limit of a device"
TOO_MANY_DEVICES = "live publications of more devices than can be limited"
TOO_MANY_HELD = "live publications in degraded mode: too many wait"


@dataclass(frozen=True)
class GateLimits:
    """The limits of publications of clients.

    Events of a device in a channel in any second (0: no limit); devices that are remembered; when
    live channels are overloaded; publications that may be held then, and the seconds between two
    batches of them.
    """

    device_rate: int = 100
    devices: int = 10_000
    overload: OverloadLimits = field(default_factory=OverloadLimits)
    held: int = 1000
    batch_interval: float = 0.02


@dataclass(frozen=True)
class PublishingWay:
    """How a gate publishes, whether it may merge publications of a channel, and how many clients
    have requests that wait.
    """

    publish: Publish
    merges: Callable[[str], bool]
    behind: Callable[[], int]


class PublishingGate:
    """Lets publications through: at once, in batches, merged, or not at all.

    ``batches`` counts batches. The ``watch`` looks whether there is an overload.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        limits: GateLimits,
        way: PublishingWay,
    ) -> None:
        self.devices = DeviceLimit(clock.seconds, limits.device_rate, most=limits.devices)
        self.watch = OverloadWatch(
            clock, limits.overload, LoadSources(self._backlog, way.behind), self._changed
        )
        self.refusals = Refusals(clock)
        self.batches = 0
        self._clock = clock
        self._limits = limits
        self._way = way
        self._held = HeldPublications(self._send)
        #: Publications that are being written or fanned out, by priority.
        self._under_way: Counter[int] = Counter()
        self._told: tuple[WatchLoad, ...] = ()
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look for overload."""
        self.watch.start()

    def stop(self) -> None:
        """Publish what is held, and end all timers."""
        self.watch.stop()
        self._held.release_all()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self.refusals.stop()

    def tell(self, told: WatchLoad) -> None:
        """Tell somebody when degraded mode begins and ends."""
        self._told += (told,)

    def publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish, or hold for a moment.

        Fires with what has become of it; fails with :class:`LiveLimitExceeded` if it is too
        much, and else as publishing does.
        """
        emergency = new.priority == PublicationPriority.EMERGENCY
        if new.device:
            refused = self._over_limit((channel, new.device), emergency=emergency)
            if refused is not None:
                return fail(refused)
        if emergency or not self.watch.degraded or not self._holds(channel, new):
            return self._at_once(channel, new)
        if len(self._held) < self._limits.held or self._held.replaces(channel, new):
            self._schedule()
            return self._held.hold(channel, new)
        if new.priority == PublicationPriority.HIGH:
            return self._at_once(channel, new)
        self.refusals.note(TOO_MANY_HELD)
        return fail(
            LiveLimitExceeded(
                f"the server is overloaded, and {self._limits.held} publications wait already: "
                "try again later, or publish less"
            )
        )

    # -- what can be seen

    @property
    def merged(self) -> int:
        """How many publications were replaced by newer ones of the same device and type."""
        return self._held.merged

    @property
    def waiting(self) -> Mapping[int, int]:
        """The number of publications that wait, by priority."""
        return {
            level.value: self._under_way[level] + self._held.waiting(level)
            for level in PublicationPriority
        }

    # -- one publication

    def _over_limit(self, device: tuple[str, str], *, emergency: bool) -> LiveLimitExceeded | None:
        limit = self.devices
        if emergency:
            limit.pass_anyway(device)
            return None
        verdict = limit.take(device)
        if verdict is DeviceVerdict.PASSES:
            return None
        if verdict is DeviceVerdict.TOO_OFTEN:
            self.refusals.note(TOO_OFTEN)
            return LiveLimitExceeded(
                f"device {device[1]:.80} has published {limit.rate} events in the last second, "
                "which is its limit: publish less often"
            )
        self.refusals.note(TOO_MANY_DEVICES)
        return LiveLimitExceeded(
            f"{self._limits.devices} other devices have published in the last second, which is "
            "the limit: try again later"
        )

    def _holds(self, channel: str, new: NewPublication) -> bool:
        if new.priority == PublicationPriority.HIGH:
            return True
        return bool(new.device) and self._way.merges(channel)

    def _at_once(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        if new.device:
            self._held.release_device(channel, new.device)
        return self._send(channel, new)

    def _send(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        done = self._way.publish(channel, new)
        if not done.called:
            self._under_way[new.priority] += 1
            done.addBoth(self._sent, new.priority)
        return done

    def _sent(self, result: object, priority: int) -> object:
        self._under_way[priority] -= 1
        return result

    # -- batches

    def _schedule(self) -> None:
        if self._call is None:
            self._call = self._clock.callLater(self._limits.batch_interval, self._batch)

    def _batch(self) -> None:
        """Publish in this turn what there is time for; what a peer gets of it is sent together."""
        self._call = None
        self.batches += 1
        now = self._clock.seconds
        until = now() + self._limits.batch_interval * SHARE
        while self._held.release_next():
            if now() >= until:
                break
        if len(self._held):
            self._schedule()

    # -- the mode

    def _backlog(self) -> int:
        return len(self._held) + self._under_way.total()

    def _changed(self, change: LoadChange) -> None:
        if change.degraded:
            self._log.warn(
                "Live channels are overloaded: the reactor is {lag:.3f} s late, {backlog} "
                "publications and the requests of {clients} clients wait. Normal publications are "
                "merged by device and type, important ones are sent in batches",
                lag=change.lag,
                backlog=change.backlog,
                clients=change.clients,
            )
        else:
            self._log.info(
                "Live channels are no longer overloaded, after {seconds:.1f} s; {merged} "
                "publications were merged since the start",
                seconds=change.seconds,
                merged=self.merged,
            )
        for told in self._told:
            told(change)


__all__ = ["GateLimits", "PublishingGate", "PublishingWay", "WatchLoad"]
