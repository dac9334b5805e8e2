"""The data folder: one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
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
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
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
        self.assertIn("this is a file", self.refused(self.path))
        self.assertIn("a part of this path is a file", self.refused(self.path / "below"))

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


class PrivateTests(SynchronousTestCase):
    """Issue 11, point 4: nobody but the owner, and nothing but what is there."""

    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.path = Path(root.name) / "data"
        self.addCleanup(os.umask, os.umask(0o022))

    def open(self) -> DataFolder:
        folder = DataFolder(self.path)
        self.addCleanup(folder.close)
        folder.open()
        return folder

    def mode(self, name: str = "") -> int:
        return stat.S_IMODE((self.path / name).stat().st_mode)

    def test_modes(self) -> None:
        for umask in (0o000, 0o777):
            os.umask(umask)
            folder = self.open()
            file = self.path / "x"
            file.touch()
            folder.close([file])
            self.assertEqual(
                (self.mode(), self.mode("lock"), self.mode("clean")), (0o700, 0o600, 0o600)
            )
            shutil.rmtree(self.path)

    def test_a_folder_that_is_there_keeps_its_mode(self) -> None:
        """It is the operator's; that others may write to it is worth a line."""
        for mode, warned in ((0o755, False), (0o750, False), (0o770, True), (0o777, True)):
            self.path.mkdir()
            self.path.chmod(mode)
            (self.path / "lock").touch(0o644)
            folder = self.open()
            self.assertEqual((self.mode(), self.mode("lock")), (mode, 0o600))
            self.assertEqual(bool(folder.warning), warned)
            folder.close()
            shutil.rmtree(self.path)
        self.assertIn(
            f"data folder {self.path}: users other than its owner may write", folder.warning
        )
        self.assertIn("(mode 0777)", folder.warning)

    def refused(self) -> str:
        error = self.assertRaises(FolderError, DataFolder(self.path).open)
        return str(error).removeprefix(f"data folder {self.path}: ")

    def test_a_link_in_the_place_of_the_lock(self) -> None:
        """It would empty what it leads to."""
        self.path.mkdir()
        precious = self.path.parent / "precious"
        for there in (True, False):
            if there:
                precious.write_text("x" * 100)
            (self.path / "lock").symlink_to(precious)
            self.assertEqual(
                self.refused(), "lock is a symbolic link, and is not followed; remove it"
            )
            self.assertEqual(precious.exists() and precious.read_text(), there and "x" * 100)
            (self.path / "lock").unlink()
            precious.unlink(missing_ok=True)

    def test_something_else_in_its_place(self) -> None:
        self.path.mkdir()
        os.mkfifo(self.path / "lock")
        self.assertEqual(self.refused(), "lock is not a file; remove it")
        (self.path / "lock").unlink()
        (self.path / "lock").mkdir()
        self.assertEqual(self.refused(), "lock: Is a directory")

    def test_a_lock_with_the_own_number(self) -> None:
        """As the first process of a container leaves it for the first of the next."""
        self.path.mkdir()
        for left in (f"{os.getpid()}\n", f"pid {os.getpid()} on here since 2026\n", ""):
            (self.path / "lock").write_text(left)
            self.open().close()

    def test_the_lock_of_a_release_before(self) -> None:
        self.open().close()
        (self.path / "lock").write_text("4711\n")
        with open(self.path / "lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertEqual(self.refused(), "in use by another process (pid 4711)")

    def test_a_file_system_that_locks_nothing(self) -> None:
        def refuse(file: int, how: int) -> None:
            raise OSError(95, "Operation not supported")

        self.patch(fcntl, "flock", refuse)
        self.assertEqual(
            self.refused(),
            "cannot be locked: Operation not supported; its file system has to support flock",
        )

    def test_one_that_locks_files_only(self) -> None:
        """As NFS does."""
        flock = fcntl.flock

        def refuse(file: int, how: int) -> None:
            if stat.S_ISDIR(os.fstat(file).st_mode):
                raise OSError(9, "Bad file descriptor")
            flock(file, how)

        self.patch(fcntl, "flock", refuse)
        self.open()
        self.assertIn("in use by another process (pid", self.refused())

    def test_a_read_only_file_system(self) -> None:
        def refuse(*arguments: object) -> int:
            raise OSError(30, "Read-only file system", str(self.path / "lock"))

        self.path.mkdir()
        self.patch(os, "open", refuse)
        self.assertEqual(self.refused(), "lock: Read-only file system")


class CleanTests(SynchronousTestCase):
    """Issue 11, point 4: after an end that was not in order the files are looked at."""

    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.path = Path(root.name) / "data"
        self.path.mkdir()
        self.file = self.path / "log.sqlite"
        self.file.write_text("content")

    def next_run(self) -> bool:
        """Open it anew; returns whether the file is known to be in order. Closes it again."""
        folder = DataFolder(self.path)
        folder.open()
        clean = folder.is_clean(self.file)
        folder.close([self.file])
        return clean

    def test_closed_in_order(self) -> None:
        self.assertFalse(self.next_run())  # nobody knows
        self.assertTrue(self.next_run())
        self.assertTrue(self.next_run())

    def test_not_closed(self) -> None:
        self.next_run()
        folder = DataFolder(self.path)
        folder.open()
        folder._let_go()  # as the system does for a process that was killed
        self.assertFalse(self.next_run())

    def test_another_file_was_closed_in_order(self) -> None:
        self.next_run()
        folder = DataFolder(self.path)
        folder.open()
        folder.close([self.path / "store.sqlite"])
        self.assertFalse(self.next_run())

    def test_touched_since(self) -> None:
        """Written over in place, replaced by a copy, or with something left in its log."""

        def overwrite() -> None:
            found = self.file.stat()
            self.file.write_text("CONTENT")
            os.utime(self.file, ns=(found.st_atime_ns, found.st_mtime_ns))

        def replace() -> None:
            copy = self.path / "copy"
            shutil.copy2(self.file, copy)
            copy.rename(self.file)

        for touch in (overwrite, replace, Path(f"{self.file}-wal").touch):
            self.next_run()
            self.assertTrue(self.next_run())
            touch()
            self.assertFalse(self.next_run(), touch)

    def test_a_marker_that_says_nothing(self) -> None:
        for text in ("", "[]", "{", '{"log.sqlite": 1}', "\xff"):
            (self.path / "clean").write_text(text)
            self.assertFalse(self.next_run())
