"""The broker, the database or the queue's leader is killed under a steady load.

    python -m tools.outage broker --seconds 60 --rate 2000
    python -m tools.outage postgres --seconds 60 --rate 2000
    python -m tools.outage leader --rate 2000

A daemon with its log in RabbitMQ and its counts in PostgreSQL, both private; clients that
submit at a fixed rate over real sockets. ``broker`` and ``postgres`` are killed with
SIGKILL and are away for so many seconds; ``leader`` kills the node that leads the quorum
queue of three, and starts it again, ``--kills`` times. Prints how long answers took before,
during and after, what waited where, and what clients were told beside the log and the
counts. Ends with status 1 if something was lost, counted twice or refused, if what waited
did not drain, or (``leader``) if there was no answer for three seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from tests.servers.rabbit_server import SETTLING
from tests.servers.running_daemon import ROOT, UNLIMITED, RunningDaemon
from tests.servers.services import required
from tools.crowd import Crowd
from tools.outages import KINDS, Outage, Sample
from tools.paced import PacedLoad
from tools.process import wait_until
from tools.reconcile import Compared, counts, stream_batches

SESSIONS = 100

#: Seconds of load before the fault, and after what waited has drained.
BEFORE, AFTER = 10.0, 10.0

#: Seconds that draining may take.
PATIENCE = 300.0


class Watch(threading.Thread):
    """Asks the daemon all the time what waits where."""

    def __init__(self, daemon: RunningDaemon, clock: Callable[[], float]) -> None:
        threading.Thread.__init__(self, daemon=True)
        self._daemon = daemon
        self._clock = clock
        self._over = threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        while not self._over.wait(0.1):
            status = self._daemon.get("/shutdown/status")[1]
            self.samples.append(Sample(self._clock(), status["spooled"], status["log_depth"]))

    def stop(self) -> None:
        self._over.set()
        self.join(15)


class Report:
    """What happened."""

    def __init__(self, outage: Outage, load: PacedLoad, watch: Watch) -> None:
        self.outage = outage
        self.load = load
        self.samples = watch.samples
        self.usual = 0
        #: Seconds since the beginning when nothing waited any more; None: it never did.
        self.drained_at: float | None = None
        self.ended_at = 0.0
        self.compared: Compared | None = None
        self.audit = ""
        self.problems: list[str] = []

    def most(self, what: str) -> int:
        """Return the most that waited in the spool or the queue."""
        return max((getattr(sample, what) for sample in self.samples), default=0)

    @property
    def longest_pause(self) -> float:
        """Seconds between two answers that followed each other, at the most."""
        return self.load.pauses[-1][1] if self.load.pauses else 0.0

    def judge(self) -> None:
        """Note all that did not hold."""
        load, compared = self.load, self.compared
        found = [*load.problems[:10], *self.outage.failures(self)]
        if load.refused:
            found.append(f"refused: {dict(load.refused)}")
        if load.unanswered:
            found.append(f"{load.unanswered} were never answered")
        if self.drained_at is None:
            found.append("what waited did not drain")
        if compared is None or compared.differences.count:
            found.append("clients, log and counts do not agree")
        if not self.audit.endswith("\n0 differences"):
            found.append(f"kupool audit: {self.audit}")
        self.problems += found

    def lines(self) -> list[str]:
        """Return the report as text."""
        load, spans, (*_, said) = self.load, self.outage.spans, self.outage.said
        began, back = spans[0][0], spans[-1][1]
        after = max(back, self.drained_at or 0.0)
        when, pause = load.pauses[-1]
        drained = "never" if self.drained_at is None else f"{self.drained_at - back:.1f} s"
        return [
            f"submissions                        {len(load.due)} in {self.ended_at:.1f} s, "
            f"{len(load.sessions)} sessions",
            "away                               "
            + ", ".join(f"{start:.1f} s to {end:.1f} s" for start, end in spans),
            f"refused                            {sum(load.refused.values())}",
            f"not answered                       {load.unanswered}",
            "answer times                       p50 / p99 / longest, by when it was due",
            f"  before                           {_times(load, 0.0, began)}",
            f"  while away                       {_times(load, began, back)}",
            f"  while draining                   {_times(load, back, after)}",
            f"  after                            {_times(load, after, self.ended_at)}",
            f"longest pause between answers      {pause:.3f} s, until {when:.1f} s",
            f"/ready while away                  {said[0]} {json.dumps(said[1])}",
            "batches in the spool               " + _curve(self.samples, "spooled"),
            "batches to be counted              " + _curve(self.samples, "depth"),
            f"drained after it was back          {drained}",
            *(self.compared.lines() if self.compared else []),
            f"kupool audit                       {self.audit}",
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


def _curve(samples: list[Sample], what: str) -> str:
    """Show what waited at some twenty moments."""
    step = max(1, len(samples) // 20)
    return " ".join(f"{sample.at:.0f}s:{getattr(sample, what)}" for sample in samples[::step])


def run(
    outage: Outage,
    rate: float,
    *,
    before: float = BEFORE,
    after: float = AFTER,
    sessions: int = SESSIONS,
    extra: tuple[str, ...] = (),
) -> Report:
    """Do all of it; returns what was found."""
    with contextlib.ExitStack() as stack:
        with required():
            database = outage.start_database(stack)
            outage.urls = outage.start_broker(stack)
        dsn = database.new_database()
        engines = ["--mq=rabbit", f"--mq-url={','.join(outage.urls)}"]
        engines += ["--store=pg", f"--pg-dsn={dsn}"]
        daemon = stack.enter_context(RunningDaemon(*engines, *UNLIMITED, *extra))
        made = time.monotonic()
        crowd = stack.enter_context(Crowd())
        load = PacedLoad(crowd, daemon.port, sessions, rate)
        load.begin()
        watch = Watch(daemon, lambda: load.now)
        watch.start()
        stack.callback(watch.stop)
        report = Report(outage, load, watch)
        # A quorum queue must be known for a while before its node is killed.
        before = max(before, made + SETTLING - time.monotonic())
        _act(report, crowd, daemon, watch, before, after)
        load.stop()
        report.ended_at = load.now
        _compare(report, daemon, engines, dsn)
        watch.stop()
        if (status := daemon.stop()) != 0:
            report.problems.append(f"the daemon ended with status {status}")
        report.problems += [line for line in daemon.lines if "Traceback" in line]
    report.judge()
    return report


def _act(
    report: Report,
    crowd: Crowd,
    daemon: RunningDaemon,
    watch: Watch,
    before: float,
    after: float,
) -> None:
    """Let the load run, strike in the middle of it, and wait until nothing waits."""
    outage, load = report.outage, report.load
    failed: list[BaseException] = []

    def strike() -> None:
        try:
            outage.strike(lambda: load.now, lambda: daemon.get("/ready"))
        except BaseException as error:
            failed.append(error)

    crowd.run_for(before)
    report.usual = report.most("depth")
    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    while thread.is_alive():
        crowd.turn()
    if failed:
        raise failed[0]
    seen = len(watch.samples)

    def drained() -> bool:
        for sample in watch.samples[seen:]:
            if outage.drained(sample, report.usual):
                report.drained_at = sample.at
                return True
        return False

    crowd.run(drained, PATIENCE)
    crowd.run_for(after)


def _compare(report: Report, daemon: RunningDaemon, engines: list[str], dsn: str) -> None:
    """Wait until all is counted, and compare."""

    def settled() -> bool:
        status = daemon.get("/shutdown/status")[1]
        return not (status["spooled"] or status["log_depth"])

    wait_until(settled, PATIENCE)
    # The last commit may still be under way.
    wait_until(lambda: sum(counts(dsn).values()) >= len(report.load.told), 10.0)
    url = report.outage.urls[0]
    report.compared = Compared(
        report.load.told, stream_batches(url), counts(dsn), report.load.unanswered
    )
    audit = subprocess.run(
        [sys.executable, "-m", "kupool.cli", "audit", f"--data={daemon.data}", *engines],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    report.audit = (audit.stdout + audit.stderr).strip()


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seconds", type=float, help="how long it is away; 60, a leader 10")
    parser.add_argument("--rate", type=float, default=2000, help="submissions a second")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--kills", type=int, default=3, help="how often a leader is killed")
    parser.add_argument("--before", type=float, default=BEFORE, help="seconds before it")
    parser.add_argument("--after", type=float, default=AFTER, help="seconds after it")
    parser.add_argument("extra", nargs="*", help="more flags of the daemon, after --")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (10.0 if arguments.kind == "leader" else 60.0)
    report = run(
        KINDS[arguments.kind](seconds, arguments.kills),
        arguments.rate,
        before=arguments.before,
        after=arguments.after,
        sessions=arguments.sessions,
        extra=tuple(arguments.extra),
    )
    print("\n".join(report.lines()))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
