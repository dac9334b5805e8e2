"""What stands on the machine of a reader of the pages about operations."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.servers.running_daemon import RunningDaemon
from tests.servers.services import postgres, rabbit

if TYPE_CHECKING:
    from tests.docs.set_ups import Surroundings

#: Minutes that have batches, and batches in each of them, of three submissions.
MINUTES, BATCHES = 5, 2


def used_folder(folder: Path) -> None:
    """Make a data folder whose daemon has counted batches of some minutes, and has ended."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    daemon = RunningDaemon(data=folder)
    with daemon:
        daemon.stop()
    first = int(time.time()) // 60 * 60 - 3600
    with closing(sqlite3.connect(folder / "log.sqlite")) as log:
        for number in range(MINUTES * BATCHES):
            at = (first + 60 * (number // BATCHES)) * 1000
            name, users = f"made-{number}", ["alice.rig1", "alice.rig2", "bob"]
            body = encode_batch(Batch(VERSION, name, at, users, [1] * 3, ["x"] * 3))
            log.execute(
                "INSERT INTO entries (entry_id, appended_at, body) VALUES (?, ?, ?)",
                (name, at, body),
            )
        log.commit()
    with daemon:
        until(lambda: daemon.get("/shutdown/status")[1]["log_depth"] == 0)
        daemon.stop()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; raises AssertionError if it never does."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "nothing was counted"
        time.sleep(0.05)


def operations(around: Surroundings, stack: ExitStack) -> None:
    """Start the daemon that the page asks, with its folder in the place of ``kupool-data``."""
    pool, http = (around.ports.setdefault(port, port) for port in (8080, 8081))
    daemon = RunningDaemon(addr=f"127.0.0.1:{pool}", http_address=f"tcp:{http}:interface=127.0.0.1")
    stack.enter_context(daemon)
    (around.folder / "kupool-data").symlink_to(daemon.data)


def store_and_log(around: Surroundings, stack: ExitStack) -> None:
    """Make the folder ``kupool-data``, which is ``/var/lib/kupool`` too, and a database."""
    used_folder(around.folder / "kupool-data")
    around.words["/var/lib/kupool"] = str(around.folder / "kupool-data")
    around.words["pool-1"] = socket.gethostname()
    around.words["host=db dbname=pool user=kupool"] = postgres().new_database()


def backup(around: Surroundings, stack: ExitStack) -> None:
    """Make the folder ``kupool-data``, in ``/srv``."""
    used_folder(around.folder / "kupool-data")
    around.words["/srv"] = str(around.folder)


def migrate(around: Surroundings, stack: ExitStack) -> None:
    """Make the folder to move, and the empty servers that it moves to."""
    used_folder(Path(around.words["/var/lib/kupool"]))
    around.words["/etc/kupool"] = str(around.folder)
    around.words["amqp://kupool:secret@127.0.0.1/"] = rabbit().new_vhost()
    around.words["postgresql://kupool:secret@127.0.0.1/kupool"] = postgres().new_database()


def install(around: Surroundings, stack: ExitStack) -> None:
    """Have the servers that the page names."""
    around.words["amqp://kupool:password@mq1,mq2,mq3/kupool"] = rabbit().new_vhost()
    around.words["host=db dbname=kupool user=kupool password=password"] = postgres().new_database()


__all__ = ["backup", "install", "migrate", "operations", "store_and_log"]
