"""The site of the torture: brokers, PostgreSQL and the daemon, with proxies between them."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from pika.exceptions import AMQPError
from psycopg2.extensions import make_dsn

from tests.faults.torture_accounts import Accounts, Stored, read_stream
from tests.faults.torture_disk import Disk
from tests.faults.torture_proxy import HOLE, OPEN, Proxy
from tests.own_process import PATIENCE, ServerFailed, free_port
from tests.running_daemon import UNLIMITED, RunningDaemon, StartFailed
from tests.services import PostgresServer, RabbitCluster, RabbitServer

QUEUE = "kupool_submissions"

#: Seconds from the making of the queues to the first kill of a broker; see
#: :data:`tests.rabbit_server.SETTLING`.
SETTLED = 4.0


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

    def close(self) -> None:
        for proxy in self.proxies:
            proxy.close()


def _way_to(node: RabbitServer) -> Proxy:
    return Proxy(lambda: node.port)


class Site:
    """Everything that is tortured; use it as a context manager."""

    def __init__(self, broker: RabbitServer | RabbitCluster, database: PostgresServer) -> None:
        self.brokers = Brokers(broker)
        self.database = database
        self.dsn = database.new_database()
        self.disk = Disk()
        self.to_database = Proxy(lambda: database.port)
        self.flags = [
            "--mq=rabbit",
            "--mq-timeout=500ms",
            "--store=pg",
            "--interval=2s",
            "--flush-interval=100ms",
            # A start reads back the log of this time and five minutes.
            "--history-window=1m",
            "--shutdown-timeout=5s",
            *UNLIMITED,
        ]
        self.daemon = RunningDaemon(
            *self.flags,
            f"--mq-url={self.brokers.url()}",
            f"--pg-dsn={make_dsn(self.dsn, port=self.to_database.port)}",
            data=self.disk.path / "data",
            port=free_port(),
        )
        self.to_daemon = Proxy(lambda: self.daemon.port)
        self.complaints: list[str] = []
        self._read_lines = 0
        self.failed_starts = 0
        self._began = 0.0

    def __enter__(self) -> Site:
        self.daemon.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.kill()
        self.heal_services()
        for thing in (self.to_daemon, self.to_database, self.brokers, self.disk):
            thing.close()

    # -- the daemon

    def kill_daemon(self) -> None:
        """End it with SIGKILL."""
        self.daemon.kill()
        self.look_for_complaints()

    def stop_daemon(self) -> None:
        """End it in order; that takes as long as it may, whoever else is away."""
        status = self.daemon.stop()
        self.look_for_complaints()
        if status:
            self.complaints.append(f"the daemon ended with status {status}")

    def start_daemon(self, seconds: float = 10.0) -> bool:
        """Start it, if it does not run; returns whether it does."""
        process = self.daemon.process
        if process is not None and process.poll() is None:
            return True
        self.look_for_complaints()
        self._read_lines = 0
        try:
            self.daemon.start(seconds)
        except StartFailed:
            self.failed_starts += 1
            self.look_for_complaints()
            return False
        return True

    def look_for_complaints(self) -> None:
        """Note what the daemon printed of errors that nobody expected."""
        lines = list(self.daemon.lines)
        for line in lines[self._read_lines :]:
            if "Traceback" in line or '"critical"' in line or "Unhandled" in line:
                self.complaints.append(line[:2000])
        self._read_lines = len(lines)

    # -- the rest

    def kill_broker(self) -> None:
        """End the queue's leader with SIGKILL."""
        time.sleep(max(0.0, self._began + SETTLED - time.monotonic()))
        self.brokers.kill()

    def fill_disk(self) -> None:
        """Leave the spool no room, just when it is needed."""
        self.brokers.cut(HOLE)
        self.disk.fill(self.daemon.pid)

    def clear_disk(self) -> None:
        """There is room again, and a broker."""
        self.disk.clear(self.daemon.pid)
        self.brokers.cut(OPEN)

    def heal_services(self) -> None:
        """Let everything but the daemon work again."""
        self.brokers.cut(OPEN)
        self.to_database.set(OPEN)
        self.to_daemon.set(OPEN)
        self.disk.clear(self.daemon.pid)
        self.brokers.heal()
        self.database.ensure_running()

    def heal(self) -> None:
        """Let everything work again; raises :class:`ServerFailed` where it does not."""
        self.heal_services()
        process = self.daemon.process
        assert process is not None
        if process.poll() is None:
            self.daemon.signal(signal.SIGCONT)
            return
        for _ in range(5):
            if self.start_daemon(60.0):
                return
            time.sleep(0.5)
        raise ServerFailed(f"the daemon does not start: {self.daemon.output[-3000:]}")

    def quiet(self) -> str:
        """Return what the daemon still has to do; empty when it is done with everything."""
        try:
            _, left = self.daemon.get("/shutdown/status")
            _, ready = self.daemon.get("/ready")
        except (OSError, ValueError) as error:
            return f"the daemon does not answer: {error}"
        found = {
            name: left[name] for name in ("batches_in_flight", "log_depth", "spooled") if left[name]
        }
        return f"{found} {ready.get('reasons', '')}" if found or ready.get("reasons") else ""

    # -- the accounts

    def accounts(self) -> Accounts:
        """Return the accounts over the log and the counts of this site, past the proxies."""
        return Accounts(self.read, self.count)

    def read(self, start: int) -> tuple[list[Stored], int]:
        """Return the stream from an offset on, and the number of dead letters.

        A node that has just come back may have no replica of the stream yet.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            for url in self.brokers.urls:
                try:
                    return read_stream(url, QUEUE, start)
                except AMQPError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.2)

    def count(self, since: int) -> Sequence[tuple[str, int, int]]:
        """Return the rows of the per-minute table from a minute on."""
        return self.database.execute(
            "SELECT username, extract(epoch FROM timestamp)::bigint, submission_count "
            "FROM submissions WHERE timestamp >= to_timestamp(%s) AT TIME ZONE 'UTC'",
            (since,),
            dsn=self.dsn,
        )

    def audit_flags(self) -> list[str]:
        """Return the flags with which ``kupool audit`` sees the same, past the proxies."""
        return [
            "--mq=rabbit",
            f"--mq-url={self.brokers.urls[0]}",
            "--store=pg",
            f"--pg-dsn={self.dsn}",
            f"--data={self.daemon.data}",
        ]


__all__ = ["Brokers", "Site"]
