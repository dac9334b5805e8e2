"""The operations ``group.*``."""

from __future__ import annotations

import secrets

from twisted.internet.defer import Deferred

from kupool.topics.api.access import (
    MANAGE,
    SUBSCRIBE,
    Caller,
    may_use_group,
    require,
    require_group,
)
from kupool.topics.api.params import (
    CommitParams,
    GroupParams,
    HeartbeatParams,
    JoinParams,
    LeaveParams,
    NoParams,
    ResetParams,
)
from kupool.topics.api.values import bad, shown_place, shown_places
from kupool.topics.api.world import TopicWorld
from kupool.topics.errors import OffsetOutOfRange, UnknownGroup
from kupool.topics.membership import GroupSubscription, MemberBeat, MemberPlace
from kupool.topics.partition import Partition


async def list_groups(world: TopicWorld, caller: Caller, params: NoParams) -> object:
    """Return the groups that the caller may use."""
    names = await world.groups.names()
    return {"groups": [name for name in names if may_use_group(caller, name)]}


async def join(world: TopicWorld, caller: Caller, params: JoinParams) -> object:
    """Add a member to a group."""
    require_group(caller, params.group)
    for topic in params.topics:
        require(caller, SUBSCRIBE, topic)
    member = f"m-{secrets.token_hex(8)}" if params.member is None else params.member
    subscription = GroupSubscription(frozenset(params.topics), params.session_timeout_ms / 1000)
    return _shown(await world.groups.join(params.group, member, subscription, owner=caller.user))


def _shown(place: MemberPlace) -> dict[str, object]:
    return {
        "member": place.member_id,
        "generation": place.generation,
        "assigned": shown_places(place.assigned),
        "revoked": shown_places(place.revoked),
    }


async def heartbeat(world: TopicWorld, caller: Caller, params: HeartbeatParams) -> object:
    """Keep a member alive; returns what it has now."""
    require_group(caller, params.group)
    holding = None
    if params.holding is not None:
        holding = frozenset(Partition(each.topic, each.partition) for each in params.holding)
    beat = MemberBeat(params.generation, holding)
    return _shown(world.groups.heartbeat(params.group, params.member, beat))


async def leave(world: TopicWorld, caller: Caller, params: LeaveParams) -> object:
    """Remove a member."""
    require_group(caller, params.group)
    world.groups.leave(params.group, params.member)
    return True


async def commit_offsets(world: TopicWorld, caller: Caller, params: CommitParams) -> object:
    """Save the offsets that a group reads next."""
    require_group(caller, params.group)
    positions = {Partition(each.topic, each.partition): each.offset for each in params.offsets}
    await world.groups.commit(params.group, params.member, params.generation, positions)
    return True


async def describe_group(world: TopicWorld, caller: Caller, params: GroupParams) -> object:
    """Return the members of a group, and how far it is."""
    require_group(caller, params.group)
    found = await world.groups.describe(params.group)
    now = world.seconds()
    return {
        "group": found.name,
        "generation": found.generation,
        "members": [
            {
                "member": name,
                "topics": sorted(member.topics),
                "assigned": shown_places(member.assigned),
                "revoked": shown_places(member.revoked),
                "session_timeout_ms": round(member.session_timeout * 1000),
                "last_seen_ms": round(max(0.0, now - member.last_seen) * 1000),
            }
            for name, member in sorted(found.members.items())
        ],
        "positions": [
            {**shown_place(partition), **position._asdict()}
            for partition, position in found.positions.items()
        ],
    }


async def reset(world: TopicWorld, caller: Caller, params: ResetParams) -> object:
    """Set where a group reads next."""
    group, topic = params.group, params.topic
    require_group(caller, group)
    require(caller, MANAGE, topic)
    if (params.at is None) == (params.offset is None):
        raise bad("at or offset: expected one of them")

    async def valid(partition: Partition, offset: int) -> int:
        low, high = await world.topics.earliest(partition), await world.topics.latest(partition)
        if not low <= offset <= high:
            raise OffsetOutOfRange(*partition, offset, low=low, high=high)
        return offset

    offset = params.offset
    if offset is None:
        assert params.at is not None
        place = world.find(params.at)
    else:
        place = lambda partition: Deferred.fromCoroutine(valid(partition, offset))  # noqa: E731
    before = await world.groups.committed(group)
    after = await world.groups.reset(
        group, topic, place, partition=params.partition, dry_run=params.dry_run
    )
    return {
        "offsets": [
            {"partition": partition.number, "before": before.get(partition), "after": position}
            for partition, position in sorted(after.items())
        ]
    }


async def delete_group(world: TopicWorld, caller: Caller, params: GroupParams) -> object:
    """Forget a group."""
    require_group(caller, params.group)
    if params.group not in await world.groups.names():
        raise UnknownGroup(params.group)
    await world.groups.delete(params.group)
    return True


__all__ = [
    "commit_offsets",
    "delete_group",
    "describe_group",
    "heartbeat",
    "join",
    "leave",
    "list_groups",
    "reset",
]
