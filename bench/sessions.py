"""Many sessions in one process: the answer times when each submits now and then.

``python -m bench.sessions`` lets 10,000 sessions submit every two seconds each, evenly spread, to a
daemon with the memory log on one core. It prints the time from when each submission was due to its
answer. Exits with status 1 if a session was lost, a submission was refused or had no answer, or the
99th percentile was over 50 ms; with status 2 if the system allows too few open files.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from typing import Any

from bench import servers
from bench.load import CompiledLoad, Row

HERE = Path(__file__).resolve().parent.parent

#: Milliseconds within which all but a hundredth of the answers have to come.
P99_MS = 50.0

#: Open files of the daemon, and of the load generator, beside the sessions.
SPARE = 200


def allow_files(number: int) -> str:
    """Let this process and those it starts open so many files; returns why not, or nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(number, hard)))
        except (ValueError, OSError):
            return f"{number} open files are needed, and {hard} allowed: see ulimit -Hn"
    return ""


def problems(found: dict[str, Any], row: Row, most: float) -> list[str]:
    """Return what is wrong with what the load generator found; ``most`` is in milliseconds."""
    there, took = found["connections"], found["latency_us"]["p99"] / 1000
    checks = (
        (there["ok"] < row.connections, f"{row.connections - there['ok']} sessions did not begin"),
        (there["lost"], f"{there['lost']} sessions were lost"),
        (found["unanswered"], f"{found['unanswered']} submissions had no answer"),
        (took > most, f"p99 is {took:.1f} ms, above {most:g} ms"),
    )
    return [text for wrong, text in checks if wrong]


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0.5, help="submissions a second of each")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--engine", default="memory", help="of log and counts: memory, sqlite")
    parser.add_argument("--loadgen", type=Path, default=HERE.parent / "shared/bench/loadgen.c")
    arguments = parser.parse_args()
    refused = allow_files(arguments.sessions + SPARE)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    row = Row(arguments.sessions, rate=arguments.rate)
    load = CompiledLoad(arguments.loadgen)
    with servers.kupool(arguments.engine) as (port, pid):
        # The first period is not counted: all sessions have just come.
        found = load.measure(port, pid, row, arguments.seconds, warmup=1 / arguments.rate)
    took, server = found["latency_us"], found["server"]
    print(f"{row.name}, {arguments.engine} log, {arguments.seconds:g} s")
    print(f"{found['ok']} accepted, {found['ok'] / found['window_s']:,.0f} a second")
    print(f"answers: p50 {took['p50'] / 1000:.2f} ms, p99 {took['p99'] / 1000:.2f} ms")
    print(
        f"daemon: {server['cpu_s'] / found['ok'] * 1e6:.1f} us of CPU for each, "
        f"{server['cpu_s'] / found['window_s'] * 100:.0f} % of its core, "
        f"{server['rss_kb']['end'] / 1024:.0f} MB"
    )
    wrong = problems(found, row, P99_MS)
    print("\n".join(wrong or ["no problem"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
