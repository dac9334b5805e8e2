"""The allocator, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.running_daemon import ROOT

#: Makes 300,000 objects after objects that stay and will be changed; then all must be right.
_SCRIPT = """
import gc, sys
from kupool.daemon.memory import make_give_back, use_malloc
early = [str(i) * 10 for i in range(1000)]
lists = [[] for _ in range(100)]
sys._debugmallocstats()
print(use_malloc())
objects = {str(i) * 10: float(i) for i in range(300_000)}
for number, one in enumerate(lists):
    one.extend(range(number))  # grows what Python's own allocator made
assert all(one == list(range(number)) for number, one in enumerate(lists))
del early, lists
gc.collect()
sys._debugmallocstats()
assert objects["7777777777"] == 7.0
del objects
make_give_back()()
"""


def _run(*options: str, **env: str) -> tuple[bool, int]:
    """Return what use_malloc said, and how often Python had figures of its own allocator."""
    inherited = {name: v for name, v in os.environ.items() if name != "PYTHONMALLOC"}
    done = subprocess.run(
        [sys.executable, *options, "-c", _SCRIPT],
        env={**inherited, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout == "True\n", done.stderr.count("# arenas allocated current")


class UseMallocTests(SynchronousTestCase):
    """K-50: objects whose memory goes back when they are freed."""

    def test_new_objects_are_not_python_s(self) -> None:
        """Python has no figures of its own allocator while that is not what is in use."""
        done, figures = _run()
        self.assertTrue(done)
        self.assertEqual(1, figures)  # those from before

    def test_other_allocators_are_left_alone(self) -> None:
        for options, env in (
            ((), {"PYTHONMALLOC": "malloc"}),
            ((), {"PYTHONMALLOC": "debug"}),
            (("-X", "dev"), {}),
        ):
            done, figures = _run(*options, **env)
            self.assertFalse(done, (options, env))
            self.assertIn(figures, (0, 2), (options, env))

    def test_names_of_its_own_allocator(self) -> None:
        for name in ("default", "pymalloc"):
            self.assertTrue(_run(PYTHONMALLOC=name)[0], name)
