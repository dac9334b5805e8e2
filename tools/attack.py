"""Attack a daemon from one address, and measure what that costs another one.

The daemon runs on core 0 with its files in memory (``/dev/shm``), the attacker on core 1 in a
network namespace of its own, a good client in another namespace. Each attack meets a fresh daemon
with default settings. For each, the tool prints the good client's time of a submission, idle and
under attack, how long ``/ready`` took at the most, what the daemon's memory and disk grew by, and
the lines of the log that name the attack. It ends with status 1 if the p99 under attack is more
than 3 times the idle one, if ``/ready`` took more than 100 ms, or if the log does not name the
attack.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kupool.accounts.entries import Secret
from kupool.accounts.file import AccountFile
from kupool.accounts.hashing import hash_token, make_token
from tests.servers.running_daemon import RunningDaemon
from tools.attackers import KINDS
from tools.helper import Helper
from tools.namespaces import Namespaces, NoNamespaces
from tools.process import megabytes, rss

#: The most that an attack may cost: p99 against the idle one, and ms of ``/ready``.
MOST_RATIO = 3.0
MOST_READY = 100.0

GOOD, BAD = "good", "mallory"

#: A line of the log that names an attack: it is about the attacker, and says that something was
#: limited or refused. What merely happened, such as a connection, does not.
_NAMED = re.compile(
    r"refus|reject|limit|throttl|slow|wrong|failed|fail|banned|ban |too many|full|closed", re.I
)


class Found(NamedTuple):
    """What one attack did."""

    idle: dict[str, Any]
    attacked: dict[str, Any]
    attacker: dict[str, Any]
    memory: int
    disk: int
    lines: Counter[str]

    @property
    def ratio(self) -> float:
        """The p99 under attack against the idle one."""
        if not self.idle["p99"] or self.attacked["p99"] is None:
            return float("inf")
        return float(self.attacked["p99"] / self.idle["p99"])

    def problems(self) -> list[str]:
        """Return what an attack costs that it must not cost."""
        found = []
        if self.ratio > MOST_RATIO:
            found.append(f"p99 is {self.ratio:.1f} times the idle one")
        if self.attacked["ready"] is None or self.attacked["ready"] > MOST_READY:
            found.append(f"/ready took {self.attacked['ready']} ms")
        if not self.lines:
            found.append("the log does not name the attack")
        return found


class Attacking:
    """Runs attacks in namespaces; ``clients`` good sessions submit."""

    def __init__(self, spaces: Namespaces, seconds: float, clients: int) -> None:
        self._spaces = spaces
        self._seconds = seconds
        self._clients = clients
        self._tokens = {name: make_token() for name in (GOOD, BAD)}

    def run(self, kind: str, flags: Sequence[str]) -> Found:
        """Start a daemon, measure it idle, attack it, and measure it again."""
        with ExitStack() as stack:
            folder = stack.enter_context(_in_memory())
            accounts = AccountFile(folder / "accounts")
            for name, token in self._tokens.items():
                accounts.replace(
                    lambda secret: False, (Secret(name, hash_token(token), "operator", "t"),)
                )
            daemon = RunningDaemon(
                f"--auth=file:{accounts.path}",
                *flags,
                data=folder / "data",
                addr="0.0.0.0:0",
                http_address="tcp:0",
                prefix=(*self._spaces.prefix("server"), "taskset", "--cpu-list", "0"),
            )
            stack.enter_context(daemon)
            good = self._helper("tools.bystander", GOOD, daemon, f"--clients={self._clients}")
            stack.callback(good.kill)
            good.line()
            time.sleep(2)
            good.ask()
            time.sleep(self._seconds)
            idle = good.ask()
            memory, disk, said = rss(daemon), _size(folder), len(daemon.lines)
            attacker = self._helper("tools.attackers", BAD, daemon, kind)
            stack.callback(attacker.kill)
            time.sleep(self._seconds)
            attacked = good.ask()
            done = attacker.end()
            time.sleep(1)
            return Found(
                idle,
                attacked,
                done,
                rss(daemon) - memory,
                _size(folder) - disk,
                _naming(daemon.events_from(said), self._spaces.address(BAD)),
            )

    def _helper(self, module: str, name: str, daemon: RunningDaemon, *more: str) -> Helper:
        return Helper(
            [
                *self._spaces.prefix(name),
                *("taskset", "--cpu-list", "1", sys.executable, "-m", module, *more),
                f"--host={self._spaces.server_address(name)}",
                f"--port={daemon.port}",
                f"--http-port={daemon.http_port}",
                f"--user={name}",
                f"--token={self._tokens[name]}",
            ]
        )


@contextmanager
def _in_memory() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kupool-attack-", dir="/dev/shm"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _naming(events: Sequence[dict[str, Any]], address: str) -> Counter[str]:
    """Count the lines that name the attack, without what differs from one to the next."""
    found = Counter[str]()
    for event in events:
        if address not in json.dumps(event) and BAD not in json.dumps(event):
            continue
        if event.get("level") != "info" or _NAMED.search(event["message"]):
            text = event["message"].replace(address, "ADDRESS")
            found[re.sub(r"\d[\d.,]*", "N", re.sub(rf"{BAD}\S*", "USER", text))] += 1
    return found


def report(kind: str, found: Found) -> None:
    """Print what one attack did, and whether that is more than it may."""
    idle, attacked = found.idle, found.attacked
    print(f"\n{kind}: {'; '.join(found.problems()) or 'ok'}")
    print(
        f"  submissions      p50 {idle['p50']} -> {attacked['p50']} ms, p99 {idle['p99']} -> "
        f"{attacked['p99']} ms, ratio {found.ratio:.2f} ({attacked['submissions']} answers)"
    )
    print(f"  /ready           at most {idle['ready']} -> {attacked['ready']} ms")
    print(f"  a new login      at most {idle['login']} -> {attacked['login']} ms")
    if attacked["errors"]:
        print(f"  errors           {attacked['errors']}")
    print(f"  growth           memory {megabytes(found.memory)}, disk {megabytes(found.disk)}")
    print(
        f"  the attacker     {found.attacker['counts']} in {found.attacker['seconds']:.1f} s, "
        f"open at the end: {found.attacker['open']}"
    )
    for text, count in found.lines.most_common(8):
        print(f"  log {count:>8,} x  {text}")


def main() -> int:
    """Run the attacks; returns 1 if one of them costs more than it may."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.attack",
        description=__doc__.split("\n\n")[0],
        epilog="Needs root, Linux with network namespaces, and two cores. "
        "Flags after -- go to the daemon.",
    )
    parser.add_argument(
        "--attacks", default=",".join(KINDS), help="which, separated by commas [%(default)s]"
    )
    parser.add_argument(
        "--seconds", type=float, default=20, help="length of each measurement [%(default)s]"
    )
    parser.add_argument("--clients", type=int, default=200, help="good sessions [%(default)s]")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="more flags of the daemon")
    arguments = parser.parse_args()
    kinds = arguments.attacks.split(",")
    # The log of the daemon is read on the attacker's core, at once: a full pipe stops the daemon.
    os.sched_setaffinity(0, {1})
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such attack: {', '.join(unknown)}")
    bad = 0
    try:
        with Namespaces((GOOD, BAD)) as spaces:
            attacking = Attacking(spaces, arguments.seconds, arguments.clients)
            for kind in kinds:
                found = attacking.run(kind, arguments.flags)
                report(kind, found)
                bad += bool(found.problems())
    except NoNamespaces as error:
        print(f"attack: no network namespaces on this machine: {error}", file=sys.stderr)
        return 1
    print(f"\n{bad} of {len(kinds)} attacks cost more than they may")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
