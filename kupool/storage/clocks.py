"""Clocks of the machine that neither operators nor time servers set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: 2024-01-01 in seconds since the epoch: a wall clock with an earlier time is wrong.
YEAR_2024 = 1_704_067_200.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STAT = Path("/proc/self/stat")

#: The field of ``/proc/self/stat`` with the ticks from the boot to the start of the process,
#: counted from what follows the command in brackets.
_STARTED = 19


def since_boot() -> float:
    """Return the seconds since the boot, including the time that the machine slept.

    If the system has no such clock, returns the monotonic clock.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def read_boot_id() -> str:
    """Return the id of this boot of the machine; empty if the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def process_started(path: Path = _STAT) -> float | None:
    """Return when this process began, in seconds since the boot; None if that is unknown."""
    try:
        fields = path.read_text("ascii", "replace").rpartition(")")[2].split()
        return int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


@dataclass(frozen=True)
class BootClock:
    """Seconds since the boot with this id. Without an id they cannot be compared later."""

    boot_id: str
    seconds: Callable[[], float]
    #: When the process began, on the same clock.
    started: float | None = None


def this_boot() -> BootClock:
    """Return the clock of this machine since its boot."""
    return BootClock(read_boot_id(), since_boot, process_started())


__all__ = [
    "YEAR_2024",
    "BootClock",
    "process_started",
    "read_boot_id",
    "since_boot",
    "this_boot",
]
