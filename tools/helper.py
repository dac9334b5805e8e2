"""A part of a tool that runs as a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from tests.servers.running_daemon import ROOT


class Helper:
    """A process that is asked by lines on its standard input, and answers with lines of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        """Return the next line that it prints; raises :class:`SystemExit` where there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a part of the tool ended with status {self._process.wait()}")
        return line.strip()

    def send(self, text: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def ask(self, question: str = "") -> dict[str, Any]:
        """Ask for what it has seen, or something else; returns its answer."""
        self.send(question)
        found: dict[str, Any] = json.loads(self.line())
        return found

    def end(self) -> dict[str, Any]:
        """Let it end; returns what it printed last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        found: dict[str, Any] = json.loads(self.line())
        self._process.wait(30)
        return found

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()


__all__ = ["Helper"]
