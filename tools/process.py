"""What the system says of the daemon's process."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from tests.servers.running_daemon import RunningDaemon

_SERIOUS = ("error", "critical")


def rss(daemon: RunningDaemon) -> int:
    """Return the resident memory of the daemon in bytes."""
    return int(psutil.Process(daemon.pid).memory_info().rss)


def descriptors(daemon: RunningDaemon) -> int:
    """Return the number of the daemon's open descriptors."""
    return int(psutil.Process(daemon.pid).num_fds())


def cpu(daemon: RunningDaemon) -> float:
    """Return the seconds of CPU that the daemon has used."""
    times = psutil.Process(daemon.pid).cpu_times()
    return float(times.user + times.system)


def complaints(daemon: RunningDaemon) -> list[str]:
    """Return the lines of the log that tell of something gone wrong."""
    serious = [str(e) for e in daemon.events() if e.get("level") in _SERIOUS]
    return [line for line in list(daemon.lines) if "Traceback" in line] + serious


def wait_until(ready: Callable[[], object], timeout: float = 20.0) -> bool:
    """Wait until something is so; returns False if that took ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def megabytes(size: float) -> str:
    """Show a number of bytes."""
    return f"{size / 1e6:.1f} MB"
