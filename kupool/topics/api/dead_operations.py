"""The operations on dead letters."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from kupool.errors import FORBIDDEN, RequestError
from kupool.topics.api.access import (
    MANAGE,
    RESERVED,
    SUBSCRIBE,
    Caller,
    forbidden,
    require,
    require_group,
)
from kupool.topics.api.params import BuryParams, DeadParams, DeadPlaceParams
from kupool.topics.api.values import bad, shown_place, shown_record
from kupool.topics.api.world import TopicWorld
from kupool.topics.dead_letters import SUFFIX, DeadPlace, DeadRecord
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition


async def dead(world: TopicWorld, caller: Caller, params: DeadParams) -> object:
    """Return dead letters of a topic, from a place on."""
    topic = params.topic
    if not (caller.may(MANAGE, topic) or caller.may(SUBSCRIBE, topic + SUFFIX)):
        raise forbidden(SUBSCRIBE, topic + SUFFIX)
    start = DeadPlace(params.partition or 0, params.offset)
    letters, following = await world.dead.page(topic, start, params.limit, world.fetch_bytes)
    return {
        "dead": [_shown(letter) for letter in letters],
        "next": None if following is None else following._asdict(),
    }


def _shown(letter: DeadRecord) -> dict[str, object]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "source": {**shown_place(letter.source), "offset": letter.source_offset},
        "group": letter.group,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "record": shown_record(letter.record),
    }


async def bury(world: TopicWorld, caller: Caller, params: BuryParams) -> object:
    """Write a record that a member could not process to the dead letters of its topic."""
    require_group(caller, params.group)
    require(caller, SUBSCRIBE, params.topic)
    partition = Partition(params.topic, params.partition)
    world.groups.check_holder(params.group, params.member, params.generation, partition)
    record = await world.topics.record(partition, params.offset)
    delivery = DeliveredRecord(partition, record, attempt=params.attempts)
    await world.dead.bury(params.group, delivery, params.reason)
    return True


async def redrive(world: TopicWorld, caller: Caller, params: DeadPlaceParams) -> object:
    """Send one dead letter of a topic back, or all."""
    require(caller, MANAGE, params.topic)
    if params.topic in RESERVED:
        raise RequestError(FORBIDDEN.about(f"only the daemon writes to topic {params.topic}"))
    return {"redriven": await _one_or_all(params, world.dead.redrive, world.dead.redrive_one)}


async def purge(world: TopicWorld, caller: Caller, params: DeadPlaceParams) -> object:
    """Drop one dead letter of a topic, or all."""
    require(caller, MANAGE, params.topic)
    return {"purged": await _one_or_all(params, world.dead.purge, world.dead.purge_one)}


def _one_or_all(
    params: DeadPlaceParams,
    everything: Callable[[str], Deferred[int]],
    one: Callable[[str, DeadPlace], Deferred[int]],
) -> Deferred[int]:
    if params.partition is None and params.offset is None:
        return everything(params.topic)
    if params.partition is None or params.offset is None:
        raise bad("partition and offset: expected both or none")
    return one(params.topic, DeadPlace(params.partition, params.offset))


__all__ = ["bury", "dead", "purge", "redrive"]
