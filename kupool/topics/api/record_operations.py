"""The operations that write and read records."""

from __future__ import annotations

from typing import Any

from kupool.errors import FORBIDDEN, RequestError
from kupool.topics.api.access import (
    PUBLISH,
    SUBSCRIBE,
    Caller,
    require,
    require_group,
    require_writable,
)
from kupool.topics.api.params import (
    CancelParams,
    DelayedParams,
    DelayParams,
    FetchParams,
    NoParams,
    OffsetsParams,
    ProduceParams,
    TransactionParams,
)
from kupool.topics.api.values import bad, new_records, shown_record, shown_written
from kupool.topics.api.world import TopicWorld
from kupool.topics.errors import UnknownTopic
from kupool.topics.interfaces import DelayPlace
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp


async def capabilities(world: TopicWorld, caller: Caller, params: NoParams) -> object:
    """Return what the engine can do."""
    engine = world.topics.engine
    return {"engine": engine.name, **engine.capabilities._asdict()}


async def produce(world: TopicWorld, caller: Caller, params: ProduceParams) -> object:
    """Write records, or add them to a transaction."""
    require_writable(caller, params.topic)
    records = new_records(params)
    if (params.producer is None) != (params.sequence is None):
        raise bad("producer and sequence: expected both or none")
    if params.transaction is not None:
        if params.producer is not None:
            raise bad("producer: cannot be used together with transaction")
        number = world.ids.read(params.transaction, caller.user)
        world.transactions.add(number, params.topic, records, partition=params.partition)
        return {"added": len(records)}
    stamp = None
    if params.producer is not None and params.sequence is not None:
        # With the user: nobody can use up the numbers of another one's producer. A name may have
        # slashes: "a" with the producer "b/c" is not "a/b" with "c".
        user = caller.user.replace("%", "%25").replace("/", "%2F")
        stamp = Stamp(f"user:{user}/{params.producer}", params.sequence)
    written = await world.topics.produce(
        params.topic, records, partition=params.partition, stamp=stamp
    )
    return {"written": shown_written(written)}


async def fetch(world: TopicWorld, caller: Caller, params: FetchParams) -> object:
    """Read records; at the end of the partition it may wait for some."""
    require(caller, SUBSCRIBE, params.topic)
    if params.group is not None:
        require_group(caller, params.group)
    partition = Partition(params.topic, params.partition)
    offset = await _start(world, partition, params)
    fetched = await world.topics.fetch(
        partition,
        offset,
        max_bytes=min(params.max_bytes, world.fetch_bytes),
        wait=params.wait_ms / 1000,
    )
    extents = await world.topics.engine.extents(params.topic)
    extent = extents[params.partition]
    return {
        "records": [shown_record(record) for record in fetched.records],
        "next": fetched.next_offset,
        "low": extent.low,
        "high": extent.high,
    }


async def _start(world: TopicWorld, partition: Partition, params: FetchParams) -> int:
    given = (params.offset, params.at, params.group)
    if sum(each is not None for each in given) != 1:
        raise bad("offset, at or group: expected one of them")
    if params.offset is not None:
        return params.offset
    if params.at is not None:
        return await world.find(params.at)(partition)
    assert params.group is not None
    committed = (await world.groups.committed(params.group)).get(partition)
    return await world.topics.earliest(partition) if committed is None else committed


async def offsets(world: TopicWorld, caller: Caller, params: OffsetsParams) -> object:
    """Return the offset of a time or an end in each partition."""
    require(caller, SUBSCRIBE, params.topic)
    find, settings = world.find(params.at), world.topics.engine.topic(params.topic)
    if settings is None:
        raise UnknownTopic(params.topic)
    partitions = [Partition(params.topic, number) for number in range(settings.partitions)]
    return {"offsets": [await find(partition) for partition in partitions]}


# -- delays


async def delay(world: TopicWorld, caller: Caller, params: DelayParams) -> object:
    """Have records written later."""
    require_writable(caller, params.topic)
    records = new_records(params)
    if (params.at_ms is None) == (params.after_ms is None):
        raise bad("at_ms or after_ms: expected one of them")
    if params.at_ms is not None:
        at = params.at_ms / 1000
    else:
        assert params.after_ms is not None
        at = world.wall() + params.after_ms / 1000
    ids = await world.delays.schedule(params.topic, records, at, partition=params.partition)
    return {"ids": ids}


async def delayed(world: TopicWorld, caller: Caller, params: DelayedParams) -> object:
    """Return the batches of a topic that are not due yet, from a place on."""
    require(caller, SUBSCRIBE, params.topic)
    start = DelayPlace(params.due, params.id)
    found = await world.delays.waiting(params.topic, start, params.limit + 1)
    following = found[params.limit] if len(found) > params.limit else None
    return {
        "batches": [
            {
                "id": batch.delay_id,
                "due": batch.due,
                "partition": batch.partition.number,
                "records": batch.records,
            }
            for batch in found[: params.limit]
        ],
        "next": None if following is None else {"due": following.due, "id": following.delay_id},
    }


async def cancel(world: TopicWorld, caller: Caller, params: CancelParams) -> object:
    """Forget a delayed batch of a topic."""
    require_writable(caller, params.topic)
    return {"cancelled": await world.delays.cancel(params.topic, params.id)}


# -- transactions


async def begin(world: TopicWorld, caller: Caller, params: NoParams) -> object:
    """Begin a transaction, for those who may write to any topic."""
    if not caller.may_some(PUBLISH):
        raise RequestError(FORBIDDEN.about(f"{PUBLISH} of any topic"))
    transaction = world.transactions.begin(caller.user)
    timeout = round(world.transactions.timeout * 1000)
    return {"transaction": world.ids.of(transaction, caller.user), "timeout_ms": timeout}


async def commit(world: TopicWorld, caller: Caller, params: TransactionParams) -> object:
    """Write what was added to a transaction, all or none."""
    number = world.ids.read(params.transaction, caller.user)
    written: Any = await world.transactions.commit(number)
    return {"written": [shown_written(each) for each in written]}


async def abort(world: TopicWorld, caller: Caller, params: TransactionParams) -> object:
    """Write nothing of a transaction."""
    world.transactions.abort(world.ids.read(params.transaction, caller.user))
    return True


__all__ = [
    "abort",
    "begin",
    "cancel",
    "capabilities",
    "commit",
    "delay",
    "delayed",
    "fetch",
    "offsets",
    "produce",
]
