"""Calls over a bus at a steady rate, and whether each had its one outcome in time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher

from kupool.bus import Kind, Outcome
from tools.bus_node import MOODY

#: Seconds after its deadline by which a call must have its outcome.
GRACE = 0.1

#: Seconds between two looks at what is due, which also show how late the reactor is.
TICK = 0.005

#: Calls begun in one look at most: a reactor that was late does not catch up at once.
BURST = 50

TIMEOUTS = (0.1, 0.3, 1.0, 3.0)

_FINAL = (Kind.ANSWERED, Kind.REFUSED, Kind.TIMEOUT, Kind.NO_SUBSCRIBER)


def waited_for_processor() -> float:
    """Return the seconds in which this process was ready to run, and others ran; 0 if unknown."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Lateness:
    """How late the reactor came to what was due, in the last seconds and at its worst.

    ``waited`` returns how long this process has waited for a processor so far. That sees many
    short waits, each of which ends before the next thing is due.
    """

    def __init__(self, waited: Callable[[], float] = waited_for_processor) -> None:
        self._waited = waited
        self._began = waited()
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=4000)
        self.worst = 0.0
        self.over = 0

    def note(self, now: float, late: float) -> None:
        """Something that was due came so late."""
        self._seen.append((now, late, self._waited()))
        self.worst = max(self.worst, late)
        self.over += late > GRACE / 2

    def since(self, moment: float) -> float:
        """Return how much time was lost from a moment on: every stall there was."""
        lost, waited = 0.0, self._began
        for now, late, waited_then in reversed(self._seen):
            if now < moment:
                waited = waited_then
                break
            lost += late
        return max(lost, self._waited() - waited)

    @property
    def waited(self) -> float:
        """Seconds in which this process has waited for a processor."""
        return self._waited() - self._began


class PacedCalls:
    """Publishes ``total`` calls, ``rate`` a second, half of each reliable model."""

    def __init__(self, reactor: Any, bus: Any, random: Random, total: int, rate: float) -> None:
        self._reactor = reactor
        self._bus = bus
        self._random = random
        self._total = total
        self._rate = rate
        self._due = 0.0
        self._next = 0.0
        self._began = 0.0
        self._done: Deferred[None] = Deferred()
        self.begun = 0
        self.waiting: dict[int, float] = {}
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.lateness = Lateness()
        #: How much after the deadline outcomes came at the most, and how many after GRACE.
        self.latest = 0.0
        self.late = 0
        self.problems: list[str] = []
        #: Those that came later than GRACE and the reactor's own lateness.
        self.too_late: list[str] = []

    async def run(self) -> None:
        """Publish them all, and wait for all outcomes as long as they may take."""
        observer = cast(ILogObserver, self._logged)
        globalLogPublisher.addObserver(observer)
        self._began = self._next = self._reactor.seconds()
        self._tick()
        try:
            await self._done
        finally:
            globalLogPublisher.removeObserver(observer)
        if self.waiting:
            self.problems.append(f"{len(self.waiting)} calls have no outcome")

    def _logged(self, event: dict[str, Any]) -> None:
        # A handler that fails does so on purpose; nothing else may. That a connection was
        # lost is no failure.
        failed = event.get("log_failure") is not None or event["log_level"] is LogLevel.critical
        if failed and not str(event.get("log_format")).startswith("Message {id} on"):
            self.problems.append(f"logged: {event.get('log_format')} {event.get('log_failure')}")

    def _tick(self) -> None:
        now = self._reactor.seconds()
        self.lateness.note(now, now - self._next)
        self._due = min(self._due + self._rate * TICK, BURST)
        if now - self._next > TICK:
            self._due = min(self._due + self._rate * (now - self._next), BURST)
        while self._due >= 1 and self.begun < self._total:
            self._due -= 1
            self._publish(now)
        if self.begun < self._total or self._may_still_come(now):
            self._next = now + TICK
            self._reactor.callLater(TICK, self._tick)
        else:
            self._done.callback(None)

    def _may_still_come(self, now: float) -> bool:
        return bool(self.waiting) and now < max(self.waiting.values()) + 5.0

    def _publish(self, now: float) -> None:
        self.begun += 1
        number, timeout = self.begun, self._random.choice(TIMEOUTS)
        data = b"%d" % number
        publish = (
            self._bus.publish_reliable_random
            if self._random.random() < 0.5
            else self._bus.publish_reliable_specific
        )
        begun = self._reactor.seconds()
        self.waiting[number] = begun + timeout
        publish(data, MOODY, timeout).addCallbacks(
            self._ended, self._failed, callbackArgs=(number, data), errbackArgs=(number,)
        )
        if number in self.waiting:  # where the process stood still in there, its time began later
            self.waiting[number] += self._reactor.seconds() - begun

    def _ended(self, outcome: Outcome, number: int, data: bytes) -> None:
        now, deadline = self._reactor.seconds(), self.waiting.pop(number, None)
        if deadline is None:
            self.problems.append(f"call {number} has a second outcome: {outcome}")
            return
        self.outcomes[outcome.kind.value] += 1
        if outcome.reason:
            self.reasons[outcome.reason.partition(",")[0]] += 1
        if outcome.kind not in _FINAL or (outcome.kind is Kind.ANSWERED and outcome.data != data):
            self.problems.append(f"call {number}: {outcome}")
        after = now - deadline
        self.latest = max(self.latest, after)
        if after > GRACE:
            self.late += 1
            # What is due is late as the reactor is: that, and no more, is forgiven.
            ours = self.lateness.since(deadline) + max(0.0, now - self._next)
            if after > GRACE + ours:
                self.too_late.append(
                    f"call {number} ended {after * 1e3:.0f} ms after its deadline, "
                    f"the reactor was {ours * 1e3:.0f} ms late: {outcome}"
                )

    def _failed(self, failure: Any, number: int) -> None:
        self.waiting.pop(number, None)
        self.problems.append(f"call {number} failed: {failure}")

    def lines(self) -> list[str]:
        """Return what came of it."""
        seconds = self._reactor.seconds() - self._began
        return [
            f"calls                     {self.begun} in {seconds:.1f} s",
            f"outcomes                  {sum(self.outcomes.values())}: {dict(self.outcomes)}",
            f"reasons of refusals       {dict(self.reasons)}",
            f"latest after the deadline {self.latest * 1e3:.1f} ms; {self.late} later than "
            f"{GRACE * 1e3:.0f} ms",
            f"the reactor itself        {self.lateness.worst * 1e3:.1f} ms late at its worst, "
            f"{self.lateness.over} times more than {GRACE * 500:.0f} ms",
            f"waited for a processor    {self.lateness.waited:.1f} s of {seconds:.1f} s",
            f"without an outcome        {len(self.waiting)}",
        ]


__all__ = ["GRACE", "Lateness", "PacedCalls", "waited_for_processor"]
