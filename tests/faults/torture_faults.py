"""The faults of the torture, and when they happen."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.faults.torture_proxy import HALF, HOLE, MUTE, OPEN
from tests.faults.torture_site import Site

Action = Callable[[], object]


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


def all_faults(site: Site) -> list[Fault]:
    """Return every fault of a site."""
    brokers, database, daemon = site.brokers, site.database, site.daemon
    long = (0.2, 3.0)
    faults = [
        Fault("daemon kill", "daemon", site.kill_daemon, site.start_daemon, (0, 0.5), 3),
        Fault(
            "daemon stop",
            "daemon",
            lambda: daemon.signal(signal.SIGSTOP),
            lambda: daemon.signal(signal.SIGCONT),
            long,
            2,
        ),
        Fault("daemon term", "daemon", site.stop_daemon, site.start_daemon, (0, 0.2), 2),
        Fault("broker kill", "broker", site.kill_broker, brokers.heal, (0, 1.0), 2),
        Fault("broker stop", "broker", brokers.pause, brokers.heal, long, 2),
        Fault("postgres kill", "postgres", database.kill, database.ensure_running, weight=3),
        Fault("postgres stop", "postgres", database.pause, database.resume, long, 2),
        Fault("disk full", "broker", site.fill_disk, site.clear_disk, (0.7, 3.0), 2),
        Fault("broker cut reset", "broker", brokers.reset, lambda: None, (0, 0)),
        Fault("postgres cut reset", "postgres", site.to_database.reset, lambda: None, (0, 0)),
        Fault("clients cut reset", "clients", site.to_daemon.reset, lambda: None, (0, 0)),
    ]
    ways: list[tuple[str, Callable[[str], object]]] = [
        ("broker", brokers.cut),
        ("postgres", site.to_database.set),
        ("clients", site.to_daemon.set),
    ]
    for victim, cut in ways:
        for mode in (HOLE, MUTE, HALF):
            faults.append(
                Fault(
                    f"{victim} cut {mode}",
                    victim,
                    lambda cut=cut, mode=mode: cut(mode),  # type: ignore[misc]
                    lambda cut=cut: cut(OPEN),  # type: ignore[misc]
                    long,
                )
            )
    return faults


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
    first = first or chance.choices(faults, [fault.weight for fault in faults])[0]
    begin = chance.uniform(0.1, 0.9)
    chosen = [Planned(first, begin, begin + chance.uniform(*first.seconds))]
    if not forced and chance.random() < 0.3:
        others = [fault for fault in faults if fault.victim != first.victim]
        second = chance.choices(others, [fault.weight for fault in others])[0]
        later = chance.uniform(begin, chosen[0].end + 0.3)
        chosen.append(Planned(second, later, later + chance.uniform(*second.seconds)))
    return chosen


class Run(threading.Thread):
    """Lets the faults of a round happen, and heals everything at its end."""

    def __init__(self, site: Site, planned: Sequence[Planned], calm: float) -> None:
        """``calm`` is how long it goes on when all is healed, in seconds."""
        super().__init__(daemon=True)
        self._site = site
        self._calm = calm
        events = [(one.begin, one.fault.begin) for one in planned]
        events += [(one.end, one.fault.end) for one in planned]
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


__all__ = ["Fault", "Planned", "Run", "all_faults", "plan"]
