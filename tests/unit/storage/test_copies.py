"""Copies of SQLite files."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.copies import (
    CopyError,
    FileSnapshot,
    check_copy,
    check_regular,
    copy_file,
    digest,
    open_copy,
    require_room,
    write_file,
)
from kupool.storage.database import connect


class CopiesTests(SynchronousTestCase):
    """Issue 11, point 7: files are copied while others write to them."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.path = self.folder / "log ?#%.sqlite"
        self.writer = connect(self.path)
        self.addCleanup(self.writer.close)
        self.writer.execute("CREATE TABLE entries (position INTEGER PRIMARY KEY, body BLOB)")

    def write(self, count: int = 1, size: int = 100) -> None:
        body = b"x" * size
        self.writer.execute("BEGIN")
        for _ in range(count):
            self.writer.execute("INSERT INTO entries (body) VALUES (?)", (body,))
        self.writer.execute("COMMIT")

    def rows(self, path: Path) -> int:
        with closing(open_copy(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])

    def fails(self, call: Callable[..., object], *arguments: object) -> str:
        return str(self.assertRaises(CopyError, call, *arguments))

    def test_a_snapshot_is_of_its_moment(self) -> None:
        """What is written after it, and before the copy is made, is not in the copy."""
        self.write(5)
        snapshot = FileSnapshot(self.path)
        self.addCleanup(snapshot.close)
        self.write(7)
        target = self.folder / "copy"
        snapshot.copy(target)
        self.assertEqual(self.rows(target), 5)
        self.assertEqual(target.stat().st_size, snapshot.size)
        check_copy(target)

    def test_writers_do_not_delay_a_copy(self) -> None:
        """A commit between two steps neither begins the copy anew nor waits for it."""
        self.write(4000, 2000)
        snapshot = FileSnapshot(self.path)
        self.addCleanup(snapshot.close)
        told: list[int] = []

        def step(count: int) -> None:
            self.write()
            told.append(count)

        snapshot.copy(self.folder / "copy", step)
        self.assertGreater(len(told), 5)
        self.assertEqual(sum(told), snapshot.size)
        self.assertEqual(self.rows(self.folder / "copy"), 4000)

    def test_a_copy_writes_nothing_into_its_source(self) -> None:
        snapshot = FileSnapshot(self.path)
        self.addCleanup(snapshot.close)
        self.assertRaises(sqlite3.OperationalError, snapshot.connection.execute, "VACUUM")

    def test_copies_are_for_their_owner_alone(self) -> None:
        """Whatever the umask says."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        with closing(FileSnapshot(self.path)) as snapshot:
            snapshot.copy(self.folder / "copy")
        copy_file(self.folder / "copy", self.folder / "second")
        write_file(self.folder / "third", b"text")
        for name in ("copy", "second", "third"):
            self.assertEqual((self.folder / name).stat().st_mode & 0o777, 0o600, name)

    def test_nothing_is_overwritten(self) -> None:
        (self.folder / "link").symlink_to(self.folder / "elsewhere")
        (self.folder / "there").write_text("kept")
        with closing(FileSnapshot(self.path)) as snapshot:
            for name in ("there", "link"):
                self.assertIn("File exists", self.fails(snapshot.copy, self.folder / name))
        self.assertFalse((self.folder / "elsewhere").exists())
        self.assertEqual((self.folder / "there").read_text(), "kept")

    def test_what_is_no_database(self) -> None:
        self.assertIn("unable to open", self.fails(FileSnapshot, self.folder / "nowhere"))
        (self.folder / "text").write_text("no database at all" * 100)
        self.assertIn("not a database", self.fails(FileSnapshot, self.folder / "text"))

    def test_damage_is_found(self) -> None:
        """A page in the middle that was overwritten."""
        self.write(2000, 500)
        with closing(FileSnapshot(self.path)) as snapshot:
            snapshot.copy(self.folder / "copy")
        content = bytearray((self.folder / "copy").read_bytes())
        content[40960:45056] = os.urandom(4096)
        (self.folder / "copy").write_bytes(content)
        self.assertRegex(
            self.fails(check_copy, self.folder / "copy"), "copy: .*(damaged|malformed)"
        )

    def test_digest(self) -> None:
        content = os.urandom(3_000_001)
        (self.folder / "file").write_bytes(content)
        told: list[int] = []
        expected = hashlib.sha256(content).hexdigest()
        self.assertEqual(digest(self.folder / "file", told.append), expected)
        self.assertEqual(sum(told), len(content))
        self.assertEqual(copy_file(self.folder / "file", self.folder / "copy"), expected)
        self.assertEqual((self.folder / "copy").read_bytes(), content)

    def test_only_plain_files(self) -> None:
        (self.folder / "link").symlink_to(self.path)
        self.assertIn("is a symbolic link", self.fails(check_regular, self.folder / "link"))
        self.assertIn("is not a file", self.fails(check_regular, self.folder))
        self.assertIn("No such file", self.fails(check_regular, self.folder / "nowhere"))
        self.assertRaises(CopyError, digest, self.folder / "link")

    def test_room(self) -> None:
        require_room(self.folder, 1)
        self.assertIn("MB are needed and", self.fails(require_room, self.folder, 2**60))

    def test_a_writer_in_another_thread_goes_on(self) -> None:
        """A commit does not wait for the snapshot, however long that is held."""
        with closing(FileSnapshot(self.path)):
            done = threading.Event()

            def commit() -> None:
                with closing(connect(self.path)) as connection:
                    connection.execute("INSERT INTO entries (body) VALUES (x'00')")
                done.set()

            thread = threading.Thread(target=commit)
            thread.start()
            self.assertTrue(done.wait(20))
            thread.join()
