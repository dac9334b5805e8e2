"""A backup is made under a steady load, and put back elsewhere after the daemon was killed.

    python -m tools.backup --rate 2000 --seconds 20 --ballast 500

Clients submit at a fixed rate over real sockets while ``kupool backup`` runs; ``--ballast``
makes the log that many megabytes larger, so that it runs for a while. Then the daemon is
killed, the backup restored into another folder, and a daemon started there. Prints how long
answers took before, during and after, and what was found. Ends with status 1 if something that
was answered before the backup is not in it, if what is counted is not what is in the log, if a
nonce that was used is accepted again for a job of before, or if a job id comes again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kupool.wire.batches import Batch, decode_batch
from kupool.wire.messages import split_username
from tests.servers.pool_load import counted
from tests.servers.running_daemon import ROOT, UNLIMITED, LineClient, RunningDaemon
from tools.crowd import Crowd
from tools.paced import PacedLoad, Told
from tools.process import wait_until

SESSIONS = 100

#: Nonces that are tried again: the first, the last, and others between.
TRIED_AGAIN = 600

#: Seconds without an answer after which counting is given up.
PATIENCE = 60.0

#: Bytes of a row of the ballast.
ROW = 100_000


class Report:
    """What happened."""

    def __init__(self, load: PacedLoad) -> None:
        self.load = load
        self.began = self.ended = 0.0
        self.manifest: dict[str, int] = {}
        self.size = 0
        self.said: list[str] = []
        self.in_backup = self.told_before = self.tried_again = 0
        self.answers: Counter[str] = Counter()
        self.problems: list[str] = []

    def unless(self, fine: object, problem: str) -> None:
        if not fine:
            self.problems.append(problem)

    def lines(self) -> list[str]:
        """Return the report as text."""
        load = self.load
        return [
            f"submissions                    {len(load.due)} in {load.now:.1f} s, "
            f"{len(load.sessions)} sessions, {sum(load.refused.values())} refused",
            f"backup                         {self.ended - self.began:.2f} s for the command, "
            f"{self.size / 1e6:.1f} MB",
            "answer times                   p50 / p99 / longest, by when it was due",
            f"  before                       {_times(load, 0.0, self.began)}",
            f"  during                       {_times(load, self.began, self.ended)}",
            f"  after                        {_times(load, self.ended, load.now)}",
            f"in the backup                  {self.in_backup} submissions, of them "
            f"{self.told_before} answered before it began",
            f"answered true in all           {len(load.told)}",
            f"tried again after the restore  {self.tried_again}: {dict(self.answers)}",
            *(f"  {line}" for line in self.said),
            *(f"FAILED: {problem}" for problem in self.problems),
            *([] if self.problems else ["all of it holds"]),
        ]


def _times(load: PacedLoad, start: float, end: float) -> str:
    times = load.answer_times(start, end)
    if not times:
        return "none"
    middle, high = times[len(times) // 2], times[int(len(times) * 0.99)]
    figures = " / ".join(f"{t * 1000:.1f}" for t in (middle, high, times[-1]))
    return f"{figures} ms ({len(times)} answers)"


def run(rate: float, seconds: float, *, ballast: int = 0, sessions: int = SESSIONS) -> Report:
    """Do all of it; ``seconds`` go before the backup and half of that after it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-test-")))
        data, target, new = folder / "data", folder / "backup", folder / "elsewhere"
        if ballast:
            _weigh_down(data, ballast)
        daemon = stack.enter_context(RunningDaemon("--interval=2s", *UNLIMITED, data=data))
        crowd = stack.enter_context(Crowd())
        load = PacedLoad(crowd, daemon.port, sessions, rate)
        report = Report(load)
        load.begin()
        crowd.run(lambda: load.now >= seconds, seconds + 30)
        before = len(load.told)
        _back_up(report, crowd, data, target)
        crowd.run(lambda: load.now >= report.ended + seconds / 2, seconds + 30)
        load.stop()
        daemon.kill()
        used = _check(report, target, load.told[:before])
        report.said.append(_kupool(report, 0, "restore", f"--data={new}", str(target)))
        again = stack.enter_context(RunningDaemon("--interval=2s", *UNLIMITED, data=new))
        added = _try_again(report, again, load)
        report.unless(
            wait_until(lambda: _waiting(again) == 0, PATIENCE), "not all of the log is counted"
        )
        report.unless(again.stop() == 0, "the daemon did not stop in order")
        _compare(report, used + added, counted(new))
        report.said.append(_kupool(report, 0, "audit", f"--data={new}"))
        return report


def _weigh_down(data: Path, megabytes: int) -> None:
    with RunningDaemon(data=data) as daemon:
        daemon.stop()
    with contextlib.closing(sqlite3.connect(data / "log.sqlite")) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE ballast (body BLOB)")
        rows = ((os.urandom(ROW),) for _ in range(megabytes * 1_000_000 // ROW))
        connection.executemany("INSERT INTO ballast VALUES (?)", rows)
        connection.commit()


def _back_up(report: Report, crowd: Crowd, data: Path, target: Path) -> None:
    report.began = report.load.now
    process = subprocess.Popen(
        [*_COMMAND, "backup", f"--data={data}", str(target)],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    crowd.run(lambda: process.poll() is not None, 600)
    report.ended = report.load.now
    said = process.communicate()[0].strip()
    report.said.append(re.sub(r"/\S*/", "", said))
    report.unless(process.returncode == 0, f"the backup failed: {said}")


def _check(report: Report, target: Path, told: Sequence[Told]) -> Counter[str]:
    """See that the backup is good and complete; returns what is in it of each user."""
    _kupool(report, 0, "backup", "--check", str(target))
    manifest = json.loads((target / "backup.json").read_bytes())
    report.size = sum(file["size"] for file in manifest["files"].values())
    keys: Counter[tuple[str, int, str]] = Counter()
    for batch in _batches(target):
        keys.update(zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True))
    report.in_backup, report.told_before = len(keys), len(told)
    report.unless(max(keys.values()) == 1, "a submission is in the log twice")
    lost = sum((one.username, one.job_id, one.nonce) not in keys for one in told)
    report.unless(not lost, f"{lost} answered true before the backup are not in it")
    return Counter(split_username(name)[0] for name, _, _ in keys)


def _batches(folder: Path) -> list[Batch]:
    with contextlib.closing(sqlite3.connect(folder / "log.sqlite")) as connection:
        rows = connection.execute("SELECT body FROM entries ORDER BY position").fetchall()
    return [decode_batch(body) for (body,) in rows]


def _try_again(report: Report, daemon: RunningDaemon, load: PacedLoad) -> Counter[str]:
    """Submit used nonces for jobs of before, and new ones for the new job."""
    told, added = load.told, Counter[str]()
    newest = max(one.job_id for one in told)
    step = max(1, len(told) // TRIED_AGAIN)
    nonces = load.server_nonces
    clients: dict[str, LineClient] = {}
    for one in [*told[::step], *told[-20:]]:
        client = clients.get(one.username)
        if client is None:
            client = clients[one.username] = LineClient(daemon)
            job = client.authorize(one.username)
            report.unless(job["job_id"] > newest, f"job {job['job_id']} after job {newest}")
            answer = client.submit(job, one.nonce)
            report.unless(answer["result"] is True, f"a new job refuses {answer}")
            added[split_username(one.username)[0]] += 1
        old = {"job_id": one.job_id, "server_nonce": nonces[one.job_id]}
        answer = client.submit(old, one.nonce)
        report.answers[answer.get("error", "true")] += 1
        report.tried_again += 1
    for client in clients.values():
        client.close()
    report.unless(not report.answers["true"], f"{report.answers['true']} were accepted again")
    return added


def _compare(report: Report, expected: Counter[str], found: dict[str, int]) -> None:
    names = expected.keys() | found.keys()
    wrong = {n: (expected[n], found.get(n, 0)) for n in names if expected[n] != found.get(n, 0)}
    report.unless(not wrong, f"in the log and counted, by user: {wrong}")


def _waiting(daemon: RunningDaemon) -> int:
    return int(daemon.get("/shutdown/status")[1]["log_depth"])


_COMMAND = (sys.executable, "-c", "import sys; from kupool.cli import main; sys.exit(main())")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def _kupool(report: Report, status: int, *arguments: str) -> str:
    done = subprocess.run(
        [*_COMMAND, *arguments], env=_environment(), capture_output=True, text=True, timeout=600
    )
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    report.unless(done.returncode == status, f"kupool {' '.join(arguments)}: {said}")
    return re.sub(r"/\S*/", "", said)


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--ballast", type=int, default=0, metavar="MB")
    arguments = parser.parse_args()
    report = run(
        arguments.rate, arguments.seconds, ballast=arguments.ballast, sessions=arguments.sessions
    )
    print("\n".join(report.lines()))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
