"""One client of a thousand never reads: does it delay the others' jobs?

    python -m tools.slow_reader --clients 1000 --rounds 10

Rounds with the slow reader and without alternate, on one daemon. A client's delay is
the time from the first receipt of a job by anyone to its own; a job's figure is the
99th percentile over its clients, and what is compared is the median over all jobs: one
job during which the machine was busy elsewhere is not to decide. The 99th percentile
over all clients of all jobs is printed too. The slow reader asks for as much as it is
let, so that answers pile up, and comes back whenever it has been cut off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

from kupool.wire.framing import Control, Item, encode_frame
from tests.servers.running_daemon import UNLIMITED, RunningDaemon
from tools.crowd import Crowd, Peer, decode
from tools.process import complaints, megabytes, rss

#: Requests written at once by the slow reader, and seconds between two writes.
PINGS = 500
PAUSE = 0.02

#: A request that is answered with nearly as many bytes.
PING = encode_frame(b'{"id":"' + b"x" * 60 + b'","method":"ping"}')


class Jobs:
    """When each job came to whom; delays are in seconds."""

    def __init__(self) -> None:
        self.first: dict[int, float] = {}
        self.delays: dict[int, list[float]] = {}
        self.listening = False

    def came(self, job_id: int) -> None:
        now = time.perf_counter()
        if not self.listening:
            return
        first = self.first.setdefault(job_id, now)
        self.delays.setdefault(job_id, []).append(now - first)


class Listener(Peer):
    """A client that reads at once, and submits nothing."""

    def __init__(self, crowd: Crowd, port: int, jobs: Jobs, number: int) -> None:
        self._jobs = jobs
        self._name = f"u{number}"
        self.job_ids: list[int] = []
        self.reason = ""
        Peer.__init__(self, crowd, port)

    def on_connected(self) -> None:
        self.send({"id": 1, "method": "authorize", "params": {"username": self._name}})

    def on_item(self, item: Item) -> None:
        if isinstance(item, bytes) and b'"method":"job"' in item:
            job_id = decode(item)["params"]["job_id"]
            if self.job_ids:  # the first is the one sent at authorize
                self._jobs.came(job_id)
            self.job_ids.append(job_id)

    def on_ended(self, reason: str) -> None:
        self.reason = reason


class SlowReader(Peer):
    """Asks and asks, and reads nothing, until :meth:`read_on`."""

    def __init__(self, crowd: Crowd, port: int, pings: int = PINGS) -> None:
        self._pings = pings
        self.asked = self.answers = 0
        self.ends: list[str] = []
        self.last_words: list[Any] = []
        self.began = time.monotonic()
        self.blocked_at = 0.0
        self._untaken = 0
        Peer.__init__(self, crowd, port, receive_buffer=2048, reading=False)

    def on_connected(self) -> None:
        self.send({"id": 1, "method": "authorize", "params": {"username": "slow"}})
        self._ask()

    def _ask(self) -> None:
        if self.ended or self.reading:
            return
        if not self.backlog:
            self.asked += self._pings
            self.send_raw(PING * self._pings)
            if self.backlog and not self.ended:
                self.blocked_at = time.monotonic()
        self.crowd.call_later(PAUSE, self._ask)

    @property
    def taken(self) -> int:
        """How many whole requests the kernel has taken."""
        return self.asked - -(-self._untaken // len(PING))

    def read_on(self) -> None:
        """Ask no more, and read from now on what there still is."""
        self._untaken = self.backlog
        self.reading = True
        self._out.clear()
        self._watch()

    def on_item(self, item: Item) -> None:
        if isinstance(item, Control):
            self.last_words.append((item.opcode, item.payload))
        elif isinstance(item, bytes) and item.startswith(b'{"id":"'):
            self.answers += 1

    def on_ended(self, reason: str) -> None:
        self.ends.append(reason)


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    return sorted(values)[(len(values) * percent - 1) // 100]


class Round:
    """One round: with the slow reader or without."""

    def __init__(self, jobs: Jobs, slow: bool, clients: int) -> None:
        self.slow = slow
        self.jobs = len(jobs.delays)
        self.all = [delay * 1000 for delays in jobs.delays.values() for delay in delays]
        #: The 99th percentile of each job that came to all.
        self.by_job = [
            percentile(delays, 99) * 1000
            for delays in jobs.delays.values()
            if len(delays) == clients
        ]
        #: Jobs that somebody never got, those at the edges of the round not counted.
        inner = sorted(jobs.delays)[1:-1]
        self.incomplete = sum(len(jobs.delays[job_id]) != clients for job_id in inner)

    def line(self) -> str:
        kind = "with   " if self.slow else "without"
        return (
            f"{kind}  {self.jobs:3d} jobs  p50 {percentile(self.all, 50):7.3f} ms  "
            f"p99 {percentile(self.all, 99):7.3f} ms  most {max(self.all):7.3f} ms  "
            f"median of the jobs' p99 {statistics.median(self.by_job):7.3f} ms  "
            f"incomplete {self.incomplete}"
        )


class Stage:
    """A daemon, its listeners, and perhaps a slow reader."""

    def __init__(self, daemon: RunningDaemon, crowd: Crowd, clients: int) -> None:
        self.daemon = daemon
        self.crowd = crowd
        self.jobs = Jobs()
        self.listeners: list[Listener] = []
        for number in range(clients):
            self.listeners.append(Listener(crowd, daemon.port, self.jobs, number))
            if number % 100 == 99:
                crowd.run(lambda: all(one.job_ids for one in self.listeners), 10)
        if not crowd.run(lambda: all(one.job_ids for one in self.listeners), 20):
            raise SystemExit("not every client was given a job")
        self.slow: SlowReader | None = None
        #: Slow readers that the daemon has stopped reading from, and has cut off.
        self.stopped = self.closed = 0

    def keep_slow(self, wanted: bool) -> None:
        """Have a slow reader, a new one if it was closed; or none."""
        if self.slow is not None and (self.slow.ended or not wanted):
            self.closed += self.slow.ended
            self.stopped += bool(self.slow.blocked_at)
            self.slow.close()
            self.slow = None
        if wanted and self.slow is None:
            self.slow = SlowReader(self.crowd, self.daemon.port)

    def measure(self, slow: bool, seconds: float) -> Round:
        """Measure one round."""
        self.keep_slow(slow)
        # Time to fill its buffers, and the same pause without it.
        self.crowd.run_for(1.5)
        self.jobs.first.clear()
        self.jobs.delays.clear()
        self.jobs.listening = True
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.crowd.turn()
            if slow and self.slow is not None and self.slow.ended:
                self.keep_slow(True)
        self.jobs.listening = False
        return Round(self.jobs, slow, len(self.listeners))


def run(clients: int, rounds: int, seconds: float, interval: str, timeout: str) -> int:
    """Measure and print; returns the exit status."""
    prefix: tuple[str, ...] = ()
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        prefix = ("taskset", "-c", "0")
        os.sched_setaffinity(0, {1})
    # The listeners say nothing after they have authorized, for as long as it takes.
    flags = (*UNLIMITED, "--idle-timeout=0", f"--interval={interval}", f"--write-timeout={timeout}")
    found: dict[bool, list[Round]] = {False: [], True: []}
    with RunningDaemon(*flags, prefix=prefix) as daemon, Crowd() as crowd:
        stage = Stage(daemon, crowd, clients)
        stage.measure(True, 3.0)
        stage.measure(False, 3.0)
        memory = [rss(daemon)]
        for number in range(2 * rounds):
            # without, with, with, without, ...: a drift of the machine hits both.
            slow = number % 4 in (1, 2)
            one = stage.measure(slow, seconds)
            if not one.by_job:
                raise SystemExit("no job came to everyone")
            found[slow].append(one)
            memory.append(rss(daemon))
            print(one.line(), flush=True)
        stage.keep_slow(False)
        lost = sum(one.ended for one in stage.listeners)
        problems = complaints(daemon)
    change = _compare(found)
    incomplete = sum(r.incomplete for both in found.values() for r in both)
    print(f"slow readers stopped: {stage.stopped}, cut off: {stage.closed}; others lost: {lost}")
    print(f"resident memory: {megabytes(memory[0])} at first, {megabytes(max(memory))} at most")
    print("\n".join(problems) or "no error in the log")
    return 1 if problems or lost or incomplete or change >= 10 else 0


def _compare(found: dict[bool, list[Round]]) -> float:
    """Print both kinds of rounds side by side; returns the change in percent."""
    figures = []
    for rounds in (found[False], found[True]):
        by_job = [value for one in rounds for value in one.by_job]
        figures.append(
            (
                percentile([value for one in rounds for value in one.all], 99),
                statistics.median(by_job),
                len(by_job),
            )
        )
    (all_without, without, jobs), (all_with, beside, others) = figures
    change = (beside / without - 1) * 100
    print(f"median of the jobs' p99: {without:.3f} ms without ({jobs} jobs),", end=" ")
    print(f"{beside:.3f} ms with ({others} jobs): {change:+.1f} %")
    print(f"p99 of all: {all_without:.3f} ms without, {all_with:.3f} ms with:", end=" ")
    print(f"{(all_with / all_without - 1) * 100:+.1f} %")
    return change


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8, help="rounds of each kind")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a round")
    parser.add_argument("--interval", default="500ms", help="time between jobs")
    parser.add_argument("--timeout", default="3s", help="the daemon's write timeout")
    return run(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
