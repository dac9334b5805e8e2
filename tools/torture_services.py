"""The site with RabbitMQ and PostgreSQL, and proxies on the ways to them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pika.exceptions import AMQPError
from psycopg2.extensions import make_dsn, parse_dsn

from tests.servers.own_process import PATIENCE, ServerFailed
from tests.servers.postgres_server import find_programs
from tests.servers.services import PostgresServer, RabbitCluster, RabbitServer
from tools.torture_accounts import Accounts, Row, Stored
from tools.torture_faults import LONG, Fault, cuts, nothing, shared_faults
from tools.torture_proxy import HOLE, OPEN, Proxy
from tools.torture_site import Site
from tools.torture_stream import (
    count_messages,
    delete_stream,
    has_stream,
    make_recorder,
    read_stream,
)

T = TypeVar("T")

QUEUE = "kupool_submissions"
STREAM = f"{QUEUE}.stream"

#: The stream of our own that gets what the daemon sends, whatever becomes of its stream.
RECORDER = "torture.recorder"

#: Seconds from the making of the queues to the first kill of a broker; see
#: :data:`tests.servers.rabbit_server.SETTLING`.
SETTLED = 4.0

_AT = "extract(epoch FROM timestamp)::bigint"
_ROWS = (
    f"SELECT username AS name, {_AT} AS minute, submission_count FROM submissions{{grain}} "
    f"UNION ALL SELECT username || '.' || worker, {_AT}, submission_count "
    "FROM worker_submissions{grain} WHERE worker <> ''"
)
_ALL_ROWS = " UNION ALL ".join(_ROWS.format(grain=grain) for grain in ("", "_hour", "_day"))


class Brokers:
    """One RabbitMQ, or the nodes of a cluster; hurt is the one that leads the queue."""

    def __init__(self, broker: RabbitServer | RabbitCluster) -> None:
        self._cluster = broker if isinstance(broker, RabbitCluster) else None
        if isinstance(broker, RabbitCluster):
            self.urls, self.nodes = broker.new_vhost(), broker.nodes
        else:
            self.urls, self.nodes = [broker.new_vhost()], [broker]
        self.vhost = urlsplit(self.urls[0]).path[1:]
        self.proxies = [_way_to(node) for node in self.nodes]

    def _leader(self) -> RabbitServer:
        if self._cluster is None:
            return self.nodes[0]
        return self._cluster.leader_of(QUEUE, self.vhost)

    def ask(self, what: Callable[[str], T]) -> T:
        """Ask any of them, past the proxies.

        A node that has just come back may have no replica of a stream yet.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            for url in self.urls:
                try:
                    return what(url)
                except AMQPError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the leader."""
        self._leader().kill()

    def pause(self) -> None:
        """Stop the leader's processes."""
        self._leader().pause()

    def heal(self) -> None:
        """Start or resume whatever is down."""
        for node in self.nodes:
            node.ensure_running()

    def cut(self, mode: str) -> None:
        """Treat the way to every one so."""
        for proxy in self.proxies:
            proxy.set(mode)

    def reset(self) -> None:
        """Reset every connection to them."""
        for proxy in self.proxies:
            proxy.reset()

    def url(self) -> str:
        """Return the setting for the daemon: every address, by way of the proxies."""
        account = urlsplit(self.urls[0]).netloc.rpartition("@")[0]
        addresses = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)
        return f"amqp://{account}@{addresses}/{self.vhost}"


def _way_to(node: RabbitServer) -> Proxy:
    return Proxy(lambda: node.port)


class ServicesSite(Site):
    """RabbitMQ log and PostgreSQL store."""

    def __init__(
        self, broker: RabbitServer | RabbitCluster, database: PostgresServer, seed: int = 0
    ) -> None:
        self.brokers = Brokers(broker)
        self.database = database
        self.dsn = database.new_database()
        self.to_database = Proxy(lambda: database.port)
        self._began = 0.0
        self.name = f"services, {len(self.brokers.nodes)} of RabbitMQ"
        super().__init__(
            [
                "--mq=rabbit",
                "--mq-timeout=500ms",
                f"--mq-url={self.brokers.url()}",
                "--store=pg",
                f"--pg-dsn={make_dsn(self.dsn, port=self.to_database.port)}",
            ],
            "24m",
            seed,
        )

    def started(self) -> None:
        self._began = time.monotonic()
        self.brokers.ask(lambda url: make_recorder(url, QUEUE, RECORDER))

    def parts(self) -> Sequence[Proxy]:
        return (self.to_database, *self.brokers.proxies)

    # -- the accounts

    def make_accounts(self) -> Accounts:
        return Accounts(self.read, self.count, self.record, self.rolled)

    def read(self, start: int) -> tuple[list[Stored], int]:
        """Return the stream from an offset on, and the number of dead letters."""
        dead = self.brokers.ask(lambda url: count_messages(url, f"{QUEUE}.dead"))
        return self.brokers.ask(lambda url: read_stream(url, STREAM, start)), dead

    def record(self, start: int) -> list[Stored]:
        """Return what was sent, from an offset of our own stream on."""
        return self.brokers.ask(lambda url: read_stream(url, RECORDER, start))

    def count(self, since: int) -> Sequence[tuple[str, int, int]]:
        """Return the rows of every resolution from a minute on."""
        return self.database.execute(
            f"SELECT * FROM ({_ALL_ROWS}) AS found WHERE minute >= %s", (since,), dsn=self.dsn
        )

    def rows(self) -> list[Row]:
        found = self.database.execute(_ROWS.format(grain=""), dsn=self.dsn)
        return sorted(Row(*row) for row in found)

    def rolled(self) -> int:
        """Return the minute before which minutes are rolled up."""
        found = self.database.execute(
            "SELECT extract(epoch FROM before)::bigint FROM rollups", dsn=self.dsn
        )
        return int(found[0][0]) if found else 0

    def set_row(self, row: Row, count: int | None) -> None:
        user, _, worker = row.name.partition(".")
        at = datetime.fromtimestamp(row.minute, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table, key, values = "submissions", "username", [user]
        if worker:
            table, key, values = "worker_submissions", "username, worker", [user, worker]
        marks = ", ".join(["%s"] * len(values))
        self.database.execute(
            f"DELETE FROM {table} WHERE ({key}, timestamp) = ({marks}, %s)",
            (*values, at),
            dsn=self.dsn,
        )
        if count is not None:
            self.database.execute(
                f"INSERT INTO {table} ({key}, timestamp, submission_count) "
                f"VALUES ({marks}, %s, %s)",
                (*values, at, count),
                dsn=self.dsn,
            )

    def claimed(self) -> set[int]:
        return {
            minute
            for (minute,) in self.database.execute(
                "SELECT minute FROM counted_minutes WHERE after_position >= "
                "(SELECT max(begins_after) FROM log_epochs)",
                dsn=self.dsn,
            )
        }

    def audit_flags(self) -> list[str]:
        return [
            "--mq=rabbit",
            f"--mq-url={self.brokers.urls[0]}",
            "--store=pg",
            f"--pg-dsn={self.dsn}",
            f"--data={self.daemon.data}",
        ]

    # -- what is done to them

    def kill_broker(self) -> None:
        """End the queue's leader with SIGKILL."""
        time.sleep(max(0.0, self._began + SETTLED - time.monotonic()))
        self.brokers.kill()

    def fill_disk(self) -> None:
        """Leave the spool no room, just when it is needed."""
        self.brokers.cut(HOLE)
        super().fill_disk()

    def clear_disk(self) -> None:
        """There is room again, and a broker."""
        super().clear_disk()
        self.brokers.cut(OPEN)

    def heal_services(self) -> None:
        self.brokers.cut(OPEN)
        self.to_database.set(OPEN)
        super().heal_services()
        self.brokers.heal()
        self.database.ensure_running()

    def delete_stream(self) -> None:
        """Delete the stream, while the daemon runs or after it was killed.

        What the queue holds is counted from there.
        """
        self.accounts.read()
        self.brokers.ask(lambda url: delete_stream(url, STREAM))
        # What is sent until the daemon makes it again is in the queue alone.
        self.log_is_taken(excused=True)

    def stop_and_delete_stream(self) -> None:
        """End the daemon in order, and delete the stream."""
        self.take_log(lambda: self.brokers.ask(lambda url: delete_stream(url, STREAM)))

    def kill_and_delete_stream(self) -> None:
        """Kill the daemon, and delete the stream."""
        self.kill_daemon()
        self.delete_stream()

    def restart_daemon(self) -> None:
        """Kill the daemon and start it again."""
        self.kill_daemon()
        self.start_daemon()

    def evidence(self) -> list[str]:
        lines = []
        for table in ("log_epochs", "log_marks", "log_forgotten"):
            found = self.database.execute(f"SELECT * FROM {table} ORDER BY 1", dsn=self.dsn)
            lines.append(f"{table}: {found[-12:]}")
        known = dict(
            self.database.execute("SELECT batch_id, position FROM applied_batches", dsn=self.dsn)
        )
        unknown = [batch_id for batch_id in self.accounts.batches if batch_id not in known]
        lowest = min((position or 0 for position in known.values()), default=0)
        lines.append(f"ids known to the store: {len(known)}, from position {lowest}")
        lines.append(f"batches of which it knows no id: {len(unknown)}, the last {unknown[-40:]}")
        return [*lines, *super().evidence()]

    def quiet(self) -> str:
        left = super().quiet()
        if not left and not self.brokers.ask(lambda url: has_stream(url, STREAM)):
            return "there is no stream"
        return left

    def copy_log(self, target: Path) -> bool:
        return False  # nobody can put a copy of a stream back

    def copy_store(self, target: Path) -> None:
        self._run("pg_dump", "--file", str(target), self.dsn)

    def put_store(self, source: Path) -> None:
        name = parse_dsn(self.dsn)["dbname"]
        self.database.execute(f"DROP DATABASE {name} WITH (FORCE)")
        self.database.execute(f"CREATE DATABASE {name}")
        self.database.psql(self.dsn, "--quiet", "--file", str(source))

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(find_programs() / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ServerFailed(f"{program}: {done.stdout}{done.stderr}")

    def faults(self) -> list[Fault]:
        """Return every fault of this site."""
        brokers, database = self.brokers, self.database
        start, instant = self.start_daemon, (0.0, 0.2)
        return [
            *shared_faults(self),
            Fault("broker kill", "broker", self.kill_broker, brokers.heal, (0, 1.0), 2),
            Fault("broker stop", "broker", brokers.pause, brokers.heal, LONG, 2),
            Fault("postgres kill", "postgres", database.kill, database.ensure_running, weight=3),
            Fault("postgres stop", "postgres", database.pause, database.resume, LONG, 2),
            Fault("disk full", "broker", self.fill_disk, self.clear_disk, (0.7, 3.0), 2),
            Fault("broker cut reset", "broker", brokers.reset, nothing, (0, 0)),
            Fault("postgres cut reset", "postgres", self.to_database.reset, nothing, (0, 0)),
            *cuts("broker", brokers.cut),
            *cuts("postgres", self.to_database.set),
            Fault("stream deleted", "daemon", self.delete_stream, brokers.reset, LONG, 1.5, True),
            Fault(
                "stream deleted, daemon kill",
                "daemon",
                self.delete_stream,
                self.restart_daemon,
                LONG,
                alone=True,
            ),
            Fault(
                "stream deleted after kill",
                "daemon",
                self.kill_and_delete_stream,
                start,
                instant,
                alone=True,
            ),
            Fault(
                "stream deleted after term",
                "daemon",
                self.stop_and_delete_stream,
                start,
                instant,
                alone=True,
            ),
            Fault("store older", "daemon", self.replace_store, start, instant, 3, True),
        ]


__all__ = ["Brokers", "ServicesSite"]
