"""Programs as processes whose output is read line by line; the examples are such."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.servers.running_daemon import ROOT
from tests.servers.sockets import PATIENCE

EXAMPLES = ROOT / "examples"


class Program:
    """A program whose output is read line by line, and that ends with SIGINT."""

    def __init__(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        # A program that says nothing must not hold the test up for ever.
        self._limit = threading.Timer(2 * PATIENCE, self.process.kill)
        self._limit.start()

    def line(self, pattern: str) -> re.Match[str]:
        """The next line of the output that matches; fails at the end of it."""
        assert self.process.stdout is not None
        seen = []
        for text in self.process.stdout:
            seen.append(text)
            if found := re.search(pattern, text):
                return found
        raise AssertionError(f"no line like {pattern!r} in {seen}")

    def port(self) -> int:
        return int(self.line(r"^listening on (\d+)$")[1])

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Wait for it; returns the status and what was printed since the last line read."""
        output, _ = self.process.communicate()
        return self.process.returncode, output

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self._limit.cancel()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def python(path: str | Path, *arguments: str) -> Program:
    return Program(sys.executable, str(EXAMPLES / path), *arguments)
