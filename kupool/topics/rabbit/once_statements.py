"""The statements of batches that are published once, by their mark or their content.

A mark is that of an idempotent producer. See :mod:`kupool.topics.rabbit.statements`.
"""

from __future__ import annotations

from typing import NamedTuple

from kupool.topics.errors import SequenceTooOld
from kupool.topics.interfaces import REMEMBERED, Content
from kupool.topics.rabbit.statements import StatementCursor, StoredPlace
from kupool.topics.records import Stamp


class OnceClaim(NamedTuple):
    """A batch that shall be published once: as ``message_id``, unless it was claimed before.

    ``at`` is now, in milliseconds since the epoch, and ``position`` the next one of the partition,
    of which each batch takes ``stride`` offsets. It is claimed for so many ``seconds``.
    """

    stamp: Stamp | None
    content: Content | None
    message_id: str
    at: int
    position: int
    stride: int
    seconds: float

    @property
    def names(self) -> list[str]:
        """The names of its mark and of its content, as far as it has them."""
        found = []
        if self.stamp is not None:
            found.append(f"{self.stamp.sequence} {self.stamp.producer}")
        if self.content is not None:
            found.append(self.content.hash.hex())
        return found


class OnceOutcome(NamedTuple):
    """What a claim has found.

    With a ``base`` the batch was published there. Else it is to be published as ``message_id``. It
    may be in its stream already, from the position ``claimed_from`` on, unless that is None.
    """

    base: int | None
    message_id: str
    claimed_from: int | None = None


class ClaimedElsewhere(Exception):
    """Another node publishes the batch just now."""


async def claim_once(cursor: StatementCursor, place: StoredPlace, claim: OnceClaim) -> OnceOutcome:
    """Claim a batch, unless it was published; raises :class:`ClaimedElsewhere`, and
    :class:`SequenceTooOld`.
    """
    outcome = OnceOutcome(None, claim.message_id)
    if claim.stamp is not None:
        outcome = await _claim_name(cursor, place, claim, claim.names[0])
        if outcome.base is not None:
            return outcome
    if claim.content is not None:
        found = await _claim_name(
            cursor, place, claim._replace(message_id=outcome.message_id), claim.names[-1]
        )
        if outcome.claimed_from is None:
            outcome = found
        if outcome.base is not None and claim.stamp is not None:
            await settle_once(cursor, place, claim, outcome.base)
    return outcome


async def _claim_name(
    cursor: StatementCursor, place: StoredPlace, claim: OnceClaim, name: str
) -> OnceOutcome:
    of_stamp = claim.stamp is not None and name == claim.names[0]
    await cursor.execute(
        f"SELECT base, appended_at, message_id, claimed_from, claimed_until < {cursor.now} "
        f"FROM log_once WHERE topic_key = %s AND number = %s AND name = %s {cursor.alone}",
        (*place, name),
    )
    rows = cursor.fetchall()
    if not rows:
        if of_stamp:
            await _check_sequence(cursor, place, claim.stamp)
        await _insert_claim(cursor, place, claim, name)
        return OnceOutcome(None, claim.message_id)
    base, at, message_id, claimed_from, free = rows[0]
    if base is not None and (of_stamp or not _is_old(claim, base, at)):
        return OnceOutcome(base, message_id)
    if base is None and not free:
        raise ClaimedElsewhere(name)
    if base is None:
        again = OnceOutcome(None, message_id, claimed_from)
    else:
        again = OnceOutcome(None, claim.message_id)
        claimed_from = claim.position
    await cursor.execute(
        f"UPDATE log_once SET base = NULL, message_id = %s, claimed_from = %s, "
        f"claimed_until = {cursor.now} + %s WHERE topic_key = %s AND number = %s AND name = %s",
        (again.message_id, claimed_from, claim.seconds, *place, name),
    )
    return again


async def _insert_claim(
    cursor: StatementCursor, place: StoredPlace, claim: OnceClaim, name: str
) -> None:
    stamp: tuple[str | None, int | None] = (None, None)
    if claim.stamp is not None and name == claim.names[0]:
        stamp = claim.stamp
    await cursor.execute(
        "INSERT INTO log_once (topic_key, number, name, producer, sequence, message_id, "
        "claimed_from, claimed_until) "
        f"VALUES (%s, %s, %s, %s, %s, %s, %s, {cursor.now} + %s) ON CONFLICT DO NOTHING "
        "RETURNING name",
        (*place, name, *stamp, claim.message_id, claim.position, claim.seconds),
    )
    if not cursor.fetchall():
        raise ClaimedElsewhere(name)


def _is_old(claim: OnceClaim, base: int, at: int) -> bool:
    content = claim.content
    assert content is not None
    too_many = bool(content.window) and claim.position - base // claim.stride > content.window
    return too_many or (bool(content.seconds) and claim.at - at > content.seconds * 1000)


async def _check_sequence(cursor: StatementCursor, place: StoredPlace, stamp: Stamp | None) -> None:
    assert stamp is not None
    await cursor.execute(
        "SELECT min(sequence), count(*) FROM log_once "
        "WHERE topic_key = %s AND number = %s AND producer = %s",
        (*place, stamp.producer),
    )
    oldest, count = cursor.fetchall()[0]
    if count >= REMEMBERED and stamp.sequence < oldest:
        raise SequenceTooOld(*stamp, oldest)


async def settle_once(
    cursor: StatementCursor, place: StoredPlace, claim: OnceClaim, base: int
) -> None:
    """Remember where a batch was published, and forget some that are too old to be remembered."""
    for name in claim.names:
        await cursor.execute(
            "UPDATE log_once SET base = %s, appended_at = %s "
            "WHERE topic_key = %s AND number = %s AND name = %s AND base IS NULL",
            (base, claim.at, *place, name),
        )
    if claim.stamp is not None:
        producer = (*place, claim.stamp.producer)
        await cursor.execute(
            "DELETE FROM log_once WHERE topic_key = %s AND number = %s AND producer = %s "
            "AND sequence < (SELECT min(sequence) FROM (SELECT sequence FROM log_once "
            "WHERE topic_key = %s AND number = %s AND producer = %s "
            "ORDER BY sequence DESC LIMIT %s) AS newest)",
            (*producer, *producer, REMEMBERED),
        )
    if claim.content is not None:
        await cursor.execute(
            "SELECT name, base, appended_at FROM log_once WHERE topic_key = %s AND number = %s "
            "AND producer IS NULL AND base IS NOT NULL ORDER BY base LIMIT 2",
            tuple(place),
        )
        for name, old, at in cursor.fetchall():
            if _is_old(claim, old, at):
                await cursor.execute(
                    "DELETE FROM log_once WHERE topic_key = %s AND number = %s AND name = %s",
                    (*place, name),
                )


async def unclaim_once(cursor: StatementCursor, place: StoredPlace, claim: OnceClaim) -> None:
    """Let others publish a batch; it may be in its stream already."""
    for name in claim.names:
        await cursor.execute(
            "UPDATE log_once SET claimed_until = 0 "
            "WHERE topic_key = %s AND number = %s AND name = %s AND base IS NULL",
            (*place, name),
        )
