"""Which process owned a database, and whether it surely runs no more."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.postgres.owner import DatabaseOwner, OwnerProcess, this_process


class ProcessTests(SynchronousTestCase):
    """Issue 11, point 5: a process is gone only where that can be known."""

    def test_this_one_runs(self) -> None:
        here = this_process()
        self.assertEqual(here.pid, os.getpid())
        self.assertIs(here.gone, False)

    def test_ended(self) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        self.assertIs(this_process()._replace(pid=ended.pid).gone, True)

    def test_another_has_its_pid(self) -> None:
        """As in a container, where each daemon is the first process."""
        here = this_process()
        self.assertIs(here._replace(started=here.started - 60).gone, True)

    def test_out_of_sight(self) -> None:
        """Of another host, boot or container nobody knows."""
        here = this_process()._replace(pid=2**22 + 1)
        self.assertIs(here.gone, True)
        self.assertIs(here._replace(host="elsewhere").gone, False)
        self.assertIs(here._replace(boot_id="another").gone, False)
        self.assertIs(here._replace(boot_id="").gone, False)

    def test_of_another_user(self) -> None:
        """A process that we may not signal runs all the same."""

        def forbidden(pid: int, number: int) -> None:
            raise PermissionError

        self.patch(os, "kill", forbidden)
        self.assertIs(this_process().gone, False)

    def test_released(self) -> None:
        elsewhere = OwnerProcess("elsewhere", 7, "boot", 1.0)
        self.assertIs(DatabaseOwner(1, elsewhere, "2026-01-01 00:00:00 UTC", False).gone, False)
        released = DatabaseOwner(1, elsewhere, "2026-01-01 00:00:00 UTC", True)
        self.assertIs(released.gone, True)
        self.assertEqual(str(released), "host elsewhere, pid 7, since 2026-01-01 00:00:00 UTC")
