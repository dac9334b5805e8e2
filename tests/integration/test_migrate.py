"""Issue 11, 8: a pool is moved between engines, and killed in the middle of it."""

from __future__ import annotations

import atexit
import functools
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from kupool.migration.tables import EPOCHS, LEFT, POOL, TABLES
from kupool.storage.postgres.schema import TOPIC_TABLES
from tests.servers.commands import environment, kupool
from tests.servers.running_daemon import LineClient, RunningDaemon, StartFailed
from tests.servers.services import postgres, rabbit
from tools.moved_pool import NEWEST_JOB, RESERVED

SUBMISSIONS = 3000

COUNTS = "SELECT username, CAST(timestamp AS VARCHAR(19)), submission_count FROM submissions"
WORKERS = (
    "SELECT username, worker, CAST(timestamp AS VARCHAR(19)), submission_count "
    "FROM worker_submissions"
)
REJECTIONS = (
    "SELECT username, code, CAST(timestamp AS VARCHAR(19)), rejection_count FROM rejections"
)
IDS = "SELECT batch_id FROM applied_batches"
NOTES = "SELECT direction FROM migration"
JOBS = "SELECT job_id, server_nonce FROM job_history"


@functools.cache
def pool() -> Path:
    """Return a folder with a pool, made once for all tests; it is to be copied."""
    temporary = tempfile.TemporaryDirectory(prefix="kupool-pool-")
    atexit.register(temporary.cleanup)
    made = [sys.executable, "-m", "tools.moved_pool", temporary.name, str(SUBMISSIONS)]
    subprocess.run(made, env=environment(), check=True)
    return Path(temporary.name)


class Place:
    """Where a pool is kept: a settings file, and a way to ask its store."""

    def __init__(self, folder: Path, name: str, file: str = "", **settings: str) -> None:
        self.settings = {"data": str(folder / name), **settings}
        self.file = str(folder / f"{file or name}.yaml")
        Path(self.file).write_text(yaml.safe_dump(self.settings))
        self.data = Path(self.settings["data"])

    def ask(self, query: str) -> list[Any]:
        """Return the rows of the store, sorted."""
        if self.settings.get("store") == "pg":
            return sorted(postgres().execute(query, dsn=self.settings["pg_dsn"]))
        with closing(sqlite3.connect(self.data / "store.sqlite")) as store:
            return sorted(store.execute(query).fetchall())

    def everything(self) -> list[list[Any]]:
        """Return what must be the same wherever the pool is."""
        return [self.ask(query) for query in (COUNTS, WORKERS, REJECTIONS, IDS, JOBS)]

    def daemon(self, *flags: str) -> RunningDaemon:
        """Return a daemon of it, not started."""
        return RunningDaemon(f"--config={self.file}", "--interval=1h", *flags, data=self.data)


class MoveTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-move-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.old = self.place("old")
        shutil.copytree(pool(), self.old.data)
        self.before = self.old.everything()
        #: Submitted for the newest job by the daemons on each side.
        self.nonces: list[str] = []

    def place(self, name: str, file: str = "", **settings: str) -> Place:
        return Place(self.folder, name, file, **settings)

    def migrate(self, source: Place, target: Place, *flags: str, status: int = 0) -> str:
        """Run the command; returns what it printed."""
        done = kupool("migrate", "--from", source.file, "--to", target.file, *flags)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def die(self, source: Place, target: Place, phase: str, pieces: int) -> None:
        """Run the command, and have it killed in a phase."""
        command = [sys.executable, "-m", "tools.dying_move", phase, str(pieces), "small"]
        command += ["migrate", "--from", source.file, "--to", target.file]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        self.assertEqual(done.returncode, -9, done.stdout + done.stderr)

    def assert_moved(self, target: Place) -> None:
        """Everything is there, the audit is clean, and the daemon goes on."""
        self.assertEqual(target.everything(), self.before)
        with target.daemon("--submit-interval=0", "--attempts-rate=0") as daemon:
            client = LineClient(daemon)
            job = client.authorize("somebody")
            self.assertGreater(job["job_id"], RESERVED)
            # The nonces that were used for a job are known wherever it was submitted for.
            for nonce in self.nonces:
                self.assertEqual(client.submit(job, nonce)["error"], "Duplicate submission")
            self.nonces.append(f"nonce {len(self.nonces)}")
            self.assertEqual(client.submit(job, self.nonces[-1])["result"], True)
            client.close()
            self.assertEqual(daemon.stop(), 0)
            self.assertNotIn("a new epoch begins", daemon.output)
            self.assertNotIn("counted anew", daemon.output)
        names = {row[0] for row in target.ask(COUNTS)}
        self.assertIn("somebody", names)
        audit = kupool("audit", "--config", target.file, f"--data={target.data}")
        self.assertEqual((audit.returncode, audit.stdout.splitlines()[-1]), (0, "0 differences"))

    def refused(self, place: Place) -> str:
        """Return why a daemon does not start."""
        with self.assertRaises(StartFailed) as caught, place.daemon():
            pass
        return str(caught.exception)


class SqliteTests(MoveTests):
    def test_a_pool_is_moved_to_another_folder(self) -> None:
        new = self.place("new")
        printed = self.migrate(self.old, new)
        self.assertIn(f"submissions: {len(self.before[0]):,}, {SUBMISSIONS:,} in all", printed)
        self.assertIn("dead letters: 1,", printed)
        self.assert_moved(new)

    def test_a_daemon_refuses_what_was_moved_away(self) -> None:
        new = self.place("new")
        self.migrate(self.old, new)
        reason = self.refused(self.old)
        self.assertIn("its data was moved to", reason)
        self.assertIn(new.file, reason)
        self.assertIn("moved to", self.migrate(self.old, self.place("third"), status=1))

    def test_a_move_that_is_done_says_so(self) -> None:
        new = self.place("new")
        self.migrate(self.old, new)
        self.assertIn("before", self.migrate(self.old, new))

    def test_a_killed_move_goes_on(self) -> None:
        new = self.place("new")
        for phase, pieces in (
            ("Copying the log", 2),
            ("Comparing the log", 1),
            ("Dead letters", 0),
            ("Copying submissions", 2),
            ("Copying log_marks", 1),
            ("Comparing applied_batches", 1),
        ):
            self.die(self.old, new, phase, pieces)
        self.assertIn("kupool migrate --from", self.refused(self.old))
        self.assertIn("not all of it is here", self.refused(new))
        self.migrate(self.old, new)
        self.assert_moved(new)

    def test_a_move_that_is_given_up_begins_anew(self) -> None:
        new = self.place("new")
        self.die(self.old, new, "Copying submissions", 2)
        self.assertIn("finish that first", self.migrate(self.old, self.place("third"), status=1))
        self.migrate(self.old, new, "--undo")
        self.assertIn("was undone", self.refused(new))
        self.migrate(self.old, self.place("third"))
        self.assert_moved(self.place("third"))

    def test_an_undone_move_leaves_the_old_side_in_use(self) -> None:
        new = self.place("new")
        self.migrate(self.old, new)
        self.migrate(self.old, new, "--undo")
        self.assertIn("was undone", self.refused(new))
        self.assert_moved(self.old)

    def test_a_move_is_not_undone_once_the_new_side_works(self) -> None:
        new = self.place("new")
        self.migrate(self.old, new)
        with new.daemon() as daemon:
            daemon.stop()
        self.assertIn("has worked on", self.migrate(self.old, new, "--undo", status=1))

    def test_a_target_with_data_is_refused(self) -> None:
        new = self.place("new")
        with new.daemon() as daemon:
            daemon.stop()
        printed = self.migrate(self.old, new, status=1)
        self.assertIn("is not empty", printed)
        self.assertIn("job_history", printed)
        with self.old.daemon() as daemon:  # nothing has happened to it
            daemon.stop()

    def test_what_is_not_counted_is_not_moved(self) -> None:
        with closing(sqlite3.connect(self.old.data / "store.sqlite")) as store:
            store.execute("DELETE FROM log_marks")
            store.execute("DELETE FROM applied_batches WHERE batch_id = 'batch-100'")
            store.commit()
        printed = self.migrate(self.old, self.place("new"), status=1)
        self.assertIn("1 entries", printed)
        self.assertIn("start the daemon with the old settings", printed)

    def test_a_running_daemon_is_noticed(self) -> None:
        """Only its topics are copied; the rest is still there, and so is the daemon."""
        with self.old.daemon():
            printed = self.migrate(self.old, self.place("new"))
            self.assertIn("Stop it and run the same command again, which moves the rest", printed)
        with self.old.daemon():
            self.assertEqual(self.old.ask(NOTES), [])

    def test_the_restored_jobs_go_on(self) -> None:
        """A job's lower bound in the log is that of the new log."""
        with closing(sqlite3.connect(self.old.data / "store.sqlite")) as store:
            store.execute("UPDATE job_history SET log_position = job_id - ?", (NEWEST_JOB - 10,))
            store.commit()
        new = self.place("new")
        self.migrate(self.old, new)
        found = new.ask("SELECT log_position FROM job_history")
        with closing(sqlite3.connect(new.data / "log.sqlite")) as log:
            (base,) = log.execute("SELECT min(position) - 1 FROM entries").fetchone()
        self.assertEqual([place for (place,) in found], [base + n for n in (8, 9, 10)])


class OtherEnginesTests(MoveTests):
    """A daemon does not begin an empty pool beside a full one."""

    def other(self, **settings: str) -> Place:
        """Return the same folder with other engines."""
        return self.place("old", "other", **settings)

    def test_an_empty_postgresql_beside_a_full_file(self) -> None:
        other = self.other(store="pg", pg_dsn=postgres().new_database())
        reason = self.refused(other)
        self.assertIn("store.sqlite holds the counts of a pool", reason)
        self.assertIn("'kupool migrate --from SETTINGS --to SETTINGS'", reason)
        (self.old.data / "store.sqlite").rename(self.old.data / "kept")
        with other.daemon() as daemon:  # counts everything from the log
            daemon.stop()
        self.assertEqual(other.ask(COUNTS), self.before[0])
        (self.old.data / "kept").rename(self.old.data / "store.sqlite")
        with other.daemon() as daemon:
            daemon.stop()
        self.assertIn("it is not used", daemon.output)

    def test_an_empty_rabbitmq_beside_a_full_log(self) -> None:
        other = self.other(mq="rabbit", mq_url=rabbit().new_vhost())
        reason = self.refused(other)
        self.assertIn("log.sqlite holds the log of a pool", reason)
        self.assertIn("'kupool migrate --from SETTINGS --to SETTINGS'", reason)
        (self.old.data / "log.sqlite").rename(self.old.data / "kept")
        with other.daemon() as daemon:
            daemon.stop()

    def test_a_full_spool_beside_another_log(self) -> None:
        (self.old.data / "log.sqlite").rename(self.old.data / "kept")
        other = self.other(mq="rabbit", mq_url="amqp://127.0.0.1:1")
        with other.daemon() as daemon:
            client = LineClient(daemon)
            self.assertTrue(client.submit(client.authorize("alice"), "spooled")["result"])
            client.close()
        (self.old.data / "kept").rename(self.old.data / "log.sqlite")
        # One of the submission, and a note of the job that went out.
        self.assertRegex(self.refused(self.old), r"spool.sqlite holds \d accepted batches")


class PostgresTests(MoveTests):
    def test_every_column_of_a_database_is_moved(self) -> None:
        new = self.place("new", store="pg", pg_dsn=postgres().new_database())
        self.migrate(self.old, new)
        rows = new.ask(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'public'"
        )
        found = {row for row in rows if row[0] not in (*LEFT, *TOPIC_TABLES)}
        described = {(t.name, name) for t in (*TABLES, POOL, EPOCHS) for name in t.names}
        self.assertEqual(found, described)

    def test_the_store_alone_is_moved_and_back(self) -> None:
        new = self.place("old", "new", store="pg", pg_dsn=postgres().new_database())
        self.migrate(self.old, new)
        self.assertEqual(new.everything(), self.before)
        self.assertIn("its data was moved to PostgreSQL", self.refused(self.old))
        moved_away = self.old.data / "store.sqlite.moved"
        (self.old.data / "store.sqlite").rename(moved_away)
        self.migrate(new, self.old)
        self.assert_moved(self.old)

    def test_a_killed_move_goes_on(self) -> None:
        new = self.place("new", store="pg", pg_dsn=postgres().new_database())
        for phase in ("Copying submissions", "Copying worker", "Copying applied", "Comparing sub"):
            self.die(self.old, new, phase, 1)
        self.migrate(self.old, new)
        self.assert_moved(new)


class RabbitTests(MoveTests):
    def test_a_pool_is_moved_to_rabbitmq_and_postgresql_and_back(self) -> None:
        """Killed on both ways: what the broker has is known by looking into the stream."""
        url = rabbit().new_vhost()
        there = self.place(
            "there", mq="rabbit", mq_url=url, store="pg", pg_dsn=postgres().new_database()
        )
        for phase in ("Copying the log", "Comparing the log", "Copying applied", "Comparing sub"):
            self.die(self.old, there, phase, 1 if "applied" in phase else 2)
        self.assertIn("kupool migrate --from", self.refused(self.old))
        self.migrate(self.old, there)
        self.assert_moved(there)
        self.before = there.everything()
        back = self.place("back")
        self.die(there, back, "Copying the log", 3)
        self.die(there, back, "Copying worker", 1)
        self.migrate(there, back)
        self.assertIn("its data was moved to", self.refused(there))
        self.assert_moved(back)
        with closing(sqlite3.connect(back.data / "log.sqlite")) as log:
            dead = log.execute("SELECT entry_id, body FROM dead_letters").fetchall()
        self.assertEqual(dead, [("poison", b"no batch at all")])

    def test_the_log_alone_is_moved_and_back(self) -> None:
        """The store stays, and its positions become those of the other log."""
        there = self.place("old", "there", mq="rabbit", mq_url=rabbit().new_vhost())
        self.die(self.old, there, "Copying the log", 2)
        self.assertIn("not all of it is here", self.refused(self.old))
        self.die(self.old, there, "Renumbering", 1)
        self.migrate(self.old, there)
        self.assertIn("its log was moved to RabbitMQ", self.refused(self.old))
        self.assert_moved(there)
        (self.old.data / "log.sqlite").rename(self.old.data / "log.sqlite.moved")
        self.before = there.everything()
        self.migrate(there, self.old)
        self.assertIn("its log was moved to", self.refused(there))
        self.assert_moved(self.old)
