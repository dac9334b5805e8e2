"""The data folder: one process at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.folder import DataFolder, FolderError

HOLDER = """
import sys
from kupool.storage.folder import DataFolder
folder = DataFolder(sys.argv[1])
folder.open()
print("open", flush=True)
sys.stdin.read()
"""


class FolderTests(SynchronousTestCase):
    """K-88: what cannot be used is refused with a clear line."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "a" / "b"

    def test_made_and_used(self) -> None:
        folder = DataFolder(self.path)
        folder.open()
        self.addCleanup(folder.close)
        self.assertTrue(self.path.is_dir())
        self.assertRegex(
            (self.path / "lock").read_text(),
            rf"^pid {os.getpid()} on {socket.gethostname()} since \d{{4}}-[-\d]+ [:\d]+ UTC\n$",
        )
        self.assertEqual(folder.file("x"), self.path / "x")

    def test_used_once_at_a_time(self) -> None:
        """K-88: a second process is refused, and told which one has it."""
        self.path.mkdir(parents=True)
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            self.assertEqual(holder.stdout.readline(), b"open\n")
            with self.assertRaises(FolderError) as caught:
                DataFolder(self.path).open()
            owner = (self.path / "lock").read_text().strip()
            self.assertTrue(owner.startswith(f"pid {holder.pid} on "))
            self.assertEqual(
                str(caught.exception),
                f"data folder {self.path}: in use by another process ({owner})",
            )
            (self.path / "lock").unlink()  # by somebody who means well
            with self.assertRaises(FolderError) as caught:
                DataFolder(self.path).open()
            self.assertIn("in use by another process, whose lock was rem", str(caught.exception))
            holder.kill()
            holder.wait()
            folder = DataFolder(self.path)  # a lock dies with its process
            folder.open()
            folder.close()
        finally:
            holder.kill()
            holder.wait()
            holder.stdin.close()
            holder.stdout.close()

    def test_free_after_close(self) -> None:
        folder = DataFolder(self.path)
        folder.open()
        self.assertRaises(FolderError, DataFolder(self.path).open)
        folder.close()
        folder.close()
        again = DataFolder(self.path)
        again.open()
        again.close()

    def refused(self, path: Path) -> str:
        with self.assertRaises(FolderError) as caught:
            DataFolder(path).open()
        self.assertIn(str(path), str(caught.exception))
        return str(caught.exception)

    def test_a_file_in_its_place(self) -> None:
        self.path.parent.mkdir(parents=True)
        self.path.write_text("x")
        self.assertIn("File exists", self.refused(self.path))
        self.assertIn("Not a directory", self.refused(self.path / "below"))

    def test_not_writable(self) -> None:
        """K-88: without the right to write, it says so."""
        self.path.mkdir(parents=True)
        self.path.chmod(0o555)
        self.addCleanup(self.path.chmod, 0o755)
        if os.geteuid() != 0:
            self.assertIn("Permission denied", self.refused(self.path))
            return
        # Root may write anywhere: be somebody else for a moment.
        path = Path("/")  # writable by root alone, and everybody can look into it
        os.seteuid(65534)
        try:
            self.assertIn("Permission denied", self.refused(path))
        finally:
            os.seteuid(0)
