"""The load generators: the compiled one, and the one that needs no compiler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import psutil

from bench.servers import pinned

#: The core that the load generator runs on; the servers run on core 0.
CORE = 1


class Load(Protocol):
    """Something that puts load on a server."""

    name: str

    def submit(self, port: int, pid: int, connections: int, depth: int, seconds: float) -> float:
        """Submit for some time; returns the server's CPU per answer in microseconds."""

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
        """``pin`` keeps it on one core, away from the server's."""
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

    def submit(self, port: int, pid: int, connections: int, depth: int, seconds: float) -> float:
        """Submit for some time; returns the server's CPU per answer in microseconds."""
        found = self.measure(port, pid, connections, depth, seconds, warmup=0.5)
        return float(found["server"]["cpu_s"] / found["ok"] * 1e6)

    def measure(
        self,
        port: int,
        pid: int,
        connections: int,
        depth: int,
        seconds: float,
        warmup: float = 0.0,
    ) -> dict[str, Any]:
        """Submit for some time; returns all that the load generator found."""
        flags = {
            "--conns": connections,
            "--depth": depth,
            "--seconds": seconds,
            "--warmup": warmup,
        }
        found = self._run(port, pid, *(str(part) for pair in flags.items() for part in pair))
        if found["err"] or not found["ok"]:
            raise SystemExit(f"the server refused submissions: {found['errors']}")
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

    def submit(self, port: int, pid: int, connections: int, depth: int, seconds: float) -> float:
        """Submit for some time; returns the server's CPU per answer in microseconds.

        The CPU of connecting is in it, so the time should not be too short.
        """
        before = _cpu(pid)
        command = [sys.executable, "-m", "kupool.cli", "bench", f"--connect=127.0.0.1:{port}"]
        command += [f"--sessions={connections}", f"--in-flight={depth}", f"--duration={seconds:g}s"]
        done = subprocess.run(pinned(CORE, command), capture_output=True, text=True, check=False)
        found = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        if done.returncode or "accepted" not in found:
            raise SystemExit(f"the load generator failed: {done.stdout}{done.stderr}")
        return (_cpu(pid) - before) / int(found["accepted"].replace(",", "")) * 1e6

    def idle(
        self, port: int, pid: int, connections: int, seconds: float
    ) -> tuple[float | None, float | None]:
        """Nothing that Python could measure without measuring itself."""
        return None, None


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
