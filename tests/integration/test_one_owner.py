"""One daemon, one database: PostgreSQL with two daemons that are real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.postgres.owner import _TAKE
from tests.servers.pgbouncer import PgBouncer
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed
from tests.servers.services import PostgresServer, RabbitServer, postgres, rabbit, required
from tools.process import wait_until

#: Runs what follows under another host name.
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")

TAKEN_OVER = "has taken over"


class Case(SynchronousTestCase):
    """A database, and daemons with data folders of their own that use it."""

    def setUp(self) -> None:
        self.server: Any = postgres()
        self.dsn = self.server.new_database()

    def daemon(self, *flags: str, **named: Any) -> RunningDaemon:
        daemon = RunningDaemon(
            "--store=pg",
            f"--pg-dsn={self.dsn}",
            "--interval=1h",
            "--flush-interval=50ms",
            *UNLIMITED,
            *flags,
            **named,
        )
        self.addCleanup(daemon.__exit__)
        return daemon

    def refused(self, daemon: RunningDaemon) -> str:
        """Return the line with which a daemon does not start."""
        self.assertRaises(StartFailed, daemon.start)
        (line,) = daemon.refusals
        return line

    def sql(self, statement: str) -> list[Any]:
        rows: list[Any] = self.server.execute(statement, dsn=self.dsn)
        return rows

    def counted(self) -> int:
        """What psql shows."""
        query = "SELECT coalesce(sum(submission_count), 0) FROM submissions"
        shown = self.server.psql(self.dsn, "--tuples-only", "--no-align", f"--command={query}")
        return int(shown)

    def until(self, daemon: RunningDaemon, condition: Callable[[], object]) -> None:
        if not wait_until(condition, 60):
            self.fail(f"waited too long: {daemon.get('/ready')} {daemon.output}")

    def end_sessions(self) -> None:
        """End the sessions of the daemons there, as the server's administrator may."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'kupool' AND datname = current_database()"
        )


class SecondDaemonTests(Case):
    """Issue 11, point 5: a second daemon on a PostgreSQL in use ends at the start."""

    def test_second(self) -> None:
        """It says who is the first, and since when; the first does not notice."""
        first = self.daemon().start()
        since = self.sql("SELECT to_char(since, 'YYYY-MM-DD HH24:MI:SS') FROM owner")[0][0]
        line = self.refused(self.daemon())
        who = f"(host {os.uname().nodename}, pid {first.pid}, since {since} UTC)"
        self.assertIn(f"another daemon {who} uses the database; stop it first", line)
        client = LineClient(first)
        job = client.authorize("alice")
        self.assertIs(client.submit(job, "one")["result"], True)
        client.close()
        self.until(first, lambda: self.counted() == 1)
        self.assertEqual(first.get("/ready"), (200, {"ready": True, "reasons": []}))
        self.assertEqual(first.stop(), 0)
        # It has released the database.
        self.daemon().start()

    def test_killed(self) -> None:
        """After kill -9 another starts at once: the system closed the sessions."""
        first = self.daemon().start()
        first.kill()
        second = self.daemon().start()
        self.assertEqual(self.sql("SELECT term, pid FROM owner"), [(2, second.pid)])

    def test_stopped_a_moment_ago(self) -> None:
        """A daemon that has ended in order, but whose session has not, is waited for."""
        self.assertEqual(self.daemon().start().stop(), 0)
        self.sql("UPDATE owner SET host = 'elsewhere'")  # so that its end cannot be seen here
        session = psycopg2.connect(self.dsn)
        with session.cursor() as cursor:
            cursor.execute(_TAKE)
            self.assertEqual(cursor.fetchone(), (True,))
        timer = threading.Timer(1.0, session.close)
        timer.start()
        self.daemon().start()
        timer.join()

    def test_stopped_process(self) -> None:
        """A daemon that is only stopped for a while keeps its database."""
        first = self.daemon().start()
        first.process.send_signal(signal.SIGSTOP)
        try:
            self.assertIn(f"pid {first.pid}", self.refused(self.daemon()))
        finally:
            first.process.send_signal(signal.SIGCONT)
        self.assertEqual(first.get("/ready"), (200, {"ready": True, "reasons": []}))

    def test_the_lock_is_the_schemas(self) -> None:
        """Two pools in two schemas of one database are two pools."""
        self.sql("CREATE SCHEMA other")
        self.daemon().start()
        dsn, self.dsn = self.dsn, f"{self.dsn} options=-csearch_path=other"
        other = self.daemon().start()
        self.dsn = dsn
        self.assertEqual(self.sql("SELECT pid FROM other.owner"), [(other.pid,)])

    def test_commands(self) -> None:
        """Commands are not daemons: they read and correct beside one."""
        from tests.servers.commands import kupool

        first = self.daemon().start()
        flags = [f"--data={first.data}", "--store=pg", f"--pg-dsn={self.dsn}"]
        done = kupool("audit", *flags)
        self.assertNotIn("another daemon", done.stderr)
        self.assertEqual(self.sql("SELECT term, pid FROM owner"), [(1, first.pid)])


class PoolerTests(Case):
    """Issue 11, point 5: a session lock needs a session."""

    def through(self, mode: str) -> str:
        with required():
            bouncer = PgBouncer(self.dsn, mode)
        self.addCleanup(bouncer.close)
        return bouncer.dsn

    def test_transactions(self) -> None:
        """A pooler that gives each transaction a session of its own is refused, and no lock
        is left behind in one.
        """
        real, self.dsn = self.dsn, self.through("transaction")
        daemon = self.daemon()
        for _ in range(2):
            self.assertIn("a connection pooler in between switches", self.refused(daemon))
        self.dsn = real
        self.assertEqual(self.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'"), [])
        self.daemon().start()

    def test_sessions(self) -> None:
        """One that pools sessions does no harm."""
        real, self.dsn = self.dsn, self.through("session")
        first = self.daemon().start()
        self.assertIn(f"pid {first.pid}", self.refused(self.daemon()))
        first.kill()
        second = self.daemon().start()
        self.dsn = real
        self.assertEqual(self.sql("SELECT term, pid FROM owner"), [(2, second.pid)])


class TakeoverTests(Case):
    """Issue 11, point 5: a daemon that wakes after another took over stops accepting."""

    def test_frozen(self) -> None:
        """Its sessions ended while it was stopped, and another took over: it refuses
        submissions from then on, whatever becomes of the other, and nothing counts twice.
        """
        first = self.daemon().start()
        client = LineClient(first)
        job = client.authorize("alice")
        for n in range(10):
            self.assertIs(client.submit(job, f"a{n}")["result"], True)
        self.until(first, lambda: self.counted() == 10)
        first.process.send_signal(signal.SIGSTOP)
        try:
            self.end_sessions()
            second = self.daemon().start()
            other = LineClient(second)
            theirs = other.authorize("alice")
            for n in range(5):
                self.assertIs(other.submit(theirs, f"b{n}")["result"], True)
            other.close()
            self.until(second, lambda: self.counted() == 15)
        finally:
            first.process.send_signal(signal.SIGCONT)
        self.until(first, lambda: first.get("/ready")[0] == 503)
        status, answer = first.get("/ready")
        reason = f"store: another daemon (host {os.uname().nodename}, pid {second.pid}, since "
        self.assertEqual((status, answer["ready"]), (503, False))
        found = [text for text in answer["reasons"] if text.startswith(reason)]
        self.assertEqual(len(found), 1, answer)
        self.assertTrue(found[0].endswith(TAKEN_OVER), found)
        refusal = client.submit(job, "late")
        self.assertEqual(refusal["error"], "Temporarily unavailable")
        # And so it stays, also when the other has gone.
        self.assertEqual(second.stop(), 0)
        time.sleep(1.5)
        self.assertEqual(first.get("/ready")[0], 503)
        self.assertEqual(client.submit(job, "later")["error"], "Temporarily unavailable")
        client.close()
        self.assertEqual(first.stop(), 0)
        self.assertEqual(self.counted(), 15)
        self.assertEqual(self.sql("SELECT term, pid, released FROM owner"), [(2, second.pid, True)])

    def test_lost_sessions(self) -> None:
        """A daemon whose sessions were ended goes on under the same term."""
        first = self.daemon().start()
        since = self.sql("SELECT since FROM owner")
        client = LineClient(first)
        job = client.authorize("alice")
        for n in range(3):
            self.end_sessions()
            self.assertIs(client.submit(job, f"n{n}")["result"], True)
            self.until(first, lambda n=n: self.counted() == n + 1)
        client.close()
        self.assertIn("uses the database", self.refused(self.daemon()))
        self.assertEqual(self.sql("SELECT term, pid FROM owner"), [(1, first.pid)])
        self.assertEqual(self.sql("SELECT since FROM owner"), since)

    def test_postgresql_restarted(self) -> None:
        """While PostgreSQL is away nothing is refused; when it is back the database is still
        the daemon's.
        """
        with required():
            self.server = PostgresServer()
        self.addCleanup(self.server.close)
        self.server.start()
        self.dsn = self.server.new_database()
        first = self.daemon().start()
        client = LineClient(first)
        job = client.authorize("alice")
        for n in range(2):
            self.server.kill()
            self.assertIs(client.submit(job, f"n{n}")["result"], True)
            self.assertEqual(first.get("/ready")[0], 200)
            self.server.start()
            self.until(first, lambda n=n: self.counted() == n + 1)
        client.close()
        self.until(first, lambda: first.get("/ready") == (200, {"ready": True, "reasons": []}))
        self.assertIn(f"pid {first.pid}", self.refused(self.daemon()))
        self.assertEqual(first.stop(), 0)


class JobsTests(Case):
    """Issue 11, point 5: who takes over keeps the jobs where nobody else can take
    submissions for them.
    """

    def test_released(self) -> None:
        """After a stop in order the next has the job, on whichever host it is."""
        first = self.daemon().start()
        job = self.submit(first, "one")
        self.assertEqual(first.stop(), 0)
        self.assertEqual(self.sql("SELECT released FROM owner"), [(True,)])
        second = self.daemon(data=first.data, prefix=ELSEWHERE).start()
        self.assertEqual(self.sql("SELECT host, released FROM owner"), [("elsewhere", False)])
        self.known(second, job)

    def test_killed(self) -> None:
        """After kill -9 on the same host, too."""
        first = self.daemon().start()
        job = self.submit(first, "one")
        first.kill()
        self.known(self.daemon(data=first.data).start(), job)

    def submit(self, daemon: RunningDaemon, nonce: str) -> dict[str, Any]:
        """Submit a nonce for the job of the moment; returns that."""
        client = LineClient(daemon)
        job: dict[str, Any] = client.authorize("alice")
        self.assertIs(client.submit(job, nonce)["result"], True)
        client.close()
        return job

    def known(self, daemon: RunningDaemon, job: dict[str, Any]) -> None:
        """A job is taken submissions for, and what was used for it is known."""
        client = LineClient(daemon)
        client.authorize("alice")
        self.assertEqual(client.submit(job, "one")["error"], "Duplicate submission")
        self.assertIs(client.submit(job, "two")["result"], True)
        client.close()


class SharedLogTests(JobsTests):
    """The same where the log is in RabbitMQ: a daemon elsewhere may write to it as well."""

    def setUp(self) -> None:
        super().setUp()
        self.url = rabbit().new_vhost()

    def daemon(self, *flags: str, **named: Any) -> RunningDaemon:
        return super().daemon("--mq=rabbit", f"--mq-url={self.url}", *flags, **named)

    def retired(self, daemon: RunningDaemon, job: dict[str, Any]) -> None:
        """Nothing is taken for a job any more."""
        client = LineClient(daemon)
        client.authorize("alice")
        self.assertEqual(client.submit(job, "two")["error"], "Task does not exist")
        client.close()

    def test_killed_elsewhere(self) -> None:
        """After kill -9 on another host nobody knows what it still takes: for good."""
        first = self.daemon(prefix=ELSEWHERE).start()
        job = self.submit(first, "one")
        first.kill()
        second = self.daemon().start()
        self.assertIn("did not release the database: its jobs are retired", second.output)
        self.retired(second, job)
        self.assertEqual(second.stop(), 0)
        self.retired(self.daemon(data=second.data).start(), job)

    def test_stopped_while_the_broker_is_away(self) -> None:
        """What it has in its spool the next one does not know, so it does not release."""
        with required():
            broker = RabbitServer()
        self.addCleanup(broker.close)
        broker.start()
        self.url = broker.new_vhost()
        first = self.daemon("--mq-timeout=500ms", "--shutdown-timeout=10s").start()
        broker.kill()
        self.submit(first, "one")
        self.assertEqual(first.stop(), 0)
        self.assertEqual(self.sql("SELECT released FROM owner"), [(False,)])
