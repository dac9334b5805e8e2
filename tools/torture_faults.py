"""The faults of the torture, and when they happen."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tools.torture_clock import FIRST_DAY, LAST_DAY, SEEN, STEPS
from tools.torture_proxy import HALF, HOLE, MUTE, OPEN
from tools.torture_site import Site

Action = Callable[[], object]

#: Seconds that what is cut off, or stopped, stays so.
LONG = (0.2, 3.0)


class Fault(NamedTuple):
    """Something that goes wrong; ``victim`` can have only one at a time."""

    name: str
    victim: str
    begin: Action
    end: Action
    #: The shortest and the longest time between the two, in seconds.
    seconds: tuple[float, float] = (0.1, 1.5)
    #: How often it is chosen, against the others.
    weight: float = 1.0
    #: Whether there is no other fault beside it.
    alone: bool = False


def nothing() -> None:
    """End a fault that has no end."""


def shared_faults(site: Site) -> list[Fault]:
    """Return the faults that do not depend on the engines."""
    daemon = site.daemon
    return [
        Fault("daemon kill", "daemon", site.kill_daemon, site.start_daemon, (0, 0.5), 3),
        Fault(
            "daemon stop",
            "daemon",
            lambda: daemon.signal(signal.SIGSTOP),
            lambda: daemon.signal(signal.SIGCONT),
            LONG,
            2,
        ),
        Fault("daemon term", "daemon", site.stop_daemon, site.start_daemon, (0, 0.2), 2),
        Fault("clients cut reset", "clients", site.to_daemon.reset, nothing, (0, 0)),
        *cuts("clients", site.to_daemon.set),
        Fault("folder moved", "daemon", site.take_folder, site.return_folder, LONG, 2),
        Fault(
            "folder moved, daemon kill",
            "daemon",
            site.take_folder,
            site.kill_and_return_folder,
            LONG,
        ),
        *clock_faults(site),
    ]


def cuts(victim: str, cut: Callable[[str], object]) -> list[Fault]:
    """Return the faults of a way that loses what goes through it."""

    def make(mode: str) -> Fault:
        return Fault(f"{victim} cut {mode}", victim, lambda: cut(mode), lambda: cut(OPEN), LONG)

    return [make(mode) for mode in (HOLE, MUTE, HALF)]


def clock_faults(site: Site) -> list[Fault]:
    """Return the faults of the wall clock.

    It is wrong for a while; or set once, and stays so; or another one when the daemon, which
    was killed, is started again.
    """
    clock = site.clock
    shown = [("in 1970", FIRST_DAY), ("in 2099", LAST_DAY)]

    def passing(name: str, by: int) -> Fault:
        lasts = (SEEN, 2 * SEEN)
        return Fault(
            f"clock {name}", "clock", lambda: clock.step(by), lambda: clock.step(-by), lasts, 0.5
        )

    def staying(name: str, to: int) -> Fault:
        return Fault(f"clock set {name}", "clock", lambda: clock.set(to), nothing, (0, 0.5), 0.5)

    def restart(name: str, set_clock: Action, weight: float = 0.5) -> Fault:
        def begin() -> None:
            site.kill_daemon()
            set_clock()

        return Fault(f"restart {name}", "daemon", begin, site.start_daemon, (0, 0.2), weight)

    return [
        *(passing(name, by) for name, by in STEPS.items()),
        *(staying(name, to) for name, to in {**STEPS, "right": 0}.items()),
        *(restart(name, lambda to=to: clock.set(to)) for name, to in STEPS.items()),  # type: ignore[misc]
        *(restart(name, lambda at=at: clock.show(at), 0.2) for name, at in shown),  # type: ignore[misc]
    ]


class Planned(NamedTuple):
    """A fault, and from when to when, in seconds of its round."""

    fault: Fault
    begin: float
    end: float

    def __str__(self) -> str:
        lasted = self.end - self.begin
        return f"{self.fault.name} at {self.begin:.2f}" + (f" for {lasted:.2f}" if lasted else "")


def plan(faults: Sequence[Fault], chance: random.Random, forced: str = "") -> list[Planned]:
    """Choose what happens in a round: one fault, and sometimes one of another victim too."""
    first = next((fault for fault in faults if fault.name == forced), None)
    if forced and first is None:
        raise ValueError(f"no fault {forced!r}; there are {[fault.name for fault in faults]}")
    first = first or chance.choices(faults, [fault.weight for fault in faults])[0]
    begin = chance.uniform(0.1, 0.9)
    chosen = [Planned(first, begin, begin + chance.uniform(*first.seconds))]
    if not forced and not first.alone and chance.random() < 0.3:
        others = [fault for fault in faults if fault.victim != first.victim and not fault.alone]
        second = chance.choices(others, [fault.weight for fault in others])[0]
        later = chance.uniform(begin, chosen[0].end + 0.3)
        chosen.append(Planned(second, later, later + chance.uniform(*second.seconds)))
    return chosen


class Run(threading.Thread):
    """Lets the faults of a round happen, and heals everything at its end."""

    def __init__(
        self, site: Site, planned: Sequence[Planned], calm: float, copies: bool = False
    ) -> None:
        """``calm`` is how long it goes on when all is healed, in seconds.

        With ``copies``, log and store are copied before the first fault.
        """
        super().__init__(daemon=True)
        self._site = site
        self._calm = calm
        events = [(one.begin, one.fault.begin) for one in planned]
        events += [(one.end, one.fault.end) for one in planned]
        if copies:
            events.append((0.05, site.keep_copies))
        self._events = sorted(events, key=lambda event: event[0])
        self.problem: BaseException | None = None

    def run(self) -> None:
        began = time.monotonic()
        try:
            for moment, action in self._events:
                time.sleep(max(0.0, began + moment - time.monotonic()))
                action()
            self._site.heal()
            time.sleep(self._calm)
        except BaseException as error:
            self.problem = error


__all__ = ["LONG", "Fault", "Planned", "Run", "cuts", "nothing", "plan", "shared_faults"]
