"""The gate of `make coverage` (Q-89)."""

from __future__ import annotations

import re
import tomllib

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import ROOT


class GateTests(SynchronousTestCase):
    """A-63: each package of the framework, the bus and rooms has to be covered by itself."""

    def test_each_package_and_the_least(self) -> None:
        """A-63: at least 80 of 100 lines, or `make coverage` fails."""
        makefile = (ROOT / "Makefile").read_text("utf-8")
        recipe = makefile.partition("\ncoverage:")[2].partition("\n\n")[0]
        (packages,) = re.findall(r"for room in ([a-z ]+);", recipe)
        self.assertLessEqual({"net", "bus", "rooms"}, set(packages.split()))
        self.assertEqual(re.findall(r"--fail-under=(\d+) \|\| exit 1", recipe), ["80"])
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        measured = settings["tool"]["coverage"]["run"]["source"]
        self.assertEqual({f"kupool.{name}" for name in packages.split()}, set(measured))
