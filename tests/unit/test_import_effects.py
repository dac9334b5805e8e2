"""Importing the library does nothing but import it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]

SCRIPT = """
import importlib, json, os, pathlib, sys, threading

def sockets():
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            pass
    return found

before = sockets()
names = [
    ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(pathlib.Path("kupool").rglob("*.py"))
]
for name in names:
    importlib.import_module(name)
children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text()
done = {
    "modules": len(names),
    "rooms": "kupool.rooms.lobby" in sys.modules,
    "threads": len(os.listdir("/proc/self/task")),
    "sockets": sockets() - before,
    "children": children.split(),
    "reactor": "twisted.internet.reactor" in sys.modules,
}
pathlib.Path(sys.argv[1]).write_text(json.dumps(done))
"""


class ImportTests(SynchronousTestCase):
    """A-64: the library prints nothing, starts no thread and opens no port when imported."""

    def test_every_module(self) -> None:
        report = Path(self.mktemp()).absolute()
        report.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(report)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("", ""))
        found = json.loads(report.read_text())
        self.assertGreater(found.pop("modules"), 100)
        expected = {"rooms": True, "threads": 1, "sockets": 0, "children": [], "reactor": False}
        self.assertEqual(found, expected)
