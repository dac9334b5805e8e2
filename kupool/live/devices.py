"""A limit of the events of a device: exact in any sliding second, and bounded in memory. Pure.

It keeps the times of the last events of each device. So it never permits more than the limit in any
window of time, which a token bucket does: that permits its burst and its rate in the same second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum


class DeviceVerdict(Enum):
    """Whether an event of a device may pass."""

    PASSES = "passes"
    #: The device has had as many events as it may.
    TOO_OFTEN = "too often"
    #: There are as many other devices with events in the last second as can be remembered.
    TOO_MANY_DEVICES = "too many devices"


class DeviceLimit:
    """Permits a device ``rate`` events in any sliding time of ``seconds``; 0 is no limit.

    At most ``most`` devices are remembered. A new one takes the place of the one that has been
    idle for longest; if even that has had events in this time, the new one is refused: otherwise
    the limit would not hold. ``now`` returns seconds of a clock that is never set. ``rate`` may be
    changed at any time.
    """

    def __init__(
        self, now: Callable[[], float], rate: int, *, most: int, seconds: float = 1.0
    ) -> None:
        self.rate = rate
        self._now = now
        self._most = most
        self._seconds = seconds
        #: The times of the last events of each device, the longest idle one first.
        self._times: dict[Hashable, deque[float]] = {}

    def __len__(self) -> int:
        """Return the number of devices that are remembered."""
        return len(self._times)

    def take(self, device: Hashable) -> DeviceVerdict:
        """Count an event of a device if it may pass."""
        if not self.rate:
            return DeviceVerdict.PASSES
        now = self._now()
        times = self._times.get(device)
        if times is not None and self._recent(times, now) >= self.rate:
            return DeviceVerdict.TOO_OFTEN
        if not self._count(device, now):
            return DeviceVerdict.TOO_MANY_DEVICES
        return DeviceVerdict.PASSES

    def pass_anyway(self, device: Hashable) -> None:
        """Count an event that passes whatever the limit: later ones have less room."""
        if self.rate:
            self._count(device, self._now())

    def _recent(self, times: deque[float], now: float) -> int:
        """Forget old times; returns how many are left."""
        while times and now - times[0] >= self._seconds:
            times.popleft()
        return len(times)

    def _count(self, device: Hashable, now: float) -> bool:
        times = self._times.pop(device, None)
        if times is None:
            if len(self._times) >= self._most and not self._make_room(now):
                return False
            times = deque()
        while len(times) >= self.rate:  # of those that pass anyway, the newest are enough
            times.popleft()
        times.append(now)
        self._times[device] = times
        return True

    def _make_room(self, now: float) -> bool:
        longest_idle = next(iter(self._times))
        if now - self._times[longest_idle][-1] < self._seconds:
            return False
        del self._times[longest_idle]
        return True


__all__ = ["DeviceLimit", "DeviceVerdict"]
