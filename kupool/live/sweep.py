"""A safety net: now and then, removes what is left of clients that have gone.

Whatever ends a client removes it from all indexes at once. So the sweep should find nothing; what
it finds is a fault, which it mends, counts and tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.live.alarms import LiveAlarm, LiveAlarms
from kupool.timing.chunks import Breaks, in_chunks


@dataclass(frozen=True)
class SweptIndex:
    """Where something could be left of a client.

    ``name`` says what is left. ``groups`` returns the entries, in groups. ``wrong`` returns a key
    for an entry that should not be there as it is, and else None; ``mend`` removes or corrects it.
    """

    name: str
    groups: Callable[[], Iterable[Iterable[Any]]]
    wrong: Callable[[Any], Hashable | None]
    mend: Callable[[Any], object]


class LiveSweep:
    """Looks at all indexes every ``interval`` seconds, a part in each turn; 0 is never.

    What is wrong, with the same key, at two sweeps in a row is mended: so nothing is that happens
    at the moment, or that this process has not read yet after a pause. ``found`` counts what was
    mended, by the name of the index; ``sweeps`` counts those that have ended.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        alarms: LiveAlarms,
        indexes: Sequence[SweptIndex],
        interval: float,
    ) -> None:
        self.found: Counter[str] = Counter()
        self.sweeps = 0
        self._clock = clock
        self._alarms = alarms
        self._indexes = indexes
        self._interval = interval
        #: What was wrong at the last sweep.
        self._suspects: set[tuple[str, Hashable]] = set()
        self._loop = LoopingCall(self.sweep)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin; the first sweep is after the interval."""
        if self._interval > 0:
            self._loop.start(self._interval, now=False).addErrback(
                lambda failure: self._log.failure("The sweep of live channels stopped", failure)
            )

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def sweep(self) -> Deferred[None]:
        """Look at everything once; fires at the end."""
        return Deferred.fromCoroutine(self._sweep())

    async def _sweep(self) -> None:
        found: Counter[str] = Counter()
        before, self._suspects = self._suspects, set()
        breaks = Breaks(self._clock)
        for index in self._indexes:

            def look(entry: Any, index: SweptIndex = index) -> None:
                key = index.wrong(entry)
                if key is None:
                    return
                if (index.name, key) in before:
                    found[index.name] += 1
                    index.mend(entry)
                else:
                    self._suspects.add((index.name, key))

            for group in index.groups():
                await in_chunks(self._clock, group, look, failed=self._failed)
                await breaks.take()
        self.sweeps += 1
        if found:
            self.found += found
            shown = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
            self._alarms.note(LiveAlarm.LEFTOVERS, {"found": shown}, found.total())

    def _failed(self, entry: object) -> None:
        self._log.failure("The sweep of live channels failed for an entry")


__all__ = ["LiveSweep", "SweptIndex"]
