"""Compares the submit path of this checkout with that of another, in alternating pairs.

``python -m bench.pair --before DIR`` runs the daemon of both checkouts in turn, each round in new
processes on their own core. It prints the median ratio of this checkout to the other one: the
daemon's CPU per submission, and the median (p50) and 99th percentile (p99) of the answer times.
Above 1, this checkout is slower.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench import servers
from bench.load import CompiledLoad, Cost, Load, PythonLoad, Row
from bench.run import OPEN_LOOP, ROWS

HERE = Path(__file__).resolve().parent.parent


def compare(
    load: Load, row: Row, *, engine: str, before: Path, rounds: int, seconds: float
) -> tuple[list[Cost], list[Cost]]:
    """Return what each round cost: in this checkout, and in the other."""
    costs: dict[Path, list[Cost]] = {HERE: [], before: []}
    for number in range(rounds):
        order = (HERE, before) if number % 2 else (before, HERE)
        for tree in order:
            with servers.kupool(engine, tree=tree) as (port, pid):
                costs[tree].append(load.submit(port, pid, row, seconds))
    return costs[HERE], costs[before]


def shown(now: Sequence[float], then: Sequence[float], unit: str) -> str:
    """Return the median ratio, its spread, and the medians behind it."""
    found = [a / b for a, b in zip(now, then, strict=True)]
    return (
        f"{statistics.median(found):6.3f}  ({min(found):.2f} to {max(found):.2f})  "
        f"{statistics.median(now):6.2f} {unit} against {statistics.median(then):.2f}"
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument(
        "--rows",
        default="0,1,2",
        help="which rows of the table: 0, 1, 2, rejected, open; an open loop takes five times "
        "as long as the others",
    )
    parser.add_argument("--engines", default="memory,sqlite")
    parser.add_argument("--loadgen", type=Path, default=HERE.parent / "shared/bench/loadgen.c")
    arguments = parser.parse_args()
    compiled = arguments.loadgen.exists()
    load: Load = CompiledLoad(arguments.loadgen) if compiled else PythonLoad()
    print(f"{load.name}, {arguments.rounds} pairs of {arguments.seconds:g} s each")
    before = arguments.before.resolve()
    for name in arguments.rows.split(","):
        row = ROWS[name]
        seconds = arguments.seconds * (OPEN_LOOP if row.rate else 1)
        for engine in arguments.engines.split(","):
            now, then = compare(
                load, row, engine=engine, before=before, rounds=arguments.rounds, seconds=seconds
            )
            print(f"{row.name + ', ' + engine:<46} {shown(*column(now, then, 'cpu'), 'us')}")
            for answers in ("p50", "p99") if compiled else ():
                print(f"{answers:>46} {shown(*column(now, then, answers), 'ms')}", flush=True)


def column(now: Sequence[Cost], then: Sequence[Cost], name: str) -> tuple[list[float], list[float]]:
    """Return one figure of each round, of both checkouts."""
    return [getattr(cost, name) for cost in now], [getattr(cost, name) for cost in then]


if __name__ == "__main__":
    main()
