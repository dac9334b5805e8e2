"""A program in a terminal of its own: what it prints there, and what is typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.screen import on_screen
from tests.terminal import terminal

#: Seconds after which a program that hangs fails the test; never a measure of speed.
PATIENCE = 30.0

#: How a terminal is told of colours and of the place of the cursor.
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9])")


class Program:
    """A command of the shell that runs in a terminal without echo."""

    def __init__(
        self, command: str, folder: Path, env: Mapping[str, str], before: str = ""
    ) -> None:
        """``before`` is what the shell runs first, unseen."""
        self.command = command
        self._ours, theirs = terminal()
        settings = termios.tcgetattr(theirs)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, settings)
        termios.tcsetwinsize(theirs, (50, 120))
        try:
            self._process = subprocess.Popen(
                ["bash", "-c", before + command],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                cwd=folder,
                env=dict(env),
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._printed = self._raw = ""
        self._taken = 0
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, f"{line}\n".encode())

    @property
    def printed(self) -> str:
        """Everything that it has printed and that is still on the screen."""
        return on_screen(self._raw)

    def line(self) -> str:
        """Return the next line that was not taken yet; raises AssertionError without one."""
        self.wait(lambda rest: "\n" in rest)
        line, _, _ = self._printed[self._taken :].partition("\n")
        self._taken += len(line) + 1
        return line

    def wait(self, enough: Callable[[str], object]) -> None:
        """Wait until what was not taken yet is enough; raises AssertionError if it never is."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while not enough(self._printed[self._taken :]):
                if self._ended or not self._news.wait(deadline - time.monotonic()):
                    rest = self._printed[self._taken :]
                    raise AssertionError(f"{self.command!r} has printed {rest!r}, and no more")

    def end(self) -> int:
        """Wait for the end of it; returns the status."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.command!r} does not end; it has printed {self._printed!r}"
            ) from None
        self._reader.join(PATIENCE)
        return status

    def interrupt(self) -> int:
        """Press Ctrl-C, and wait for the end; returns the status."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        return self.end()

    def kill(self) -> None:
        """End it and all that it has started, at once."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._reader.join(PATIENCE)
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def _read(self) -> None:
        pending = b""
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux: nobody has the other end any more
                data = b""
            pending += data
            whole = pending if not data else pending[: pending.rfind(b"\n") + 1]
            pending = pending[len(whole) :]
            with self._news:
                self._raw += whole.decode(errors="replace")
                text = _ESCAPES.sub("", whole.decode(errors="replace"))
                self._printed += text.replace("\r\n", "\n")
                self._ended = not data
                self._news.notify_all()
            if not data:
                return
