"""Room for descriptors is made at once, before connections come."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport import descriptor_table
from kupool.net.transport.descriptor_table import MOST, OTHERS, make_room
from tests.servers.sockets import open_descriptors

_SHOW = """
import resource, sys
from kupool.net.transport.descriptor_table import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
make_room(int(sys.argv[1]))
print(next(line for line in open("/proc/self/status") if line.startswith("FDSize")).split()[1])
"""


@skipUnless(Path("/proc/self/status").exists(), "needs /proc")
class RoomTests(SynchronousTestCase):
    """Issue 15, acceptance 2: the table of descriptors does not grow while connections come."""

    def size(self, connections: int, limit: int) -> int:
        run = subprocess.run(
            [sys.executable, "-c", _SHOW, str(connections), str(limit)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
        )
        return int(run.stdout)

    def test_for_the_connections_and_others(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if 0 <= limit < 20_000:
            self.skipTest("this process may not have 20,000 descriptors")
        self.assertGreaterEqual(self.size(10_000, 20_000), 10_000 + OTHERS)

    def test_no_more_than_the_process_may_have(self) -> None:
        self.assertEqual(self.size(0, 1024), 1024)

    def test_it_leaves_nothing_open(self) -> None:
        before = open_descriptors()
        make_room(100)
        self.assertEqual(open_descriptors(), before)

    def test_a_process_that_has_none_left(self) -> None:
        def none_left(*arguments: object) -> int:
            raise OSError(24, "too many open files")

        self.patch(descriptor_table.os, "open", none_left)
        make_room(MOST)
