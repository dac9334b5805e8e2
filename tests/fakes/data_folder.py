"""Data folders as a daemon leaves them, made without one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from kupool.log import Identity
from kupool.storage.migrations import migrate
from kupool.topics import sqlite_tables
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings

#: A minute in which everything is counted.
MINUTE = "2026-11-21 10:05:00"


def write_log(
    folder: Path, identity: Identity | None, last: int, *, first: int = 1, dead: int = 0
) -> None:
    """Make a log with an entry at each position from ``first`` to ``last``."""
    with closing(_open(folder, "log")) as connection:
        if identity is not None:
            connection.execute("INSERT INTO identity VALUES (1, ?)", (identity.pool_id,))
            connection.executemany(
                "INSERT INTO epochs VALUES (?, ?, ?)",
                [(number, *epoch) for number, epoch in enumerate(identity.epochs)],
            )
        connection.executemany(
            "INSERT INTO entries VALUES (?, ?, 0, ?)",
            [(n, f"b{n}", b"x" * 100) for n in range(first, last + 1)],
        )
        connection.executemany(
            "INSERT INTO dead_letters VALUES (?, 'stats', ?, 'd', 'why', 5, 0, x'00')",
            [(n, n) for n in range(dead)],
        )


def write_store(
    folder: Path, identity: Identity | None, mark: int, *, job: int = 7, reserved: int = 0
) -> None:
    """Make a store that has counted up to ``mark``, one submission in each batch."""
    with closing(_open(folder, "store")) as connection:
        if identity is not None:
            connection.execute(
                "INSERT INTO pool_identity (only_row, pool_id) VALUES (1, ?)", (identity.pool_id,)
            )
            connection.executemany(
                "INSERT INTO log_epochs VALUES (?, ?, ?)",
                [(number, *epoch) for number, epoch in enumerate(identity.epochs)],
            )
            connection.execute("INSERT INTO log_marks VALUES (?, '')", (mark,))
        connection.executemany(
            "INSERT INTO applied_batches (batch_id, digest, minute, position) "
            "VALUES (?, x'', ?, ?)",
            [(f"b{n}", MINUTE, n) for n in range(1, mark + 1)],
        )
        connection.execute("INSERT INTO submissions VALUES ('alice', ?, ?)", (MINUTE, mark))
        connection.execute(
            "INSERT INTO job_history (job_id, server_nonce, created_at) VALUES (?, 'aa', 0)", (job,)
        )
        connection.execute("INSERT INTO job_ids VALUES (1, ?)", (reserved or job,))


def write_spool(folder: Path, *entry_ids: str) -> None:
    """Make a spool in which batches wait."""
    with closing(_open(folder, "spool")) as connection:
        connection.executemany(
            "INSERT INTO spooled (entry_id, appended_at, body) VALUES (?, 0, x'00')",
            [(entry_id,) for entry_id in entry_ids],
        )


def write_topics(folder: Path, topic: str = "t", *sizes: int, partitions: int = 2) -> None:
    """Append batches with these numbers of records to partition 0 of a topic, which is made."""
    codec = RecordCodec()
    with closing(_open(folder, "topics")) as connection:
        connection.execute("BEGIN")
        rows = {row.name: row for row in sqlite_tables.topics(connection)}
        settings = TopicSettings(partitions=partitions)
        row = rows.get(topic) or sqlite_tables.create(connection, topic, settings, 0)
        for number, size in enumerate(sizes):
            records = [NewRecord(b"%d/%d" % (number, each)) for each in range(size)]
            body = codec.encode(records, f"b{number}", 1000, Compression())
            append = Append(Partition(topic, 0), size, body)
            sqlite_tables.append(connection, [[(row.partitions[0], append)]], 1000)
        connection.execute("COMMIT")


def query(folder: Path, part: str, statement: str) -> list[tuple[object, ...]]:
    """Return what a file answers."""
    with closing(sqlite3.connect(folder / f"{part}.sqlite")) as connection:
        return connection.execute(statement).fetchall()


def change(folder: Path, part: str, statement: str, *values: object) -> None:
    """Change a file."""
    with closing(sqlite3.connect(folder / f"{part}.sqlite", isolation_level=None)) as connection:
        connection.execute(statement, values)


def _open(folder: Path, part: str) -> sqlite3.Connection:
    folder.mkdir(exist_ok=True)
    connection = sqlite3.connect(folder / f"{part}.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    migrate(connection, part)
    return connection
