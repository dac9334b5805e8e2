"""RabbitMQ and PostgreSQL compared with SQLite: the same load on both, in alternating chunks.

``python -m bench.engines`` starts private servers and two daemons, one with ``--mq rabbit --store
pg`` and one with ``--mq sqlite --store sqlite``. It puts chunks of load on them in turn until each
has accepted a million submissions. A chunk is over when all of it is counted. For each engine it
prints the answers per second, the same including the time until all are counted, and the CPU time
per submission of the daemon and, where it counts, of the servers. It also prints the median ratios
of the pairs of chunks.

Then it measures ``kupool audit`` on the data in RabbitMQ and PostgreSQL. It drops the per-minute
tables, measures ``kupool stats rebuild``, and compares the rebuilt tables with the old ones, byte
for byte. Exits with status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.load import CompiledLoad, Row
from tests.servers.running_daemon import ROOT, UNLIMITED, RunningDaemon
from tests.servers.services import PostgresServer, RabbitServer

#: What RabbitMQ and PostgreSQL must reach of the throughput of SQLite.
LEAST_RATIO = 0.5

#: Seconds that an audit may take.
LONGEST_AUDIT = 60.0

_DUMP = (
    "COPY (SELECT * FROM submissions ORDER BY username, timestamp) TO STDOUT",
    "COPY (SELECT * FROM worker_submissions ORDER BY username, worker, timestamp) TO STDOUT",
)


class Chunk(NamedTuple):
    """One chunk of load; times in seconds. ``answered`` are those of the time ``answering``."""

    accepted: int
    answered: int
    answering: float
    counting: float
    daemon_cpu: float
    servers_cpu: float

    @property
    def answered_rate(self) -> float:
        """Answers of ``true`` in a second."""
        return self.answered / self.answering

    @property
    def counted_rate(self) -> float:
        """The same, with the time until all were counted."""
        return self.accepted / (self.answering + self.counting)

    @property
    def cost(self) -> float:
        """Microseconds of the daemon's CPU for one, counting included."""
        return self.daemon_cpu / self.accepted * 1e6


@dataclass
class Engine:
    """A daemon, and what has been measured of it. ``servers`` returns those beside it."""

    name: str
    daemon: RunningDaemon
    servers: Callable[[], list[psutil.Process]]
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """Submissions accepted so far."""
        return sum(chunk.accepted for chunk in self.chunks)

    def run(self, load: CompiledLoad, connections: int, depth: int, seconds: float) -> Chunk:
        """Put one chunk of load on it, and wait until it is counted."""
        accepted = self._accepted()
        before, servers = _cpu([psutil.Process(self.daemon.pid)]), _cpu(self.servers())
        found = load.measure(self.daemon.port, self.daemon.pid, Row(connections, depth), seconds)
        began = time.perf_counter()
        while not self._counted():
            time.sleep(0.02)
        counting = time.perf_counter() - began
        chunk = Chunk(
            self._accepted() - accepted,
            int(found["ok"]),
            float(found["window_s"]),
            counting,
            _cpu([psutil.Process(self.daemon.pid)]) - before,
            _cpu(self.servers()) - servers,
        )
        self.chunks.append(chunk)
        return chunk

    def _accepted(self) -> int:
        total: int = self.daemon.get("/stats")[1]["accepted_total"]
        return total

    def _counted(self) -> bool:
        status = self.daemon.get("/shutdown/status")[1]
        return not (status["log_depth"] or status["spooled"] or status["batches_in_flight"])

    def line(self) -> str:
        """Return what was measured, over all chunks."""
        sums = [sum(column) for column in zip(*self.chunks, strict=True)]
        accepted, answered, answering, counting, daemon, servers = sums
        return (
            f"{self.name:<15} {accepted:>9} accepted  {answered / answering:>8,.0f}/s answered  "
            f"{accepted / (answering + counting):>8,.0f}/s answered and counted  "
            f"daemon {daemon / accepted * 1e6:6.2f} us each  "
            f"servers {servers / accepted * 1e6:6.2f} us each"
        )


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # Backends of the database that ended are in the children's times of the server.
            total += times.user + times.system
    return total


def ratios(ours: Engine, theirs: Engine, what: str) -> list[float]:
    """Return the ratios of the pairs of chunks."""
    pairs = zip(ours.chunks, theirs.chunks, strict=False)
    return [getattr(a, what) / getattr(b, what) for a, b in pairs]


def compare(ours: Engine, theirs: Engine) -> bool:
    """Print both and their ratios; returns whether the target is met."""
    print(ours.line())
    print(theirs.line())
    met = True
    for what, name, target in (
        ("answered_rate", "throughput, answered", LEAST_RATIO),
        ("counted_rate", "throughput, answered and counted", LEAST_RATIO),
        ("cost", "daemon's CPU for a submission", 0.0),
    ):
        found = ratios(ours, theirs, what)
        middle = statistics.median(found)
        verdict = ""
        if target:
            met = met and middle >= target
            verdict = f"  target {target:g} {'met' if middle >= target else 'NOT MET'}"
        print(
            f"ratio: {name:<34} {middle:5.2f}  ({min(found):.2f} to {max(found):.2f}, "
            f"{len(found)} pairs){verdict}",
            flush=True,
        )
    return met


def command(*arguments: str) -> tuple[float, str]:
    """Run a command of ``kupool``; returns the seconds and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "kupool.cli", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    return time.perf_counter() - began, (done.stdout + done.stderr).strip()


def audit_and_rebuild(database: PostgresServer, dsn: str, flags: list[str]) -> bool:
    """Audit, drop the tables, rebuild them, and compare; returns whether all is well."""
    seconds, said = command("audit", *flags)
    met = said == "0 differences" and seconds < LONGEST_AUDIT
    verdict = "met" if met else "NOT MET"
    print(
        f"kupool audit: {said}, {seconds:.1f} s  target {LONGEST_AUDIT:g} s {verdict}", flush=True
    )
    dump = [f"--command={statement}" for statement in _DUMP]
    before = database.psql(dsn, *dump)
    database.psql(dsn, "--command=DROP TABLE submissions, worker_submissions")
    seconds, said = command("stats", "rebuild", *flags)
    after = database.psql(dsn, *dump)
    print(f"kupool stats rebuild: {said}, {seconds:.1f} s")
    for name, text in (("before", before), ("after", after)):
        data = text.encode()
        print(f"  dump {name:<7} {len(data)} bytes  sha256 {sha256(data).hexdigest()}")
    print(f"  {'equal' if before == after else 'NOT EQUAL'}", flush=True)
    return met and before == after


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submissions", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a chunk")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--depth", type=int, default=16, help="submissions in flight on each")
    parser.add_argument("--loadgen", type=Path, default=ROOT.parent / "shared/bench/loadgen.c")
    parser.add_argument("--alone", action="store_true", help="rabbit and PostgreSQL only")
    parser.add_argument("extra", nargs="*", help="more flags of both daemons, after --")
    options = parser.parse_args()
    load = CompiledLoad(options.loadgen, pin=False)
    flags = (*UNLIMITED, "--interval=1h", "--max-nonces=0", *options.extra)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(PostgresServer())
        broker = stack.enter_context(RabbitServer())
        dsn = database.new_database()
        remote = ["--mq=rabbit", f"--mq-url={broker.new_vhost()}", "--store=pg", f"--pg-dsn={dsn}"]
        ours = Engine(
            "rabbit and pg",
            stack.enter_context(RunningDaemon(*remote, *flags, fresh=True)),
            lambda: [*_family(broker.process.pid), *_family(database.process.pid)],
        )
        engines = [ours]
        if not options.alone:
            own = RunningDaemon("--mq=sqlite", "--store=sqlite", *flags, fresh=True)
            engines.append(Engine("sqlite", stack.enter_context(own), list))
        while min(engine.accepted for engine in engines) < options.submissions:
            for engine in engines:
                chunk = engine.run(load, options.connections, options.depth, options.seconds)
                print(
                    f"{engine.name:<15} {chunk.accepted:>8} in {chunk.answering:.2f} s, counted "
                    f"{chunk.counting:.2f} s later, {chunk.cost:.2f} us each",
                    flush=True,
                )
        met = options.alone or compare(*engines)
        if options.alone:
            print(ours.line())
        met = audit_and_rebuild(database, dsn, [f"--data={ours.daemon.data}", *remote]) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
