"""The clocks of a machine that no operator and no time server can set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: 2024-01-01 in seconds since the epoch: a wall clock that shows less is wrong.
YEAR_2024 = 1_704_067_200.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STAT = Path("/proc/self/stat")

#: The field of ``/proc/self/stat`` with the ticks from the boot to the start of the process,
#: counted from what follows the command in brackets.
_STARTED = 19


def since_boot() -> float:
    """Return the seconds since the boot, also those that the machine slept.

    Where the system has no such clock: of the monotonic one.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def read_boot_id() -> str:
    """Return the id of this boot of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def process_started(path: Path = _STAT) -> float | None:
    """Return when this process began, in seconds since the boot; None where nobody knows."""
    try:
        fields = path.read_text("ascii", "replace").rpartition(")")[2].split()
        return int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


@dataclass(frozen=True)
class BootClock:
    """Seconds since the boot of this id. Without an id nobody can compare them later."""

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
