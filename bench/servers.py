"""The servers that are measured, each a process of its own, pinned to one core."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ECHO = Path(__file__).with_name("echo.py")

#: Nothing is refused for coming too often, and no job changes during a measurement.
UNLIMITED = (
    "--submit-interval=0",
    "--attempts-rate=0",
    "--attempts-burst=0",
    "--max-connections=0",
    "--max-nonces=0",
    "--interval=1h",
)


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return a command that runs on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity") or core >= (os.cpu_count() or 1):
        return list(command)
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, core: int = 0, tree: Path | None = None
) -> Iterator[int]:
    """Run a server until the block ends; yields its pid once it listens.

    ``tree`` is the checkout whose code runs; by default the one that Python finds.
    """
    environment = None if tree is None else {**os.environ, "PYTHONPATH": str(tree)}
    process = subprocess.Popen(
        pinned(core, command), stdout=subprocess.DEVNULL, env=environment, cwd=tree
    )
    try:
        _wait_for(port, process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@contextlib.contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """Run the bare echo; yields (port, pid)."""
    port = free_port()
    with running([sys.executable, str(ECHO), str(port)], port) as pid:
        yield port, pid


@contextlib.contextmanager
def kupool(engine: str, *flags: str, tree: Path | None = None) -> Iterator[tuple[int, int]]:
    """Run the daemon with the log and the counts in an engine; yields (port, pid).

    ``tree`` is the checkout whose code runs; by default the one that Python finds.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="kupool-bench-") as folder:
        command = [
            sys.executable,
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "--nodaemon",
            "--pidfile=",
            "kupool",
            f"--addr=127.0.0.1:{port}",
            "--http=",
            f"--data={folder}/data",
            f"--mq={engine}",
            f"--store={engine}",
            "--log-level=warn",
            *UNLIMITED,
            *flags,
        ]
        with running(command, port, tree=tree) as pid:
            yield port, pid
