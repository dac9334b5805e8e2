"""Runs commands of topics on a fake API, and keeps what they print."""

from __future__ import annotations

import io
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.topics_api import FakeApi


class CommandCase(SynchronousTestCase):
    """Runs commands on a fake API; what they print is in :meth:`printed`."""

    def setUp(self) -> None:
        self.out, self.errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.errors)
        self.patch(sys, "stdin", io.StringIO())

    def run_command(self, api: FakeApi, *words: str, status: int = 0) -> str:
        """Run a command to its end; returns what it printed since the last one."""
        before = len(self.out.getvalue())
        self.assertEqual(self.successResultOf(api.run(*words)), status)
        return self.out.getvalue()[before:]

    def rows(self, text: str) -> list[list[str]]:
        """Return the cells of the rows of a table, without its head."""
        lines = [line for line in text.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
