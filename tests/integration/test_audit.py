"""``kupool audit`` and ``kupool stats rebuild`` on what daemons leave behind, as processes."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.servers.commands import KUPOOL, environment, kupool
from tests.servers.own_process import wait_until
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import postgres
from tests.terminal import terminal

DUMP = (
    "SELECT username, '', timestamp, submission_count FROM submissions UNION ALL "
    "SELECT * FROM worker_submissions ORDER BY 1, 2, 3"
)


FLAGS = ("--interval=1h", "--flush-interval=50ms", *UNLIMITED)


def run(database: Path, *statements: str) -> list[Any]:
    """Run statements in a database; returns the rows of all of them."""
    with closing(sqlite3.connect(database)) as connection:
        rows = [row for statement in statements for row in connection.execute(statement)]
        connection.commit()
    return rows


def fill(data: Path, first: int, minutes: int, batches: int) -> None:
    """Append batches of three submissions to a log, so many in each minute."""
    with closing(sqlite3.connect(data / "log.sqlite")) as log:
        for minute in range(minutes):
            for number in range(batches):
                at = (first + 60 * minute) * 1000
                name = f"made-{minute}-{number}"
                users = ["alice.rig1", "alice.rig2", "bob"]
                body = encode_batch(Batch(VERSION, name, at, users, [1] * 3, ["x"] * 3))
                log.execute(
                    "INSERT INTO entries (entry_id, appended_at, body) VALUES (?, ?, ?)",
                    (name, at, body),
                )
        log.commit()


def wait_for_counted(data: Path, total: int) -> None:
    """Wait until so many submissions are counted."""
    query = "SELECT coalesce(sum(submission_count), 0) FROM submissions"
    wait_until(lambda: run(data / "store.sqlite", query) == [(total,)], f"{total} counted", 60)


@cache
def counted(minutes: int, batches: int) -> tuple[Path, int]:
    """Return a folder whose daemon has counted such batches and has ended, and the first minute.

    It is made once, with two starts of a daemon. Each test changes a copy.
    """
    daemon = RunningDaemon(*FLAGS)
    atexit.register(daemon.__exit__)
    daemon.start()
    daemon.stop()
    first = int(time.time()) // 60 * 60 - 3600
    fill(daemon.data, first, minutes, batches)
    daemon.start()
    wait_for_counted(daemon.data, minutes * batches * 3)
    daemon.stop()
    return daemon.data, first


class FolderCase(SynchronousTestCase):
    """A folder whose daemon has counted batches of some minutes, and has ended."""

    #: Minutes with batches, and batches in each; a batch is of three submissions.
    minutes, batches = 10, 2

    def setUp(self) -> None:
        made, self.first = counted(self.minutes, self.batches)
        self.data = Path(self.mktemp()).absolute() / "data"
        self.data.parent.mkdir(parents=True)
        shutil.copytree(made, self.data)
        self.daemon = RunningDaemon(*FLAGS, data=self.data)
        self.addCleanup(self.daemon.__exit__)

    def store(self, *statements: str) -> list[Any]:
        return run(self.data / "store.sqlite", *statements)

    def log(self, *statements: str) -> None:
        run(self.data / "log.sqlite", *statements)

    def wait_for(self, total: int) -> None:
        wait_for_counted(self.data, total)

    def at(self, minute: int) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.first + 60 * minute))

    def audit(self, *flags: str) -> tuple[int, dict[str, Any]]:
        done = kupool("audit", f"--data={self.data}", "--json", *flags)
        self.assertEqual(done.stderr, "")
        return done.returncode, json.loads(done.stdout)

    def rows(self, *flags: str) -> tuple[int, list[tuple[str, str, int, int, int]]]:
        """Return the status of an audit, and the rows that differ, by the minute's number."""
        status, found = self.audit(*flags)
        return status, [
            (
                r["username"],
                r["worker"],
                (r["minute"] - self.first) // 60,
                r["logged"],
                r["counted"],
            )
            for r in found["rows"]
        ]


class FalsifiedTests(FolderCase):
    """Point 6: a row that was falsified on purpose is found, and nothing else is."""

    def test_each_kind(self) -> None:
        """Each by itself, and put right by a rebuild, to the byte."""
        status, found = self.audit()
        self.assertEqual((status, found["differences"]), (0, 0))
        self.assertEqual(found["compared"]["batches"], 20)
        self.assertEqual(found["compared"]["submissions"], 60)
        self.assertEqual(found["compared"]["first_minute"], self.first)
        before = self.store(DUMP)
        at, new = self.at(3), self.at(-20)
        for statement, expected in (
            (
                f"UPDATE submissions SET submission_count = 9 WHERE username = 'alice' "
                f"AND timestamp = '{at}'",
                ("alice", "", 3, 4, 9),
            ),
            (f"INSERT INTO submissions VALUES ('mallory', '{at}', 5)", ("mallory", "", 3, 0, 5)),
            (f"INSERT INTO submissions VALUES ('bob', '{new}', 5)", ("bob", "", -20, 0, 5)),
            (
                f"DELETE FROM submissions WHERE username = 'bob' AND timestamp = '{at}'",
                ("bob", "", 3, 2, 0),
            ),
            (
                f"UPDATE worker_submissions SET submission_count = 1 WHERE worker = 'rig2' "
                f"AND timestamp = '{at}'",
                ("alice", "rig2", 3, 2, 1),
            ),
        ):
            self.store(statement)
            self.assertEqual(self.rows(), (1, [expected]), statement)
            made = kupool("stats", "rebuild", f"--data={self.data}")
            self.assertEqual(made.returncode, 0, made.stderr)
            self.assertIn(" 1 row corrected, 0 missing batches counted", made.stdout)
            self.assertEqual(self.store(DUMP), before, statement)

    def test_nothing_is_changed(self) -> None:
        """Point 6: an audit leaves every file as it is, and none beside them."""

        def state() -> dict[str, tuple[int, int]]:
            return {
                path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
                for folder in (self.data, self.data.parent)
                for path in folder.iterdir()
                if path.is_file()
            }

        before = state()
        self.assertEqual(self.audit()[0], 0)
        self.assertEqual(kupool("stats", f"--data={self.data}").returncode, 0)
        self.assertEqual(state(), before)

    def test_other_versions(self) -> None:
        """Point 6: files of another version are not updated by a command, which says so."""
        self.store("DELETE FROM schema_version WHERE version > 1")
        for command in (("audit",), ("stats", "rebuild")):
            done = kupool(*command, f"--data={self.data}")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("start the daemon of this version once, which updates it", done.stderr)
        self.assertEqual(self.store("SELECT max(version) FROM schema_version"), [(1,)])

    def test_dropped_table(self) -> None:
        """X-06: an audit names it, a rebuild makes it again, to the byte."""
        before = self.store(DUMP)
        self.store("DROP TABLE submissions")
        done = kupool("audit", f"--data={self.data}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such table: submissions; 'kupool stats rebuild' makes it", done.stderr)
        self.assertEqual(kupool("stats", "rebuild", f"--data={self.data}").returncode, 0)
        self.assertEqual(self.store(DUMP), before)

    def test_progress(self) -> None:
        """Point 6: on a terminal a bar shows how far it is; nowhere else."""
        ours, theirs = terminal()
        with open(ours, "rb") as screen:
            done = subprocess.run(
                [*KUPOOL, "audit", f"--data={self.data}"],
                stdout=subprocess.PIPE,
                stderr=theirs,
                timeout=120,
                env=environment({"TERM": "xterm"}),
            )
            os.close(theirs)
            shown = screen.read1(65536)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"100%", shown)


class ReachTests(FolderCase):
    """Point 6: "nothing to compare" and "the log does not reach back" are no success."""

    def test_exit_statuses(self) -> None:
        """A trimmed log, one that lost something, an empty range, and what is not counted."""
        self.assertEqual(self.audit("--to=2020-01-01")[0], 3)
        self.log(
            "DELETE FROM entries WHERE position <= 5",
            "INSERT INTO trimmed (only_row, position) VALUES (1, 5)",
        )
        self.store("UPDATE submissions SET submission_count = 9 WHERE username = 'bob'")
        status, rows = self.rows()
        self.assertEqual((status, [row[2] for row in rows]), (1, list(range(3, 10))))
        kupool("stats", "rebuild", f"--data={self.data}")
        status, found = self.audit()
        self.assertEqual((status, found["compared"]["minutes"]), (0, 7))
        self.assertEqual(found["not_compared"][0]["minutes"], 3)
        # What the log does not hold wholly was not rewritten.
        query = "SELECT submission_count FROM submissions WHERE username = 'bob' ORDER BY timestamp"
        self.assertEqual(self.store(query), [(9,)] * 3 + [(2,)] * 7)
        self.assertEqual(self.audit(f"--from={self.at(1).replace(' ', 'T')}")[0], 4)
        self.assertEqual(self.audit(f"--from={self.at(3).replace(' ', 'T')}")[0], 0)
        self.log("DELETE FROM entries WHERE position <= 7")
        status, found = self.audit()
        self.assertEqual((status, found["log_lost"]), (4, True))
        self.store("INSERT INTO log_gaps VALUES (3, 4, 0, 'for a test')")
        flags = f"--from={self.at(5).replace(' ', 'T')}"
        status, found = self.audit(flags)
        self.assertEqual((status, found["gaps"][0]["last"]), (4, 4))
        done = kupool("audit", f"--data={self.data}", "--accept-gaps")
        self.assertEqual((done.returncode, done.stdout), (0, "1 gap of the log accepted\n"))
        self.assertEqual(self.audit(flags)[0], 0)

    def test_log_moved_away(self) -> None:
        """Case 02: the new log knows nothing of what was counted before; nobody says it does."""
        for name in list(self.data.glob("log.sqlite*")):
            shutil.move(name, self.data.parent)
        done = kupool("audit", f"--data={self.data}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("log.sqlite: no such file", done.stderr)
        self.daemon.start()
        before = self.store(DUMP)
        status, found = self.audit()
        self.assertEqual((status, found["log_lost"], found["compared"]["minutes"]), (4, True, 0))
        client = LineClient(self.daemon)
        self.assertIs(client.submit(client.authorize("zoe"), "new")["result"], True)
        client.close()
        self.wait_for(61)
        status, found = self.audit()
        self.assertEqual((status, found["compared"]["submissions"]), (4, 1))
        self.assertEqual(kupool("stats", "rebuild", f"--data={self.data}").returncode, 0)
        self.assertEqual([row for row in self.store(DUMP) if row[0] != "zoe"], before)

    def test_acknowledged_and_not_counted(self) -> None:
        """Point 6: with the daemon away, what is not counted is a difference, until it is."""
        at = (self.first + 60) * 1000
        body = encode_batch(Batch(VERSION, "late", at, ["alice", "zoe"], [1] * 2, ["x"] * 2))
        with closing(sqlite3.connect(self.data / "log.sqlite")) as log:
            log.execute(
                "INSERT INTO entries (entry_id, appended_at, body) VALUES ('late', ?, ?)",
                (at, body),
            )
            log.commit()
        status, found = self.audit()
        self.assertEqual((status, found["differences"]), (1, 0))
        self.assertEqual(found["waiting"], {"batches": 1, "submissions": 2, "spooled": 0})
        made = kupool("stats", "rebuild", f"--data={self.data}")
        self.assertIn(" 0 rows corrected, 1 missing batch counted", made.stdout)
        self.assertEqual(self.audit()[0], 0)
        self.daemon.start()
        self.daemon.stop()
        self.wait_for(62)
        self.assertEqual(self.audit()[0], 0)


class BesideTests(FolderCase):
    """Point 6: a rebuild while a daemon counts, and two of them at once."""

    minutes, batches = 30, 4

    def test_rebuild_beside_counting(self) -> None:
        """What is counted meanwhile stays right; of two rebuilds nothing is added twice."""
        self.daemon.start()
        before = self.store(DUMP)
        self.store("UPDATE submissions SET submission_count = submission_count + 1")
        client = LineClient(self.daemon)
        job = client.authorize("zoe.rig")
        rebuilds = [
            subprocess.Popen(
                [*KUPOOL, "stats", "rebuild", f"--data={self.data}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for _ in range(2)
        ]
        count = 0
        while any(process.poll() is None for process in rebuilds):
            self.assertIs(client.submit(job, f"meanwhile {count}")["result"], True)
            count += 1
        client.close()
        said = [process.communicate() for process in rebuilds]
        for process, (_, errors) in zip(rebuilds, said, strict=True):
            if process.returncode:
                self.assertEqual(
                    errors,
                    "kupool: another rebuild is running; this one stopped, try again\n",
                )
        self.assertIn(0, [process.returncode for process in rebuilds], said)
        self.wait_for(self.minutes * self.batches * 3 + count)
        self.assertEqual([row for row in self.store(DUMP) if row[0] != "zoe"], before)
        self.assertEqual(self.audit()[0], 0)


class TakenOverTests(SynchronousTestCase):
    """Case p04: rows that were in a table before KuPool survive a rebuild."""

    def test_taken_over(self) -> None:
        server = postgres()
        dsn = server.new_database()
        server.execute(
            "CREATE TABLE submissions (username VARCHAR(255), timestamp TIMESTAMP, "
            "submission_count INT, PRIMARY KEY (username, timestamp))",
            dsn=dsn,
        )
        server.execute("INSERT INTO submissions VALUES ('old', '2020-01-01 00:00', 500)", dsn=dsn)
        flags = ("--store=pg", f"--pg-dsn={dsn}")
        daemon = RunningDaemon("--flush-interval=50ms", *flags, *UNLIMITED)
        self.addCleanup(daemon.__exit__)
        daemon.start()
        client = LineClient(daemon)
        self.assertIs(client.submit(client.authorize("alice"), "one")["result"], True)
        client.close()
        self.assertEqual(daemon.stop(), 0)
        server.execute(
            "UPDATE submissions SET submission_count = 7 WHERE username = 'alice'", dsn=dsn
        )
        data = f"--data={daemon.data}"
        found = kupool("audit", data, *flags)
        self.assertEqual(found.returncode, 1, found.stderr)
        self.assertIn("in the table before KuPool was", found.stdout)
        self.assertIn("1 in the log, 7 counted", found.stdout)
        self.assertIn("\n1 difference\n", found.stdout)
        made = kupool("stats", "rebuild", data, *flags)
        self.assertEqual(made.returncode, 0, made.stderr)
        rows = server.execute(
            "SELECT username, submission_count FROM submissions ORDER BY username", dsn=dsn
        )
        self.assertEqual(rows, [("alice", 1), ("old", 500)])
        self.assertEqual(kupool("audit", data, *flags).returncode, 0)
        self.assertEqual(kupool("audit", data, *flags, "--from=2019-12-01").returncode, 4)
