"""Whether the live channels are overloaded: a state machine over what waits and how late we are.

::

    NORMAL --strained--> RISING --lasted--> DEGRADED --calm--> FALLING --lasted--> NORMAL

RISING and FALLING go back when the load is another one before their time is over. A single stall
of the reactor changes nothing, since of lateness and of clients that wait the median of the last
beats counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two beats, and the number of beats whose median counts.
BEAT = 0.05
BEATS = 7

#: The load is calm below this part of the limits at which it is strained.
CALM = 0.5


class LoadState(Enum):
    """How the live channels are doing."""

    NORMAL = "normal"
    #: Strained for a short time.
    RISING = "rising"
    DEGRADED = "degraded"
    #: Degraded still, and calm for a short time.
    FALLING = "falling"


class LoadSign(Enum):
    """What a beat has seen."""

    CALM = "calm"
    #: Neither calm nor strained.
    BETWEEN = "between"
    STRAINED = "strained"
    #: The state has lasted for its time, and the load is still what has led to it.
    LASTED = "lasted"


#: The next states; a sign that is not here changes nothing.
TRANSITIONS: dict[tuple[LoadState, LoadSign], LoadState] = {
    (LoadState.NORMAL, LoadSign.STRAINED): LoadState.RISING,
    (LoadState.RISING, LoadSign.BETWEEN): LoadState.NORMAL,
    (LoadState.RISING, LoadSign.CALM): LoadState.NORMAL,
    (LoadState.RISING, LoadSign.LASTED): LoadState.DEGRADED,
    (LoadState.DEGRADED, LoadSign.CALM): LoadState.FALLING,
    (LoadState.FALLING, LoadSign.BETWEEN): LoadState.DEGRADED,
    (LoadState.FALLING, LoadSign.STRAINED): LoadState.DEGRADED,
    (LoadState.FALLING, LoadSign.LASTED): LoadState.NORMAL,
}

#: The sign that keeps a state until it has lasted.
_KEEPS = {LoadState.RISING: LoadSign.STRAINED, LoadState.FALLING: LoadSign.CALM}


@dataclass(frozen=True)
class OverloadLimits:
    """When live channels are overloaded.

    That is when the reactor is ``lag`` seconds late, or ``backlog`` publications wait, or
    ``clients`` have sent more requests than can be handled, and this lasts for ``enter_after``
    seconds. It is over when all were below half of it for ``leave_after`` seconds. A limit of 0
    does not count.
    """

    lag: float = 0.03
    backlog: int = 1000
    clients: int = 10
    enter_after: float = 1.0
    leave_after: float = 5.0


class LoadSources(NamedTuple):
    """Return how many publications wait, and how many clients whose requests wait."""

    backlog: Callable[[], int]
    clients: Callable[[], int]


class LoadChange(NamedTuple):
    """Degraded mode has begun, or ended after so many ``seconds``; the load at that moment.

    ``lag`` is in seconds, ``backlog`` in publications, ``clients`` in clients that wait.
    """

    degraded: bool
    lag: float
    backlog: int
    clients: int
    seconds: float


class OverloadWatch:
    """Looks at the load at each beat; ``changed`` is told when degraded mode begins and ends.

    ``changed`` must not raise. ``entered`` and ``left`` count. The limits may be changed at
    any time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: OverloadLimits,
        sources: LoadSources,
        changed: Callable[[LoadChange], object],
    ) -> None:
        self.limits = limits
        self.state = LoadState.NORMAL
        self.entered = self.left = 0
        self._clock = clock
        self._sources = sources
        self._changed = changed
        self._lags: deque[float] = deque(maxlen=BEATS)
        self._clients: deque[int] = deque(maxlen=BEATS)
        self._due = 0.0
        #: When the state began, and when degraded mode did.
        self._since = self._degraded_since = clock.seconds()
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._call is None:
            self._wait()

    def stop(self) -> None:
        """Look no more; the mode is normal from now on, and nobody is told."""
        self.state = LoadState.NORMAL
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    @property
    def degraded(self) -> bool:
        """Whether the live channels are in degraded mode."""
        return self.state in (LoadState.DEGRADED, LoadState.FALLING)

    @property
    def lag(self) -> float:
        """How late the reactor is, in seconds: the median of the last beats."""
        return median(self._lags) if self._lags else 0.0

    @property
    def clients(self) -> int:
        """How many clients have requests that wait: the median of the last beats."""
        return int(median(self._clients)) if self._clients else 0

    def _wait(self) -> None:
        self._due = self._clock.seconds() + BEAT
        self._call = self._clock.callLater(BEAT, self._beat)

    def _beat(self) -> None:
        self._lags.append(max(0.0, self._clock.seconds() - self._due))
        self._clients.append(self._sources.clients())
        self._wait()
        sign = self._sign()
        self._take(sign)
        if _KEEPS.get(self.state) is sign and self._lasted():
            self._take(LoadSign.LASTED)

    def _sign(self) -> LoadSign:
        limits = self.limits
        loads = (
            (self.lag, limits.lag),
            (self._sources.backlog(), limits.backlog),
            (self.clients, limits.clients),
        )
        used = max(load / limit if limit else 0.0 for load, limit in loads)
        if used >= 1.0:
            return LoadSign.STRAINED
        return LoadSign.CALM if used < CALM else LoadSign.BETWEEN

    def _lasted(self) -> bool:
        rising = self.state is LoadState.RISING
        time = self.limits.enter_after if rising else self.limits.leave_after
        return self._clock.seconds() - self._since >= time

    def _take(self, sign: LoadSign) -> None:
        before, now = self.state, self._clock.seconds()
        self.state = TRANSITIONS.get((before, sign), before)
        if self.state is before:
            return
        self._since = now
        if sign is LoadSign.LASTED:
            if self.degraded:
                self.entered += 1
                self._degraded_since = now
            else:
                self.left += 1
            seconds = now - self._degraded_since
            backlog = self._sources.backlog()
            self._changed(LoadChange(self.degraded, self.lag, backlog, self.clients, seconds))


__all__ = [
    "BEAT",
    "BEATS",
    "CALM",
    "TRANSITIONS",
    "LoadChange",
    "LoadSign",
    "LoadSources",
    "LoadState",
    "OverloadLimits",
    "OverloadWatch",
]
