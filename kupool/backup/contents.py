"""Reads the contents of a data folder: the pool, and the positions of its files."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from kupool.backup import BackupError, file_name
from kupool.backup.rabbit_positions import RabbitPositions, read_positions
from kupool.log import Epoch, Identity

#: Every part, in the order of their snapshots. A batch goes from the spool to the log, and then to
#: the store. With this order a batch may be in two parts, and is counted once; it is never in none
#: of them.
#: Topics come first: what a group has committed of submissions must not be ahead of the log.
PARTS = ("topics", "topics_rabbit", "spool", "store", "log")

#: A table that each part has had since the first release.
_OWN_TABLE = {
    "log": "entries",
    "store": "applied_batches",
    "spool": "spooled",
    "topics": "topics",
    "topics_rabbit": "log_topics",
}

#: Parts that a backup of an older release does not have, and a new folder not yet.
OPTIONAL = frozenset(("topics", "topics_rabbit"))


class LogContents(NamedTuple):
    """The positions in a log; if it has no entry, ``first`` is ``last + 1``."""

    identity: Identity | None
    first: int
    last: int
    dead_letters: int


class StoreContents(NamedTuple):
    """The position up to which a store has counted, and the job ids that may have been used."""

    identity: Identity | None
    mark: int
    newest_job: int
    reserved_until: int


class SpoolContents(NamedTuple):
    """How many batches wait in a spool, and their pool; empty if it does not say."""

    waiting: int
    pool_id: str = ""


class PartitionContents(NamedTuple):
    """A partition of a topic: offsets from ``low`` up to, but without, ``high``.

    ``size`` is that of its batches, in bytes.
    """

    topic: str
    partition: int
    low: int
    high: int
    size: int


class Contents(NamedTuple):
    """The contents of each part; None if there is no such file."""

    log: LogContents | None = None
    store: StoreContents | None = None
    spool: SpoolContents | None = None
    topics: tuple[PartitionContents, ...] | None = None
    topics_rabbit: RabbitPositions | None = None

    @property
    def identity(self) -> Identity | None:
        """The identity of their pool according to the log, or else the store."""
        for part in (self.log, self.store):
            if part is not None and part.identity is not None:
                return part.identity
        return None

    @property
    def pool_id(self) -> str:
        """The id of their pool; empty if none of them says."""
        if self.identity is not None:
            return self.identity.pool_id
        return self.spool.pool_id if self.spool is not None else ""


def read_part(connection: sqlite3.Connection, part: str) -> Contents:
    """Return the contents of one part's file.

    Raises :class:`BackupError` if it is not a file of KuPool, and ``sqlite3.Error`` if it cannot be
    read.
    """
    if not _has(connection, _OWN_TABLE[part]):
        raise BackupError(f"{file_name(part)}: not a {part} of KuPool")
    if part == "log":
        return Contents(log=_read_log(connection))
    if part == "store":
        return Contents(store=_read_store(connection))
    if part == "topics":
        return Contents(topics=_read_topics(connection))
    if part == "topics_rabbit":
        return Contents(topics_rabbit=read_positions(connection))
    return Contents(spool=_read_spool(connection))


def merge(parts: list[Contents]) -> Contents:
    """Combine the contents of several parts."""
    merged = Contents()
    for one in parts:
        merged = merged._replace(**{k: v for k, v in one._asdict().items() if v is not None})
    return merged


def check_agreement(contents: Contents) -> None:
    """Raise :class:`BackupError` if log and store are of two pools or two moments."""
    log, store = contents.log, contents.store
    for part, found in (("log", log), ("store", store)):
        if found is not None and found.identity is None:
            raise BackupError(
                f"{file_name(part)} does not name its pool; start the daemon of this version on it "
                "once"
            )
    if contents.spool is not None and contents.spool.pool_id not in ("", contents.pool_id):
        raise BackupError(
            f"the spool belongs to pool {contents.spool.pool_id} and the store to pool "
            f"{contents.pool_id}"
        )
    if log is None or store is None or log.identity is None or store.identity is None:
        return
    if log.identity.pool_id != store.identity.pool_id:
        raise BackupError(
            f"the log belongs to pool {log.identity.pool_id} and the store to pool "
            f"{store.identity.pool_id}"
        )
    if log.identity != store.identity or store.mark > log.last:
        raise BackupError(
            "the store and the log are from different moments: the store has counted up to "
            f"position {store.mark:,} of epoch {store.identity.epoch}, and the log ends at "
            f"{log.last:,} of epoch {log.identity.epoch}"
        )
    if log.first > store.mark + 1:
        raise BackupError(
            f"the store has counted up to position {store.mark:,}, and the log begins at "
            f"{log.first:,}: the batches between them are in neither"
        )


def _read_log(connection: sqlite3.Connection) -> LogContents:
    identity = _identity(connection, "identity", "epochs")
    first, newest = connection.execute(
        "SELECT min(position), max(position) FROM entries"
    ).fetchone()
    last = max(newest or 0, identity.begins_after if identity is not None else 0)
    dead = _number(connection, "SELECT count(*) FROM dead_letters")
    return LogContents(identity, first or last + 1, last, dead)


def _read_store(connection: sqlite3.Connection) -> StoreContents:
    identity = _identity(connection, "pool_identity", "log_epochs")
    mark = 0
    if identity is not None:
        mark = _number(connection, "SELECT coalesce(max(position), 0) FROM log_marks")
    newest = _number(connection, "SELECT coalesce(max(job_id), 0) FROM job_history")
    reserved = _number(connection, "SELECT coalesce(max(reserved_until), 0) FROM job_ids")
    return StoreContents(identity, mark, newest, reserved)


def _read_spool(connection: sqlite3.Connection) -> SpoolContents:
    waiting = _number(connection, "SELECT count(*) FROM spooled")
    row = None
    if _has(connection, "pool_identity"):
        row = connection.execute("SELECT pool_id FROM pool_identity").fetchone()
    return SpoolContents(waiting, "" if row is None else row[0])


def _read_topics(connection: sqlite3.Connection) -> tuple[PartitionContents, ...]:
    rows = connection.execute(
        "SELECT topics.name, number, low, next, bytes FROM partitions "
        "JOIN topics ON topics.id = partitions.topic ORDER BY topics.name, number"
    )
    return tuple(PartitionContents(*row) for row in rows)


def _identity(connection: sqlite3.Connection, table: str, epochs: str) -> Identity | None:
    if not _has(connection, table):
        return None
    row = connection.execute(f"SELECT pool_id FROM {table}").fetchone()
    if row is None:
        return None
    rows = connection.execute(f"SELECT epoch, begins_after FROM {epochs} ORDER BY number")
    return Identity(row[0], tuple(Epoch(*epoch) for epoch in rows))


def _has(connection: sqlite3.Connection, table: str) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    (found,) = connection.execute(query, (table,)).fetchone()
    return bool(found)


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


__all__ = [
    "OPTIONAL",
    "PARTS",
    "Contents",
    "LogContents",
    "PartitionContents",
    "SpoolContents",
    "StoreContents",
    "check_agreement",
    "merge",
    "read_part",
]
