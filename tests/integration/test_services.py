"""The servers of the tests themselves (Q-90).

If these do not hold, no test of an engine means much.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pika
import psutil
import psycopg2
from twisted.trial.unittest import SynchronousTestCase

from tests.servers import postgres_server, rabbit_server
from tests.servers.own_process import OwnProcess, free_port, wait_until
from tests.servers.services import (
    GivenPostgres,
    GivenRabbit,
    PostgresServer,
    RabbitCluster,
    RabbitServer,
    ServerFailed,
    postgres,
    rabbit,
    required,
)

ROOT = Path(__file__).parents[2]


def own_postgres() -> PostgresServer:
    """Return the PostgreSQL of this run if it may be killed; skips where it is a given one."""
    server = postgres()
    if isinstance(server, GivenPostgres):
        raise SkipTest("KUPOOL_TEST_PG_DSN names a server that is not ours to stop")
    return server


def own_rabbit() -> RabbitServer:
    """Return the RabbitMQ of this run if it may be killed; skips where it is a given one."""
    server = rabbit()
    if isinstance(server, GivenRabbit):
        raise SkipTest("KUPOOL_TEST_AMQP_URL names a broker that is not ours to stop")
    return server


def family(process: OwnProcess) -> list[psutil.Process]:
    """Return the processes of a server."""
    head = psutil.Process(process.pid)
    return [head, *head.children(recursive=True)]


def silent(source: socket.socket | int) -> bool:
    """Return whether nothing comes from here for a moment."""
    return not select.select([source], [], [], 0.5)[0]


def publish(url: str, queue: str, *bodies: bytes) -> None:
    """Put persistent messages into a quorum queue; returns when the broker confirmed them."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    for body in bodies:
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), True)
    connection.close()


def take(url: str, queue: str) -> bytes | None:
    """Return the next message of a queue, acknowledged."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        body: bytes | None = connection.channel().basic_get(queue, auto_ack=True)[2]
        return body


class PostgresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = own_postgres()
        self.dsn = self.server.new_database()

    def rows(self) -> list[tuple[int]]:
        return self.server.execute("SELECT number FROM kept ORDER BY 1", dsn=self.dsn)

    def keep(self, number: int) -> None:
        self.server.execute("CREATE TABLE IF NOT EXISTS kept (number INT)", dsn=self.dsn)
        self.server.execute("INSERT INTO kept VALUES (%s)", (number,), dsn=self.dsn)

    def test_shared(self) -> None:
        self.assertIs(self.server, postgres())

    def test_databases_are_empty_and_apart(self) -> None:
        self.keep(1)
        another = self.server.new_database()
        tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        self.assertEqual(self.server.execute(tables, dsn=another), [(0,)])
        self.assertEqual(self.server.execute(tables, dsn=self.dsn), [(1,)])

    def test_utf8(self) -> None:
        [(encoding,)] = self.server.execute("SHOW server_encoding", dsn=self.dsn)
        self.assertEqual(encoding, "UTF8")

    def test_stop_and_start_keep_port_and_data(self) -> None:
        self.keep(2)
        self.server.stop()
        self.assertRaises(psycopg2.OperationalError, self.rows)
        self.server.start()
        self.assertEqual(self.rows(), [(2,)])

    def test_kill_takes_the_backends_and_keeps_what_was_committed(self) -> None:
        idle = psycopg2.connect(self.dsn)
        self.addCleanup(idle.close)
        for number in range(20):
            self.keep(number)
        processes = family(self.server.process)
        self.assertIn(idle.info.backend_pid, [process.pid for process in processes])
        self.server.kill()
        self.assertEqual(alive(processes), [])
        self.assertRaises(psycopg2.OperationalError, self.rows)
        self.server.start()
        self.assertEqual(self.rows(), [(number,) for number in range(20)])

    def test_killed_again_and_again(self) -> None:
        for number in range(5):
            self.keep(number)
            self.server.kill()
            self.server.start()
        self.assertEqual(self.rows(), [(number,) for number in range(5)])

    def test_paused_connections_stay_open_and_get_no_answer(self) -> None:
        connection = psycopg2.connect(self.dsn, async_=True)
        self.addCleanup(connection.close)
        wait_until(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "connected")
        self.server.pause()
        try:
            states = {process.status() for process in family(self.server.process)}
            cursor = connection.cursor()
            cursor.execute("SELECT 3")
            self.assertEqual(states, {psutil.STATUS_STOPPED})
            self.assertTrue(silent(connection.fileno()))
        finally:
            self.server.resume()
        wait_until(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "answered")
        self.assertEqual(cursor.fetchall(), [(3,)])

    def test_what_a_test_left_down_comes_back(self) -> None:
        self.keep(4)
        self.server.pause()
        self.assertEqual(postgres().execute("SELECT 1"), [(1,)])
        self.server.pause()
        self.server.kill()
        self.assertEqual(postgres().execute("SELECT number FROM kept", dsn=self.dsn), [(4,)])

    def test_one_of_its_own(self) -> None:
        with PostgresServer("max_connections=7") as own:
            self.assertNotEqual(own.port, self.server.port)
            self.assertEqual(own.execute("SHOW max_connections"), [("7",)])
            self.assertEqual(own.execute("SHOW fsync"), [("on",)])
            process = own.process
        self.assertFalse(process.alive)
        self.assertFalse(own.folder.exists())

    def test_a_server_that_cannot_start_says_why(self) -> None:
        own = PostgresServer("shared_buffers=none")
        self.addCleanup(own.close)
        failure = self.assertRaises(ServerFailed, own.start)
        self.assertIn("shared_buffers", str(failure))

    def test_a_given_server(self) -> None:
        given = GivenPostgres(self.server.dsn)
        dsn = given.new_database()
        self.assertEqual(given.execute("SELECT 5", dsn=dsn), [(5,)])
        for ours in (given.kill, given.pause, given.resume, given.stop, given.start):
            self.assertRaises(SkipTest, ours)
        given.close()
        self.assertRaises(psycopg2.OperationalError, given.execute, "SELECT 5", dsn=dsn)
        self.assertTrue(self.server.process.alive)


class RabbitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = own_rabbit()
        self.url = self.server.new_vhost()

    def test_shared(self) -> None:
        self.assertIs(self.server, rabbit())

    def test_virtual_hosts_are_empty_and_apart(self) -> None:
        publish(self.url, "one", b"1")
        another = self.server.new_vhost()
        self.assertRaises(pika.exceptions.ChannelClosedByBroker, take, another, "one")
        self.assertEqual(take(self.url, "one"), b"1")

    def test_stop_and_start_keep_port_and_data(self) -> None:
        publish(self.url, "kept", b"2")
        self.server.stop()
        self.assertRaises(pika.exceptions.AMQPConnectionError, take, self.url, "kept")
        self.server.start()
        self.assertEqual(take(self.url, "kept"), b"2")

    def test_kill_takes_the_helpers_and_keeps_what_was_confirmed(self) -> None:
        bodies = [b"%d" % number for number in range(20)]
        publish(self.url, "kept")
        time.sleep(rabbit_server.SETTLING)
        publish(self.url, "kept", *bodies)
        processes = family(self.server.process)
        self.server.kill()
        self.assertEqual(alive(processes), [])
        self.assertRaises(pika.exceptions.AMQPConnectionError, take, self.url, "kept")
        self.server.start()
        self.assertEqual([take(self.url, "kept") for _ in bodies], bodies)
        # And one that a test left down comes back.
        self.server.pause()
        self.server.kill()
        self.assertTrue(rabbit().api("overview"))

    def test_paused_connections_stay_open_and_get_no_answer(self) -> None:
        self.server.pause()
        try:
            states = {process.status() for process in family(self.server.process)}
            connection = socket.create_connection(("127.0.0.1", self.server.port), 30)
            self.addCleanup(connection.close)
            connection.sendall(b"AMQP\0\0\x09\1")
            self.assertEqual(states, {psutil.STATUS_STOPPED})
            self.assertTrue(silent(connection))
        finally:
            self.server.resume()
        self.assertEqual(connection.recv(1), b"\1")

    def test_its_tools(self) -> None:
        publish(self.url, "known", b"3")
        vhost = urlsplit(self.url).path[1:]
        told = self.server.control("--quiet", "list_queues", "--vhost", vhost, "name", "type")
        self.assertIn("known\tquorum", told)
        self.assertRaises(ServerFailed, self.server.control, "no_such_command")

    def test_a_given_broker(self) -> None:
        given = GivenRabbit(self.url, self.server.api_url)
        url = given.new_vhost()
        publish(url, "given", b"4")
        for ours in (given.kill, given.pause, given.resume, given.stop, given.start):
            self.assertRaises(SkipTest, ours)
        given.close()
        vhost = urlsplit(url).path[1:]
        error = self.assertRaises(HTTPError, self.server.api, f"vhosts/{vhost}")
        self.addCleanup(error.close)
        self.assertEqual(error.code, 404)
        self.assertTrue(self.server.process.alive)

    def test_a_given_broker_without_its_api(self) -> None:
        api = f"http://127.0.0.1:{free_port()}/api"
        reason = self.assertRaises(SkipTest, GivenRabbit, self.url, api)
        self.assertIn(api, str(reason))


class RabbitClusterTests(SynchronousTestCase):
    def test_a_killed_leader_is_replaced_and_comes_back(self) -> None:
        with required(), RabbitCluster(3) as cluster:
            urls = cluster.new_vhost()
            vhost = urlsplit(urls[0]).path[1:]
            publish(urls[0], "led")
            time.sleep(rabbit_server.SETTLING)
            publish(urls[0], "led", b"1", b"2")
            leader = cluster.leader_of("led", vhost)
            cluster.kill(leader)
            self.assertNotIn(leader, cluster.living())
            successor = cluster.leader_of("led", vhost)
            self.assertIn(successor, cluster.living())
            url = urls[cluster.nodes.index(successor)]
            self.assertEqual(take(url, "led"), b"1")
            leader.start()
            self.assertEqual(take(urls[cluster.nodes.index(leader)], "led"), b"2")
            processes = [node.process for node in cluster.nodes]
        self.assertEqual([process.alive for process in processes], [False] * 3)


class MissingTests(SynchronousTestCase):
    """What a machine without the servers is told."""

    def setUp(self) -> None:
        self.empty = Path(self.mktemp())
        self.empty.mkdir()
        self.patch(os, "environ", {**os.environ, "PATH": str(self.empty.resolve())})

    def find(self, programs: Callable[[Path], Path]) -> None:
        with required():
            programs(self.empty / "none")

    def test_skipped_with_the_reason(self) -> None:
        os.environ["KUPOOL_REQUIRE_SERVICES"] = "0"
        no_postgres = self.assertRaises(SkipTest, self.find, postgres_server.find_programs)
        self.assertIn("PostgreSQL is not installed", str(no_postgres))
        no_rabbit = self.assertRaises(SkipTest, self.find, rabbit_server.find_programs)
        self.assertIn("RabbitMQ is not installed", str(no_rabbit))

    def test_failed_where_they_are_required(self) -> None:
        os.environ["KUPOOL_REQUIRE_SERVICES"] = "1"
        for programs in (postgres_server.find_programs, rabbit_server.find_programs):
            failure = self.assertRaises(ServerFailed, self.find, programs)
            self.assertIn("is not installed", str(failure))


class AbruptEndTests(SynchronousTestCase):
    def test_a_killed_test_run_leaves_nothing_behind(self) -> None:
        folder = tempfile.mkdtemp(prefix="kupool-abrupt-")
        self.addCleanup(os.rmdir, folder)
        os.chmod(folder, 0o755)
        own_postgres()
        script = (
            "import os, signal\n"
            "from tests.servers.services import PostgresServer\n"
            "server = PostgresServer()\n"
            "server.start()\n"
            "print(server.process.pid, server.folder, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(ended.returncode, -signal.SIGKILL)
        pid, server_folder = ended.stdout.split()
        wait_until(lambda: not running(int(pid)), "the server is gone")
        wait_until(lambda: not Path(server_folder).exists(), "its folder is gone")


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that run still."""
    return [process for process in processes if running(process.pid)]


def running(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
