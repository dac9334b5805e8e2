"""Moves a large pool from SQLite to RabbitMQ and PostgreSQL and back, killed on each way.

    python -m tools.migration --submissions 2000000

Ends with status 1 where the sums of any user and minute differ, where ``kupool audit`` finds a
difference, or where job ids do not go on. Prints how long each step took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.servers.commands import KUPOOL, environment
from tests.servers.running_daemon import LineClient, RunningDaemon
from tests.servers.services import postgres, rabbit
from tools.moved_pool import PER_BATCH, RESERVED

COUNTS = "SELECT username, timestamp, submission_count FROM submissions"


class Failed(Exception):
    """Something is not as it should be; says what."""


class Site:
    """The pool: where it is, and what was counted."""

    def __init__(self, folder: Path, submissions: int) -> None:
        self.folder = folder
        self.submissions = submissions
        self.job = RESERVED
        self.sums: Counter[tuple[str, str]] = Counter()

    def settings(self, name: str, **settings: str) -> Path:
        """Write a settings file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"data": str(self.folder / name), **settings}))
        return path

    def make(self, settings: Path) -> None:
        """Make the pool."""
        folder = yaml.safe_load(settings.read_text())["data"]
        _run(sys.executable, "-m", "tools.moved_pool", folder, str(self.submissions))
        self.sums = self.count(settings)

    def count(self, settings: Path) -> Counter[tuple[str, str]]:
        """Return the submissions by user and minute, asked for by SQL alone."""
        found = yaml.safe_load(settings.read_text())
        if found.get("store") == "pg":
            rows = postgres().execute(COUNTS, dsn=found["pg_dsn"])
        else:
            import sqlite3

            with sqlite3.connect(Path(found["data"]) / "store.sqlite") as store:
                rows = store.execute(COUNTS).fetchall()
        return Counter({(user, str(minute)): count for user, minute, count in rows})

    def killed(self, old: Path, new: Path, phase: str, pieces: int) -> None:
        """Begin to move, and be killed in a phase."""
        command = [sys.executable, "-m", "tools.dying_move", phase, str(pieces), "whole"]
        command += ["migrate", "--from", str(old), "--to", str(new)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if done.returncode != -9:
            raise Failed(f"not killed in {phase!r}: {done.stdout}{done.stderr}")

    def move(self, old: Path, new: Path) -> None:
        """Move, or go on with it."""
        _run(*KUPOOL, "migrate", "--from", str(old), "--to", str(new))

    def check(self, settings: Path) -> None:
        """Compare the sums with what they were."""
        found = self.count(settings)
        differ = {key for key in found.keys() | self.sums.keys() if found[key] != self.sums[key]}
        if differ:
            raise Failed(f"{len(differ)} users and minutes differ, as {sorted(differ)[:3]}")

    def audit(self, settings: Path) -> None:
        """Compare the counts with the log."""
        _run(*KUPOOL, "audit", "--config", str(settings))

    def work(self, settings: Path) -> None:
        """Have a daemon go on, and one submission more counted."""
        data = yaml.safe_load(settings.read_text())["data"]
        daemon = RunningDaemon(f"--config={settings}", "--interval=0.5s", data=data)
        try:
            daemon.start(timeout=300)
            client = LineClient(daemon, 60)
            client.authorize("somebody")
            job = client.job()  # a new one
            if job["job_id"] <= self.job:
                raise Failed(f"job {job['job_id']} after {self.job}")
            self.job = int(job["job_id"])
            if client.submit(job, "nonce")["result"] is not True:
                raise Failed("a submission was refused")
            client.close()
            daemon.stop()
        finally:
            daemon.kill()
        now = self.count(settings)
        if now.total() != self.sums.total() + 1:
            raise Failed(f"{now.total()} are counted, and {self.sums.total()} were before")
        self.sums = now


def _run(*command: str) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command[-6:])}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def main(arguments: list[str]) -> int:
    """Do it; returns the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=2_000_000)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kupool-migration-") as folder:
        site = Site(Path(folder), given.submissions)
        try:
            _there_and_back(site)
        except Failed as error:
            print(f"FAILED: {error}")
            return 1
    print(f"{given.submissions} submissions there and back: nothing differs")
    return 0


def _there_and_back(site: Site) -> None:
    old, back = site.settings("old"), site.settings("back")
    there = site.settings(
        "there",
        mq="rabbit",
        mq_url=rabbit().new_vhost(),
        store="pg",
        pg_dsn=postgres().new_database(),
    )
    pieces = max(1, site.submissions // PER_BATCH // 500 // 2)
    _step("made", lambda: site.make(old))
    _step("audit before", lambda: site.audit(old))
    _one_way(site, old, there, pieces)
    _one_way(site, there, back, pieces)


def _one_way(site: Site, source: Path, target: Path, pieces: int) -> None:
    steps: dict[str, Callable[[], None]] = {
        "killed in the log": lambda: site.killed(source, target, "Copying the log", pieces),
        "killed in the counts": lambda: site.killed(source, target, "Copying submissions", 1),
        "moved": lambda: site.move(source, target),
        "sums compared": lambda: site.check(target),
        "audit": lambda: site.audit(target),
        "daemon went on": lambda: site.work(target),
        "audit again": lambda: site.audit(target),
    }
    for name, work in steps.items():
        _step(f"{source.stem} to {target.stem}: {name}", work)


def _step(name: str, work: Callable[[], None]) -> None:
    began = time.monotonic()
    work()
    print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
