"""Checks the files of a data folder, page by page and batch by batch, without changing them.

The daemon may be writing to them meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from kupool.backup.bars import Bar
from kupool.backup.parts import file_name
from kupool.backup.rabbit_positions import verify_positions
from kupool.storage.copies import CopyError, Progress, check_regular
from kupool.storage.migrations import SchemaTooNew
from kupool.storage.reading import SchemaTooOld, check_schema, connect_to_read
from kupool.storage.verify import quick_check
from kupool.topics.sqlite_verify import TopicFault, TopicsVerifier, VerifiedPartition
from kupool.wire.batches import PoisonBatch, decode_batch

#: The tables with batches of submissions, by part.
_ENTRIES = {"log": "entries", "spool": "spooled"}

#: The parts that are checked batch by batch, in this order.
VERIFIED = ("topics", "topics_rabbit", "log", "spool")


class FileFault(NamedTuple):
    """What is wrong with a file, and where.

    ``offset`` is in the partition of a topic; ``position`` in the log or the spool.
    """

    file: str
    what: str
    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    position: int | None = None

    @property
    def text(self) -> str:
        """The fault in one line."""
        places = (
            ("topic", self.topic or None),
            ("partition", self.partition),
            ("offset", self.offset),
            ("position", self.position),
        )
        where = [f"{name} {value}" for name, value in places if value is not None]
        return f"{', '.join([self.file, *where])}: {self.what}"


class VerifiedFile(NamedTuple):
    """A file that was read: its size in bytes, its batches, and the partitions of its topics."""

    file: str
    size: int
    batches: int
    partitions: Sequence[VerifiedPartition] = ()


class VerifiedFolder(NamedTuple):
    """What was read, and what is wrong."""

    files: Sequence[VerifiedFile]
    faults: Sequence[FileFault]


def verify_folder(folder: Path, parts: Sequence[str], bar: Bar) -> VerifiedFolder:
    """Check the files of some parts of :data:`VERIFIED`; one that is not there is a fault."""
    found: list[VerifiedFile] = []
    faults: list[FileFault] = []
    paths = {part: folder / file_name(part) for part in VERIFIED if part in parts}
    bar.total(2 * sum(path.stat().st_size for path in paths.values() if path.is_file()))
    for part, path in paths.items():
        try:
            size = check_regular(path)
            with closing(_open(path)) as connection:
                damage = quick_check(connection)
                if damage:
                    faults.append(FileFault(path.name, damage))
                bar.stage(f"Checking the pages of {path.name}")(size)
                check_schema(connection, part, path)
                progress = bar.stage(f"Checking the batches of {path.name}")
                found.append(_verify(connection, part, faults, progress)._replace(size=size))
        except CopyError as error:
            faults.append(FileFault(path.name, str(error)))
        except (sqlite3.Error, SchemaTooOld, SchemaTooNew) as error:
            faults.append(FileFault(path.name, f"it cannot be read: {error}"))
    return VerifiedFolder(found, faults)


def _open(path: Path) -> sqlite3.Connection:
    """Open a file so that it stays as it is, with the commits beside it in its ``-wal``."""
    log = path.with_name(f"{path.name}-wal")
    try:
        pending = log.stat().st_size > 0
    except FileNotFoundError:
        pending = False
    if not pending:
        return connect_to_read(path)
    # The last connection that may write would bring the commits into the file.
    uri = f"file:{quote(os.fspath(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _verify(
    connection: sqlite3.Connection, part: str, faults: list[FileFault], progress: Progress
) -> VerifiedFile:
    name = file_name(part)
    if part == "topics_rabbit":
        faults.extend(FileFault(name, what) for what in verify_positions(connection))
        (delayed,) = connection.execute("SELECT count(*) FROM log_delays").fetchone()
        return VerifiedFile(name, 0, delayed)
    if part != "topics":
        return VerifiedFile(name, 0, _verify_entries(connection, part, faults, progress))

    def fault(found: TopicFault) -> None:
        topic, number = found.partition or ("", None)
        faults.append(FileFault(name, found.what, topic, number, found.offset))

    partitions = list(TopicsVerifier(connection, fault, progress).verify())
    return VerifiedFile(name, 0, sum(each.batches for each in partitions), partitions)


def _verify_entries(
    connection: sqlite3.Connection, part: str, faults: list[FileFault], progress: Progress
) -> int:
    """Decode each batch of submissions; they have no checksum of their own."""
    count = 0
    rows = connection.execute(f"SELECT position, body FROM {_ENTRIES[part]} ORDER BY position")
    for position, body in rows:
        count += 1
        try:
            decode_batch(body)
        except PoisonBatch as error:
            faults.append(FileFault(file_name(part), str(error), position=position))
        progress(len(body))
    return count


__all__ = ["VERIFIED", "FileFault", "VerifiedFile", "VerifiedFolder", "verify_folder"]
