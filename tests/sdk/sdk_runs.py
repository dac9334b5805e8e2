"""Runs scenarios of SDKs, each in a process of its own, against real daemons."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.live_daemon import TOKEN_SECRET, open_daemon, strict_daemon

#: Seconds for one scenario.
PATIENCE = 90.0


class SdkCase(SynchronousTestCase):
    """Scenarios of one SDK over one transport.

    ``transport`` is the name of the transport, ``command`` starts a scenario, whose name and
    settings follow.
    """

    transport = ""

    def setUp(self) -> None:
        self.open = open_daemon()
        self.strict = strict_daemon()

    @classmethod
    def command(cls) -> Sequence[str]:
        """Return what starts a scenario."""
        raise NotImplementedError

    @classmethod
    def environment(cls) -> Mapping[str, str] | None:
        """Return the environment of a scenario; None for that of this process."""
        return None

    def run_scenario(self, name: str) -> None:
        """Run a scenario; fails with what it printed."""
        urls = {"open": self.open.url(""), "strict": self.strict.url("")}
        settings = json.dumps({"urls": urls, "secret": TOKEN_SECRET})
        with subprocess.Popen(
            [*self.command(), self.transport, name, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
        ) as process:
            try:
                printed = self._serve(process)
                status = process.wait(PATIENCE)
            except BaseException:
                process.kill()
                raise
        self.assertEqual(status, 0, f"{name}: {printed}\n{self.open.output[-2000:]}")

    def _serve(self, process: subprocess.Popen[str]) -> str:
        """Do what a scenario asks for; returns what else it printed."""
        assert process.stdin is not None
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            asked = line.strip()
            if asked not in ("restart", "stop"):
                printed.append(line)
                continue
            self.assertEqual(self.open.stop(), 0)
            if asked == "stop":
                self._reply(process)
            self.open.start()
            if asked == "restart":
                self._reply(process)
        return "".join(printed)

    def _reply(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("done\n")
        process.stdin.flush()


def scenario(name: str, about: str) -> Callable[[Any], None]:
    """Return a test of a scenario."""

    def test(self: SdkCase) -> None:
        self.run_scenario(name)

    test.__name__ = f"test_{name}"
    test.__doc__ = about
    return test
