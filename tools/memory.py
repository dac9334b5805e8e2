"""Whether memory is bounded: a second million of submissions adds next to nothing to the first.

    python -m tools.memory --submissions 1000000 --connects 20000

So many submissions are accepted for one job, so many clients come and go, and then all jobs
are retired; and all of that again. Prints the resident memory at each point, the bytes of a
remembered nonce while its job lives, and what the second time added that did not go with the
jobs. Ends with status 1 if that is more than five percent, or descriptors are left. ``--warm``
makes the first time smaller than the second, ``--rounds`` adds more of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kupool.wire.framing import Item
from tests.servers.running_daemon import ROOT, UNLIMITED, RunningDaemon
from tools.crowd import Crowd, Peer, decode, submission
from tools.process import complaints, descriptors, megabytes, rss, wait_until

LOADGEN = ROOT.parent / "shared/bench/loadgen.c"

#: Connections that submit, and submissions that each has under way.
CONNECTIONS = 100
DEPTH = 16

#: Submissions after the jobs of the others have ended.
AFTERWARDS = 2000

#: Seconds from the end of the jobs to the measurement: the daemon gives memory back at
#: once and, when timeouts of that time have passed, a minute later again.
PAUSE = 65.0

#: How much more than after the first time may be left.
TOLERANCE = 0.05


class Load:
    """Submits from one process: the compiled generator where there is one."""

    def __init__(self, folder: Path, compiled: bool = True) -> None:
        self._binary: Path | None = None
        if compiled and LOADGEN.exists() and shutil.which("cc"):
            self._binary = folder / "loadgen"
            command = ["cc", "-O2", "-o", str(self._binary), str(LOADGEN), "-lcrypto"]
            subprocess.run(command, check=True)
        self.name = "loadgen.c" if self._binary else "own load"

    def submit(self, daemon: RunningDaemon, submissions: int) -> int:
        """Have about so many submissions accepted; returns how many it were."""
        before = accepted(daemon)
        if self._binary is None:
            _submit(daemon.port, submissions)
        else:
            left, seconds = submissions, 0.2
            while left > submissions * 0.03:
                made = self._generate(daemon.port, seconds)
                left -= made
                seconds = max(0.02, min(30.0, left / max(500.0, made / seconds)))
        settle(daemon)
        return accepted(daemon) - before

    def _generate(self, port: int, seconds: float) -> int:
        command = [str(self._binary), "--port", str(port), "--conns", str(CONNECTIONS)]
        command += ["--depth", str(DEPTH), "--seconds", f"{seconds:.3f}", "--warmup", "0"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        report = json.loads(result.stdout)
        if report["err"]:
            raise SystemExit(f"refused: {report['errors']}")
        return int(report["ok"])


class _Submitter(Peer):
    def __init__(self, crowd: Crowd, port: int, left: list[int], number: int) -> None:
        self._left = left
        self._number = number
        self._job: dict[str, Any] | None = None
        self._serial = time.monotonic_ns()
        Peer.__init__(self, crowd, port)

    def on_connected(self) -> None:
        name = f"u{self._number}"
        self.send({"id": 1, "method": "authorize", "params": {"username": name}})

    def on_item(self, item: Item) -> None:
        message = decode(item)  # type: ignore[arg-type]
        if message.get("method") == "job":
            first, self._job = self._job is None, message["params"]
            for _ in range(DEPTH if first else 0):
                self._submit()
        elif message["id"] != 1:
            if message["result"] is not True:
                raise SystemExit(f"refused: {message}")
            self._submit()

    def _submit(self) -> None:
        if self._left[0] <= 0:
            self.close()
            return
        self._left[0] -= 1
        self._serial += 1
        assert self._job is not None
        self.send(submission(self._serial, self._job, f"{self._number:x}/{self._serial:018x}"))


def _submit(port: int, submissions: int) -> None:
    left = [submissions]
    with Crowd() as crowd:
        peers = [_Submitter(crowd, port, left, i) for i in range(CONNECTIONS)]
        crowd.run(lambda: all(peer.ended for peer in peers), 3600)


class _Visitor(Peer):
    """Comes, authorizes, takes its job and leaves, as long as visits are ``left``."""

    def __init__(self, crowd: Crowd, port: int, left: list[int], gone: list[int]) -> None:
        self._left = left
        self._gone = gone
        self._number = left[0]
        left[0] -= 1
        Peer.__init__(self, crowd, port)

    def on_connected(self) -> None:
        name = f"visitor{self._number}"
        self.send({"id": 1, "method": "authorize", "params": {"username": name}})

    def on_item(self, item: Item) -> None:
        if isinstance(item, bytes) and b'"method":"job"' in item:
            self.close()
            self._gone.append(self._number)
            if self._left[0] > 0:
                _Visitor(self.crowd, self.port, self._left, self._gone)

    def on_ended(self, reason: str) -> None:
        raise SystemExit(f"a visitor was thrown out: {reason}")


def visit(port: int, connects: int) -> None:
    """Have so many clients come, authorize and leave, fifty at a time."""
    left = [connects]
    gone: list[int] = []
    with Crowd() as crowd:
        for _ in range(min(50, connects)):
            _Visitor(crowd, port, left, gone)
        if not crowd.run(lambda: len(gone) == connects, 3600):
            raise SystemExit(f"only {len(gone)} of {connects} visitors were let in")


def accepted(daemon: RunningDaemon) -> int:
    """Return how many submissions the daemon has counted, all told."""
    total: int = daemon.get("/stats")[1]["accepted_total"]
    return total


class Bed:
    """A daemon whose jobs stay for as long as is wanted, and then go."""

    def __init__(
        self, folder: Path, load: Load, extra: tuple[str, ...] = (), pause: float = 0
    ) -> None:
        self._pause = pause
        self._settings = folder / "kupool.json"
        self._keep("1h")
        flags = (*UNLIMITED, "--interval=1h", "--max-nonces=0", f"--config={self._settings}")
        self.daemon = RunningDaemon(*flags, *extra, data=folder / "data", fresh=True)
        self.load = load

    def _keep(self, window: str) -> None:
        self._settings.write_text(json.dumps({"history_window": window}))

    def use(self, submissions: int, connects: int) -> int:
        """Submit, and come and go; returns how many submissions were accepted."""
        done = self.load.submit(self.daemon, submissions)
        visit(self.daemon.port, connects)
        settle(self.daemon)
        return done

    def retire(self) -> None:
        """Let all jobs go but a new one that nobody has submitted for, and go on a little.

        What was last counted, measured and timed stays in memory until there is more.
        """
        self._let_go()
        self.use(AFTERWARDS, AFTERWARDS // 10)
        self._let_go()
        time.sleep(self._pause)

    def _let_go(self) -> None:
        self._reload("1s")
        time.sleep(1.2)
        status, answer = self.daemon.post("/jobs/rotate", {})
        if status != 200:
            raise SystemExit(f"no new job: {answer}")
        settle(self.daemon)
        self._reload("1h")

    def _reload(self, window: str) -> None:
        self._keep(window)
        known = len(self.daemon.lines)
        self.daemon.signal(signal.SIGHUP)
        if not wait_until(lambda: any("Reloaded" in line for line in self.daemon.lines[known:])):
            raise SystemExit("the settings were not reloaded")


def settle(daemon: RunningDaemon) -> None:
    """Wait until connections have ended, counts are committed and nonces are freed."""

    def idle() -> bool:
        status = daemon.get("/shutdown/status")[1]
        return not status["connections"] and not status["log_depth"]

    wait_until(idle, 60)
    time.sleep(1.0)


class Report:
    """What was measured, in bytes."""

    def __init__(self) -> None:
        self.started = self.warm = 0
        self.rounds: list[tuple[int, int, int]] = []
        self.fds: tuple[int, int] = (0, 0)
        self.problems: list[str] = []

    def lines(self) -> list[str]:
        shown = [
            f"resident memory after the start          {megabytes(self.started)}",
            f"resident memory after the first time      {megabytes(self.warm)}",
        ]
        for number, (count, live, retired) in enumerate(self.rounds, 1):
            over = live - self.warm
            left = retired - self.warm
            shown += [
                f"round {number}: accepted                        {count}",
                f"  with their jobs alive                  {megabytes(live)}, "
                f"{over / count:.0f} bytes for each nonce",
                f"  with their jobs retired                {megabytes(retired)}, "
                f"{left / count:.1f} bytes for each nonce, {left / self.warm * 100:+.1f} % "
                "of the figure after the first time",
            ]
        return [
            *shown,
            f"descriptors                              {self.fds[0]} before, {self.fds[1]} after",
            *(self.problems or ["no problem"]),
        ]


def run(
    load: Load,
    *,
    submissions: int,
    connects: int,
    rounds: int,
    warm: float,
    folder: Path,
    extra: tuple[str, ...] = (),
    pause: float = 0,
) -> Report:
    """Do all of it; the first time is a part ``warm`` of a round."""
    report = Report()
    bed = Bed(folder, load, extra, pause)
    with bed.daemon as daemon:
        report.started = rss(daemon)
        bed.use(int(submissions * warm), int(connects * warm))
        bed.retire()
        report.warm, fds = rss(daemon), descriptors(daemon)
        for _ in range(rounds):
            done = bed.use(submissions, connects)
            live = rss(daemon)
            bed.retire()
            report.rounds.append((done, live, rss(daemon)))
        report.fds = (fds, descriptors(daemon))
        report.problems += complaints(daemon)
        if report.fds[1] > fds:
            report.problems.append(f"{report.fds[1] - fds} descriptors are left")
        left = report.rounds[-1][2] / report.warm - 1
        if left > TOLERANCE:
            report.problems.append(f"{left * 100:.1f} % more memory than after the first time")
        if (status := daemon.stop()) != 0:
            report.problems.append(f"the daemon ended with status {status}")
    return report


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--submissions", type=int, default=1_000_000)
    parser.add_argument("--connects", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warm", type=float, default=1.0, help="size of the first time, in rounds")
    parser.add_argument("extra", nargs="*", help="more flags of the daemon, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kupool-memory-") as folder:
        load = Load(Path(folder))
        print(f"{load.name}, {CONNECTIONS} connections, {DEPTH} in flight on each", flush=True)
        report = run(
            load,
            submissions=arguments.submissions,
            connects=arguments.connects,
            rounds=arguments.rounds,
            warm=arguments.warm,
            folder=Path(folder),
            extra=tuple(arguments.extra),
            pause=PAUSE,
        )
    print("\n".join(report.lines()))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
