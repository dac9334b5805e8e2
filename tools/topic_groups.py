"""Has members of a consumer group join, leave, freeze and be killed, and checks what they did.

    python -m tools.topic_groups --minutes 10 --seed 1

A daemon has a topic of 12 partitions, to which numbers are written all the time. Processes
(``tools.topic_member``) share it as a group. Every few seconds one or two of them are started, told
to leave, killed, or stopped for longer than their session. It checks that

- every partition has an owner that works, at the latest a session timeout after each change;
- no commit of an older generation is accepted: each member tries one after each rebalance, and
  every accepted commit is compared with the generations that were seen before it was sent;
- every number is processed at least once, and counted exactly once.

Ends with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.running_daemon import ROOT, RunningDaemon
from tools.topic_member import Results, TopicCalls

PARTITIONS = 12

#: Seconds that the removal of a member may be late: one turn of the reactor on a busy machine.
LATENESS = 0.25

#: The most members at a time, and the most of them that are stopped: so one can always be changed.
MEMBERS, FROZEN = 6, 3


class Numbers(threading.Thread):
    """Writes numbers to the topic, in a thread, until it is told to stop."""

    def __init__(self, calls: TopicCalls, rate: int) -> None:
        super().__init__(daemon=True)
        self._calls = calls
        self._rate = rate
        self._end = threading.Event()
        self.written = 0
        self.problem = ""

    def run(self) -> None:
        """Write a tenth of a second's numbers at a time."""
        try:
            while not self._end.wait(0.1):
                numbers = range(self.written, self.written + max(1, self._rate // 10))
                records = [{"value": str(number)} for number in numbers]
                self._calls.call("log.produce", topic="t", records=records)
                self.written = numbers.stop
        except Exception as error:
            self.problem = f"writing ended: {error}"

    def end(self) -> None:
        """Write no more."""
        self._end.set()
        self.join(60)


class SeenOwners(NamedTuple):
    """The owners of the partitions at some time between two times."""

    began: float
    ended: float
    owners: dict[int, str]


class OwnerlessTime(NamedTuple):
    """For how many seconds after a change not all partitions had owners that work.

    It was at least so long as a look that began then has seen it, and at most until the first look
    that saw them all has ended. The looks take longer on a busy machine.
    """

    at_least: float
    at_most: float
    change: str


class Generations(threading.Thread):
    """Looks at the group, in a thread: its generation, and who owns what."""

    def __init__(self, calls: TopicCalls) -> None:
        super().__init__(daemon=True)
        self._calls = calls
        self._end = threading.Event()
        #: (when it was known, generation), each time it was another one.
        self.seen: list[tuple[float, int]] = []
        #: The last look at the owners.
        self.last = SeenOwners(0.0, 0.0, {})
        self.problem = ""

    def run(self) -> None:
        """Look twenty times a second."""
        try:
            while not self._end.wait(0.05):
                began = time.monotonic()
                found = self._calls.call("group.describe", group="g")
                self._look(began, found)
        except Exception as error:
            self.problem = f"looking at the group ended: {error}"

    def _look(self, began: float, found: dict[str, Any]) -> None:
        if not self.seen or found["generation"] > self.seen[-1][1]:
            self.seen.append((time.monotonic(), found["generation"]))
        owners = {
            each["partition"]: member["member"]
            for member in found["members"]
            for each in member["assigned"]
        }
        self.last = SeenOwners(began, time.monotonic(), owners)

    def end(self) -> None:
        """Look no more."""
        self._end.set()
        self.join(60)


class GroupTrial:
    """Changes the members of a group at random."""

    def __init__(self, daemon: RunningDaemon, folder: Path, chance: random.Random) -> None:
        self._daemon = daemon
        self._folder = folder
        self._chance = chance
        self._members: dict[str, subprocess.Popen[bytes]] = {}
        #: Members that are stopped, and when they go on.
        self._frozen: dict[str, float] = {}
        self._started = 0
        self.timeout = 5.0
        self.changes: Counter[str] = Counter()
        self.ownerless: list[OwnerlessTime] = []
        self.problems: list[str] = []

    def calls(self) -> TopicCalls:
        """Return a connection of its own."""
        return TopicCalls(self._daemon.http_port, self._daemon.secret)

    @property
    def working(self) -> list[str]:
        """The names of the members that run."""
        return [name for name in self._members if name not in self._frozen]

    def join(self) -> None:
        """Start a member."""
        self._started += 1
        name = f"m{self._started}"
        self._members[name] = subprocess.Popen(
            [
                *(sys.executable, "-m", "tools.topic_member", name),
                *("--port", str(self._daemon.http_port), "--folder", str(self._folder)),
                *("--timeout-ms", str(int(self.timeout * 1000))),
            ],
            cwd=ROOT,
            env={**os.environ, "TOPIC_SECRET": self._daemon.secret},
        )

    def _end(self, name: str, number: int) -> None:
        process = self._members.pop(name)
        process.send_signal(number)
        if process.wait(60) not in (0, -number):
            self.problems.append(f"member {name} ended with status {process.returncode}")

    def leave(self) -> None:
        """Have a member leave."""
        self._end(self._chance.choice(self.working), signal.SIGTERM)

    def kill(self) -> None:
        """Kill a member."""
        self._end(self._chance.choice(self.working), signal.SIGKILL)

    def freeze(self) -> None:
        """Stop a member until its session has timed out, and a little longer."""
        name = self._chance.choice(self.working)
        self._members[name].send_signal(signal.SIGSTOP)
        self._frozen[name] = time.monotonic() + self.timeout + 2 + self._chance.random()

    def thaw(self, now: float) -> None:
        """Let members go on whose time has come."""
        for name in [name for name, until in self._frozen.items() if until <= now]:
            self._members[name].send_signal(signal.SIGCONT)
            del self._frozen[name]

    def change(self) -> str:
        """Do one thing that is possible now; returns what."""
        possible: list[Callable[[], None]] = []
        if len(self._members) < MEMBERS:
            possible += [self.join, self.join]
        if len(self.working) > 1:
            possible += [self.leave, self.kill]
            if len(self._frozen) < FROZEN:
                possible.append(self.freeze)
        chosen = self._chance.choice(possible)
        self.changes[chosen.__name__] += 1
        chosen()
        return chosen.__name__

    def wait_for_owners(self, generations: Generations, done: str) -> None:
        """Wait until all partitions have owners that work, and note how long that took."""
        changed = last_without = time.monotonic()
        while time.monotonic() < changed + 12 * self.timeout:
            seen = generations.last
            if seen.began > changed:
                owners = set(seen.owners.values())
                if len(seen.owners) == PARTITIONS and owners <= set(self.working):
                    self.ownerless.append(
                        OwnerlessTime(last_without - changed, seen.ended - changed, done)
                    )
                    return
                last_without = seen.began
            if generations.problem:
                break
            time.sleep(0.02)
        self.problems.append(f"partitions have no owner {generations.problem}: {seen.owners}")

    def end(self) -> None:
        """Kill all members."""
        for name in list(self._members):
            self._frozen.pop(name, None)
            self._end(name, signal.SIGKILL)


def run(folder: Path, seconds: float, chance: random.Random, rate: int = 200) -> GroupTrial:
    """Do all of it; returns the trial with its problems."""
    flags = ("--mq=sqlite", "--store=sqlite", "--topics=sqlite", "--interval=1h")
    with RunningDaemon(*flags, data=folder / "data", fresh=True) as daemon:
        trial = GroupTrial(daemon, folder, chance)
        settings = {"partitions": PARTITIONS}
        trial.calls().call("topic.create", topic="t", settings=settings)
        Results(folder / "results.sqlite").close()
        numbers = Numbers(trial.calls(), rate)
        numbers.start()
        trial.join()
        generations = Generations(trial.calls())
        try:
            _wait_for_group(trial)
            generations.start()
            _change_members(trial, generations, seconds)
            numbers.end()
            _wait_until_read(trial)
        finally:
            numbers.end()
            generations.end()
            trial.end()
        trial.problems += [each.problem for each in (numbers, generations) if each.problem]
        paused = [line for line in daemon.lines if "did not run" in line or "paused" in line]
        print(*paused, sep="\n", end="\n" if paused else "")
        _compare(trial, folder, numbers.written, generations.seen)
        return trial


def _wait_for_group(trial: GroupTrial) -> None:
    """Wait for the first member."""
    calls = trial.calls()
    for _ in range(600):
        if "g" in calls.call("group.list")["groups"]:
            return
        time.sleep(0.1)
    raise SystemExit("the first member did not join")


def _change_members(trial: GroupTrial, generations: Generations, seconds: float) -> None:
    until = time.monotonic() + seconds
    chance = trial._chance
    said = time.monotonic()
    while time.monotonic() < until:
        done = [trial.change() for _ in range(chance.choice((1, 1, 2)))]
        trial.wait_for_owners(generations, " and ".join(done))
        pause = time.monotonic() + chance.random() * 2
        while time.monotonic() < pause:
            trial.thaw(time.monotonic())
            time.sleep(0.05)
        if time.monotonic() > said + 30:
            said = time.monotonic()
            print(
                f"{sum(trial.changes.values())} changes, {len(trial.problems)} problems", flush=True
            )


def _wait_until_read(trial: GroupTrial) -> None:
    """Wait until the group has read everything."""
    calls = trial.calls()
    trial.thaw(time.monotonic() + 1e9)
    for _ in range(1200):
        positions = calls.call("group.describe", group="g")["positions"]
        if not sum(each["lag"] for each in positions):
            return
        time.sleep(0.1)
    trial.problems.append("the group has not read everything in two minutes")


def _compare(trial: GroupTrial, folder: Path, written: int, seen: list[tuple[float, int]]) -> None:
    """Compare what was written with what was counted, and commits with the generations."""
    results = Results(folder / "results.sqlite")
    counted, processed = results.table("counted"), results.table("processed")
    results.close()
    for what, found in (("counted", counted), ("processed", processed)):
        missing, more = set(range(written)) - set(found), set(found) - set(range(written))
        if missing or more:
            trial.problems.append(
                f"{len(missing)} numbers were not {what}, such as {sorted(missing)[:5]}; "
                f"{len(more)} were that were not written"
            )
    commits: list[tuple[float, int]] = []
    words: Counter[str] = Counter()
    for diary in sorted(folder.glob("m*.txt")):
        for line in diary.read_text().splitlines():
            word, *rest = line.split(" ", 2)
            words[word if word != "refused" else f"refused {rest[0]}"] += 1
            if word == "commit":
                commits.append((float(rest[0]), int(rest[1])))
            elif word == "problem":
                trial.problems.append(f"{diary.stem}: {line}")
    trial.problems += older_commits(commits, seen)
    again = sum(times - 1 for times in processed.values())
    print(
        f"{written:,} numbers written, {len(counted):,} counted, {again:,} processed again; "
        f"{dict(sorted(words.items()))}, {len(seen)} generations seen"
    )


def older_commits(commits: list[tuple[float, int]], seen: list[tuple[float, int]]) -> list[str]:
    """Return the accepted commits (when sent, generation) that were of an older generation than one
    that was known already (when, generation).
    """
    problems = []
    known, place = 0, 0
    for sent, generation in sorted(commits):
        while place < len(seen) and seen[place][0] < sent:
            known, place = seen[place][1], place + 1
        if generation < known:
            problems.append(f"a commit of generation {generation} was accepted in {known}")
    return problems


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=200, help="numbers written in a second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="topic-groups-") as folder:
        chance = random.Random(options.seed)
        trial = run(Path(folder), options.minutes * 60, chance, options.rate)
    for each in trial.ownerless:
        if each.at_least > trial.timeout + LATENESS:
            trial.problems.append(
                f"after {each.change} partitions had no owner for {each.at_least:.2f} to "
                f"{each.at_most:.2f} s, the session timeout is {trial.timeout:g}"
            )
    at_least = max((each.at_least for each in trial.ownerless), default=0.0)
    at_most = max((each.at_most for each in trial.ownerless), default=0.0)
    print(
        f"{dict(trial.changes)}; partitions without an owner for at least {at_least:.2f} s and at "
        f"most {at_most:.2f} s; problems {len(trial.problems)}"
    )
    for problem in trial.problems[:20]:
        print(f"problem: {problem}")
    return 1 if trial.problems else 0


if __name__ == "__main__":
    sys.exit(main())
