"""A backup under load, restored elsewhere, in small; the large runs are by hand."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kupool.log import Epoch, Identity
from tests.fakes.data_folder import write_log, write_store
from tests.servers.commands import kupool
from tools import backup

POOL = Identity("pool1", (Epoch("e1", 0),))


class BackupTests(SynchronousTestCase):
    """Issue 11, accepted when 4: nothing is lost before it, nothing accepted twice after it."""

    def test_small(self) -> None:
        report = backup.run(300, 3.0, sessions=20)
        self.assertEqual([], report.problems, "\n".join(report.lines()))
        self.assertGreater(report.told_before, 500)
        self.assertGreater(report.tried_again, 500)
        self.assertEqual(set(report.answers), {"Task does not exist"})


class DiskTests(SynchronousTestCase):
    """Issue 11, point 7: disks that are full or cannot be written, on file systems of their own."""

    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root may mount a file system")
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.data = self.root / "data"
        write_log(self.data, POOL, 20_000)
        write_store(self.data, POOL, 20_000)

    def mount(self, options: str) -> Path:
        path = self.root / "disk"
        path.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True
        )
        if mounted.returncode:
            raise SkipTest(f"no file system could be mounted: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", path], check=True)
        return path

    def test_no_room_for_a_backup(self) -> None:
        """It is said at once, with figures, and nothing is left."""
        disk = self.mount("size=1m")
        made = kupool("backup", f"--data={self.data}", str(disk / "b"))
        self.assertEqual((made.returncode, made.stdout), (1, ""))
        self.assertRegex(made.stderr, r"^kupool: /.*: [\d.]+ MB are needed and 1.0 MB are free\n$")
        self.assertEqual(list(disk.iterdir()), [])

    def test_a_disk_that_fills_up_meanwhile(self) -> None:
        """Others write to it as well."""
        disk = self.mount("size=6m")
        script = (
            "import sys; from kupool.backup import making; from kupool.cli import main; "
            "making.require_room = lambda *_: None; sys.exit(main())"
        )
        (disk / "ballast").write_bytes(b"\0" * 5_000_000)
        made = subprocess.run(
            [backup.sys.executable, "-c", script, "backup", f"--data={self.data}", str(disk / "b")],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(backup.ROOT)},
        )
        self.assertEqual((made.returncode, made.stdout), (1, ""))
        self.assertRegex(
            made.stderr, r"(?i)^kupool: /.*(disk is full|no space left|I/O error).*\n$"
        )
        self.assertEqual([path.name for path in disk.iterdir()], ["ballast"])

    def test_a_target_that_cannot_be_written(self) -> None:
        disk = self.mount("size=20m,ro")
        made = kupool("backup", f"--data={self.data}", str(disk / "b"))
        self.assertEqual(made.returncode, 1)
        self.assertRegex(made.stderr, r"^kupool: /.*: Read-only file system\n$")
        made = kupool("backup", f"--data={self.data}", str(disk))
        self.assertIn("a file system is mounted there; name a new folder in it", made.stderr)

    def test_no_room_for_a_restore(self) -> None:
        """Nothing changes in the folder."""
        self.assertEqual(
            kupool("backup", f"--data={self.data}", str(self.root / "b")).returncode, 0
        )
        disk = self.mount("size=1m")
        done = kupool("restore", f"--data={disk}", str(self.root / "b"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("MB are needed and", done.stderr)
        self.assertEqual([path.name for path in disk.iterdir()], ["lock"])

    def test_a_backup_on_a_disk_that_cannot_be_written(self) -> None:
        """A backup can be checked and restored from there."""
        disk = self.mount("size=20m")
        self.assertEqual(kupool("backup", f"--data={self.data}", str(disk / "b")).returncode, 0)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        self.assertEqual(kupool("backup", "--check", str(disk / "b")).returncode, 0)
        done = kupool("restore", f"--data={self.root / 'new'}", str(disk / "b"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
