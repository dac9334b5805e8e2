"""Files that are not where they were opened: noticed before anything is answered."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.storage import database as database_module
from kupool.storage.database import (
    Database,
    DatabaseDamaged,
    DatabaseUnusable,
    PlaceLost,
    connect,
)
from kupool.storage.guard import Guard


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def put(name: str) -> Callable[[sqlite3.Connection], None]:
    """Work that keeps a row."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO consumer_groups VALUES (?, 0)", (name,))

    return work


def names(connection: sqlite3.Connection) -> list[str]:
    return [n for (n,) in connection.execute("SELECT name FROM consumer_groups ORDER BY rowid")]


class GuardTests(SynchronousTestCase):
    """Issue 11, point 4: each thing that can happen is told from the others."""

    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.root = Path(root.name)
        self.folder = self.root / "data"
        self.folder.mkdir()
        self.file = self.folder / "log.sqlite"
        self.log = self.folder / "log.sqlite-wal"
        for path in (self.file, self.log):
            path.touch()
        self.guard = Guard(self.file)
        self.addCleanup(self.guard.close)

    def test_in_its_place(self) -> None:
        self.file.write_text("written")
        self.assertEqual(self.guard.check(), "")

    def test_the_folder_moved_and_put_back(self) -> None:
        away = self.root / "away"
        self.folder.rename(away)
        self.assertEqual(self.guard.check(), f"{self.folder} was moved to {away}")
        away.rename(self.folder)
        self.assertEqual(self.guard.check(), "")

    def test_a_folder_above_it_moved(self) -> None:
        above = self.root / "above"
        above.mkdir()
        inner = shutil.copytree(self.folder, above / "data")
        guard = Guard(inner / "log.sqlite")
        self.addCleanup(guard.close)
        away = self.root / "away"
        above.rename(away)
        self.assertEqual(guard.check(), f"{inner} was moved to {away}/data")

    def test_the_folder_deleted(self) -> None:
        shutil.rmtree(self.folder)
        self.assertEqual(self.guard.check(), f"{self.folder} was deleted")

    def test_the_folder_replaced_by_a_copy(self) -> None:
        """A copy has everything but the inodes."""
        away = self.root / "away"
        self.folder.rename(away)
        shutil.copytree(away, self.folder)
        self.assertEqual(self.guard.check(), f"{self.folder} was moved to {away}")
        shutil.rmtree(away)
        self.assertEqual(self.guard.check(), f"{self.folder} was deleted")

    def test_a_link_that_leads_elsewhere(self) -> None:
        link, other = self.root / "link", self.root / "other"
        shutil.copytree(self.folder, other)
        link.symlink_to(self.folder)
        guard = Guard(link / "log.sqlite")
        self.addCleanup(guard.close)
        self.assertEqual(guard.check(), "")
        link.unlink()
        link.symlink_to(other)
        self.assertEqual(guard.check(), f"{link} was replaced by another folder")

    def test_a_look_at_the_files_only(self) -> None:
        """It notices whatever moves them, and names that."""
        self.assertEqual(self.guard.check_files(), "")
        away = self.root / "away"
        self.folder.rename(away)
        self.assertEqual(self.guard.check_files(), f"{self.folder} was moved to {away}")
        self.folder.mkdir()
        for path in (self.file, self.log):
            (away / path.name).rename(path)
        self.assertEqual(self.guard.check_files(), "")  # the next start finds the same files
        self.log.unlink()
        self.assertNotEqual(self.guard.check_files(), "")

    def test_a_file_gone_or_replaced(self) -> None:
        for path in (self.file, self.log):
            away = path.with_name("away")
            path.rename(away)
            self.assertEqual(self.guard.check(), f"{path} was moved away or deleted")
            self.assertEqual(self.guard.check_files(), self.guard.check())
            self.assertEqual(self.guard.only_log, path == self.log)
            path.touch()
            self.assertEqual(self.guard.check(), f"{path} was replaced by another file")
            away.rename(path)
            self.assertEqual(self.guard.check(), "")

    def test_what_cannot_be_looked_at(self) -> None:
        def broken(path: Any) -> Any:
            raise OSError(5, "Input/output error")

        self.patch(os, "stat", broken)
        self.assertEqual(
            self.guard.check(), f"{self.folder} cannot be looked at: Input/output error"
        )

    def test_not_there_at_first(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        self.assertRaises(FileNotFoundError, Guard, self.folder / "none.sqlite")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_the_log_of_a_linked_file_is_beside_the_file(self) -> None:
        """SQLite puts it there."""
        link = self.root / "link.sqlite"
        link.symlink_to(self.file)
        connection = connect(link)
        self.addCleanup(connection.close)
        connection.execute("CREATE TABLE t (x)")
        guard = Guard(link)
        self.addCleanup(guard.close)
        self.assertEqual(guard.check(), "")
        self.log.unlink()
        self.assertEqual(guard.check(), f"{self.log} was moved away or deleted")


class WorkTests(TestCase):
    """Issue 11, point 4: nothing is reported as written that the next start does not find."""

    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.folder = Path(root.name) / "data"
        self.away = Path(root.name) / "away"
        self.folder.mkdir()
        self.path = self.folder / "log.sqlite"
        self.patch(database_module, "FRESH", -1.0)

    async def database(self) -> Database:
        database = Database(the_reactor(), self.path, "log")
        await database.open()
        self.addCleanup(database.close)
        return database

    def held(self, path: Path) -> list[str]:
        other = sqlite3.connect(path)
        try:
            return names(other)
        finally:
            other.close()

    async def test_moved_before_the_commit(self) -> None:
        """Nothing of it remains, and it works again when the folder is back; shared or not."""
        database = await self.database()
        await database.run(put("a"))
        self.folder.rename(self.away)
        for single in (False, True):
            error = await self.assertFailure(database.run(put("b"), single=single), PlaceLost)
            self.assertIn(f"{self.folder} was moved to {self.away}; put it back", str(error))
            self.assertEqual(database.problem, str(error))
        self.assertEqual(self.held(self.away / "log.sqlite"), ["a"])
        self.away.rename(self.folder)
        await database.run(put("c"), single=True)
        self.assertEqual(database.problem, "")
        self.assertEqual(await database.run(names), ["a", "c"])

    async def test_moved_during_the_work(self) -> None:
        """The whole group fails, and is not tried one by one."""
        database = await self.database()
        calls = 0

        def move(connection: sqlite3.Connection) -> None:
            nonlocal calls
            calls += 1
            put("b")(connection)
            if self.folder.exists():
                self.folder.rename(self.away)

        await self.assertFailure(database.run(move), PlaceLost)
        self.assertEqual((calls, self.held(self.away / "log.sqlite")), (1, []))

    async def test_work_without_a_pause(self) -> None:
        """Where one transaction follows another, the look after each commit notices."""
        self.patch(database_module, "FRESH", 60.0)
        database = await self.database()
        queued = threading.Event()
        self.addCleanup(queued.set)

        def block(connection: sqlite3.Connection) -> None:
            put("a")(connection)
            queued.wait(10)

        def move(connection: sqlite3.Connection) -> None:
            put("b")(connection)
            self.folder.rename(self.away)

        work = [database.run(call, alone=True) for call in (block, move, put("c"))]
        queued.set()
        await work[0]
        error = await self.assertFailure(work[1], PlaceLost)
        self.assertIn("may be in it that was not confirmed", str(error))
        await self.assertFailure(work[2], PlaceLost)
        self.assertEqual(self.held(self.away / "log.sqlite"), ["a", "b"])

    async def test_moved_between_commit_and_answer(self) -> None:
        """It is written, and reported as not: until the file is read anew, nothing is."""
        database = await self.database()
        checks = iter(["d was moved"])
        assert database._guard is not None
        self.patch(database._guard, "check_files", lambda: next(checks, ""))
        error = await self.assertFailure(database.run(put("a"), single=True), PlaceLost)
        self.assertIn("d was moved; something may be in it that was not conf", str(error))
        again = await self.assertFailure(database.run(put("b")), PlaceLost)
        self.assertEqual((str(again), database.problem), (str(error), str(error)))
        self.assertEqual(self.held(self.path), ["a"])
        await database.close()
        self.assertFalse(database.closed_clean)
        database = await self.database()
        self.assertEqual(await database.run(names), ["a"])

    async def test_reading_meanwhile_is_no_loss(self) -> None:
        """What only read can be asked again when the folder is back."""
        database = await self.database()
        checks = iter(["d was moved"])
        assert database._guard is not None
        self.patch(database._guard, "check_files", lambda: next(checks, ""))
        error = await self.assertFailure(database.run(names, single=True), PlaceLost)
        self.assertIn("put it back", str(error))
        self.assertEqual(await database.run(names), [])

    async def test_a_deleted_write_ahead_log(self) -> None:
        """What was answered for is saved into the file while its log is still open."""
        database = await self.database()
        await database.run(put("a"))
        (self.folder / "log.sqlite-wal").unlink()
        error = await self.assertFailure(database.run(put("b")), PlaceLost)
        self.assertIn("log.sqlite-wal was moved away or deleted", str(error))
        copy = self.folder / "copy.sqlite"  # as it is after a power cut
        shutil.copy(self.path, copy)
        self.assertEqual(self.held(copy), ["a"])

    async def looked(self, database: Database) -> str:
        database.look()
        database.look()
        await database.run(names).addErrback(lambda _: None)
        return database.problem

    async def test_a_look_without_work(self) -> None:
        database = await self.database()
        self.assertEqual(await self.looked(database), "")
        self.path.rename(self.away)
        self.assertIn(f"{self.path} was moved away", await self.looked(database))
        self.away.rename(self.path)
        self.assertEqual(await self.looked(database), "")
        await database.close()
        database.look()

    async def test_a_read_only_file(self) -> None:
        """An error, never a success; works again when the cause is gone."""
        database = await self.database()
        await database.run(lambda c: c.execute("PRAGMA query_only=ON"), single=True)
        error = await self.assertFailure(database.run(put("a")), DatabaseUnusable)
        self.assertIn(f"database {self.path}: attempt to write", str(error))
        self.assertEqual(error.__cause__.sqlite_errorcode & 0xFF, sqlite3.SQLITE_READONLY)
        await database.run(lambda c: c.execute("PRAGMA query_only=OFF"), single=True)
        await database.run(put("a"))
        self.assertEqual(await database.run(names), ["a"])

    async def test_an_input_output_error_once(self) -> None:
        database = await self.database()

        def fails(connection: sqlite3.Connection) -> None:
            put("half")(connection)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        for single in (False, True):
            await self.assertFailure(database.run(fails, alone=True), DatabaseUnusable)
            await database.run(put(f"n{single}"), single=single)
        self.assertEqual(await database.run(names), ["nFalse", "nTrue"])


class DamageTests(TestCase):
    """Issue 11, points 1 and 4: a damaged file is named, with what can be done, and not used."""

    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.path = Path(root.name) / "log.sqlite"
        self.database().check()
        connection = connect(self.path)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO consumer_groups VALUES (?, 0)", ((f"n{n:05}",) for n in range(20_000))
        )
        connection.execute("COMMIT")
        connection.close()

    def damage(self, how: str) -> None:
        size = self.path.stat().st_size
        with open(self.path, "r+b") as file:
            if how == "header":
                file.write(b"\0" * 100)
            elif how == "short":
                file.truncate(size // 2 // 4096 * 4096)
            else:
                for page in range(size // 4096 // 3, size // 4096 * 2 // 3):
                    file.seek(page * 4096)
                    file.write(os.urandom(4096))

    def check_text(self, error: Exception) -> None:
        text = str(error)
        self.assertTrue(text.startswith(f"database {self.path} is damaged: "), text)
        self.assertIn("move the file and its -wal away and start it again", text)
        self.assertIn("'kupool restore'", text)
        self.assertNotIn("\n", text)

    def test_before_it_is_used(self) -> None:
        """A file of up to 64 MB is looked at as a whole."""
        self.database().check(verify=True)
        before = self.path.read_bytes()
        for how in ("pages", "short", "header"):
            self.path.write_bytes(before)
            self.damage(how)
            damaged = self.path.read_bytes()
            error = self.assertRaises(DatabaseDamaged, self.database().check, verify=True)
            self.check_text(error)
            self.assertEqual(self.path.read_bytes(), damaged, how)

    def database(self) -> Database:
        return Database(the_reactor(), self.path, "log")

    async def test_a_header_that_is_none(self) -> None:
        """Also where nobody asked for a look, as in a command."""
        self.damage("header")
        self.check_text(await self.assertFailure(self.database().open(), DatabaseDamaged))

    async def test_found_while_it_is_read(self) -> None:
        """All work is refused from then on: nothing can be said about it any more."""
        self.damage("pages")
        database = self.database()
        await database.open()
        self.addCleanup(database.close)
        self.assertEqual(database.problem, "")
        read = database.run(lambda c: c.execute("SELECT sum(length(name)) FROM consumer_groups"
                                                " NOT INDEXED").fetchone())  # fmt: skip
        error = await self.assertFailure(read, DatabaseDamaged)
        self.check_text(error)
        self.assertEqual(database.problem, str(error))
        again = await self.assertFailure(database.run(put("a")), DatabaseDamaged)
        self.assertEqual(str(again), str(error))
        await database.close()
        self.assertFalse(database.closed_clean)

    async def test_a_large_file_while_it_is_used(self) -> None:
        self.patch_at_once(0)
        self.damage("pages")
        database = self.database()
        database.check(verify=True)
        await database.open()
        self.addCleanup(database.close)
        assert database._verifier is not None
        database._verifier._thread.join(30)
        self.check_text(await self.assertFailure(database.run(put("a")), DatabaseDamaged))

    async def test_a_large_file_with_nothing_wrong(self) -> None:
        self.patch_at_once(0)
        database = self.database()
        database.check(verify=True)
        await database.open()
        assert database._verifier is not None
        database._verifier._thread.join(30)
        await database.run(put("a"))
        await database.close()
        self.assertTrue(database.closed_clean)
        self.assertFalse(self.path.with_name("log.sqlite-wal").exists())

    async def test_closed_while_it_is_looked_at(self) -> None:
        """A stop does not wait for the end, and says nothing wrong of the file."""
        self.patch_at_once(0)
        database = self.database()
        database.check(verify=True)
        await database.open()
        await database.close()
        self.assertEqual(database.problem, "")
        assert database._verifier is not None
        self.assertFalse(database._verifier._thread.is_alive())

    def patch_at_once(self, size: int) -> None:
        self.patch(database_module, "AT_ONCE", size)


class ModeTests(TestCase):
    """Issue 11, point 4: nobody but the owner reads what is kept, whatever the umask."""

    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.path = Path(root.name) / "log.sqlite"
        self.addCleanup(os.umask, os.umask(0o000))

    async def modes(self) -> set[int]:
        database = Database(the_reactor(), self.path, "log")
        await database.open()
        await database.run(put("a"))
        paths = [Path(f"{self.path}{end}") for end in ("", "-wal", "-shm")]
        modes = {path.stat().st_mode & 0o777 for path in paths}
        await database.run(lambda c: c.execute("DELETE FROM consumer_groups"))
        await database.close()
        return modes

    async def test_new(self) -> None:
        for umask in (0o000, 0o077, 0o777):
            os.umask(umask)
            self.assertEqual(await self.modes(), {0o600}, umask)
            self.path.unlink()

    async def test_made_before(self) -> None:
        """As a release before this one left it, with what a killed process leaves beside it."""
        connection = connect(self.path)
        connection.execute("CREATE TABLE t (x)")
        for end in ("", "-wal", "-shm"):
            os.chmod(f"{self.path}{end}", 0o644)
        self.assertEqual(await self.modes(), {0o600})
        connection.close()
