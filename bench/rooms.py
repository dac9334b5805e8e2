"""What rooms and their timers cost in CPU time and memory.

``python -m bench.rooms`` prints the cost of setting, watching and firing 1,000,000 timers of 10,000
rooms. Then it compares the same small load among few rooms and among all of them, as a ratio: idle
rooms should cost nothing. Time passes on the bench's own clock, as fast as the work is done; only
CPU time is measured.

``python -m bench.rooms --before DIR`` compares two checkouts instead: it runs the measurement
with the code of each in turn, and prints the median of the ratios within a round, this checkout
to the other. Above 1, this checkout costs more.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.room import Incoming
from kupool.rooms.settings import RoomSettings
from kupool.rooms.timers import LobbyTimers, RoomTimer

#: A line with a figure: its name, the time with its unit, and maybe the bytes.
_FIGURE = re.compile(r"(\w+) +([\d.]+ [um]s)(?: and (-?\d+ bytes))?")


class TimedClock(Clock):
    """Notes how long each call took that it made: the turns of its reactor, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float] = []

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """Call something later, and note how long it took."""

        def timed() -> None:
            began = time.thread_time()
            callable(*args, **kw)
            self.turns.append(time.thread_time() - began)

        return super().callLater(delay, timed)


class Hooks(RoomHooks):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        self.messages = self.events = 0

    def on_dispatch_message(self, room: Any, incoming: Incoming) -> object:
        """Count a message."""
        self.messages += 1
        return None

    def on_dispatch_system_message(self, room: Any, event: object) -> object:
        """Count an event."""
        self.events += 1
        return None


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def quantile(values: list[float], part: float) -> float:
    """Return the value below which this part of them is."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def turns_of(clock: TimedClock) -> str:
    """Describe the turns since the last call."""
    turns, clock.turns = clock.turns, []
    part = [1e6 * quantile(turns, p) for p in (0.5, 0.99, 1.0)]
    return f"{len(turns)} turns, p50 {part[0]:.0f} p99 {part[1]:.0f} max {part[2]:.0f} us"


class Spent:
    """Measures a block: ``cpu`` seconds of the processor, ``grown`` bytes of memory."""

    def __enter__(self) -> Spent:
        gc.collect()
        self._resident, self._cpu = resident(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu = time.process_time() - self._cpu
        self.grown = resident() - self._resident


def measure_wheel(timers: int, span: float) -> None:
    """Set, look after and fire timers on the wheel alone."""
    clock = TimedClock()
    wheel = LobbyTimers(clock, 0.05)
    fired = 0

    def fire(timer: RoomTimer) -> None:
        nonlocal fired
        fired += 1

    keys = [f"turn:{n}" for n in range(100)]
    with Spent() as spent:
        for n in range(timers):
            wheel.once(n // 100, keys[n % 100], (n * 7919 % timers) * span / timers + 1, fire)
    print(f"set       {1e6 * spent.cpu / timers:8.2f} us and {spent.grown / timers:.0f} bytes each")
    began = time.thread_time()
    gc.collect()
    print(f"collect   {1e3 * (time.thread_time() - began):8.1f} ms for a full garbage collection")
    with Spent() as spent:
        for n in range(0, timers, 10):
            wheel.cancel(n // 100, keys[n % 100])
    print(f"cancel    {1e7 * spent.cpu / timers:8.2f} us each, every tenth")
    clock.turns.clear()
    ticks = 0
    with Spent() as spent:
        while len(wheel):
            clock.advance(0.05)
            ticks += 1
    assert fired == timers - (timers + 9) // 10
    print(
        f"fire      {1e6 * spent.cpu / fired:8.2f} us each, {1e6 * spent.cpu / ticks:.0f} us "
        f"for each of {ticks} ticks of 50 ms; {turns_of(clock)}"
    )


def furnish(rooms: int, timers: int) -> tuple[TimedClock, Lobby, Hooks]:
    """Make a lobby of so many rooms with a member each, and timers an hour off and more."""
    clock, hooks = TimedClock(), Hooks()
    settings = RoomSettings(max_rooms=rooms + 1, max_timers=timers + 100_000)
    lobby = Lobby(clock, hooks, settings)
    with Spent() as spent:
        for n in range(rooms):
            lobby.create(f"room {n}")
            clock.advance(0)
    print(f"room      {1e6 * spent.cpu / rooms:8.2f} us and {spent.grown / rooms:.0f} bytes each")
    with Spent() as spent:
        for n in range(rooms):
            lobby.enter(f"room {n}", f"user {n}")
            clock.advance(0)
    print(f"member    {1e6 * spent.cpu / rooms:8.2f} us and {spent.grown / rooms:.0f} bytes each")
    each = timers // rooms
    keys = [f"turn:{n}" for n in range(each)]
    with Spent() as spent:
        for n, room in enumerate(lobby):
            for m, key in enumerate(keys):
                room.once(key, 3600 + (n * 7 + m * 97) % 3600)
    number = each * rooms
    print(f"timer     {1e6 * spent.cpu / number:8.2f} us and {spent.grown / number:.0f} bytes each")
    return clock, lobby, hooks


def measure_idle(clock: TimedClock, lobby: Lobby, rooms: int) -> None:
    """Let half an hour pass in which nothing is due."""
    clock.turns.clear()
    with Spent() as spent:
        for _ in range(1800 * 20):
            clock.advance(0.05)
    bare = Clock()
    with Spent() as base:
        for _ in range(1800 * 20):
            bare.advance(0.05)
    woken = sum(clock.turns)
    print(
        f"idle      {1e6 * (spent.cpu - base.cpu) / 36000:8.2f} us for each of 36000 ticks among "
        f"{rooms} rooms and {len(lobby.timers)} timers; woken {len(clock.turns)} times, "
        f"{1e3 * woken:.1f} ms"
    )


def load(clock: TimedClock, lobby: Lobby, hooks: Hooks) -> tuple[float, float]:
    """Return the seconds that a message costs, and a tick with twenty timers, in ten rooms."""
    some = [lobby.get(f"room {n}") for n in range(10)]
    members = [next(iter(room.members.values())) for room in some]
    before = hooks.messages
    with Spent() as messages:
        for _ in range(500):
            for member in members:
                for _ in range(10):
                    member.room.post(Incoming(member, None, b"hello"))
            clock.advance(0)
    assert hooks.messages - before == 50_000
    for room in some:
        room.repeat("a", 0.05)
        room.repeat("b", 0.05)
    before = hooks.events
    with Spent() as ticks:
        for _ in range(2000):
            clock.advance(0.05)
    assert abs(hooks.events - before - 40_000) <= 40
    for room in some:
        room.cancel("a")
        room.cancel("b")
    return messages.cpu / 50_000, ticks.cpu / 2000


def compare(few: Any, many: Any, rounds: int) -> None:
    """Print what the same load costs among few rooms and among many, alternating."""
    costs: list[list[tuple[float, float]]] = [[], []]
    for _ in range(rounds):
        for at, hall in enumerate((few, many)):
            costs[at].append(load(*hall))
    for index, name in enumerate(("message", "tick")):
        a, b = (min(cost[index] for cost in side) for side in costs)
        print(f"{name:9} {1e6 * a:8.2f} us among few, {1e6 * b:.2f} among all: ratio {b / a:.2f}")


def fire_all(clock: TimedClock, lobby: Lobby, hooks: Hooks) -> None:
    """Let every room's timers fire, each as a message of its room."""
    number, before = len(lobby.timers), hooks.events
    clock.turns.clear()
    ticks = 0
    with Spent() as spent:
        while len(lobby.timers):
            clock.advance(0.05)
            ticks += 1
        clock.advance(0)
    assert hooks.events - before == number
    print(
        f"handled   {1e6 * spent.cpu / number:8.2f} us for each timer as a message, "
        f"{1e6 * spent.cpu / ticks:.0f} us for each of {ticks} ticks; {turns_of(clock)}"
    )


def measure_rooms(options: argparse.Namespace) -> None:
    """Furnish the rooms, and see what load, idling and timers cost among them."""
    many = furnish(options.rooms, options.timers)
    print("-- 10 rooms and 1000 timers beside them")
    few = furnish(10, 1000)
    compare(few, many, options.rounds)
    measure_idle(many[0], many[1], options.rooms)
    fire_all(*many)


def apart(measure: Callable[[], None]) -> None:
    """Measure in a process of its own, whose memory nothing has grown before."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        measure()
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the measurement failed")


def figures(text: str) -> dict[str, float]:
    """Return the figures that a measurement printed, by section, name and unit."""
    found: dict[str, float] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("-- "):
            section = line[3:]
        elif (match := _FIGURE.match(line)) is not None:
            for part in filter(None, match.groups()[1:]):
                number, unit = part.split()
                found[f"{section}: {match[1]}, {unit}"] = float(number)
    return found


def pair(before: Path, options: Sequence[str], pairs: int) -> None:
    """Measure this checkout and another in turn, and print the ratios of their figures."""
    trees = (Path(__file__).resolve().parents[1], before.resolve())
    runs: list[list[dict[str, float]]] = [[], []]
    for number in range(pairs):
        for at in (0, 1) if number % 2 else (1, 0):
            # As a script, so that the checkout of kupool is the one that PYTHONPATH names.
            text = subprocess.run(
                [sys.executable, __file__, *options],
                env={**os.environ, "PYTHONPATH": str(trees[at])},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            ).stdout
            runs[at].append(figures(text))
    for name in runs[0][0]:
        now, then = ([run[name] for run in side] for side in runs)
        ratios = [a / b for a, b in zip(now, then, strict=True) if b]
        ratio = f"{statistics.median(ratios):6.3f}" if ratios else "     -"
        medians = f"{statistics.median(now):g} against {statistics.median(then):g}"
        print(f"{ratio}  {medians:<24} {name}", flush=True)


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.before is not None:
        chosen = [f"--{name}={getattr(options, name)}" for name in ("timers", "rooms", "rounds")]
        pair(options.before, chosen, options.pairs)
        return
    pauses: list[float] = []

    def note(phase: str, info: dict[str, int]) -> None:
        now = time.thread_time()
        pauses.append(-now if phase == "start" else pauses.pop() + now)

    def wheel() -> None:
        measure_wheel(options.timers, 3600)

    def rooms() -> None:
        gc.callbacks.append(note)
        measure_rooms(options)
        print(f"the longest garbage collection took {1e3 * max(pauses):.1f} ms")

    print(f"-- the wheel alone, {options.timers} timers over an hour")
    apart(wheel)
    print(f"-- {options.rooms} rooms and {options.timers} timers")
    apart(rooms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timers", type=int, default=1_000_000)
    parser.add_argument("--rooms", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout: compare with it instead")
    parser.add_argument("--pairs", type=int, default=3, help="how often each checkout is measured")
    main(parser.parse_args())
