"""The load generators: the compiled one, and the one that needs no compiler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from bench.servers import pinned

#: The core that the load generator runs on; the servers run on core 0.
CORE = 1


class Row(NamedTuple):
    """A load on a server.

    Each connection keeps ``depth`` submissions in flight, or, with a ``rate``, sends that
    many a second whether they are answered or not: an *open loop*. Those of a ``rejected``
    row have a wrong result.
    """

    connections: int
    depth: int = 1
    rate: float = 0.0
    rejected: bool = False

    @property
    def name(self) -> str:
        """Return what the row is called."""
        how = f"{self.rate:g}/s each" if self.rate else f"{self.depth} in flight"
        return f"{self.connections} connections, {how}" + ", rejected" * self.rejected


class Cost(NamedTuple):
    """What an answer took: microseconds of the server's CPU, and milliseconds of time.

    Half of the answers took ``p50`` at most, all but a hundredth ``p99``; None where that was
    not measured. In an open loop a submission's time begins when it was due.
    """

    cpu: float
    p50: float | None = None
    p99: float | None = None


class Load(Protocol):
    """Something that puts load on a server."""

    name: str

    def submit(self, port: int, pid: int, row: Row, seconds: float) -> Cost:
        """Submit for some time; returns what an answer took.

        Raises :class:`SystemExit` where answers are not what they should be.
        """

    def idle(
        self, port: int, pid: int, connections: int, seconds: float
    ) -> tuple[float | None, float | None]:
        """Only listen; returns the median spread of a job in ms, and the KB of memory
        that a connection costs, or None for what cannot be measured.
        """


class CompiledLoad:
    """The load generator in C, compiled when it is made."""

    name = "load generator in C"

    def __init__(self, source: Path, pin: bool = True) -> None:
        """``pin`` keeps it on one core, away from the server's.

        Raises :class:`SystemExit` if there is no ``source``.
        """
        if not source.exists():
            raise SystemExit(f"{source}: no such file; this needs the compiled load generator")
        self._pin = pin
        folder = Path(__file__).with_name(".build")
        folder.mkdir(exist_ok=True)
        self._binary = folder / "loadgen"
        subprocess.run(["cc", "-O2", "-o", str(self._binary), str(source), "-lcrypto"], check=True)

    def _run(self, port: int, pid: int, *flags: str) -> dict[str, Any]:
        command = [str(self._binary), "--port", str(port), "--server-pid", str(pid), *flags]
        command = pinned(CORE, command) if self._pin else command
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the load generator failed: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def submit(self, port: int, pid: int, row: Row, seconds: float) -> Cost:
        """Submit for some time; returns what an answer took."""
        # An open loop's first answers are late, as all of its connections have just come.
        found = self.measure(port, pid, row, seconds, warmup=2.0 if row.rate else 0.5)
        took = found["latency_us"]
        cpu = found["server"]["cpu_s"] / (found["ok"] + found["err"]) * 1e6
        return Cost(cpu, took["p50"] / 1000, took["p99"] / 1000)

    def measure(
        self, port: int, pid: int, row: Row, seconds: float, *, warmup: float = 0.0
    ) -> dict[str, Any]:
        """Submit for some time; returns all that the load generator found.

        Raises :class:`SystemExit` where answers are not what they should be.
        """
        flags = {
            "--conns": row.connections,
            "--depth": row.depth,
            "--rate": row.rate,
            "--mode": "bad" if row.rejected else "submit",
            "--seconds": seconds,
            "--warmup": warmup,
        }
        found = self._run(port, pid, *(str(part) for pair in flags.items() for part in pair))
        wanted, other = ("err", "ok") if row.rejected else ("ok", "err")
        if found[other] or not found[wanted]:
            raise SystemExit(f"{found['ok']} were accepted, refused were {found['errors']}")
        return found

    def idle(
        self, port: int, pid: int, connections: int, seconds: float
    ) -> tuple[float | None, float | None]:
        """Only listen."""
        found = self._run(
            port, pid, "--conns", str(connections), "--idle", "--seconds", str(seconds)
        )
        return found["jobs"]["spread_ms"]["median"], found["server"]["rss_kb_per_conn"]


class PythonLoad:
    """``kupool bench``."""

    name = "load generator in Python"

    def submit(self, port: int, pid: int, row: Row, seconds: float) -> Cost:
        """Submit for some time; returns what an answer took.

        The CPU of connecting is in it, so the time should not be too short. Raises
        :class:`SystemExit` for a row that only the compiled one can do.
        """
        if row.rate or row.rejected:
            raise SystemExit(f"{row.name}: this needs the compiled load generator")
        before = _cpu(pid)
        command = [sys.executable, "-m", "kupool.cli", "bench", f"--connect=127.0.0.1:{port}"]
        command += [
            f"--sessions={row.connections}",
            f"--in-flight={row.depth}",
            f"--duration={seconds:g}s",
        ]
        done = subprocess.run(pinned(CORE, command), capture_output=True, text=True, check=False)
        found = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        if done.returncode or "accepted" not in found:
            raise SystemExit(f"the load generator failed: {done.stdout}{done.stderr}")
        return Cost((_cpu(pid) - before) / int(found["accepted"].replace(",", "")) * 1e6)

    def idle(
        self, port: int, pid: int, connections: int, seconds: float
    ) -> tuple[float | None, float | None]:
        """Nothing that Python could measure without measuring itself."""
        return None, None


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
