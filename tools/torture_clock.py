"""A wall clock of the daemon's own, which can be set while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from unittest import SkipTest

MINUTE, DAY = 60, 86_400

#: How far the clock is set, by the name of the step, in seconds.
STEPS: Mapping[str, int] = {
    f"{sign}{name}": factor * seconds
    for name, seconds in (("10min", 10 * MINUTE), ("1d", DAY), ("40d", 40 * DAY))
    for sign, factor in (("+", 1), ("-", -1))
}

#: Seconds after which a process that runs has seen a step.
SEEN = 2.1

#: Days on which a clock wakes up that has never been set, or was set wrongly.
FIRST_DAY = 2 * DAY
LAST_DAY = 4_070_908_800  # 2099-01-01


def find_library() -> Path:
    """Return the library of libfaketime; raises SkipTest where there is none."""
    for root in ("/usr/lib", "/usr/local/lib"):
        for path in Path(root).glob("**/faketime/libfaketimeMT.so.1"):
            return path
    raise SkipTest("libfaketime is not installed (apt-get install libfaketime)")


class Clock:
    """The wall clock of processes that get :attr:`environment`; all others keep theirs.

    Only the wall clock moves: CLOCK_MONOTONIC and CLOCK_BOOTTIME stay as they are, and so do
    the times of files.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is where it keeps its file."""
        self._file = folder / "clock"
        self.offset = 0
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(find_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # To read the file for each look at the clock would take most of the daemon's time.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, offset: int) -> None:
        """Let the clock be so many seconds ahead of the true time; never before 1970.

        A process that runs sees it :data:`SEEN` seconds later at the latest.
        """
        self.offset = max(offset, 3600 - int(time.time()))
        new = self._file.with_name("clock.new")
        new.write_text(f"{self.offset:+d}")
        os.replace(new, self._file)

    def step(self, by: int) -> None:
        """Set it forward, or back."""
        self.set(self.offset + by)

    def show(self, at: int) -> None:
        """Let it show a time now, in seconds since the epoch."""
        self.set(at - int(time.time()))


def forget(pid: int) -> None:
    """Remove what libfaketime leaves in shared memory for a process that was killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)


__all__ = ["DAY", "FIRST_DAY", "LAST_DAY", "SEEN", "STEPS", "Clock", "find_library", "forget"]
