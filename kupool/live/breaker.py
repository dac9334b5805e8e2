"""A circuit breaker: what fails or hangs again and again is not called for a while.

::

    CLOSED --failures--> OPEN --wait over--> HALF_OPEN --success--> CLOSED
                           └────────── failure ──────────┘

It guards a sink: what live channels push into, and that may hang, such as a topic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.live.failures import SinkUnavailable
from kupool.timing.doubling import Doubling

T = TypeVar("T")


class BreakerState(Enum):
    """Whether a sink is called."""

    CLOSED = "closed"
    #: Not at all.
    OPEN = "open"
    #: Once, to see whether it works again.
    HALF_OPEN = "half-open"


@dataclass(frozen=True)
class BreakerLimits:
    """When a breaker opens: after so many ``failures`` in a row; 0 never.

    A call that is not answered within ``timeout`` seconds is a failure as well. The breaker stays
    open for ``first`` seconds, doubled each time up to ``longest``.
    """

    failures: int = 5
    timeout: float = 10.0
    first: float = 1.0
    longest: float = 30.0


class _Call:
    """A call that has not been answered; it counts once, when it ends or its time is over."""

    __slots__ = ("counted", "timer", "trial")

    def __init__(self, trial: bool) -> None:
        self.trial = trial
        self.counted = False
        self.timer: IDelayedCall | None = None


class Breaker:
    """Guards the sink ``name``; ``counts`` says whether an error is the sink's fault.

    ``refused`` counts calls that were refused, ``opened`` how often it has opened.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        limits: BreakerLimits,
        counts: Callable[[BaseException], bool],
    ) -> None:
        self.name = name
        self.refused = self.opened = 0
        self._clock = clock
        self._limits = limits
        self._counts = counts
        self._waits = Doubling(limits.first, limits.longest)
        self._state = BreakerState.CLOSED
        #: Failures in a row, the last wait, and when the breaker is half open.
        self._failures = 0
        self._wait = 0.0
        self._until = 0.0
        #: Whether the call is under way that shows whether the sink works again.
        self._trying = False

    @property
    def state(self) -> BreakerState:
        """Whether the sink is called now."""
        if self._state is BreakerState.OPEN and self._clock.seconds() >= self._until:
            return BreakerState.HALF_OPEN
        return self._state

    def call(self, work: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Call the sink, or fail at once with :class:`SinkUnavailable`.

        A call whose time is over goes on: it may still succeed.
        """
        state = self.state
        if state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and self._trying):
            self.refused += 1
            left = max(1, ceil(self._until - self._clock.seconds()))
            return fail(SinkUnavailable(self.name, left))
        call = _Call(state is BreakerState.HALF_OPEN)
        if call.trial:
            self._trying = True
        done = work()
        if not done.called and self._limits.failures:
            call.timer = self._clock.callLater(self._limits.timeout, self._overdue, call)
        return done.addCallbacks(
            self._succeeded, self._failed, callbackArgs=(call,), errbackArgs=(call,)
        )

    # -- the ends of calls

    def _succeeded(self, result: T, call: _Call) -> T:
        if self._ends(call):
            self._well(call)
        return result

    def _failed(self, failure: Failure, call: _Call) -> Failure:
        if self._ends(call):
            error = failure.value
            if error is not None and self._counts(error):
                self._ill(call, failure.getErrorMessage())
            else:
                self._well(call)  # it has answered
        return failure

    def _overdue(self, call: _Call) -> None:
        call.timer = None
        call.counted = True
        self._ill(call, f"no answer within {self._limits.timeout:g} s")

    def _ends(self, call: _Call) -> bool:
        """Note that a call has ended; returns whether it has not been counted yet."""
        timer, call.timer = call.timer, None
        if timer is not None:
            timer.cancel()
        counts, call.counted = not call.counted, True
        return counts

    def _well(self, call: _Call) -> None:
        if call.trial:
            self._trying = False
        elif self._state is not BreakerState.CLOSED:
            return  # it began before the breaker opened
        self._failures, self._wait = 0, 0.0
        if self._state is not BreakerState.CLOSED:
            self._state = BreakerState.CLOSED
            self._log.info("{name} works again: the breaker is closed", name=self.name)

    def _ill(self, call: _Call, reason: str) -> None:
        if call.trial:
            self._trying = False
        elif self._state is not BreakerState.CLOSED:
            return
        self._failures += 1
        most = self._limits.failures
        if not most or (self._failures < most and not call.trial):
            return
        self._state = BreakerState.OPEN
        self.opened += 1
        self._wait = self._waits.after(self._wait)
        self._until = self._clock.seconds() + self._wait
        self._log.warn(
            "{name} failed {count} times in a row: nothing is sent to it for {wait:g} s: {reason}",
            name=self.name,
            count=self._failures,
            wait=self._wait,
            reason=reason,
        )


__all__ = ["Breaker", "BreakerLimits", "BreakerState"]
