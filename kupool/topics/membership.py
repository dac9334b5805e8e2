"""The members of a consumer group, their generations, and what each may work on. Pure.

Rebalancing is cooperative: a member keeps working on the partitions that it keeps. A partition that
moves from A to B is B's only after A gave it back, left, or was removed because its session timed
out.

Each join, leave, expiry, change of a subscription and change of the number of partitions begins a
new generation. A member learns it from the answer to its next heartbeat. A heartbeat of an older
generation gives nothing back, since its sender did not know yet what it has to give back. A commit
of an older generation is refused.

All times are in seconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kupool.topics.assignment import assign
from kupool.topics.errors import IllegalGeneration, NotPartitionOwner, UnknownMember
from kupool.topics.ownership import PartitionOwnership
from kupool.topics.partition import Partition


class GroupSubscription(NamedTuple):
    """What a member wants: its topics, and the seconds without a heartbeat until it is removed."""

    topics: frozenset[str]
    session_timeout: float


class MemberBeat(NamedTuple):
    """A heartbeat: the generation that the member knows, and what it still works on.

    A ``holding`` of None means all that it was given: it gives nothing back.
    """

    generation: int
    holding: frozenset[Partition] | None = None


class MemberPlace(NamedTuple):
    """What a member has in a generation.

    It may work on ``assigned``. It holds ``revoked`` still and has to give it back: by a heartbeat
    of the current generation that does not list it in ``holding``.
    """

    member_id: str
    generation: int
    assigned: frozenset[Partition]
    revoked: frozenset[Partition]


class GroupMember(NamedTuple):
    """A member of a group, as it was when the group was asked."""

    topics: frozenset[str]
    session_timeout: float
    last_seen: float
    assigned: frozenset[Partition]
    revoked: frozenset[Partition]


class GroupMembership:
    """The members of one consumer group.

    Its generations are above ``generation``. Mappings of ``partitions`` say how many partitions
    each topic has. Topics without a subscriber in the group have no effect.
    """

    def __init__(self, generation: int, group: str) -> None:
        self._generation = generation
        self._group = group
        self._subscriptions: dict[str, GroupSubscription] = {}
        self._last_seen: dict[str, float] = {}
        #: The topics that the members subscribe to, and the number of partitions of each.
        self._topics: frozenset[str] = frozenset()
        self._partitions: dict[str, int] = {}
        self._ownership = PartitionOwnership()

    @property
    def generation(self) -> int:
        """The current generation."""
        return self._generation

    @property
    def topics(self) -> frozenset[str]:
        """The topics that its members subscribe to."""
        return self._topics

    @property
    def members(self) -> dict[str, GroupMember]:
        """The members by their ids."""
        return {
            member_id: GroupMember(
                *subscription,
                self._last_seen[member_id],
                self._ownership.assigned(member_id),
                self._ownership.revoked(member_id),
            )
            for member_id, subscription in self._subscriptions.items()
        }

    @property
    def empty(self) -> bool:
        """Whether the group has no members."""
        return not self._subscriptions

    def join(
        self,
        member_id: str,
        subscription: GroupSubscription,
        partitions: Mapping[str, int],
        now: float,
    ) -> MemberPlace:
        """Add a member, or change the subscription of a known one.

        A known member keeps what it holds. If its topics are the same, the generation is, too: a
        join can be repeated if its answer was lost.
        """
        before = self._subscriptions.get(member_id)
        self._subscriptions[member_id] = subscription
        self._last_seen[member_id] = now
        if before is None or before.topics != subscription.topics:
            self._rebalance(partitions)
        else:
            self._rebalance_if_changed(partitions)
        return self._place(member_id)

    def leave(self, member_id: str, partitions: Mapping[str, int], now: float) -> None:
        """Remove a member; raises :class:`UnknownMember`."""
        self._check_member(member_id)
        self._remove(member_id)
        self._rebalance(partitions)

    def heartbeat(
        self, member_id: str, beat: MemberBeat, partitions: Mapping[str, int], now: float
    ) -> MemberPlace:
        """Keep a member alive, and take back what it does not work on any more.

        Its session may have timed out, as long as :meth:`expire` has not removed it. Raises
        :class:`UnknownMember`, and :class:`IllegalGeneration` for a generation that never was.
        """
        self._check_member(member_id)
        if not 0 <= beat.generation <= self._generation:
            raise IllegalGeneration(beat.generation, self._generation)
        self._last_seen[member_id] = now
        if beat.generation == self._generation and beat.holding is not None:
            self._ownership.give_back(member_id, beat.holding)
        self._rebalance_if_changed(partitions)
        return self._place(member_id)

    def check(
        self, member_id: str, generation: int, partitions_to_commit: Iterable[Partition]
    ) -> None:
        """Check that a member may commit positions of partitions.

        Raises :class:`UnknownMember`; :class:`IllegalGeneration` if the generation is not the
        current one; :class:`NotPartitionOwner` for a partition that the member does not hold.
        """
        self._check_member(member_id)
        if generation != self._generation:
            raise IllegalGeneration(generation, self._generation)
        for partition in partitions_to_commit:
            if not self._ownership.holds(member_id, partition):
                raise NotPartitionOwner(member_id, partition)

    def partitions_changed(self, partitions: Mapping[str, int], now: float) -> None:
        """Distribute the partitions again, if a topic of the group has another number of them."""
        self._rebalance_if_changed(partitions)

    def expire(self, now: float) -> list[str]:
        """Remove the members whose sessions have timed out, and return their ids."""
        expired = [member for member in sorted(self._last_seen) if self._ends(member) <= now]
        for member_id in expired:
            self._remove(member_id)
        if expired:
            self._rebalance(self._partitions)
        return expired

    def next_expiry(self) -> float | None:
        """Return when the next session times out; None if the group is empty."""
        return min(map(self._ends, self._last_seen), default=None)

    def forgive(self, now: float, pause: float) -> None:
        """Let sessions end later, since nobody could be heard in a pause of so many seconds, which
        ends now.

        A session that would end during the pause, or soon after it, ends as long after the pause as
        the pause took, or as long after its end as that is if that is earlier. Others are not
        changed.
        """
        for member_id, seen in self._last_seen.items():
            latest = now + pause - self._subscriptions[member_id].session_timeout
            self._last_seen[member_id] = max(seen, min(seen + pause, latest))

    def _ends(self, member_id: str) -> float:
        return self._last_seen[member_id] + self._subscriptions[member_id].session_timeout

    def _check_member(self, member_id: str) -> None:
        if member_id not in self._subscriptions:
            raise UnknownMember(member_id, self._group)

    def _remove(self, member_id: str) -> None:
        del self._subscriptions[member_id], self._last_seen[member_id]
        self._ownership.remove(member_id)

    def _rebalance_if_changed(self, partitions: Mapping[str, int]) -> None:
        if self._of_topics(partitions) != self._partitions:
            self._rebalance(partitions)

    def _rebalance(self, partitions: Mapping[str, int]) -> None:
        self._generation += 1
        members = {member: wanted.topics for member, wanted in self._subscriptions.items()}
        self._topics = frozenset().union(*members.values())
        self._partitions = self._of_topics(partitions)
        ownership = self._ownership
        shares = assign(self._partitions, members, ownership.shares(), working=ownership.holders)
        ownership.change_owners(shares)

    def _of_topics(self, partitions: Mapping[str, int]) -> dict[str, int]:
        return {topic: partitions[topic] for topic in self._topics if topic in partitions}

    def _place(self, member_id: str) -> MemberPlace:
        ownership = self._ownership
        return MemberPlace(
            member_id,
            self._generation,
            ownership.assigned(member_id),
            ownership.revoked(member_id),
        )


__all__ = [
    "GroupMember",
    "GroupMembership",
    "GroupSubscription",
    "MemberBeat",
    "MemberPlace",
]
