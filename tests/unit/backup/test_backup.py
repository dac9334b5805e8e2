"""Backups: made, checked, and put back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kupool.backup import BackupError, NoBar, file_name, making, switching
from kupool.backup.checking import check_backup
from kupool.backup.comparing import LARGEST_JOB, next_job
from kupool.backup.contents import PARTS, Contents, StoreContents
from kupool.backup.making import Source, make_backup
from kupool.backup.restoring import Into, Refused, Restored, restore_backup
from kupool.daemon.files import LOG_FILE, SPOOL_FILE, STORE_FILE
from kupool.log import Epoch, Identity
from kupool.storage.database import connect
from tests.fakes.data_folder import change, query, write_log, write_spool, write_store

POOL = Identity("pool1", (Epoch("e1", 0),))
OTHER = Identity("pool2", (Epoch("f1", 0),))

#: 2026-11-21 10:05:00, in seconds since the epoch.
NOW = 1_795_255_500.0

TOLD = "SELECT coalesce(sum(submission_count), 0) FROM submissions"


class Folders(SynchronousTestCase):
    """Folders of a test: ``data`` with 10 entries of which 8 are counted, ``target``, ``new``."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.data, self.target, self.new = (self.root / name for name in ("data", "bk", "new"))
        self.patch(making, "PAUSE", 0.0)
        write_log(self.data, POOL, 10, dead=2)
        write_store(self.data, POOL, 8)
        self.new.mkdir()

    def make(self, *parts: str, target: Path | None = None, now: float = NOW) -> Any:
        source = Source(self.data, parts or ("log", "store"), "sqlite", "sqlite")
        return make_backup(source, target or self.target, NoBar(), lambda: now)

    def check(self) -> Any:
        return check_backup(self.target, NoBar())

    def restore(self, *parts: str, force: bool = False, now: float = NOW + 10) -> Restored:
        into = Into(self.new, parts or ("log", "store"), 30.0)
        return restore_backup(self.target, into, NoBar(), lambda: now, force=force)

    def fails(self, call: Callable[..., object], *arguments: Any, **named: Any) -> str:
        return str(self.assertRaises(BackupError, call, *arguments, **named))

    def listing(self, folder: Path) -> dict[str, bytes]:
        """What is in a folder, but for the lock and what SQLite keeps for readers."""
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }


class MakingTests(Folders):
    """Issue 11, point 7: a backup is complete and consistent, or it is not there."""

    def test_the_names_of_the_files(self) -> None:
        self.assertEqual(
            [file_name(p) for p in PARTS],
            ["topics.sqlite", "topics_rabbit.sqlite", SPOOL_FILE, STORE_FILE, LOG_FILE],
        )

    def test_what_is_in_it(self) -> None:
        """Counts, dead letters and positions; the manifest says which and how large."""
        manifest = self.make()
        self.assertEqual(
            {path.name for path in self.target.iterdir()},
            {"backup.json", "log.sqlite", "store.sqlite"},
        )
        self.assertEqual(query(self.target, "log", "SELECT count(*) FROM dead_letters"), [(2,)])
        self.assertEqual(query(self.target, "store", TOLD), [(8,)])
        text = json.loads((self.target / "backup.json").read_bytes())
        content = (self.target / "log.sqlite").read_bytes()
        self.assertEqual(
            text["files"]["log.sqlite"],
            {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        )
        self.assertEqual((text["pool_id"], text["epoch"]), ("pool1", "e1"))
        self.assertEqual((text["log_first"], text["log_last"], text["counted_to"]), (1, 10, 8))
        self.assertEqual((text["dead_letters"], text["made_at"]), (2, "2026-11-21T10:05:00Z"))
        self.assertEqual(self.check()[0], manifest)

    def test_for_the_owner_alone(self) -> None:
        """Files are 0600 and the folder 0700, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        self.make()
        self.assertEqual(self.target.stat().st_mode & 0o777, 0o700)
        for path in self.target.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)

    def test_the_spool(self) -> None:
        write_spool(self.data, "s1", "s2", "s3")
        manifest = self.make("spool", "store")
        self.assertEqual(manifest.spooled, 3)
        self.assertEqual(query(self.target, "spool", "SELECT count(*) FROM spooled"), [(3,)])
        self.assertFalse((self.target / "log.sqlite").exists())
        self.check()

    def test_an_empty_folder_is_taken(self) -> None:
        self.target.mkdir(0o755)
        self.make()
        self.check()
        self.assertEqual(self.target.stat().st_mode & 0o777, 0o700)

    def test_targets_that_are_refused(self) -> None:
        """Nothing that is there is touched."""
        self.target.mkdir()
        (self.target / "mine").write_text("kept")
        (self.root / "file").write_text("kept")
        (self.root / "link").symlink_to(self.target)
        (self.root / "dangling").symlink_to(self.root / "nowhere")
        before = self.listing(self.root)
        for name, reason in (
            ("bk", "this folder is not empty"),
            ("file", "this is not a folder"),
            ("link", "this is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("missing/bk", "there is no folder"),
            ("file/bk", "Not a directory"),
        ):
            self.assertIn(reason, self.fails(self.make, target=self.root / name), name)
        self.assertIn("a file system is mounted there", self.fails(self.make, target=Path("/proc")))
        self.assertIn("MB are free", self.fails(self.make, target=Path("/proc/kupool-backup")))
        self.assertEqual(self.listing(self.root), before)

    def test_a_store_that_is_ahead_of_the_log(self) -> None:
        """A store from one day and a log from another are no backup."""
        change(self.data, "store", "UPDATE log_marks SET position = 11")
        found = self.fails(self.make)
        self.assertIn("are from different moments: the store has counted up to position 11", found)
        self.assertNothingLeft()

    def assertNothingLeft(self) -> None:
        self.assertEqual({path.name for path in self.root.iterdir()}, {"data", "new"})

    def test_a_log_that_begins_after_the_store(self) -> None:
        change(self.data, "log", "DELETE FROM entries WHERE position < 10")
        self.assertIn("the batches between them are in neither", self.fails(self.make))

    def test_two_pools(self) -> None:
        change(self.data, "store", "UPDATE pool_identity SET pool_id = 'pool2'")
        found = self.fails(self.make)
        self.assertIn("the log belongs to pool pool1 and the store to pool pool2", found)

    def test_a_spool_of_another_pool(self) -> None:
        write_spool(self.data, "s1")
        change(self.data, "spool", "INSERT INTO pool_identity VALUES (1, 'pool2')")
        self.assertIn("the spool belongs to pool pool2", self.fails(self.make, "spool", "store"))
        change(self.data, "spool", "UPDATE pool_identity SET pool_id = 'pool1'")
        self.assertEqual(self.make("spool", "store").pool_id, "pool1")

    def test_a_spool_alone(self) -> None:
        """With the log in RabbitMQ and the counts in PostgreSQL."""
        write_spool(self.data, "s1")
        change(self.data, "spool", "INSERT INTO pool_identity VALUES (1, 'pool2')")
        manifest = self.make("spool")
        self.assertEqual((manifest.pool_id, manifest.spooled), ("pool2", 1))
        self.assertEqual(self.restore("spool").replaced, None)
        self.assertEqual(query(self.new, "spool", "SELECT entry_id FROM spooled"), [("s1",)])

    def test_other_epochs(self) -> None:
        change(self.data, "log", "INSERT INTO epochs VALUES (1, 'e2', 10)")
        self.assertIn("are from different moments", self.fails(self.make))

    def test_a_daemon_that_just_starts_is_waited_for(self) -> None:
        """It tells the store of a new epoch before the log: both are looked at again."""
        change(self.data, "store", "INSERT INTO log_epochs VALUES (1, 'e2', 10)")

        def sleep(_: float) -> None:
            change(self.data, "log", "INSERT INTO epochs VALUES (1, 'e2', 10)")

        self.patch(making.time, "sleep", sleep)
        self.assertEqual(self.make().epoch, "e2")

    def test_files_of_the_release_before(self) -> None:
        change(self.data, "store", "DELETE FROM pool_identity")
        self.assertIn(
            "store.sqlite does not name its pool; start the daemon of this version",
            self.fails(self.make),
        )

    def test_other_peoples_files(self) -> None:
        (self.data / "log.sqlite").write_text("no database" * 100)
        self.assertIn("log.sqlite: file is not a database", self.fails(self.make))
        os.unlink(self.data / "log.sqlite")
        connect(self.data / "log.sqlite").close()
        self.assertIn("log.sqlite: not a log of KuPool", self.fails(self.make))
        os.unlink(self.data / "log.sqlite")
        self.assertIn("log.sqlite: unable to open", self.fails(self.make))
        self.assertNothingLeft()

    def test_the_moment_is_the_same_for_both(self) -> None:
        """What is written and counted while the files are copied is in neither copy."""
        data = self.data

        class Writing(NoBar):
            def stage(self, text: str) -> Callable[[int], None]:
                log, store = data / "log.sqlite", data / "store.sqlite"
                for path, statement in (
                    (log, "INSERT INTO entries (entry_id, appended_at, body) VALUES ('n', 0, '')"),
                    (store, "UPDATE log_marks SET position = position + 1"),
                    (store, "UPDATE submissions SET submission_count = submission_count + 1"),
                ):
                    connection = connect(path, "OFF")
                    connection.execute(statement)
                    connection.close()
                return super().stage(text)

        source = Source(self.data, ("log", "store"), "sqlite", "sqlite")
        make_backup(source, self.target, Writing(), lambda: NOW)
        self.assertEqual(query(self.target, "log", "SELECT max(position) FROM entries"), [(10,)])
        self.assertEqual(query(self.target, "store", TOLD), [(8,)])
        self.check()

    def test_nothing_is_left_of_one_that_failed(self) -> None:
        """Also where it is interrupted."""

        class Interrupted(NoBar):
            def stage(self, text: str) -> Callable[[int], None]:
                if text == "Checking store.sqlite":
                    raise KeyboardInterrupt
                return super().stage(text)

        source = Source(self.data, ("log", "store"), "sqlite", "sqlite")
        with self.assertRaises(KeyboardInterrupt):
            make_backup(source, self.target, Interrupted(), lambda: NOW)
        self.assertNothingLeft()


class CheckingTests(Folders):
    """Issue 11, point 7: what is wrong with a backup is found, and named."""

    def setUp(self) -> None:
        super().setUp()
        self.make()

    def edit(self, **changes: object) -> None:
        path = self.target / "backup.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))

    def forge(self) -> None:
        """Have the manifest say what the files are now."""
        files = {}
        for name in ("log.sqlite", "store.sqlite"):
            content = (self.target / name).read_bytes()
            files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.edit(files=files)

    def test_truncated(self) -> None:
        os.truncate(self.target / "log.sqlite", 4096)
        self.assertRegex(
            self.fails(self.check), r"log.sqlite: it has 4,096 bytes instead of [\d,]+$"
        )

    def test_a_changed_byte(self) -> None:
        with open(self.target / "store.sqlite", "r+b") as file:
            file.seek(5000)
            file.write(b"!")
        self.assertIn("store.sqlite: its SHA-256 differs from the manifest", self.fails(self.check))

    def test_a_missing_file(self) -> None:
        os.unlink(self.target / "log.sqlite")
        self.assertIn("log.sqlite: No such file", self.fails(self.check))

    def test_a_symbolic_link(self) -> None:
        os.rename(self.target / "log.sqlite", self.root / "log.sqlite")
        (self.target / "log.sqlite").symlink_to(self.root / "log.sqlite")
        self.assertIn("log.sqlite: is a symbolic link", self.fails(self.check))

    def test_a_link_to_the_folder_is_followed(self) -> None:
        """As ``latest`` among several backups."""
        (self.root / "latest").symlink_to(self.target)
        check_backup(self.root / "latest", NoBar())

    def test_written_to(self) -> None:
        (self.target / "log.sqlite-wal").write_bytes(b"something")
        self.assertIn("somebody wrote to the folder", self.fails(self.check))

    def test_manifests(self) -> None:
        """None, none that can be read, one of a newer version, one that reaches elsewhere."""
        path = self.target / "backup.json"
        good = path.read_text()
        files = {"../log.sqlite": {"size": 1, "sha256": "0"}}
        for text, reason in (
            ("", "not a manifest"),
            ("[]", "not a manifest"),
            ("{}", "not a manifest"),
            ("[" * 100_000, "not a manifest"),
            ('{"format": 1}', "not a manifest"),
            (good.replace('"format": 1', '"format": 3'), "form 3 is of a newer version"),
            (json.dumps({**json.loads(good), "files": {}}), "it names files that do not belong"),
            (json.dumps({**json.loads(good), "files": files}), "it names files that do not belong"),
            (json.dumps({**json.loads(good), "made_at": "yesterday"}), "not a manifest"),
        ):
            path.write_text(text)
            self.assertIn(reason, self.fails(self.check), text[:50])
            self.assertIn("backup.json", self.fails(self.check), text[:50])
        path.unlink()
        self.assertIn("not a backup: it has no backup.json", self.fails(self.check))
        shutil.rmtree(self.target)
        self.assertIn("not a backup: there is no such folder", self.fails(self.check))
        self.target.write_text("x")
        self.assertIn("not a backup: this is not a folder", self.fails(self.check))

    def test_a_store_of_another_day(self) -> None:
        """The files of two backups, with a manifest that was made to fit."""
        change(self.target, "store", "UPDATE log_marks SET position = 99")
        self.forge()
        self.assertIn("are from different moments", self.fails(self.check))

    def test_a_store_of_another_pool(self) -> None:
        change(self.target, "store", "UPDATE pool_identity SET pool_id = 'pool2'")
        self.forge()
        self.assertIn("the store to pool pool2", self.fails(self.check))

    def test_a_manifest_of_another_pool(self) -> None:
        self.edit(pool_id="pool2")
        self.assertIn("the manifest is of pool pool2, the files of pool1", self.fails(self.check))

    def test_a_damaged_database(self) -> None:
        """That had been so before it was copied."""
        with open(self.target / "log.sqlite", "r+b") as file:
            file.seek(8192)
            file.write(b"\x0d" + os.urandom(4000))
        self.forge()
        self.assertIn("log.sqlite", self.fails(self.check))


class RestoringTests(Folders):
    """Issue 11, point 7: a restore begins a new epoch, and never destroys anything."""

    def setUp(self) -> None:
        super().setUp()
        self.make()

    def epochs(self, part: str) -> list[tuple[object, ...]]:
        table = {"log": "epochs", "store": "log_epochs"}[part]
        return query(self.new, part, f"SELECT epoch, begins_after FROM {table} ORDER BY number")

    def test_into_an_empty_folder(self) -> None:
        """Counts are those of the backup; log and store have one new epoch in common."""
        done = self.restore()
        self.assertEqual(query(self.new, "store", TOLD), [(8,)])
        self.assertEqual(query(self.new, "log", "SELECT max(position) FROM entries"), [(10,)])
        self.assertEqual(query(self.new, "store", "SELECT max(position) FROM log_marks"), [(8,)])
        first, second = self.epochs("log")
        self.assertEqual(first, ("e1", 0))
        self.assertEqual(second[1], 10)
        self.assertNotEqual(second[0], "e1")
        self.assertEqual(self.epochs("store"), [first, second])
        self.assertEqual((done.begins_after, done.replaced, done.forced), (10, None, []))
        self.assertEqual(set(self.listing(self.new)), {"log.sqlite", "store.sqlite"})
        for name in ("log.sqlite", "store.sqlite"):
            self.assertEqual((self.new / name).stat().st_mode & 0o777, 0o600)

    def test_each_restore_is_an_epoch_of_its_own(self) -> None:
        """Two folders that were restored from one backup are not taken for each other."""
        self.restore()
        first = self.epochs("log")
        self.new = self.root / "another"
        self.new.mkdir()
        self.restore()
        self.assertNotEqual(self.epochs("log"), first)

    def test_the_backup_stays_as_it_is(self) -> None:
        before = self.listing(self.target)
        self.restore()
        self.assertEqual(self.listing(self.target), before)
        self.check()

    def test_jobs(self) -> None:
        """Issue 11, points 1, 2: jobs of before are retired, and no id comes again."""
        done = self.restore()
        jobs = query(self.new, "store", "SELECT job_id, server_nonce FROM job_history")
        self.assertEqual([job_id for job_id, _ in jobs], [done.next_job])
        self.assertNotEqual(jobs[0][1], "aa")
        reserved = query(self.new, "store", "SELECT reserved_until FROM job_ids")
        self.assertEqual(reserved, [(done.next_job,)])
        self.assertGreater(done.next_job, 7 + 1_000_000)
        self.assertLess(done.next_job, 2**31)

    def test_over_the_same_data(self) -> None:
        """What the backup holds, or less, needs no force; it is kept aside."""
        self.new = self.data
        before = self.listing(self.data)
        done = self.restore()
        self.assertEqual(query(self.new, "store", TOLD), [(8,)])
        assert done.replaced is not None
        self.assertEqual(done.replaced.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.listing(done.replaced), before)

    def test_older_data(self) -> None:
        write_log(self.new, POOL, 5)
        write_store(self.new, POOL, 5, job=3)
        self.assertEqual(self.restore().forced, [])

    def test_empty_files(self) -> None:
        """As a daemon leaves them that had nothing to do, of another pool."""
        write_log(self.new, None, 0)
        write_store(self.new, None, 0)
        change(self.new, "store", "DELETE FROM job_history")
        change(self.new, "store", "DELETE FROM job_ids")
        self.assertEqual(self.restore().forced, [])

    def refused(self, *reasons: str, parts: tuple[str, ...] = ("log", "store")) -> Restored:
        """It is refused, changes nothing, and with force keeps everything aside."""
        before = self.listing(self.new)
        error = str(self.assertRaises(Refused, self.restore, *parts))
        for reason in reasons:
            self.assertIn(reason, error)
        self.assertEqual(self.listing(self.new), before)
        done = self.restore(*parts, force=True)
        self.assertTrue(done.forced)
        assert done.replaced is not None
        self.assertEqual(self.listing(done.replaced), before)
        return done

    def test_a_newer_log(self) -> None:
        """Refused, saying by how much; the new epoch begins after both."""
        write_log(self.new, POOL, 25)
        write_store(self.new, POOL, 24, job=50)
        done = self.refused("its log ends at position 25, that of the backup at 10: 15 more")
        self.assertEqual(done.begins_after, 25)
        self.assertEqual(self.epochs("log")[-1][1], 25)
        self.assertGreater(done.next_job, 50)

    def test_a_newer_store(self) -> None:
        """The log was lost, and with it what the backup's store does not have."""
        write_store(self.new, POOL, 30)
        done = self.refused("its store has counted up to position 30, that of the backup up to 8")
        self.assertEqual(done.begins_after, 30)

    def test_a_newer_epoch(self) -> None:
        write_log(self.new, POOL.with_epoch("e2", 10), 10)
        done = self.refused("has an epoch that the backup does not know, which begins after")
        self.assertEqual(len(self.epochs("log")), 2)
        self.assertEqual(done.begins_after, 10)

    def test_a_daemon_that_went_on_without_submissions(self) -> None:
        write_log(self.new, POOL, 10)
        write_store(self.new, POOL, 8, job=9, reserved=1009)
        self.refused("its newest job is 9, that of the backup 7: a daemon has worked on it since")

    def test_what_is_in_a_wal_counts(self) -> None:
        """A daemon that was killed leaves its newest entries there; none of it is lost."""
        write_log(self.new, POOL, 10)
        write_store(self.new, POOL, 8)
        writer = connect(self.new / "log.sqlite")
        self.addCleanup(writer.close)
        writer.execute("INSERT INTO entries VALUES (11, 'b11', 0, x'00')")
        crashed = self.root / "crashed"
        shutil.copytree(self.new, crashed)
        self.new = crashed
        self.assertGreater((crashed / "log.sqlite-wal").stat().st_size, 0)
        self.assertIn("its log ends at position 11", self.fails(self.restore))
        done = self.restore(force=True)
        assert done.replaced is not None
        self.assertFalse((crashed / "log.sqlite-wal").exists())
        kept = query(done.replaced, "log", "SELECT max(position) FROM entries")
        self.assertEqual(kept, [(11,)])
        self.assertEqual(query(crashed, "log", "SELECT max(position) FROM entries"), [(10,)])

    def test_what_is_beside_a_file_goes_with_it(self) -> None:
        """Nothing of the old files meets the new ones."""
        write_store(self.new, POOL, 8)
        (self.new / "store.sqlite-ids").write_text("1008")
        (self.new / "log.sqlite-wal").write_text("of a log that is gone")
        done = self.restore()
        assert done.replaced is not None
        self.assertLessEqual(
            {"store.sqlite", "store.sqlite-ids", "log.sqlite-wal"},
            {path.name for path in done.replaced.iterdir()},
        )
        self.assertEqual(
            {path.name for path in self.new.iterdir()},
            {"log.sqlite", "store.sqlite", done.replaced.name},
        )

    def test_another_pool(self) -> None:
        write_log(self.new, OTHER, 3)
        write_store(self.new, OTHER, 3)
        self.refused(
            "its log belongs to pool pool2, and the backup to pool pool1",
            "its store belongs to pool pool2",
        )

    def test_data_of_the_release_before(self) -> None:
        write_log(self.new, None, 3)
        self.refused("its log does not name its pool")

    def test_damaged_files(self) -> None:
        (self.new / "log.sqlite").write_text("no database" * 1000)
        self.refused("log.sqlite cannot be read: file is not a database")

    def test_a_spool_with_more(self) -> None:
        shutil.rmtree(self.target)
        write_spool(self.data, "s1", "s2")
        self.make("spool", "store")
        write_spool(self.new, "s2", "s3", "s4")
        done = self.refused(
            "2 batches wait in its spool that are not in the backup", parts=("spool", "store")
        )
        self.assertEqual(done.begins_after, 0)
        self.assertEqual(
            query(self.new, "spool", "SELECT entry_id FROM spooled"), [("s1",), ("s2",)]
        )
        # The log is in RabbitMQ and goes on: its epoch is not ours to begin.
        self.assertEqual(self.epochs("store"), [("e1", 0)])
        self.assertEqual(query(self.new, "store", "SELECT log_position FROM job_history"), [(8,)])

    def test_a_log_alone(self) -> None:
        """With the counts in PostgreSQL."""
        shutil.rmtree(self.target)
        self.make("log")
        done = self.restore("log")
        self.assertEqual((done.begins_after, done.next_job), (10, 0))
        self.assertEqual(len(self.epochs("log")), 2)

    def test_other_engines(self) -> None:
        found = self.fails(self.restore, "spool", "store")
        self.assertIn("holds log.sqlite and store.sqlite, and these settings want spool.", found)
        self.assertIn("--mq sqlite --store sqlite", found)

    def test_a_link_in_the_place(self) -> None:
        """A file that lies elsewhere is neither written to nor replaced."""
        write_log(self.root / "elsewhere", POOL, 1)
        (self.new / "log.sqlite").symlink_to(self.root / "elsewhere" / "log.sqlite")
        self.assertIn(
            "log.sqlite: is a symbolic link; move it away", self.fails(self.restore, force=True)
        )

    def test_a_bad_backup_changes_nothing(self) -> None:
        write_log(self.new, POOL, 5)
        before = self.listing(self.new)
        with open(self.target / "store.sqlite", "r+b") as file:
            file.seek(5000)
            file.write(b"!")
        self.assertIn("its SHA-256", self.fails(self.restore))
        self.assertEqual(self.listing(self.new), before)

    def test_a_backup_of_a_newer_version(self) -> None:
        """Tables that this version does not know."""
        shutil.rmtree(self.target)
        change(self.data, "store", "INSERT INTO schema_version (version) VALUES (99)")
        self.make()
        self.assertIn("schema version 99", self.fails(self.restore))
        self.assertEqual(self.listing(self.new), {})


class InterruptedTests(Folders):
    """Issue 11, point 7: a restore that is killed at any moment is done or not."""

    def setUp(self) -> None:
        super().setUp()
        self.make()
        write_log(self.new, POOL, 25)
        write_store(self.new, POOL, 24)

    @contextmanager
    def dying_at(self, number: int) -> Iterator[list[int]]:
        """Have the rename of this number kill the process, so to say."""
        real, done = os.rename, [0]

        def rename(*arguments: Any) -> None:
            done[0] += 1
            if done[0] == number:
                raise SystemExit("killed")
            real(*arguments)

        with mock.patch.object(switching.os, "rename", rename):
            yield done

    def test_at_every_rename(self) -> None:
        """The note is there until it is finished, and finishing gives what was wanted."""
        interrupted = 0
        while True:
            shutil.rmtree(self.new)
            write_log(self.new, POOL, 25)
            write_store(self.new, POOL, 24)
            before = self.listing(self.new)
            with self.dying_at(interrupted + 1) as done:
                try:
                    self.restore(force=True)
                except SystemExit:
                    pass
            if done[0] <= interrupted:
                break
            interrupted += 1
            begun = switching.unfinished(self.new)
            if begun is None:
                files = {k: v for k, v in self.listing(self.new).items() if k in before}
                self.assertEqual(files, before)
                continue
            self.assertIn(
                f"'kupool restore {self.target}' finishes it",
                self.fails(switching.check_finished, self.new),
            )
            switching.finish(self.new, begun)
            switching.check_finished(self.new)
            self.assertEqual(query(self.new, "store", TOLD), [(8,)])
            self.assertEqual(query(self.new, "log", "SELECT max(position) FROM entries"), [(10,)])
            self.assertEqual(self.listing(self.new / begun.replaced), before)
        self.assertGreaterEqual(interrupted, 5)

    def test_a_note_that_cannot_be_read(self) -> None:
        (self.new / switching.NOTE).write_text("{")
        self.assertIn("restoring.json", self.fails(switching.check_finished, self.new))


class JobIdTests(SynchronousTestCase):
    """Issue 11, point 2: a job id never repeats and stays below 2^31."""

    def side(self, newest: int, reserved: int = 0) -> Contents:
        return Contents(store=StoreContents(None, 0, newest, reserved))

    def test_beyond_all_that_may_have_been_given_out(self) -> None:
        """By the backup, by the files that were there, and since by nobody knows whom."""
        early = 1000.0  # a clock that is not set
        self.assertEqual(next_job(early, early, 30, self.side(7, 1007)), 1_001_007)
        self.assertEqual(next_job(early, early, 30, self.side(7), self.side(500)), 1_000_500)
        self.assertEqual(next_job(early, early, 30, self.side(7), Contents()), 1_000_007)

    def test_the_time_since_the_backup(self) -> None:
        """Two restores of one backup, a day apart, do not give out the same ids."""
        first = next_job(NOW, NOW + 60, 30, self.side(500_000_000))
        second = next_job(NOW, NOW + 86460, 30, self.side(500_000_000))
        self.assertEqual(second - first, 86400)
        fast = next_job(NOW, NOW + 60, 0.1, self.side(500_000_000))
        self.assertEqual(fast - first, 60 * 9)

    def test_seconds_since_2024(self) -> None:
        self.assertEqual(next_job(NOW, NOW, 30, self.side(7)), int(NOW) - 1_704_067_200)

    def test_a_clock_that_is_wrong(self) -> None:
        """In 2099, or far behind the backup: ids stay below 2^31."""
        self.assertEqual(next_job(NOW, NOW + 73 * 365 * 86400, 30, self.side(7)), 1_000_007)
        self.assertEqual(next_job(NOW, 0.0, 30, self.side(7)), 1_000_007)

    def test_no_room_left(self) -> None:
        error = self.assertRaises(ValueError, next_job, NOW, NOW, 30, self.side(LARGEST_JOB - 5))
        self.assertIn("job ids are used up", str(error))
