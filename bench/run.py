"""Measures the table of docs/operations.md, "Speed", each row as a ratio.

Server and load generator run on different cores, every round with fresh processes, the
servers that are compared in turn. A row's figure is the median over the rounds of the
ratio within one round: absolute times mean little on a machine that others use.

The load generator is ``../shared/bench/loadgen.c`` where it is there, compiled anew;
otherwise ``kupool bench``, which is slower, so that servers are less than saturated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import servers
from bench.echo import SUBMIT
from bench.load import CompiledLoad, Load, PythonLoad


class Row(NamedTuple):
    """A load, and the most that the daemon may cost in units of the echo."""

    connections: int
    depth: int
    target: float

    @property
    def name(self) -> str:
        """Return what the row is called."""
        return f"{self.connections} connections, {self.depth} in flight"


ROWS = (Row(100, 1, 0.65), Row(100, 16, 4.5), Row(1000, 1, 0.60))

#: How much more a durable answer may cost than one from memory.
DURABLE = 1.5

FAN_OUT_MS = 90.0
KILOBYTES = 3.0


def overwriting(depth: int) -> float:
    """Return what the echo's overwriting costs for one message, in microseconds."""
    message = (
        b'\x02\xaa\x00\x00\x00{"id":123456,"method":"submit","params":{"job_id":1,'
        b'"client_nonce":"0123456789abcdef01234567","result":"' + b"0" * 64 + b'"}}'
    )
    data = message * depth
    times = timeit.repeat(lambda: data.replace(*SUBMIT), number=2000, repeat=5)
    return min(times) / 2000 / depth * 1e6


def measure(load: Load, row: Row, rounds: int, seconds: float) -> None:
    """Measure one row with both engines and print it."""
    off = overwriting(row.depth)
    bare: list[float] = []
    memory: list[float] = []
    durable: list[float] = []
    for _ in range(rounds):
        with servers.echo() as (port, pid):
            bare.append(load.submit(port, pid, row.connections, row.depth, seconds) - off)
        for engine, costs in (("memory", memory), ("sqlite", durable)):
            with servers.kupool(engine) as (port, pid):
                costs.append(load.submit(port, pid, row.connections, row.depth, seconds))
    print_row(row.name + ", memory log", ratios(memory, bare), row.target, memory, bare)
    print_row(row.name + ", SQLite log", ratios(durable, memory), DURABLE, durable, memory)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratios of the rounds."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def print_row(
    name: str, found: list[float], target: float, ours: list[float], theirs: list[float]
) -> None:
    """Print one row: ratio, spread, target, and the microseconds behind it."""
    middle = statistics.median(found)
    verdict = "met" if middle <= target else "NOT MET"
    print(
        f"{name:<42} {middle:6.2f}  ({min(found):.2f} to {max(found):.2f})  "
        f"target {target:<5g} {verdict:<8} "
        f"{statistics.median(ours):6.2f} us against {statistics.median(theirs):.2f}",
        flush=True,
    )


def measure_idle(load: Load, connections: int, seconds: float) -> None:
    """Measure how a job reaches everyone, and what an idle connection costs."""
    with servers.kupool("memory", "--interval=2s") as (port, pid):
        spread, kilobytes = load.idle(port, pid, connections, seconds)
    name = f"{connections} connections"
    for what, found, target, unit in (
        (f"{name}: first to last receipt of a job", spread, FAN_OUT_MS, "ms"),
        (f"{name}: memory of one that is idle", kilobytes, KILOBYTES, "KB"),
    ):
        if found is None:
            print(f"{what:<50} needs the compiled load generator")
        else:
            verdict = "met" if found <= target else "NOT MET"
            print(f"{what:<50} {found:6.2f} {unit}  target {target:g} {verdict}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--python", action="store_true", help="use the load generator in Python")
    parser.add_argument("--rows", default="0,1,2,idle", help="which rows: 0, 1, 2, idle")
    parser.add_argument(
        "--loadgen",
        type=Path,
        default=Path(__file__).resolve().parent.parent.parent / "shared/bench/loadgen.c",
        help="source of the load generator",
    )
    arguments = parser.parse_args()
    compiled = not arguments.python and arguments.loadgen.exists()
    load: Load = CompiledLoad(arguments.loadgen) if compiled else PythonLoad()
    print(f"{load.name}, {arguments.rounds} rounds of {arguments.seconds:g} s")
    for row in arguments.rows.split(","):
        if row == "idle":
            measure_idle(load, 10_000, 12.0)
        else:
            measure(load, ROWS[int(row)], arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
