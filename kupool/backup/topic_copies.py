"""Topics in a backup: what a copy holds, and what a restore does so that no offset is used twice.

Everybody who reads a partition keeps offsets, and not only in the file. So a restore passes over
the offsets that may have been used since the backup: a reader that was ahead of it goes on with
the next new record, and not in the middle of others with offsets that it has seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from kupool.backup import BackupError, file_name
from kupool.backup.contents import PartitionContents
from kupool.backup.manifest import CopiedPartition
from kupool.storage.copies import CopyError, open_copy
from kupool.topics.own_topics import EVENTS
from kupool.topics.sqlite_tables import OFFSET_BITS

#: Offsets that are passed over at least, and for each second since the backup: more than a
#: partition gets.
MARGIN, EACH_SECOND = 1_000_000, 500_000

#: The part of the offsets that are left which a restore passes over at most.
LARGEST_SHARE = 1 / 16

#: Generations of groups that are passed over.
GENERATIONS = 1_000_000


def copied_partitions(folder: Path) -> list[CopiedPartition]:
    """Count what a copy of topics holds; raises :class:`BackupError`."""
    path = folder / file_name("topics")
    try:
        with closing(open_copy(path)) as connection:
            rows = connection.execute(
                "SELECT topics.name, number, low, next, partitions.id FROM partitions "
                "JOIN topics ON topics.id = partitions.topic ORDER BY topics.name, number"
            ).fetchall()
            return [
                CopiedPartition(*row[:4], *_numbers(connection, row[4]))  # type: ignore[call-arg]
                for row in rows
            ]
    except (sqlite3.Error, CopyError) as error:
        raise BackupError(f"{path}: {error}") from error


def _numbers(connection: sqlite3.Connection, key: int) -> tuple[int, int]:
    """Return the batches and the records of a partition."""
    batches, records = connection.execute(
        "SELECT count(*), coalesce(sum(count), 0) FROM batches "
        "WHERE position >= ? AND position < ?",
        (key << OFFSET_BITS, (key + 1) << OFFSET_BITS),
    ).fetchone()
    return batches, records


def newer_topics(
    backup: Sequence[PartitionContents], there: Sequence[PartitionContents]
) -> list[str]:
    """Say what a folder has of topics that a backup does not have; empty for nothing.

    The daemon's own events do not count: every stop writes one.
    """
    ends, found = _ends(backup), []
    for each in there:
        if each.topic == EVENTS:
            continue
        end = ends.get((each.topic, each.partition), 0)
        if each.high > end:
            found.append(
                f"partition {each.partition} of its topic {each.topic} ends at offset "
                f"{each.high:,}, that of the backup at {end:,}"
            )
    if len(found) > 1:
        found[1:] = [f"{len(found) - 1:,} other partitions have more as well"]
    return found


def _ends(partitions: Sequence[PartitionContents]) -> Mapping[tuple[str, int], int]:
    return {(each.topic, each.partition): each.high for each in partitions}


def pass_over_offsets(
    connection: sqlite3.Connection, there: Sequence[PartitionContents], seconds: float
) -> None:
    """Let each partition of a restored file go on above all offsets that may have been used.

    ``there`` is what the folder had, and ``seconds`` the time since the backup. Groups that had
    read everything go on there, too, and get new generations. The connection is in a transaction.
    """
    connection.execute("UPDATE topic_groups SET generation = generation + ?", (GENERATIONS,))
    wanted = MARGIN + int(EACH_SECOND * max(0.0, seconds))
    ends = _ends(there)
    rows = connection.execute(
        "SELECT partitions.id, topics.name, number, next FROM partitions "
        "JOIN topics ON topics.id = partitions.topic"
    ).fetchall()
    for key, topic, number, end in rows:
        known = max(end, ends.get((topic, number), 0))
        following = known + min(wanted, int(((1 << OFFSET_BITS) - known) * LARGEST_SHARE))
        connection.execute(
            "INSERT OR REPLACE INTO offset_gaps (partition, first_offset, end_offset) "
            "VALUES (?, coalesce((SELECT first_offset FROM offset_gaps "
            "WHERE partition = ? AND end_offset = ?), ?), ?)",
            (key, key, end, end, following),
        )
        connection.execute("UPDATE partitions SET next = ? WHERE id = ?", (following, key))
        # One behind the end is of a topic whose records are in the log, which has its own epochs.
        connection.execute(
            "UPDATE group_positions SET next = ? WHERE partition = ? AND next = ? AND next > 0",
            (following, key, end),
        )


__all__ = [
    "EACH_SECOND",
    "GENERATIONS",
    "LARGEST_SHARE",
    "MARGIN",
    "copied_partitions",
    "newer_topics",
    "pass_over_offsets",
]
