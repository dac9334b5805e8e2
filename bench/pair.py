"""Compares the submit path of this checkout with that of another, in alternated pairs.

``python -m bench.pair --before DIR`` runs the daemon of both checkouts in turn, each round with
fresh processes on a core of their own, and prints the median of the ratios within a round:
CPU of the daemon per submission, now against before. Above 1, this checkout costs more.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from bench import servers
from bench.load import CompiledLoad, Load, PythonLoad
from bench.run import ROWS, Row, ratios

HERE = Path(__file__).resolve().parent.parent


def compare(
    load: Load, row: Row, engine: str, before: Path, rounds: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Return the microseconds of each round: those of this checkout, and of the other."""
    costs: dict[Path, list[float]] = {HERE: [], before: []}
    for number in range(rounds):
        order = (HERE, before) if number % 2 else (before, HERE)
        for tree in order:
            with servers.kupool(engine, tree=tree) as (port, pid):
                costs[tree].append(load.submit(port, pid, row.connections, row.depth, seconds))
    return costs[HERE], costs[before]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--rows", default="0,1,2", help="which rows of the table: 0, 1, 2")
    parser.add_argument("--engines", default="memory,sqlite")
    parser.add_argument("--loadgen", type=Path, default=HERE.parent / "shared/bench/loadgen.c")
    arguments = parser.parse_args()
    compiled = arguments.loadgen.exists()
    load: Load = CompiledLoad(arguments.loadgen) if compiled else PythonLoad()
    print(f"{load.name}, {arguments.rounds} pairs of {arguments.seconds:g} s each")
    for index in arguments.rows.split(","):
        row = ROWS[int(index)]
        for engine in arguments.engines.split(","):
            now, then = compare(
                load, row, engine, arguments.before.resolve(), arguments.rounds, arguments.seconds
            )
            found = ratios(now, then)
            print(
                f"{row.name + ', ' + engine:<42} {statistics.median(found):6.3f}  "
                f"({min(found):.2f} to {max(found):.2f})  "
                f"{statistics.median(now):6.2f} us against {statistics.median(then):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
