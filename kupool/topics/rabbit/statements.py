"""The statements of the store of topics in RabbitMQ, for PostgreSQL and SQLite alike.

Each takes a cursor and does its work in the transaction of that cursor. ``%s`` stands for a value.
The clock is that of the database, so that the clocks of nodes are never compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import msgspec

from kupool.topics.errors import TopicExists, UnknownTopic
from kupool.topics.interfaces import DelayedBatch, DelayPlace
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings, check_change

#: Seconds after which a topic that is being made or deleted is left to another node.
ABANDONED = 60.0

#: The states of a topic: its streams are being made, are there, are being deleted.
MAKING, READY, DELETING = "making", "ready", "deleting"

_settings = msgspec.json.Decoder(TopicSettings).decode


class StatementCursor(Protocol):
    """A cursor of PostgreSQL or SQLite.

    ``now`` is the SQL for the seconds since the epoch; ``share`` and ``alone`` are what follows a
    SELECT to lock its rows.
    """

    now: str
    share: str
    alone: str

    def execute(self, sql: str, values: Sequence[object] = ()) -> Awaitable[object]:
        """Execute a statement."""

    def fetchall(self) -> list[Any]:
        """Return the rows of the last statement."""


async def identity(cursor: StatementCursor) -> str:
    """Return the id of the topics of this store, which no others have."""
    await cursor.execute(
        "INSERT INTO log_identity (only_row, topics_id) VALUES (1, %s) ON CONFLICT DO NOTHING",
        (uuid4().hex,),
    )
    await cursor.execute("SELECT topics_id FROM log_identity")
    return str(cursor.fetchall()[0][0])


class StoredTopic(NamedTuple):
    """A topic in the store; ``key`` is its own, and is never used again."""

    key: int
    name: str
    settings: TopicSettings
    state: str = READY


class StoredPlace(NamedTuple):
    """A partition in the store."""

    key: int
    number: int


class Fence(NamedTuple):
    """What a node has to lead still when its work is done: a group, in a term."""

    node: str
    term: int


class LeaseLost(Exception):
    """Another node leads the group."""


# -- topics


async def topics(cursor: StatementCursor) -> list[StoredTopic]:
    """Return the topics that are ready."""
    await cursor.execute(
        "SELECT topic_key, name, settings FROM log_topics WHERE state = %s ORDER BY name", (READY,)
    )
    return [StoredTopic(key, name, _settings(text)) for key, name, text in cursor.fetchall()]


async def create(cursor: StatementCursor, name: str, settings: TopicSettings) -> StoredTopic:
    """Begin to make a topic; raises :class:`TopicExists`."""
    text = msgspec.json.encode(settings).decode()
    await cursor.execute(
        f"INSERT INTO log_topics (name, settings, state, changed_at) "
        f"VALUES (%s, %s, %s, {cursor.now}) ON CONFLICT (name) DO NOTHING RETURNING topic_key",
        (name, text, MAKING),
    )
    rows = cursor.fetchall()
    if not rows:
        raise TopicExists(name)
    return StoredTopic(rows[0][0], name, settings, MAKING)


async def made(cursor: StatementCursor, key: int) -> bool:
    """Say that the streams of a topic are made; returns False if it was given up meanwhile."""
    await cursor.execute(
        "UPDATE log_topics SET state = %s WHERE topic_key = %s AND state = %s RETURNING name",
        (READY, key, MAKING),
    )
    return bool(cursor.fetchall())


async def change(cursor: StatementCursor, topic: StoredTopic, settings: TopicSettings) -> None:
    """Change the settings of a topic; raises :class:`UnknownTopic` and :class:`InvalidTopic`."""
    await cursor.execute(
        f"SELECT settings FROM log_topics WHERE topic_key = %s AND state = %s {cursor.alone}",
        (topic.key, READY),
    )
    rows = cursor.fetchall()
    if not rows:
        raise UnknownTopic(topic.name)
    check_change(_settings(rows[0][0]), settings)
    await cursor.execute(
        "UPDATE log_topics SET settings = %s WHERE topic_key = %s",
        (msgspec.json.encode(settings).decode(), topic.key),
    )


async def delete(cursor: StatementCursor, topic: StoredTopic) -> None:
    """Begin to delete a topic; raises :class:`UnknownTopic`."""
    await cursor.execute(
        f"UPDATE log_topics SET state = %s, changed_at = {cursor.now} "
        "WHERE topic_key = %s AND state <> %s RETURNING name",
        (DELETING, topic.key, DELETING),
    )
    if not cursor.fetchall():
        raise UnknownTopic(topic.name)
    for table in ("log_lows", "log_group_positions", "log_delays", "log_once"):
        await cursor.execute(f"DELETE FROM {table} WHERE topic_key = %s", (topic.key,))


async def deleted(cursor: StatementCursor, key: int) -> None:
    """Forget a topic whose streams are deleted; its name is free from now on."""
    await cursor.execute("DELETE FROM log_topics WHERE topic_key = %s", (key,))


async def abandoned(cursor: StatementCursor) -> list[StoredTopic]:
    """Return the topics whose making or deletion a node has not finished: they are to be deleted.

    Each is returned to one caller.
    """
    await cursor.execute(
        f"UPDATE log_topics SET state = %s, changed_at = {cursor.now} "
        f"WHERE state <> %s AND changed_at < {cursor.now} - %s RETURNING topic_key, name, settings",
        (DELETING, READY, ABANDONED),
    )
    return [
        StoredTopic(key, name, _settings(text), DELETING) for key, name, text in cursor.fetchall()
    ]


async def raise_low(cursor: StatementCursor, place: StoredPlace, low: int) -> None:
    """Have nothing below an offset read any more."""
    await cursor.execute(
        "INSERT INTO log_lows (topic_key, number, low) VALUES (%s, %s, %s) "
        "ON CONFLICT (topic_key, number) DO UPDATE SET low = excluded.low "
        "WHERE log_lows.low < excluded.low",
        (*place, low),
    )


async def lows(cursor: StatementCursor) -> dict[StoredPlace, int]:
    """Return the offsets below which nothing is read any more."""
    await cursor.execute("SELECT topic_key, number, low FROM log_lows")
    return {StoredPlace(key, number): low for key, number, low in cursor.fetchall()}


# -- groups


async def commit_positions(
    cursor: StatementCursor,
    group: str,
    positions: Mapping[Partition, int],
    fence: Fence | None = None,
) -> None:
    """Save the offsets that a group reads next, all or none.

    With a ``fence``, only while that node leads the group: it raises :class:`LeaseLost` else. The
    lease is locked, so that another node leads only when this is committed. Raises
    :class:`UnknownTopic`.
    """
    held, values = "", list[object]()
    if fence is not None:
        held = (
            "WITH held AS (SELECT term FROM log_group_leases "
            f"WHERE group_name = %s AND node = %s AND term = %s {cursor.share}) "
        )
        values += (group, *fence)
    for partition, offset in sorted(positions.items()):
        await cursor.execute(
            f"{held}INSERT INTO log_group_positions (group_name, topic_key, number, next) "
            "SELECT CAST(%s AS TEXT), topic_key, CAST(%s AS BIGINT), CAST(%s AS BIGINT) "
            "FROM log_topics WHERE name = %s AND state = %s "
            + ("AND EXISTS (SELECT term FROM held) " if held else "")
            + "ON CONFLICT (group_name, topic_key, number) DO UPDATE SET next = excluded.next "
            "RETURNING next",
            (*values, group, partition.number, offset, partition.topic, READY),
        )
        if not cursor.fetchall():
            await _explain_refusal(cursor, group, partition.topic, fence)


async def _explain_refusal(
    cursor: StatementCursor, group: str, topic: str, fence: Fence | None
) -> None:
    if fence is not None:
        await cursor.execute(
            "SELECT term FROM log_group_leases WHERE group_name = %s AND node = %s AND term = %s",
            (group, *fence),
        )
        if not cursor.fetchall():
            raise LeaseLost(group)
    raise UnknownTopic(topic)


async def committed(cursor: StatementCursor, group: str) -> dict[Partition, int]:
    """Return the offsets that a group has saved."""
    await cursor.execute(
        "SELECT log_topics.name, number, next FROM log_group_positions "
        "JOIN log_topics ON log_topics.topic_key = log_group_positions.topic_key "
        "WHERE group_name = %s AND state = %s",
        (group, READY),
    )
    return {Partition(name, number): offset for name, number, offset in cursor.fetchall()}


async def next_generation(cursor: StatementCursor, group: str) -> int:
    """Return a number above all that a group had."""
    await cursor.execute(
        "INSERT INTO log_groups (name, generation) VALUES (%s, 1) ON CONFLICT (name) "
        "DO UPDATE SET generation = log_groups.generation + 1 RETURNING generation",
        (group,),
    )
    return int(cursor.fetchall()[0][0])


async def groups(cursor: StatementCursor) -> list[str]:
    """Return the names of the groups that have saved anything."""
    await cursor.execute("SELECT DISTINCT group_name FROM log_group_positions ORDER BY 1")
    return [name for (name,) in cursor.fetchall()]


async def forget_group(cursor: StatementCursor, group: str, fence: Fence | None = None) -> None:
    """Forget the offsets that a group has saved; raises :class:`LeaseLost`."""
    if fence is not None:
        await cursor.execute(
            "SELECT term FROM log_group_leases "
            f"WHERE group_name = %s AND node = %s AND term = %s {cursor.share}",
            (group, *fence),
        )
        if not cursor.fetchall():
            raise LeaseLost(group)
    await cursor.execute("DELETE FROM log_group_positions WHERE group_name = %s", (group,))


# -- leases


class GroupLease(NamedTuple):
    """The node that leads a group, and in which term."""

    node: str
    address: str
    term: int


async def take_lease(
    cursor: StatementCursor, group: str, node: str, address: str, *, seconds: float
) -> GroupLease:
    """Take or keep the lease of a group, unless another node has it; returns who has it."""
    await cursor.execute(
        "INSERT INTO log_group_leases (group_name, node, address, term, expires_at) "
        f"VALUES (%s, %s, %s, 1, {cursor.now} + %s) ON CONFLICT (group_name) DO UPDATE SET "
        "term = log_group_leases.term + CASE WHEN log_group_leases.node = excluded.node "
        "THEN 0 ELSE 1 END, node = excluded.node, address = excluded.address, "
        "expires_at = excluded.expires_at WHERE log_group_leases.node = excluded.node "
        f"OR log_group_leases.expires_at < {cursor.now} RETURNING node, address, term",
        (group, node, address, seconds),
    )
    rows = cursor.fetchall()
    if not rows:
        await cursor.execute(
            "SELECT node, address, term FROM log_group_leases WHERE group_name = %s", (group,)
        )
        rows = cursor.fetchall()
    return GroupLease(*rows[0])


async def leader(cursor: StatementCursor, group: str) -> str:
    """Return the address of the node that leads a group; empty if none ever did."""
    await cursor.execute("SELECT address FROM log_group_leases WHERE group_name = %s", (group,))
    rows = cursor.fetchall()
    return str(rows[0][0]) if rows else ""


async def keep_leases(
    cursor: StatementCursor, node: str, terms: Mapping[str, int], *, seconds: float
) -> set[str]:
    """Keep the leases of groups in their terms; returns those that are still held."""
    kept = set[str]()
    for group, term in sorted(terms.items()):
        await cursor.execute(
            f"UPDATE log_group_leases SET expires_at = {cursor.now} + %s "
            "WHERE group_name = %s AND node = %s AND term = %s RETURNING group_name",
            (seconds, group, node, term),
        )
        kept.update(name for (name,) in cursor.fetchall())
    return kept


async def drop_leases(cursor: StatementCursor, node: str, groups: Sequence[str]) -> None:
    """Let other nodes lead groups from now on; the terms go on."""
    for group in groups:
        await cursor.execute(
            "UPDATE log_group_leases SET expires_at = 0 WHERE group_name = %s AND node = %s",
            (group, node),
        )


# -- delays


class DueBatch(NamedTuple):
    """A delayed batch that is due. If it was claimed before, it may be in the stream of its
    partition from the position ``claimed_from`` on.
    """

    delay_id: int
    place: StoredPlace
    topic: str
    records: int
    body: bytes
    claimed_from: int | None


async def delay(
    cursor: StatementCursor, rows: Sequence[tuple[StoredPlace, int, bytes]], due: int
) -> list[int]:
    """Keep batches (place, records, body) until they are due; returns their ids."""
    found = []
    for place, records, body in rows:
        await cursor.execute(
            "INSERT INTO log_delays (due, topic_key, number, records, body) "
            "VALUES (%s, %s, %s, %s, %s) RETURNING delay_id",
            (due, *place, records, body),
        )
        found.append(int(cursor.fetchall()[0][0]))
    return found


async def due(cursor: StatementCursor, now: int, limit: int) -> list[DueBatch]:
    """Return batches that are due, and that no node publishes just now; those due first first."""
    await cursor.execute(
        "SELECT delay_id, log_delays.topic_key, number, name, records, body, claimed_from "
        "FROM log_delays JOIN log_topics ON log_topics.topic_key = log_delays.topic_key "
        f"WHERE due <= %s AND state = %s AND claimed_until < {cursor.now} "
        "ORDER BY due, delay_id LIMIT %s",
        (now, READY, limit),
    )
    return [
        DueBatch(delay_id, StoredPlace(key, number), name, records, bytes(body), claimed_from)
        for delay_id, key, number, name, records, body, claimed_from in cursor.fetchall()
    ]


async def claim(
    cursor: StatementCursor, positions: Mapping[int, int], *, seconds: float
) -> set[int]:
    """Claim delayed batches for so long; returns the ids of those that no other node has.

    ``positions`` are the next positions of the streams, by the ids of the batches.
    """
    found = set[int]()
    for delay_id, position in sorted(positions.items()):
        await cursor.execute(
            f"UPDATE log_delays SET claimed_until = {cursor.now} + %s, "
            "claimed_from = coalesce(claimed_from, %s) "
            f"WHERE delay_id = %s AND claimed_until < {cursor.now} RETURNING delay_id",
            (seconds, position, delay_id),
        )
        found.update(each for (each,) in cursor.fetchall())
    return found


async def unclaim(cursor: StatementCursor, delay_ids: Sequence[int]) -> None:
    """Let other nodes publish batches; they may be in their streams already."""
    for delay_id in sorted(delay_ids):
        await cursor.execute(
            "UPDATE log_delays SET claimed_until = 0 WHERE delay_id = %s", (delay_id,)
        )


async def published(cursor: StatementCursor, delay_ids: Sequence[int]) -> None:
    """Forget delayed batches that are in their streams."""
    for delay_id in sorted(delay_ids):
        await cursor.execute("DELETE FROM log_delays WHERE delay_id = %s", (delay_id,))


async def delayed(
    cursor: StatementCursor, topic: StoredTopic, start: DelayPlace, limit: int | None
) -> list[DelayedBatch]:
    """Return the batches of a topic that wait, those due first first, from a place on."""
    await cursor.execute(
        "SELECT delay_id, due, number, records FROM log_delays WHERE topic_key = %s "
        "AND (due, delay_id) >= (%s, %s) ORDER BY due, delay_id LIMIT %s",
        (topic.key, *start, 2**62 if limit is None else limit),
    )
    return [
        DelayedBatch(delay_id, at, Partition(topic.name, number), records)
        for delay_id, at, number, records in cursor.fetchall()
    ]


async def next_due(cursor: StatementCursor) -> int | None:
    """Return when the next delayed batch is due; None if there is none."""
    await cursor.execute("SELECT min(due) FROM log_delays")
    (row,) = cursor.fetchall()
    return None if row[0] is None else int(row[0])


async def cancel(cursor: StatementCursor, topic: StoredTopic, delay_id: int) -> bool:
    """Forget a delayed batch of a topic; returns whether it was there, and not claimed."""
    await cursor.execute(
        "DELETE FROM log_delays WHERE delay_id = %s AND topic_key = %s AND claimed_from IS NULL "
        "RETURNING delay_id",
        (delay_id, topic.key),
    )
    return bool(cursor.fetchall())
