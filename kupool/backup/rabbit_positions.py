"""Topics in RabbitMQ in a backup: which there are, and how far their groups are.

Their records are in RabbitMQ, and stay there. After a restore groups read on from where they were
at the time of the backup, so that they may get records twice, and never miss one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from kupool.topics.batches import RecordCodec
from kupool.topics.errors import TopicError
from kupool.topics.settings import TopicSettings

#: Generations of groups, and ids of topics and of delayed batches, that a restore passes over: more
#: than may have been used since the backup.
PASSED_OVER = 1_000_000

_NUMBERED = (("log_topics", "topic_key"), ("log_delays", "delay_id"))


class GroupPlace(NamedTuple):
    """The offset that a group reads next in a partition."""

    group: str
    topic: str
    partition: int
    offset: int


class RabbitPositions(NamedTuple):
    """The names of the topics, and the positions of groups."""

    topics: tuple[str, ...]
    places: tuple[GroupPlace, ...]


def read_positions(connection: sqlite3.Connection) -> RabbitPositions:
    """Return what a file knows of topics in RabbitMQ; raises ``sqlite3.Error``."""
    names = connection.execute("SELECT name FROM log_topics ORDER BY name").fetchall()
    rows = connection.execute(
        "SELECT group_name, name, number, next FROM log_group_positions "
        "JOIN log_topics USING (topic_key) ORDER BY group_name, name, number"
    )
    return RabbitPositions(
        tuple(name for (name,) in names), tuple(GroupPlace(*row) for row in rows)
    )


def newer_positions(backup: RabbitPositions | None, there: RabbitPositions | None) -> list[str]:
    """Say what a folder knows of topics in RabbitMQ that a backup does not; empty for nothing."""
    if there is None:
        return []
    known = backup or RabbitPositions((), ())
    found = [
        f"it knows topic {name} in RabbitMQ, and the backup does not"
        for name in there.topics
        if name not in known.topics
    ]
    reached = {place[:3]: place.offset for place in known.places}
    ahead = [place for place in there.places if place.offset > reached.get(place[:3], 0)]
    if ahead:
        group, topic, partition, offset = ahead[0]
        found.append(
            f"its group {group} is at offset {offset:,} in partition {partition} of topic {topic}, "
            f"that of the backup at {reached.get(ahead[0][:3], 0):,}"
        )
    if len(found) > 1:
        found[1:] = [f"{len(found) - 1:,} other topics or groups have more as well"]
    return found


def pass_over_numbers(connection: sqlite3.Connection) -> None:
    """Let no generation and no id of a restored file be used again.

    The connection is in a transaction.
    """
    connection.execute("UPDATE log_groups SET generation = generation + ?", (PASSED_OVER,))
    for table, column in _NUMBERED:
        (last,) = connection.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", (table,)
        ).fetchone()
        (largest,) = connection.execute(
            f"SELECT coalesce(max({column}), 0) FROM {table}"
        ).fetchone()
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        connection.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)",
            (table, max(last, largest) + PASSED_OVER),
        )


def verify_positions(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong in a file; blocks, and raises ``sqlite3.Error``."""
    for table, *_ in connection.execute("PRAGMA foreign_key_check").fetchall():
        yield f"a row of {table} is of a topic that is not there"
    decode = msgspec.json.Decoder(TopicSettings).decode
    for name, text in connection.execute("SELECT name, settings FROM log_topics"):
        try:
            decode(text)
        except (ValueError, TopicError) as error:
            yield f"the settings of topic {name} cannot be read: {error}"
    codec = RecordCodec()
    for delay_id, body in connection.execute("SELECT delay_id, body FROM log_delays"):
        try:
            codec.decode(body, 0)
        except (ValueError, TopicError) as error:
            yield f"delayed batch {delay_id}: {error}"


__all__ = [
    "PASSED_OVER",
    "GroupPlace",
    "RabbitPositions",
    "newer_positions",
    "pass_over_numbers",
    "read_positions",
    "verify_positions",
]
