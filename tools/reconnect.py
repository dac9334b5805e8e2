"""Restart a daemon with thousands of workers, and see how soon all of them are back.

The workers have tokens, and the close policy and backoff of the pool client. They connect, the
daemon gets SIGTERM and is started again on the same port, and they come back by themselves.
Meanwhile people log in for the first time, with passwords. The tool prints when the last worker was
authorized again, what the clients were told, and how long the people waited. It ends with status 1
if somebody is not back within the time, or is told a 45xx close, after which a client does not come
back.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kupool.accounts.entries import Secret
from kupool.accounts.file import AccountFile
from kupool.accounts.hashing import hash_password, hash_token, make_token
from kupool.commands.running import raise_descriptor_limit
from kupool.commands.target import positive
from tests.servers.running_daemon import RunningDaemon
from tools.helper import Helper
from tools.reconnecting import OF_ACCOUNT

PASSWORD = "correct horse battery"


class Times:
    """When things were done, in seconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.told_to_stop = time.monotonic()
        self.stopped = self.started = self.told_to_stop


def restart(daemon: RunningDaemon) -> Times:
    """Stop a daemon in order and start it again."""
    times = Times()
    daemon.stop(120)
    times.stopped = time.monotonic()
    daemon.start(120)
    times.started = time.monotonic()
    return times


def wait_for(
    clients: Helper, enough: Callable[[dict[str, Any]], bool], deadline: float
) -> tuple[bool, dict[str, Any]]:
    """Ask until there is enough, or until a time; returns whether there is, and the last answer."""
    while True:
        state = clients.ask("state")
        if enough(state) or time.monotonic() >= deadline:
            return enough(state), state
        time.sleep(0.5)


def part(times: Sequence[float], share: float) -> float:
    """Return the time that a share of them took at the most."""
    return times[min(len(times) - 1, int(len(times) * share))]


def report(state: dict[str, Any], times: Times) -> None:
    """Print how soon everybody was back."""
    print(
        f"the daemon stopped within {times.stopped - times.told_to_stop:.1f} s, and was ready "
        f"again {times.started - times.stopped:.1f} s later"
    )
    workers, people = state["workers"], state["people"]
    if workers:
        since = [when - times.told_to_stop for when in workers]
        print(
            f"{len(since):,} workers were authorized again; since SIGTERM: half within "
            f"{part(since, 0.5):.1f} s, p99 {part(since, 0.99):.1f} s, the last after "
            f"{since[-1]:.1f} s ({workers[-1] - times.started:.1f} s after the start)"
        )
    if people:
        print(
            f"{len(people)} people logged in: p50 {part(people, 0.5) * 1000:.0f} ms, p99 "
            f"{part(people, 0.99) * 1000:.0f} ms"
        )
    for text, count in sorted(state["told"].items(), key=lambda item: -item[1])[:8]:
        print(f"  {count:>7,} x  {text}")
    for text, count in state["gone"].items():
        print(f"  {count:>7,} x  told for good: {text}")


def make_accounts(path: Path, workers: int, people: int) -> list[str]:
    """Write the accounts; returns the tokens of those of the workers, in order."""
    tokens = [make_token() for _ in range(-(-workers // OF_ACCOUNT))]
    stored = hash_password(PASSWORD)  # one for all: hashing each takes longer than the test
    AccountFile(path).replace(
        lambda secret: False,
        (
            *(
                Secret(f"rigs{number}", hash_token(token), "worker", "rig")
                for number, token in enumerate(tokens)
            ),
            *(Secret(f"person{number}", stored, "worker") for number in range(people)),
        ),
    )
    return tokens


def run(arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> int:
    """Connect, restart, wait; returns the exit status."""
    workers, people = arguments.workers, arguments.people
    tokens = make_accounts(folder / "accounts", workers, people)
    daemon = RunningDaemon(
        f"--auth=file:{folder / 'accounts'}",
        f"--max-connections={workers + people + 1000}",
        *arguments.flags,
        data=folder / "data",
        prefix=("taskset", "--cpu-list", "0"),
    )
    stack.enter_context(daemon)
    clients = Helper(
        [
            *("taskset", "--cpu-list", "1", sys.executable, "-m", "tools.reconnecting"),
            f"--port={daemon.port}",
            f"--workers={workers}",
            f"--people={people}",
            f"--ramp={arguments.ramp}",
        ]
    )
    stack.callback(clients.kill)
    began = time.monotonic()
    clients.send(json.dumps({"tokens": tokens, "password": PASSWORD}))
    deadline = began + workers / arguments.ramp * 3 + arguments.within
    done, state = wait_for(clients, lambda s: len(s["workers"]) >= workers, deadline)
    if not done:
        print(f"only {len(state['workers']):,} workers connected at first: {state['told']}")
        return 1
    print(f"{workers:,} workers connected in {time.monotonic() - began:.1f} s", flush=True)
    clients.ask("mark")
    times = restart(daemon)
    clients.ask("people")

    def all_back(found: dict[str, Any]) -> bool:
        return bool(len(found["workers"]) >= workers and len(found["people"]) >= people)

    done, state = wait_for(clients, all_back, times.told_to_stop + arguments.within)
    report(state, times)
    if not done:
        print(f"not everybody was back within {arguments.within:g} s")
    return int(not done or bool(state["gone"]))


def main() -> int:
    """Run the restart; returns 1 if not everybody comes back in time."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.reconnect",
        description=__doc__.split("\n\n")[0],
        epilog="Flags after -- go to the daemon, which runs on core 0; the clients run on core 1.",
    )
    parser.add_argument("--workers", type=positive, default=10_000, help="[%(default)s]")
    parser.add_argument("--people", type=positive, default=200, help="[%(default)s]")
    parser.add_argument(
        "--within", type=float, default=60, help="seconds from SIGTERM to the last one [60]"
    )
    parser.add_argument("--ramp", type=float, default=300, help="workers started a second [300]")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="more flags of the daemon")
    arguments = parser.parse_args()
    raise_descriptor_limit(arguments.workers + arguments.people + 3000)  # the daemon inherits it
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="kupool-", dir=memory if memory.is_dir() else None))
    try:
        with ExitStack() as stack:
            return run(arguments, folder, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
