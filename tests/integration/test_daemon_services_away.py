"""The daemon while RabbitMQ or PostgreSQL is away or refuses it: at a start, at a stop, between."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.servers.certificates import make_certificate
from tests.servers.commands import kupool
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import PostgresServer, RabbitServer, postgres, rabbit, required

SECRET = "s3cret"


class Case(SynchronousTestCase):
    """A virtual host and a database of the test's own, and daemons with both."""

    def setUp(self) -> None:
        broker, database = rabbit(), postgres()
        if not isinstance(broker, RabbitServer) or not isinstance(database, PostgresServer):
            raise SkipTest("the servers given by the environment are not ours to stop and change")
        self.broker, self.database = broker, database
        self.url, self.dsn = broker.new_vhost(), database.new_database()
        self.vhost = self.url.rpartition("/")[2]

    def flags(self, **changes: str) -> list[str]:
        flags = {"mq": "rabbit", "mq-url": self.url, "store": "pg", "pg-dsn": self.dsn, **changes}
        return [f"--{name}={value}" for name, value in flags.items()]

    def daemon(
        self, *more: str, env: dict[str, str] | None = None, **changes: Any
    ) -> RunningDaemon:
        """Return a daemon that is not started; ``changes`` are flags instead of the usual."""
        daemon = RunningDaemon(
            *self.flags(**changes),
            "--interval=1h",
            "--flush-interval=100ms",
            "--mq-timeout=500ms",
            *UNLIMITED,
            *more,
            env=env,
        )
        self.addCleanup(daemon.__exit__)
        return daemon

    def submit(self, daemon: RunningDaemon, *nonces: str) -> None:
        """Submit as alice; each is accepted."""
        client = LineClient(daemon, 20.0)
        try:
            job = client.authorize("alice")
            for nonce in nonces:
                self.assertIs(client.submit(job, nonce)["result"], True)
        finally:
            client.close()

    def counted(self) -> int:
        query = "SELECT coalesce(sum(submission_count), 0) FROM submissions"
        return int(self.database.execute(query, dsn=self.dsn)[0][0])

    def wait_for(self, daemon: RunningDaemon, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited too long: {daemon.get('/ready')} {daemon.output}")
            time.sleep(0.05)

    def concern(self, daemon: RunningDaemon) -> str:
        """What /ready says while the daemon takes work."""
        status, answer = daemon.get("/ready")
        self.assertEqual((status, answer["ready"]), (200, True), answer)
        return " ".join(answer["reasons"])

    def all_is_well(self, daemon: RunningDaemon) -> bool:
        return bool(daemon.get("/ready")[1] == {"ready": True, "reasons": []})

    def stop(self, daemon: RunningDaemon) -> None:
        """Stop it: with status 0, and with no step that had to be given up."""
        self.assertEqual(daemon.stop(), 0, daemon.output)
        self.assertNotIn("did not finish within", daemon.output)
        self.assertEqual(daemon.events()[-1]["message"], "Server Shut Down.")

    def account(self, **rights: str) -> str:
        """Return the URL of a new user of the broker, with these permissions."""
        user = f"user-{self.vhost}"
        self.broker.api(f"users/{user}", "PUT", {"password": SECRET, "tags": ""})
        self.addCleanup(self.broker.api, f"users/{user}", "DELETE")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.broker.api(f"permissions/{self.vhost}/{user}", "PUT", everything | rights)
        return f"amqp://{user}:{SECRET}@{self.broker.address}/{self.vhost}"

    def command(self, daemon: RunningDaemon, *arguments: str) -> str:
        """Return what a command prints that works on what the daemon keeps."""
        done = kupool(*arguments, f"--data={daemon.data}", *self.flags())
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def check(self, cases: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Each of these daemons ends with its line; they run at the same time, so that each
        has a database of its own.
        """
        daemons = [
            (line, self.daemon(**{"pg-dsn": self.database.new_database(), **changes}))
            for line, changes in cases
        ]
        processes = [
            subprocess.Popen(
                daemon.command(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=daemon._env,
            )
            for _, daemon in daemons
        ]
        for (line, _), process in zip(daemons, processes, strict=True):
            try:
                out, err = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
            # RabbitMQ 4 says which access it is.
            said = err.replace("a permission: configure access", "a permission: access")
            self.assertEqual((process.returncode, said), (1, f"kupool: {line}\n"), out[-2000:])
            self.assertNotIn(SECRET, out + err)
            self.assertNotIn("Traceback", out)


class StopTests(Case):
    """K-85, K-81, K-72: a stop or a start while one of the two is away loses nothing."""

    def spooled(self, daemon: RunningDaemon) -> int:
        """Batches in the spool, without the notes of jobs that went out."""
        query = "SELECT count(*) FROM spooled WHERE json_array_length(body, '$.usernames') > 0"
        with sqlite3.connect(daemon.data / "spool.sqlite") as connection:
            (count,) = connection.execute(query).fetchone()
        connection.close()
        return int(count)

    def test_rabbitmq(self) -> None:
        """K-85, K-81, K-52: frozen: the daemon stops in order, starts all the same and serves;
        what it accepted is in the spool, and is counted when the broker goes on.
        """
        daemon = self.daemon().start()
        self.submit(daemon, "first")
        self.wait_for(daemon, lambda: self.counted() == 1)
        self.broker.pause()
        self.addCleanup(self.broker.ensure_running)
        self.submit(daemon, *(f"frozen{n}" for n in range(10)))
        self.wait_for(daemon, lambda: "10 batches wait for the log" in self.concern(daemon))
        self.stop(daemon)
        self.assertEqual(self.spooled(daemon), 10)
        daemon.start()
        self.assertIn("does not answer", self.concern(daemon))
        self.submit(daemon, "start")
        self.stop(daemon)
        self.assertEqual(self.spooled(daemon), 11)
        self.broker.resume()
        daemon.start()
        self.wait_for(daemon, lambda: self.counted() == 12)
        self.wait_for(daemon, lambda: self.all_is_well(daemon))
        self.stop(daemon)
        self.assertEqual(self.spooled(daemon), 0)
        self.assertRegex(self.command(daemon, "audit"), r"(?m)^0 differences$")

    def test_postgresql(self) -> None:
        """K-85, K-72, X-05: killed, then frozen: submissions go on, and the daemon stops in order;
        what is not counted stays in RabbitMQ, and is counted once PostgreSQL is back.
        """
        daemon = self.daemon().start()
        self.addCleanup(self.database.ensure_running)
        self.submit(daemon, "first")
        self.wait_for(daemon, lambda: self.counted() == 1)
        self.database.kill()
        self.submit(daemon, *(f"killed{n}" for n in range(10)))
        self.wait_for(daemon, lambda: "statistics: PostgreSQL at " in self.concern(daemon))
        self.stop(daemon)
        self.assertRegex(daemon.output, r"[12]\d batches are left in the log")
        self.database.start()
        daemon.start()
        self.wait_for(daemon, lambda: self.counted() == 11)
        self.database.pause()
        self.submit(daemon, *(f"frozen{n}" for n in range(10)))
        # It is not taken for lost yet; that nothing is answered is told before.
        self.wait_for(daemon, lambda: "a commit has not been answered" in self.concern(daemon))
        self.stop(daemon)
        self.assertRegex(daemon.output, r"[12]\d batches are left in the log")
        self.database.resume()
        daemon.start()
        self.wait_for(daemon, lambda: self.counted() == 21)
        self.assertRegex(self.command(daemon, "audit"), r"(?m)^0 differences$")
        self.stop(daemon)


class RefusalTests(Case):
    """K-88, K-92: what keeps the daemon from starting is one line, without passwords; what
    happens later is said, and tried again until it is mended.
    """

    def setUp(self) -> None:
        super().setUp()
        # A PostgreSQL that asks for passwords.
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        rules = Path(folder.name) / "hba"
        loopback = "127.0.0.1/32"
        rules.write_text(
            f"host all worker {loopback} scram-sha-256\nhost all all {loopback} trust\n"
        )
        with required():
            self.strict = PostgresServer(f"hba_file={rules}")
            self.addCleanup(self.strict.close)
            self.strict.start()
        self.strict.execute(f"CREATE ROLE worker LOGIN PASSWORD '{SECRET}'")
        self.strict.execute("CREATE DATABASE theirs OWNER worker")
        self.place = f"PostgreSQL at 127.0.0.1:{self.strict.port}, database "

    def theirs(self, database: str = "theirs", password: str = SECRET) -> str:
        return (
            f"host=127.0.0.1 port={self.strict.port} user=worker "
            f"password={password} dbname={database}"
        )

    def test_rabbitmq_at_the_start(self) -> None:
        """K-88, K-92: also with the spool on, which is for a broker that is away."""
        address, mq = self.broker.address, "(from flag --mq-url)"
        restricted = self.account(configure="^$")
        user = restricted[7:].partition(":")[0]
        self.check(
            [
                (
                    f"mq_url: RabbitMQ at {address} refuses user 'guest': wrong password, or no "
                    f"such user {mq}",
                    {"mq-url": f"amqp://guest:{SECRET}@{address}/{self.vhost}"},
                ),
                (
                    f"mq_url: RabbitMQ at {address} has no virtual host 'nowhere' {mq}",
                    {"mq-url": self.broker.url("nowhere")},
                ),
                (
                    f"mq_url: RabbitMQ at {address}: user {user!r} lacks a permission: access to "
                    f"exchange 'kupool_submissions' in virtual host {self.vhost!r} {mq}",
                    {"mq-url": restricted},
                ),
                (
                    "mq_url: RabbitMQ at 127.0.0.1:1 cannot be reached: connection refused: "
                    f"nothing listens on this port {mq}",
                    {"mq-url": f"amqp://guest:{SECRET}@127.0.0.1:1/", "spool": "off"},
                ),
            ]
        )

    def test_postgresql_at_the_start(self) -> None:
        """K-88, K-92."""
        self.strict.execute("CREATE DATABASE ours")  # where others may make no tables
        pg = "(from flag --pg-dsn)"
        wrong = self.theirs(password=SECRET + "x")
        self.check(
            [
                (
                    f'pg_dsn: {self.place}theirs: password authentication failed for user "worker" '
                    f"{pg}",
                    {"pg-dsn": wrong},
                ),
                (
                    f'pg_dsn: {self.place}nowhere: database "nowhere" does not exist {pg}',
                    {"pg-dsn": self.theirs("nowhere")},
                ),
                (
                    f"pg_dsn: {self.place}ours: permission denied for schema public {pg}",
                    {"pg-dsn": self.theirs("ours")},
                ),
                (
                    f"pg_dsn: PostgreSQL at 127.0.0.1:1, database x: Connection refused {pg}",
                    {"pg-dsn": f"postgresql://worker:{SECRET}@127.0.0.1:1/x"},
                ),
                (
                    "pg_dsn: not a PostgreSQL connection string: expected a URL such as "
                    "postgresql://user:password@host:5432/database (special characters of the "
                    "password written as %40 and the like) or key=value pairs such as "
                    f"host=127.0.0.1 user=kupool dbname=kupool {pg}",
                    {"pg-dsn": f"host=127.0.0.1 passwort={SECRET}"},
                ),
            ]
        )

    def test_later(self) -> None:
        """K-81, K-72, K-92: passwords that are changed while it runs: it says so, tries again
        with pauses, takes submissions meanwhile, and goes on when they are right again.
        """
        url = self.account()
        user = url[7:].partition(":")[0]
        daemon = self.daemon(**{"mq-url": url, "pg-dsn": self.theirs()}).start()
        self.submit(daemon, "before")
        self.broker.api(f"users/{user}", "PUT", {"password": "other", "tags": ""})
        self.strict.execute("ALTER ROLE worker PASSWORD 'other'")
        self.strict.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'"
        )
        self.broker.control("close_all_user_connections", user, "the password is another")
        self.wait_for(daemon, lambda: "wrong password, or no such user" in self.concern(daemon))
        self.wait_for(daemon, lambda: "password authentication failed" in self.concern(daemon))
        self.submit(daemon, "meanwhile")
        self.assertIn("wrong password, or no such user; reconnecting", daemon.output)
        said = 'theirs: password authentication failed for user "worker"; trying again'
        messages = [event["message"] for event in daemon.events()]
        # Counts and topics have connections of their own.
        self.assertEqual(messages.count(self.place + said), 2, messages)
        self.broker.api(f"users/{user}", "PUT", {"password": SECRET, "tags": ""})
        self.strict.execute(f"ALTER ROLE worker PASSWORD '{SECRET}'")
        self.wait_for(daemon, lambda: self.all_is_well(daemon))
        query = "SELECT sum(submission_count) FROM submissions"
        self.wait_for(daemon, lambda: self.strict.execute(query, dsn=self.theirs()) == [(2,)])
        self.stop(daemon)
        self.assertNotIn(SECRET, daemon.output)
        # Not one line for each attempt.
        self.assertLess(daemon.output.count("wrong password, or no such user; reconnecting"), 20)


class PoisonTests(Case):
    """K-80, K-77, X-06: what cannot be counted is put aside, and what can is counted again."""

    def publish(self, *bodies: bytes) -> None:
        """Put messages into the log past the daemon."""
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        for body in bodies:
            connection.channel().basic_publish("kupool_submissions", "", body)
        connection.close()

    def dead_letters(self) -> list[dict[str, Any]]:
        """Look at the dead letters as an operator would, by the management API."""
        found: list[dict[str, Any]] = self.broker.api(
            f"queues/{self.vhost}/kupool_submissions.dead/get",
            "POST",
            {"count": 100, "ackmode": "ack_requeue_true", "encoding": "auto"},
        )
        return found

    def dump(self) -> bytes:
        rows = []
        for table in ("submissions", "worker_submissions"):
            rows += self.database.execute(f"SELECT '{table}', t::text FROM {table} t", dsn=self.dsn)
        return "\n".join(map(str, sorted(rows))).encode()

    def test_poison(self) -> None:
        """K-80: not JSON, a version that is not known, an id that was counted with other
        content: each is dead-lettered with its reason and counted, and what follows is counted.
        K-77, X-06: tables that are dropped then come back byte for byte, by a rebuild.
        """
        daemon = self.daemon().start()
        now = int(time.time() * 1000)
        known = Batch(VERSION, "b1", now, ["bob.rig1"], [1], ["x"])
        other = Batch(VERSION, "b1", now, ["bob.rig1", "mallory"], [1, 1], ["x", "y"])
        newer = Batch(VERSION + 1, "b2", now, ["mallory"], [1], ["z"])
        self.publish(encode_batch(known))
        self.wait_for(daemon, lambda: self.counted() == 1)
        poison = [b"no JSON", encode_batch(newer), encode_batch(other)]
        self.publish(*poison)
        self.submit(daemon, "after")
        self.wait_for(daemon, lambda: self.counted() == 2)
        self.wait_for(
            daemon, lambda: daemon.get("/shutdown/status")[1]["dead_letters"] == len(poison)
        )
        self.assertEqual(daemon.get("/ready")[0], 200)
        found = {
            letter["payload"]: letter["properties"]["headers"]["reason"]
            for letter in self.dead_letters()
        }
        self.assertEqual(list(found), [body.decode() for body in poison])
        not_json, version, conflict = found.values()
        self.assertIn("JSON", not_json)
        self.assertIn("version", version)
        self.assertEqual(conflict, "a batch of this id with other content was counted before")
        for reason in found.values():
            self.assertIn(reason, "\n".join(event["message"] for event in daemon.events()))
        before = self.dump()
        self.assertIn(b"bob", before)
        self.database.execute("DROP TABLE submissions, worker_submissions", dsn=self.dsn)
        self.assertIn(
            "Rebuilt the per-minute table from 2 batches: ",
            self.command(daemon, "stats", "rebuild"),
        )
        self.assertEqual(self.dump(), before)
        self.assertRegex(self.command(daemon, "audit"), r"(?m)^0 differences$")
        self.stop(daemon)

    def test_bounds_of_the_stream(self) -> None:
        """K-76, K-90: the stream has its bounds from when it was made; SIGHUP says so."""
        daemon = self.daemon()
        path = daemon.data.parent / "kupool.json"
        path.write_text(json.dumps({"log_retention": "24h", "log_max_size": "1GiB"}))
        daemon.flags.append(f"--config={path}")
        daemon.start()
        queue = self.broker.api(f"queues/{self.vhost}/kupool_submissions.stream")
        self.assertEqual(queue["arguments"]["x-max-age"], "86400s")
        self.assertEqual(queue["arguments"]["x-max-length-bytes"], 2**30)
        path.write_text(json.dumps({"log_retention": "48h", "log_max_size": "2GiB"}))
        daemon.signal(signal.SIGHUP)
        self.wait_for(
            daemon, lambda: "only after a restart: log_retention, log_max_size" in daemon.output
        )
        self.stop(daemon)


class TlsProxy:
    """Takes TLS connections for a server that speaks none. Blocking, in threads."""

    def __init__(self, certificate: Path, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.handshakes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            outside = self._context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        self.handshakes += 1
        inside = socket.create_connection(("127.0.0.1", self._target))
        threading.Thread(target=self._pass_on, args=(inside, outside), daemon=True).start()
        self._pass_on(outside, inside)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class TlsTests(Case):
    """K-88: ``amqps://``, with certificates that are checked."""

    def setUp(self) -> None:
        super().setUp()
        try:
            import OpenSSL  # noqa: F401
            import service_identity  # noqa: F401
        except ImportError as error:
            raise SkipTest(f"the extra 'tls' is not installed: {error}") from None
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.certificate = make_certificate(Path(folder.name) / "both.pem")
        self.proxy = TlsProxy(self.certificate, self.broker.port)
        self.addCleanup(self.proxy.close)
        self.trusting = {"SSL_CERT_FILE": str(self.certificate)}

    def over_tls(self, host: str, port: int) -> dict[str, str]:
        return {"mq-url": f"amqps://guest:guest@{host}:{port}/{self.vhost}"}

    def test_accepted_and_counted(self) -> None:
        daemon = self.daemon(env=self.trusting, **self.over_tls("localhost", self.proxy.port))
        daemon.start()
        self.submit(daemon, "a", "b")
        self.wait_for(daemon, lambda: self.counted() == 2)
        self.assertEqual(self.concern(daemon), "")
        # Three connections for submissions, and three for topics.
        self.assertEqual(self.proxy.handshakes, 6)
        self.stop(daemon)

    def test_refused(self) -> None:
        """K-88: a certificate nobody vouches for, one for another host, a port without TLS: each
        ends the start with one line, as trying again alone does not help.
        """
        reasons = (
            (
                {},
                "localhost",
                self.proxy.port,
                "the certificate of the server is self-signed and not trusted",
            ),
            (
                self.trusting,
                "127.0.0.1",
                self.proxy.port,
                "the certificate of the server is not for 127.0.0.1",
            ),
            (self.trusting, "localhost", self.broker.port, "wrong version number"),
        )
        self.check(
            [
                (
                    f"mq_url: RabbitMQ at {host}:{port} cannot be reached over TLS: {why} "
                    "(from flag --mq-url)",
                    {"env": env, **self.over_tls(host, port)},
                )
                for env, host, port, why in reasons
            ]
        )
