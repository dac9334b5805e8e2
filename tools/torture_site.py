"""The site of the torture: the daemon with its folder, its clock, and the way to it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.servers.own_process import ServerFailed, free_port
from tests.servers.running_daemon import TWISTD, UNLIMITED, RunningDaemon, StartFailed
from tools.process import wait_until
from tools.torture_accounts import Accounts, Row
from tools.torture_clock import Clock, forget
from tools.torture_disk import Disk
from tools.torture_load import Books
from tools.torture_proxy import OPEN, Proxy

#: Old entries and rows are cleared away all the time, not every ten minutes: what may not be
#: dropped has to outlive that.
_CLEARS_OFTEN = f"import kupool.daemon.housekeeping as h; h.CLEAR = 1.0; {TWISTD}"

#: Seconds that a start, and an end, may take on a machine that does much else.
_PATIENCE = 120.0

#: Seconds that a daemon has to take submissions again when what it missed is back.
_RECOVERY = 3.0

#: What the daemon says when it ends and leaves something to be counted at its next start.
_LEFT = ("left in the log; the next start counts them", "Stop: the step counting")

#: How often it is ended until it leaves nothing.
_ATTEMPTS = 3

#: Copies of the log, and of the store, that are kept to be put back.
_COPIES = 3


class Site:
    """A daemon that is tortured; use it as a context manager.

    What differs from engine to engine is left to :class:`tools.torture_files.FilesSite`
    and :class:`tools.torture_services.ServicesSite`.
    """

    #: What it is, for the summary.
    name = ""
    #: Whether an answer of ``true`` needs the data folder.
    folder_is_the_log = False

    def __init__(self, flags: Sequence[str], disk_size: str, seed: int = 0) -> None:
        self.books = Books()
        self.chance = random.Random(f"{seed}/site")
        self.disk = Disk(disk_size)
        #: What is beside the daemon's disk: copies, and what was taken away.
        self.aside = Path(tempfile.mkdtemp(prefix="kupool-torture-aside-"))
        self.clock = Clock(self.aside)
        self.flags = [
            "--interval=2s",
            "--flush-interval=100ms",
            "--history-window=1m",
            "--shutdown-timeout=5s",
            *UNLIMITED,
            *flags,
        ]
        self.daemon = RunningDaemon(
            *self.flags,
            data=self.disk.path / "data",
            port=free_port(),
            env=self.clock.environment,
            program=_CLEARS_OFTEN,
        )
        self.to_daemon = Proxy(lambda: self.daemon.port)
        self.accounts: Accounts = self.make_accounts()
        self.complaints: list[str] = []
        #: What the daemon printed since it was last looked for.
        self.said: list[str] = []
        self.failed_starts = self.restarts = 0
        self._read_lines = 0
        self._folder_away = False
        self._serial = 0
        self._log_copies: list[Path] = []
        self._store_copies: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self.daemon.start(_PATIENCE)
            self.started()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_daemon()
        self.heal_services()
        for proxy in (self.to_daemon, *self.parts()):
            proxy.close()
        self.disk.close()
        shutil.rmtree(self.aside, ignore_errors=True)

    # -- what the engines are

    def started(self) -> None:
        """The daemon has been started for the first time."""

    def make_accounts(self) -> Accounts:
        """Return the accounts over the log and the counts of this site."""
        raise NotImplementedError

    def parts(self) -> Sequence[Proxy]:
        """Return what else is to be closed at the end."""
        return ()

    def rows(self) -> list[Row]:
        """Return every row of the per-minute tables."""
        raise NotImplementedError

    def set_row(self, row: Row, count: int | None) -> None:
        """Make a row's count another, in whatever way; None: there is no such row."""
        raise NotImplementedError

    def claimed(self) -> set[int]:
        """Return the minutes that the store says the log covers."""
        raise NotImplementedError

    def copy_log(self, target: Path) -> bool:
        """Copy the log as it is now; returns False where that is not possible."""
        raise NotImplementedError

    def copy_store(self, target: Path) -> None:
        """Copy the store as it is now."""
        raise NotImplementedError

    def put_store(self, source: Path) -> None:
        """Replace the store by a copy; the daemon does not run."""
        raise NotImplementedError

    def heal_services(self) -> None:
        """Let everything but the daemon work again."""
        self.to_daemon.set(OPEN)
        if self.daemon.process is not None:
            self.disk.clear(self.daemon.pid)
        self.return_folder()

    def audit_flags(self) -> list[str]:
        """Return the flags with which ``kupool audit`` sees the same, past the proxies."""
        raise NotImplementedError

    # -- the daemon

    def kill_daemon(self) -> None:
        """End it with SIGKILL."""
        self.daemon.kill()
        self.look_for_complaints()
        forget(self.daemon.pid)

    def stop_daemon(self) -> bool:
        """End it in order; that takes as long as it may, whoever else is away."""
        if self.daemon.process is None or self.daemon.process.poll() is not None:
            return False
        status = self.daemon.stop(_PATIENCE)
        self.look_for_complaints()
        if status:
            self.complaints.append(f"the daemon ended with status {status}")
        return not status

    def start_daemon(self, seconds: float = 60.0) -> bool:
        """Start it, if it does not run; returns whether it does."""
        process = self.daemon.process
        if process is not None and process.poll() is None:
            return True
        self.look_for_complaints()
        self._read_lines = 0
        try:
            self.daemon.start(seconds)
        except StartFailed:
            self.failed_starts += 1
            self.look_for_complaints()
            return False
        self.books.unsure = False
        return True

    def look_for_complaints(self) -> None:
        """Note what the daemon printed of errors that nobody expected."""
        lines = list(self.daemon.lines)
        self.said = lines[self._read_lines :]
        for line in self.said:
            if "Traceback" in line or '"critical"' in line or "Unhandled" in line:
                self.complaints.append(line[:2000])
        self._read_lines = len(lines)

    def evidence(self) -> list[str]:
        """Return what may tell how a difference came about: the last that the daemon printed."""
        return [line[:400] for line in self.said[-30:]]

    def heal(self) -> None:
        """Let everything work again; raises :class:`ServerFailed` where it does not."""
        was_away = self._folder_away
        self.heal_services()
        process = self.daemon.process
        assert process is not None
        if process.poll() is None:
            self.daemon.signal(signal.SIGCONT)
            away = was_away or self._asks_for_restart()
            if not away or wait_until(lambda: not self.quiet(), _RECOVERY):
                self.books.unsure = False
                return
            # It refuses everything until it is started again, and says so.
            self.restarts += 1
            self.kill_daemon()
        for _ in range(5):
            if self.start_daemon(_PATIENCE):
                return
            time.sleep(0.5)
        raise ServerFailed(f"the daemon does not start: {self.daemon.output[-3000:]}")

    def _asks_for_restart(self) -> bool:
        """Say whether the daemon takes nothing until it is started again."""
        try:
            _, ready = self.daemon.get("/ready")
        except (OSError, ValueError):
            return False
        return any("restart the daemon" in reason for reason in ready["reasons"])

    def quiet(self) -> str:
        """Return what the daemon still has to do; empty when it is done with everything."""
        try:
            _, left = self.daemon.get("/shutdown/status")
            status, ready = self.daemon.get("/ready")
        except (OSError, ValueError) as error:
            return f"the daemon does not answer: {error}"
        found = {
            name: left[name] for name in ("batches_in_flight", "log_depth", "spooled") if left[name]
        }
        counting = any("is being counted" in reason for reason in ready["reasons"])
        return f"{found} {ready}" if found or counting or status != 200 else ""

    # -- the folder and the disk

    def fill_disk(self) -> None:
        """Leave no room, also none that the files have and do not use now."""
        for path in self.daemon.data.glob("*.sqlite"):
            with contextlib.suppress(sqlite3.OperationalError):
                database = sqlite3.connect(path, timeout=5)
                with contextlib.closing(database):
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.disk.fill(self.daemon.pid)

    def clear_disk(self) -> None:
        """There is room again."""
        self.disk.clear(self.daemon.pid)

    def take_folder(self) -> None:
        """Move the data folder away, as it is used."""
        self._folder_away = True
        # What was written a moment ago is refused, and is there when the folder is back.
        self.books.unsure = True
        os.rename(self.daemon.data, self.daemon.data.with_name("away"))
        if self.folder_is_the_log:
            self.books.forbidden = (time.monotonic(), "while the data folder was away")

    def return_folder(self) -> None:
        """Move it back, if it is away."""
        if self._folder_away:
            self.books.forbidden = None
            if self.daemon.data.exists():
                self.complaints.append("the daemon made a folder where its own had been")
                shutil.rmtree(self.daemon.data)
            os.rename(self.daemon.data.with_name("away"), self.daemon.data)
            self._folder_away = False

    def kill_and_return_folder(self) -> None:
        """Kill the daemon before its folder comes back."""
        self.kill_daemon()
        self.return_folder()
        self.start_daemon()

    # -- copies, and what is taken away

    def new_path(self, name: str) -> Path:
        """Return a path beside the disk that was never used."""
        self._serial += 1
        return self.aside / f"{self._serial}-{name}"

    def keep_copies(self) -> None:
        """Copy the log and the store as they are now, to be put back some time."""
        target = self.new_path("log")
        if self.copy_log(target):
            self._keep(self._log_copies, target)
        target = self.new_path("store")
        self.copy_store(target)
        self._keep(self._store_copies, target)

    def _keep(self, copies: list[Path], copy: Path) -> None:
        copies.append(copy)
        while len(copies) > _COPIES:
            copies.pop(0).unlink()

    def take_log(self, take: Callable[[], object]) -> None:
        """Stop the daemon and take its log away, or put another in its place.

        Only where all that is in the log is counted: what neither side has is lost, whatever
        the daemon does. An end that has no time left to count may leave something, and has to
        say so.
        """
        for _ in range(_ATTEMPTS):
            if not self.stop_daemon():
                return
            self.accounts.read()
            uncounted = self.accounts.uncounted()
            if not uncounted:
                take()
                self.log_is_taken()
                return
            if not any(text in self.daemon.output for text in _LEFT):
                self.complaints.append(f"ended in order, and left {uncounted} uncounted")
                return
            self.start_daemon()
            wait_until(lambda: not self.quiet(), _RECOVERY)

    def log_is_taken(self, excused: bool = False) -> None:
        """The log is another from now on: no older store could be made whole from it."""
        self.accounts.new_log(excused)
        for copy in self._store_copies:
            copy.unlink()
        self._store_copies.clear()

    def some_log_copy(self) -> Path:
        """Return one of the copies of the log, or a new one that is older in a moment."""
        if not self._log_copies:
            self.keep_copies()
            time.sleep(0.4)
        return self.chance.choice(self._log_copies)

    def replace_store(self) -> None:
        """Kill the daemon, and give it an older copy of its store."""
        if not self._store_copies:
            self.keep_copies()
            time.sleep(0.4)
        self.kill_daemon()
        self.put_store(self.chance.choice(self._store_copies))
        self.accounts.compare_every_minute()


__all__ = ["Site"]
