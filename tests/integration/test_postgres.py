"""The PostgreSQL engine against a real server: how it starts, fails, waits and comes back."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psycopg2.extensions import make_dsn
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.stats import BatchCounts, MinuteCount, Rejection
from kupool.stats.postgres import PostgresStats
from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.storage.migrations import SchemaTooNew
from kupool.storage.postgres import DatabaseUnavailable, PostgresDatabase, PostgresSettings
from tests.contract.test_stats_store import EVER, T, batch
from tests.servers.reactor import the_reactor
from tests.servers.services import PostgresServer, postgres, required

#: Short enough to wait for, long enough for a busy machine.
QUICK = PostgresSettings(timeout=2.0, long_timeout=4.0, patience=1.0)

SECRET = "s3cr3t/w@rd"


class Base(TestCase):
    """Databases that are closed after the test, and whose messages can be read."""

    timeout = 120

    def setUp(self) -> None:
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.logged.append(str(event.get("log_namespace")))

    def database(self, dsn: str, settings: PostgresSettings = QUICK, **named: Any) -> Any:
        database = PostgresDatabase(the_reactor(), dsn, settings, **named)
        self.addCleanup(database.close)
        return database

    async def store(self, dsn: str, settings: PostgresSettings = QUICK) -> PostgresStats:
        store = PostgresStats(self.database(dsn, settings))
        await store.open()
        return store

    async def refused(self, dsn: str, kind: type[Exception] = DatabaseUnusable) -> str:
        """Return the line with which both ways to start are refused."""
        database = self.database(dsn)
        with self.assertRaises(kind) as checked:
            database.check()
        with self.assertRaises(kind) as opened:
            await database.open()
        line = str(opened.exception)
        self.assertEqual(str(checked.exception), line)
        self.assertNotIn("\n", line)
        for part in (SECRET, "s3cr3t", "w@rd", "w%40rd"):
            self.assertNotIn(part, line)
        return line

    async def until(self, done: Callable[[], Any]) -> None:
        """Wait until a call returns without a :class:`DatabaseUnavailable`."""
        for _ in range(600):
            try:
                await done()
                return
            except DatabaseUnavailable:
                await deferLater(the_reactor(), 0.05)
        self.fail("the database does not come back")


class StartTests(Base):
    """K-88: what keeps the daemon from starting is told in one line, without secrets."""

    def setUp(self) -> None:
        super().setUp()
        self.server = postgres()

    def role(self, options: str = "LOGIN") -> str:
        name = f"kupool_role_{os.urandom(4).hex()}"
        self.server.execute(f"CREATE ROLE {name} {options}")

        def drop() -> None:
            for dsn in self.dsns:
                self.server.execute(f"DROP OWNED BY {name}", dsn=dsn)
            self.server.execute(f"DROP ROLE {name}")

        self.dsns: list[str] = []
        self.addCleanup(drop)
        return name

    async def test_unreachable(self) -> None:
        """K-88: nobody listens there."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        line = await self.refused(f"postgresql://kupool:{SECRET[:6]}@127.0.0.1:{port}/pool")
        self.assertEqual(line, f"PostgreSQL at 127.0.0.1:{port}, database pool: Connection refused")

    async def test_unknown_host(self) -> None:
        """K-88: the name of the host does not exist."""
        database = self.database("host=nowhere.invalid dbname=pool")
        with self.assertRaises(DatabaseUnusable) as refused:
            await database.open()
        self.assertIn("host nowhere.invalid: ", str(refused.exception))

    async def test_no_database(self) -> None:
        """K-88: the database does not exist."""
        line = await self.refused(make_dsn(self.server.dsn, dbname="no_such_database"))
        self.assertIn('database "no_such_database" does not exist', line)

    async def test_not_a_connection_string(self) -> None:
        """K-88, K-92: nothing of a string that cannot be read is shown: it has a password in it."""
        for dsn in (
            f"host=127.0.0.1 password={SECRET} {SECRET}",
            f"password=x {SECRET}=y",
            f"postgresql://kupool:{SECRET}@127.0.0.1/pool",
            f"postgresql://kupool:pass%{SECRET}@127.0.0.1/pool",
            f"postgresql://127.0.0.1/pool?{SECRET}=1",
            "postgresql://127.0.0.1:s3cr3t/pool",
            "host=a,b,c port=1,2",
            "host=127.0.0.1 connect_timeout=s3cr3t",
        ):
            line = await self.refused(dsn)
            self.assertTrue(line.startswith("not a PostgreSQL connection string: expected"), line)

    async def test_no_permission_to_make_tables(self) -> None:
        """K-88: a role that may not make the tables is told so."""
        dsn = self.server.new_database()
        line = await self.refused(make_dsn(dsn, user=self.role()))
        self.assertTrue(line.endswith(": permission denied for schema public"), line)

    async def test_no_permission_to_write(self) -> None:
        """K-88: nor does one start that may only read, and no tables have to be made for one
        that may do all it needs.
        """
        dsn = self.server.new_database()
        self.database(dsn).check()
        role = self.role()
        self.dsns.append(dsn)
        theirs = make_dsn(dsn, user=role)
        self.server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", dsn=dsn)
        line = await self.refused(theirs)
        self.assertIn(f"user {role} has no permission to DELETE on ", line)
        self.server.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            dsn=dsn,
        )
        self.database(theirs).check()
        store = await self.store(theirs)
        await store.apply([batch("b1", T, "alice.rig")], {Rejection("alice", 23, T): 1})
        await store.revive()
        self.assertEqual(await store.correct([MinuteCount("alice", "rig", T, 1)], 0), 1)
        self.assertEqual(await store.roll_up(T + 86400, 0), 2)

    async def test_encoding(self) -> None:
        """K-88: a database that cannot hold every name is refused, before one is lost."""
        name = f"kupool_test_{os.urandom(4).hex()}"
        self.server.execute(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        )
        self.addCleanup(self.server.execute, f"DROP DATABASE {name}")
        line = await self.refused(make_dsn(self.server.dsn, dbname=name))
        self.assertIn("the encoding of the database is LATIN1, it must be UTF8", line)

    async def test_read_only(self) -> None:
        """K-88: a database that may only be read is refused."""
        dsn = self.server.new_database()
        name = self.server.execute("SELECT current_database()", dsn=dsn)[0][0]
        self.server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only TO on")
        self.assertIn("read-only", await self.refused(dsn))

    async def test_newer_schema(self) -> None:
        """K-67: tables of a newer version are left alone."""
        dsn = self.server.new_database()
        self.database(dsn).check()
        self.server.execute("INSERT INTO schema_version (version) VALUES (99)", dsn=dsn)
        line = await self.refused(dsn, SchemaTooNew)
        self.assertIn("schema version 99", line)

    async def test_several_at_once(self) -> None:
        """K-67: daemons that start at the same time make the tables once, one after another."""
        dsn = self.server.new_database()
        databases = [self.database(dsn, PostgresSettings(others=0)) for _ in range(5)]
        await gatherResults([database.open() for database in databases])
        rows = self.server.execute("SELECT version FROM schema_version", dsn=dsn)
        self.assertEqual(rows, [(1,), (2,), (3,), (4,), (5,)])

    async def test_tables_of_another(self) -> None:
        """K-67: a table that was there before, and what is in it, is taken over."""
        dsn = self.server.new_database()
        self.server.execute(
            "CREATE TABLE submissions (username VARCHAR(255), timestamp TIMESTAMP, "
            "submission_count INT, PRIMARY KEY (username, timestamp))",
            dsn=dsn,
        )
        self.server.execute(
            "INSERT INTO submissions VALUES ('alice', '2027-01-16 00:00:00', 41)", dsn=dsn
        )
        store = await self.store(dsn)
        await store.apply([batch("b1", T, "alice")], {})
        self.assertEqual(await store.count("alice", T), 42)

    async def test_table_that_is_something_else(self) -> None:
        """Issue 11, bad input: a table of counts with another key, columns or types is named
        with what is expected, and nothing is made beside it.
        """
        key = "PRIMARY KEY (username, timestamp)"
        columns = "username VARCHAR(255), timestamp TIMESTAMP"
        for made, line in (
            (
                f"TABLE submissions (id SERIAL PRIMARY KEY, {columns}, submission_count INT)",
                "has the primary key (id)",
            ),
            (f"TABLE submissions ({columns}, submission_count INT)", "has no primary key"),
            (f"TABLE submissions ({columns}, count INT, {key})", "has no column submission_count"),
            (
                f"TABLE submissions ({columns}, submission_count NUMERIC, {key})",
                "has a column submission_count of type numeric",
            ),
            (
                "TABLE submissions (username VARCHAR(64), timestamp TIMESTAMP, "
                f"submission_count INT, {key})",
                "has a column username of type character varying(64)",
            ),
            (
                f"TABLE submissions ({columns}, submission_count INT, pool INT NOT NULL, {key})",
                "has a column pool that may not be empty",
            ),
            ("VIEW submissions AS SELECT 1 AS username", "is not a table"),
        ):
            dsn = self.server.new_database()
            self.server.execute(f"CREATE {made}", dsn=dsn)
            refused = await self.refused(dsn)
            expected = "expected is (username VARCHAR(255), timestamp TIMESTAMP, submission_count"
            self.assertIn(f"the table submissions {line}; {expected}", refused)
            tables = self.server.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "AND relkind IN ('r', 'v')",
                dsn=dsn,
            )
            self.assertEqual(tables, [("submissions",)])

    async def test_table_that_is_nearly_the_same(self) -> None:
        """K-67: a wider type, another order of the key, and what has a default do no harm."""
        dsn = self.server.new_database()
        self.server.execute(
            "CREATE TABLE submissions (seen BOOLEAN NOT NULL DEFAULT true, timestamp TIMESTAMP, "
            "username TEXT, submission_count BIGINT, PRIMARY KEY (timestamp, username))",
            dsn=dsn,
        )
        store = await self.store(dsn)
        for n in range(2):
            await store.apply([batch(f"b{n}", T, "alice")], {})
        self.assertEqual(await store.count("alice", T), 2)

    async def test_url(self) -> None:
        """K-89: the database may be given as a URL, with a name for the host, which is looked
        up outside the reactor's thread, and each of whose addresses is tried.
        """
        threads = []
        look_up = socket.getaddrinfo

        def watched(*arguments: Any, **named: Any) -> Any:
            threads.append(threading.current_thread())
            found = look_up("127.0.0.1", *arguments[1:], **named)
            return [(*found[0][:4], ("127.0.0.2", 0)), *found]

        self.patch(socket, "getaddrinfo", watched)
        settings = self.server.execute("SELECT inet_server_port(), current_user")
        (port, user) = settings[0]
        name = self.server.new_database().partition("dbname=")[2].split()[0]
        store = await self.store(f"postgresql://{user}@pool.example:{port}/{name}")
        await store.apply([batch("b1", T, "alice")], {})
        self.assertEqual(await store.total(*EVER), 1)
        self.assertGreaterEqual(len(threads), 3)
        self.assertNotIn(threading.current_thread(), threads)

    async def test_second_server(self) -> None:
        """K-88: of several servers, the first that can be reached is used."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
            (port,) = self.server.execute("SELECT inet_server_port()")[0]
            dsn = make_dsn(
                self.server.new_database(), host="127.0.0.1,127.0.0.1", port=f"{free},{port}"
            )
            store = await self.store(dsn)
            self.assertEqual(await store.total(*EVER), 0)

    async def test_close(self) -> None:
        """K-85: what was begun is finished, no connection stays, and nothing is done after."""
        dsn = self.server.new_database()
        database = self.database(dsn)
        await database.open()
        slow = database.query("SELECT 1 FROM pg_sleep(0.3)")
        await database.close()
        self.assertEqual(await slow, [(1,)])
        with self.assertRaises(DatabaseClosed):
            await database.query("SELECT 1")
        self.assertIn("not open", database.problem)
        await database.close()
        left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kupool'"
        while self.server.execute(left) != [(0,)]:
            await deferLater(the_reactor(), 0.02)
        await database.open()
        self.assertEqual(await database.query("SELECT 2"), [(2,)])


class PasswordTests(Base):
    """K-88, K-92: a server that asks for a password."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        rules = Path(folder.name) / "hba"
        rules.write_text(
            "host all secretive 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )
        with required():
            self.server = PostgresServer(f"hba_file={rules}")
            self.addCleanup(self.server.close)
            self.server.start()
        self.server.execute(f"CREATE ROLE secretive LOGIN PASSWORD '{SECRET}'")
        self.server.execute("CREATE DATABASE theirs OWNER secretive")
        self.dsn = f"host=127.0.0.1 port={self.server.port} user=secretive dbname=theirs"

    async def test_wrong_password(self) -> None:
        """K-88, K-92: the line names the user, and no password; nor when there is none."""
        line = await self.refused(f"{self.dsn} password={SECRET}x")
        self.assertTrue(
            line.endswith(': password authentication failed for user "secretive"'), line
        )
        self.assertIn("no password supplied", await self.refused(self.dsn))

    async def test_right_password(self) -> None:
        """K-88: as pairs and as a URL, with what is special in it."""
        self.database(f"{self.dsn} password={SECRET}").check()
        port = self.server.port
        url = f"postgresql://secretive:s3cr3t%2Fw%40rd@127.0.0.1:{port}/theirs"
        self.assertEqual(await (await self.store(url)).total(*EVER), 0)


class WorkTests(Base):
    """What a transaction is, and what becomes of one that fails."""

    async def opened(self, settings: PostgresSettings = QUICK) -> Any:
        self.dsn = postgres().new_database()
        database = self.database(self.dsn, settings)
        await database.open()
        await database.run(lambda cursor: cursor.execute("CREATE TABLE t (n INT PRIMARY KEY)"))
        return database

    async def rows(self, database: Any) -> list[int]:
        return [n for (n,) in await database.query("SELECT n FROM t ORDER BY n")]

    async def test_coroutine(self) -> None:
        """facts.md: a coroutine is awaited before the commit, and an error in it undoes all."""
        database = await self.opened()

        async def work(cursor: Any) -> str:
            await cursor.execute("INSERT INTO t VALUES (1)")
            await deferLater(the_reactor(), 0.01)
            await cursor.execute("INSERT INTO t VALUES (2)")
            return "done"

        self.assertEqual(await database.count(work), "done")
        self.assertEqual(await self.rows(database), [1, 2])

        async def failing(cursor: Any) -> None:
            await cursor.execute("INSERT INTO t VALUES (3)")
            await deferLater(the_reactor(), 0.01)
            raise KeyError("ours")

        with self.assertRaises(KeyError):
            await database.count(failing)
        self.assertEqual(await self.rows(database), [1, 2])

    async def test_swallowed_error(self) -> None:
        """An error that the work did not pass on is no commit."""
        database = await self.opened()

        async def work(cursor: Any) -> None:
            await cursor.execute("INSERT INTO t VALUES (1)")
            try:
                await cursor.execute("INSERT INTO t VALUES (1)")
            except Exception:
                pass

        with self.assertRaises(DatabaseUnavailable):
            await database.count(work)
        self.assertEqual(await self.rows(database), [])

    async def test_deadlock(self) -> None:
        """K-53: of two transactions in each other's way, one is done again by itself."""
        database = await self.opened()
        await database.query("INSERT INTO t VALUES (1), (2) RETURNING n")
        holding = []
        met: Deferred[None] = Deferred()

        def in_order(first: int, second: int) -> Callable[[Any], Any]:
            async def work(cursor: Any) -> None:
                await cursor.execute("SELECT n FROM t WHERE n = %s FOR UPDATE", (first,))
                holding.append(first)
                if len(holding) == 2:
                    met.callback(None)
                elif len(holding) == 1:
                    await met
                await cursor.execute("UPDATE t SET n = n + 10 WHERE n = %s", (second,))

            return work

        patient = PostgresSettings(timeout=20.0)
        other = self.database(self.dsn, patient)
        await other.open()
        await gatherResults([other.count(in_order(1, 2)), other.run(in_order(2, 1))])
        self.assertEqual(len(holding), 3)
        self.assertEqual(await self.rows(database), [11, 12])

    async def test_cancelled_by_the_server(self) -> None:
        """K-72: a statement cancelled on the server fails, and the connection stays."""
        database = await self.opened(PostgresSettings(others=1, timeout=20.0))
        (pid,) = (await database.query("SELECT pg_backend_pid()"))[0]
        slow = database.query("SELECT pg_sleep(30)")
        active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%'"
        while postgres().execute(active) != [(1,)]:
            await deferLater(the_reactor(), 0.02)
        postgres().execute("SELECT pg_cancel_backend(%s)", (pid,))
        with self.assertRaises(DatabaseUnavailable) as failed:
            await slow
        self.assertIn("the server cancelled the query", str(failed.exception))
        self.assertEqual(await database.query("SELECT pg_backend_pid()"), [(pid,)])

    async def test_too_slow(self) -> None:
        """K-72: a statement that takes too long is given up, and the next one works."""
        database = await self.opened(PostgresSettings(timeout=0.5))
        with self.assertRaises(DatabaseUnavailable) as failed:
            await database.count(lambda cursor: cursor.execute("SELECT pg_sleep(60)"))
        self.assertIn("no answer within 0.5 s", str(failed.exception))
        await self.until(lambda: database.count(lambda cursor: cursor.execute("SELECT 1")))
        self.assertEqual(database.problem, "")

    async def test_terminated(self) -> None:
        """K-72: connections ended on the server come back, busy or idle, without an error."""
        database = await self.opened()
        slow = database.query("SELECT pg_sleep(30)")
        await database.count(lambda cursor: cursor.execute("SELECT 1"))
        name = postgres().execute("SELECT current_database()", dsn=self.dsn)[0][0]
        postgres().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        with self.assertRaises(DatabaseUnavailable):
            await slow
        await self.until(lambda: database.count(lambda cursor: cursor.execute("SELECT 1")))
        await self.until(lambda: self.rows(database))
        self.assertEqual(set(self.logged), {"kupool.storage.postgres.database.PostgresDatabase"})

    async def test_bounded(self) -> None:
        """K-83: no more waits for a connection than is set."""
        database = await self.opened(PostgresSettings(others=1, waiting=3))
        asked = [database.query("SELECT n FROM t") for _ in range(5)]
        refused = asked[3:]
        self.assertEqual(await gatherResults(asked[:3]), [[], [], []])
        for answer in refused:
            with self.assertRaises(DatabaseUnavailable):
                await answer

    async def test_lost_answer_to_commit(self) -> None:
        """K-53, K-75: where the connection is lost with the answer to the commit, neither
        batches nor rejections count twice.
        """
        from kupool.storage.postgres.link import WatchedCursor

        dsn = postgres().new_database()
        store = await self.store(dsn)
        execute = WatchedCursor.execute
        armed = True

        def losing(cursor: Any, query: str, values: Any = None) -> Any:
            nonlocal armed
            answer = execute(cursor, query, values)
            if query == "COMMIT" and armed:
                armed = False
                while not postgres().execute("SELECT 1 FROM applied_batches", dsn=dsn):
                    pass  # until it is committed
                cursor._connection.close()
                answer.addBoth(lambda _: Failure(ConnectionDone()))
            return answer

        self.patch(WatchedCursor, "execute", losing)
        counts, more = [batch("b1", T, "alice")], [batch("b2", T, "alice")]
        rejections = {Rejection("alice", 23, T): 5, Rejection("bob", 23, T): 1}
        with self.assertRaises(DatabaseUnavailable):
            await store.apply(counts, rejections)
        self.assertFalse(armed)
        await self.until(lambda: store.apply(counts + more, rejections))
        self.assertEqual(await store.total(*EVER), 2)
        self.assertEqual(list(await store.rejections(*EVER)), [("alice", 23, 5), ("bob", 23, 1)])
        await store.apply([], rejections)
        self.assertEqual(list(await store.rejections(*EVER)), [("alice", 23, 10), ("bob", 23, 2)])


class OutageTests(Base):
    """K-72: the server goes away in every way there is, and comes back."""

    timeout = 240

    def setUp(self) -> None:
        super().setUp()
        with required():
            self.server = PostgresServer()
            self.addCleanup(self.server.close)
            self.server.start()

    async def in_thread(self, call: Callable[[], Any]) -> None:
        await deferToThread(call)

    def sums(self, dsn: str) -> tuple[int, int, int]:
        """Return batches, submissions and rejections in the tables."""
        row = self.server.execute(
            "SELECT (SELECT count(*) FROM applied_batches), "
            "(SELECT coalesce(sum(submission_count), 0) FROM submissions), "
            "(SELECT coalesce(sum(rejection_count), 0) FROM rejections)",
            dsn=dsn,
        )[0]
        return int(row[0]), int(row[1]), int(row[2])

    async def feed(self, store: PostgresStats, name: str, number: int, failed: list[str]) -> None:
        """Apply flushes, each again and again until that succeeds, as the consumer does."""
        for n in range(number):
            counts = [batch(f"{name}-{n}-{k}", T + 60 * k, "alice.rig", "bob") for k in range(5)]
            # Some batches are delivered to every feeder.
            counts += [batch(f"common-{n}", T, "carol")]
            while True:
                try:
                    await store.apply(counts, {Rejection("alice", 23, T): 1})
                    break
                except DatabaseUnavailable as error:
                    failed.append(str(error))
                    await deferLater(the_reactor(), 0.05)

    async def test_killed(self) -> None:
        """K-53, K-72, K-81: PostgreSQL killed with -9 in the middle of commits, five times: two
        stores that share batches count each of them once, and each rejection.
        """
        dsn = self.server.new_database()
        stores = [await self.store(dsn), await self.store(dsn)]
        failed: list[str] = []
        number = 400
        feeding = gatherResults(
            [
                Deferred.fromCoroutine(self.feed(store, f"s{n}", number, failed))
                for n, store in enumerate(stores)
            ]
        )
        done: list[Any] = []
        feeding.addBoth(done.append)
        kills = 0
        while kills < 5 or not done:
            await deferLater(the_reactor(), 0.25)
            if kills < 5:
                kills += 1
                await self.in_thread(self.server.kill)
                await deferLater(the_reactor(), 0.1)
                await self.in_thread(self.server.start)
        self.assertEqual(done, [[None, None]])
        self.assertGreater(len(failed), 0)
        self.assertEqual(
            self.sums(dsn), (2 * number * 5 + number, 2 * number * 10 + number, 2 * number)
        )

    async def test_stopped(self) -> None:
        """K-72: a server that is stopped, not dead, holds nothing up: what is asked for fails
        in time, is done later, and once.
        """
        dsn = self.server.new_database()
        store = await self.store(dsn, PostgresSettings(timeout=0.5, long_timeout=1.0))
        await store.apply([batch("b0", T, "alice")], {})
        await self.in_thread(self.server.pause)
        counts = [batch("b1", T, "alice", "bob")]
        rejections = {Rejection("alice", 23, T): 1}
        for text in ("no answer within 0.5 s", ""):
            with self.assertRaises(DatabaseUnavailable) as refused:
                await store.apply(counts, rejections)
            self.assertIn(text, str(refused.exception))
        with self.assertRaises(DatabaseUnavailable):
            await store.total(*EVER)
        await deferLater(the_reactor(), 3.0)
        with self.assertRaises(DatabaseUnavailable):
            await store.apply(counts, rejections)
        await self.in_thread(self.server.resume)
        await self.until(lambda: store.apply(counts, rejections))
        await self.until(lambda: store.total(*EVER))
        self.assertEqual(await store.total(*EVER), 3)
        self.assertEqual(self.sums(dsn), (2, 3, 1))

    async def test_stopped_again_and_again(self) -> None:
        """K-53: stopped at any moment of a commit, and long enough to be given up."""
        dsn = self.server.new_database()
        store = await self.store(dsn, PostgresSettings(timeout=0.4, long_timeout=1.0))
        failed: list[str] = []
        number = 600
        feeding = Deferred.fromCoroutine(self.feed(store, "s", number, failed))
        done: list[Any] = []
        feeding.addBoth(done.append)
        stops = 0
        while stops < 6 or not done:
            await deferLater(the_reactor(), 0.11 + 0.03 * stops)
            if stops < 6:
                stops += 1
                await self.in_thread(self.server.pause)
                await deferLater(the_reactor(), 0.7)
                await self.in_thread(self.server.resume)
        self.assertEqual(done, [None])
        self.assertGreater(len(failed), 0)
        self.assertEqual(self.sums(dsn), (number * 6, number * 11, number))

    async def test_restarted_while_idle(self) -> None:
        """K-72: connections that are lost while nothing is done come back, and say so once."""
        dsn = self.server.new_database()
        database = self.database(dsn)
        await database.open()
        await self.in_thread(self.server.stop)
        for _ in range(200):
            if database.problem:
                break
            await deferLater(the_reactor(), 0.02)
        self.assertIn(f"PostgreSQL at 127.0.0.1:{self.server.port}", database.problem)
        with self.assertRaises(DatabaseUnavailable):
            await database.count(lambda cursor: cursor.execute("SELECT 1"))
        await self.in_thread(self.server.start)
        await self.until(lambda: database.query("SELECT 1"))
        await self.until(lambda: database.count(lambda cursor: cursor.execute("SELECT 1")))
        self.assertEqual(database.problem, "")
        self.assertEqual(self.logged, ["kupool.storage.postgres.database.PostgresDatabase"])

    async def test_down_at_start(self) -> None:
        """K-72: with patience, a server that is down at the start is waited for."""
        dsn = self.server.new_database()
        await self.in_thread(self.server.stop)
        database = self.database(dsn, patient=True)
        opening = database.open()
        await deferLater(the_reactor(), 0.5)
        self.assertFalse(opening.called)
        await self.in_thread(self.server.start)
        await opening
        self.assertEqual(await database.query("SELECT count(*) FROM submissions"), [(0,)])

    async def test_closed_while_waiting(self) -> None:
        """K-85: a stop ends the waiting for a server, and for one that does not answer."""
        dsn = self.server.new_database()
        await self.in_thread(self.server.stop)
        patient = self.database(dsn, patient=True)
        opening = patient.open()
        await deferLater(the_reactor(), 0.3)
        await patient.close()
        with self.assertRaises(DatabaseUnusable):
            await opening
        await self.in_thread(self.server.start)
        database = self.database(dsn, PostgresSettings(timeout=60.0, patience=0.2))
        await database.open()
        await self.in_thread(self.server.pause)
        stuck = [database.query("SELECT 1") for _ in range(3)]
        await database.close()
        for answer in stuck:
            with self.assertRaises(DatabaseUnavailable):
                await answer

    async def test_does_not_answer_at_start(self) -> None:
        """K-88: a server that takes the connection and says nothing is not waited for."""
        await self.in_thread(self.server.pause)
        dsn = make_dsn(self.server.dsn, connect_timeout="1")
        database = self.database(dsn)
        with self.assertRaises(DatabaseUnusable) as refused:
            await database.open()
        self.assertIn("no answer within 1 s", str(refused.exception))
        with self.assertRaises(DatabaseUnusable) as refused:
            await deferToThread(database.check)
        self.assertIn("timeout expired", str(refused.exception))


class FoldTests(SynchronousTestCase):
    """K-80: what PostgreSQL cannot keep is poison, not a commit that never succeeds."""

    def test_nul(self) -> None:
        from kupool.stats.fold import fold_entry
        from kupool.wire.batches import Batch, PoisonBatch, encode_batch

        for name, batch_id in (("a\0b", "b1"), ("alice", "b\0")):
            body = encode_batch(Batch(1, batch_id, T * 1000, [name], [1], ["n"]))
            with self.assertRaises(PoisonBatch):
                fold_entry(body)
        body = encode_batch(Batch(1, "b1", T * 1000, ["a\\u0000b"], [1], ["n"]))
        self.assertIsInstance(fold_entry(body), BatchCounts)


class RiskTests(Base):
    """K-44: a server whose commits may be lost is named when the daemon connects."""

    async def test_settings_that_are_off(self) -> None:
        dsn = postgres().new_database()
        safe = self.database(dsn, own="alone")
        await safe.open()
        self.assertEqual(safe.risk, "")
        await safe.close()
        lax = self.database(make_dsn(dsn, options="-c synchronous_commit=off"), own="alone")
        await lax.open()
        self.assertIn("synchronous_commit", lax.risk)
        self.assertIn("turn these settings on", lax.risk)
        self.assertNotIn(SECRET, lax.risk)
