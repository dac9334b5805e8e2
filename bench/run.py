"""Measures the first table of docs/speed.md, each row as a ratio.

Server and load generator run on different cores, in new processes for each round, and the compared
servers take turns. A row's figure is the median of the ratios of the rounds, because absolute times
mean little on a machine that others use.

The load generator is ``../shared/bench/loadgen.c`` if it exists, newly compiled. Otherwise it is
``kupool bench``, which is slower, so servers are not saturated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import timeit
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import servers
from bench.echo import SUBMIT
from bench.load import CompiledLoad, Cost, Load, PythonLoad, Row

#: The rows by name: closed loops, one of rejected submissions, and an open loop.
ROWS = {
    "0": Row(100, 1),
    "1": Row(100, 16),
    "2": Row(1000, 1),
    "rejected": Row(100, 16, rejected=True),
    "open": Row(5000, rate=1.0),
}

#: The most that the daemon may cost in units of the echo.
TARGETS = {"0": 0.65, "1": 4.0, "2": 0.60, "open": 0.9}

#: How much more a rejected submission may cost than an accepted one, on the same load.
REJECTED = 1.1

#: How much more a durable answer may cost than one from memory.
DURABLE = 1.5

#: An open loop is measured for so many times as long as the others: it has few answers.
OPEN_LOOP = 5

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


def measure(load: Load, name: str, rounds: int, seconds: float) -> None:
    """Measure one row with both engines and print it."""
    row = ROWS[name]
    off = overwriting(row.depth)
    bare: list[Cost] = []
    memory: list[Cost] = []
    durable: list[Cost] = []
    seconds *= OPEN_LOOP if row.rate else 1
    for _ in range(rounds):
        with servers.echo() as (port, pid):
            cost = load.submit(port, pid, row, seconds)
            bare.append(cost._replace(cpu=cost.cpu - off))
        for engine, costs in (("memory", memory), ("sqlite", durable)):
            with servers.kupool(engine) as (port, pid):
                costs.append(load.submit(port, pid, row, seconds))
    print_row(row.name + ", memory log", memory, bare, TARGETS[name])
    print_row(row.name + ", SQLite log", durable, memory, DURABLE)
    if row.rate:
        for what, costs in (("echo", bare), ("memory log", memory), ("SQLite log", durable)):
            print(f"  answers of the {what:<28} {answers(costs)}", flush=True)


def measure_rejected(load: Load, rounds: int, seconds: float) -> None:
    """Measure rejected submissions against accepted ones, of the same daemon."""
    row = ROWS["rejected"]
    rejected: list[Cost] = []
    accepted: list[Cost] = []
    for _ in range(rounds):
        with servers.kupool("memory") as (port, pid):
            accepted.append(load.submit(port, pid, row._replace(rejected=False), seconds))
            rejected.append(load.submit(port, pid, row, seconds))
    print_row(row.name, rejected, accepted, REJECTED)


def ratios(ours: Sequence[Cost], theirs: Sequence[Cost]) -> list[float]:
    """Return the ratios of the rounds."""
    return [a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True)]


def answers(costs: Sequence[Cost]) -> str:
    """Return the medians of the times of answers."""
    halves = statistics.median(cost.p50 or 0.0 for cost in costs)
    most = statistics.median(cost.p99 or 0.0 for cost in costs)
    return f"p50 {halves:.2f} ms, p99 {most:.2f} ms"


def print_row(name: str, ours: list[Cost], theirs: list[Cost], target: float) -> None:
    """Print one row: ratio, spread, target, and the microseconds behind it."""
    found = ratios(ours, theirs)
    middle = statistics.median(found)
    verdict = "met" if middle <= target else "NOT MET"
    mine, other = (statistics.median(cost.cpu for cost in costs) for costs in (ours, theirs))
    print(
        f"{name:<46} {middle:6.2f}  ({min(found):.2f} to {max(found):.2f})  "
        f"target {target:<5g} {verdict:<8} {mine:6.2f} us against {other:.2f}",
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
    parser.add_argument(
        "--rows",
        default=",".join((*ROWS, "idle")),
        help="which rows: 0, 1, 2, rejected, open, idle",
    )
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
        elif row in ("rejected", "open") and not compiled:
            print(f"{ROWS[row].name:<50} needs the compiled load generator")
        elif row == "rejected":
            measure_rejected(load, arguments.rounds, arguments.seconds)
        else:
            measure(load, row, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
