"""Consumer groups: members share the partitions of topics, and save how far they are.

::

    member                                   groups
      join(group, member, subscription)  ->
                                         <-  place: generation, assigned partitions
      heartbeat(group, member, beat)     ->  at least once in a session timeout
                                         <-  place: the generation may be a new one; what is
                                             revoked is given back by the next heartbeat
      commit(..., generation, offsets)   ->  refused unless the generation is the current one
      leave(group, member)               ->

Who owns what is decided by :mod:`kupool.topics.membership`; offsets are saved by the engine. A
group exists while it has members, or has saved an offset. After a restart members have to join
again; the generations of a group go on above those before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.session.running import RunningTime
from kupool.timing.waiting import Waiters
from kupool.topics.errors import (
    GroupInUse,
    InvalidGroup,
    OffsetOutOfRange,
    TooManyGroups,
    UnknownGroup,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.interfaces import PartitionExtent
from kupool.topics.leases import OnlyNode
from kupool.topics.membership import (
    GroupMember,
    GroupMembership,
    GroupSubscription,
    MemberBeat,
    MemberPlace,
)
from kupool.topics.partition import Partition
from kupool.topics.settings import NAMES, valid_name

#: The most seconds between two looks for sessions that have timed out.
LOOK = 0.5

#: The generations of a group that one start of the process has: its first one is a multiple.
PER_START = 1 << 32


@dataclass(frozen=True)
class GroupLimits:
    """The most groups with members, of all and of one owner, the most members and partitions of
    one, and their session timeouts in seconds.
    """

    groups: int = 1000
    of_owner: int = 100
    members: int = 1000
    partitions: int = 10_000
    shortest_session: float = 1.0
    longest_session: float = 600.0


class GroupPosition(NamedTuple):
    """How far a group is in a partition.

    ``committed`` is the offset that it reads next, None if it has saved none; ``lag`` the offsets
    behind that, all of them without one; of an engine with a stride, the batches. ``owner`` is the
    member that has the partition. ``lag_ms`` says how long ago the oldest record behind it was
    written, in milliseconds; 0 if there is none. A clock that is set back never makes it negative.
    """

    committed: int | None
    lag: int
    owner: str | None
    lag_ms: int = 0


class GroupDescription(NamedTuple):
    """A group: its generation, 0 if it has no members, its members, and how far it is."""

    name: str
    generation: int
    members: Mapping[str, GroupMember]
    positions: Mapping[Partition, GroupPosition]


class ConsumerGroups:
    """The consumer groups of an engine of topics.

    ``wall`` returns seconds since the epoch: the clock of the engine's batches.
    With ``leases`` this node has only those groups that it leads; for the others it fails with
    :class:`WrongNode`.
    """

    _log = Logger()

    def __init__(
        self,
        engine: Any,
        clock: IReactorTime,
        wall: Callable[[], float],
        limits: GroupLimits,
        *,
        leases: Any = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._wall = wall
        self._limits = limits
        #: Which groups this node leads, an IGroupLeases: without one, all.
        self._leases = OnlyNode() if leases is None else leases
        self._leases.watch(self._lost)
        self._groups: dict[str, GroupMembership] = {}
        #: Who made each group that has members; also some that have none any more.
        self._owners: dict[str, str] = {}
        #: Groups whose first generation is being read.
        self._coming: dict[str, Waiters[None]] = {}
        self._running = RunningTime(clock.seconds, LOOK)
        self._looking: IDelayedCall | None = None

    # -- members

    def join(
        self, group: str, member_id: str, subscription: GroupSubscription, *, owner: str = ""
    ) -> Deferred[MemberPlace]:
        """Add a member to a group, or change what a member subscribes to.

        The group counts as one of the ``owner`` who joins it first, while it has members; those
        of nobody are not limited.

        Fails with :class:`InvalidGroup`, :class:`UnknownTopic` or :class:`TooManyGroups`.
        """
        return Deferred.fromCoroutine(self._join(group, member_id, subscription, owner=owner))

    async def _join(
        self, group: str, member_id: str, subscription: GroupSubscription, *, owner: str
    ) -> MemberPlace:
        self._check(group, member_id, subscription)
        await self._leases.hold(group)
        await self._load(group, owner)
        membership = self._groups[group]
        if member_id not in membership.members and len(membership.members) >= self._limits.members:
            raise TooManyGroups(f"group {group} has {self._limits.members} members already")
        partitions = self._partitions(membership.topics | subscription.topics)
        place = membership.join(member_id, subscription, partitions, self._clock.seconds())
        if self._looking is None:
            self._running.start()
            self._look_later()
        return place

    def _check(self, group: str, member_id: str, subscription: GroupSubscription) -> None:
        for what, name in (("group", group), ("member", member_id)):
            if not valid_name(name):
                raise InvalidGroup(f"{name!r:.80} is no name of a {what}: use {NAMES}")
        if not subscription.topics:
            raise InvalidGroup(f"member {member_id} of group {group} subscribes to no topic")
        shortest, longest = self._limits.shortest_session, self._limits.longest_session
        if not shortest <= subscription.session_timeout <= longest:
            raise InvalidGroup(
                f"a session timeout of {subscription.session_timeout!r:.40} s: expected "
                f"{shortest:g} to {longest:g}"
            )
        for topic in sorted(subscription.topics):
            if self._engine.topic(topic) is None:
                raise UnknownTopic(topic)
        # Whoever comes or goes has all of them distributed again.
        before = self._groups[group].topics if group in self._groups else frozenset[str]()
        count = sum(self._partitions(before | subscription.topics).values())
        if count > self._limits.partitions:
            raise TooManyGroups(
                f"group {group} would have {count} partitions, more than {self._limits.partitions}"
            )

    async def _load(self, group: str, owner: str) -> None:
        """Make a group that has no members yet; its generations follow those of all before."""
        while group not in self._groups:
            if group in self._coming:
                await self._coming[group].wait()
                continue
            if len(self._groups) + len(self._coming) >= self._limits.groups:
                raise TooManyGroups(f"there are {self._limits.groups} groups with members already")
            self._own(group, owner)
            waiters = self._coming[group] = Waiters()
            try:
                start: int = await self._engine.next_generation(group)
                self._groups[group] = GroupMembership(start * PER_START, group)
            finally:
                del self._coming[group]
                waiters.tell(None)

    def _own(self, group: str, owner: str) -> None:
        """Note who makes a group; raises :class:`TooManyGroups`."""
        there = self._groups.keys() | self._coming.keys()
        self._owners = {name: whose for name, whose in self._owners.items() if name in there}
        most = self._limits.of_owner
        if owner and sum(whose == owner for whose in self._owners.values()) >= most:
            raise TooManyGroups(f"{owner} has {most} groups with members already")
        self._owners[group] = owner

    def check_holder(
        self, group: str, member_id: str, generation: int, partition: Partition
    ) -> None:
        """Check that a member holds a partition in the current generation.

        Raises :class:`UnknownMember`, :class:`IllegalGeneration` or :class:`NotPartitionOwner`.
        """
        self._of(group, member_id).check(member_id, generation, (partition,))

    def leave(self, group: str, member_id: str) -> None:
        """Remove a member; its partitions go to others. Raises :class:`UnknownMember`."""
        membership = self._of(group, member_id)
        partitions = self._partitions(membership.topics)
        membership.leave(member_id, partitions, self._clock.seconds())
        self._drop_if_empty(group)

    def heartbeat(self, group: str, member_id: str, beat: MemberBeat) -> MemberPlace:
        """Keep a member alive; returns what it has now.

        Raises :class:`UnknownMember` if it has to join again, and :class:`IllegalGeneration`.
        """
        membership = self._of(group, member_id)
        partitions = self._partitions(membership.topics)
        return membership.heartbeat(member_id, beat, partitions, self._clock.seconds())

    def commit(
        self, group: str, member_id: str, generation: int, positions: Mapping[Partition, int]
    ) -> Deferred[None]:
        """Save the offsets that a member's group reads next; fires when they are durable.

        Fails with :class:`UnknownMember`, :class:`IllegalGeneration`, :class:`NotPartitionOwner`
        or :class:`OffsetOutOfRange`; nothing is saved then.
        """
        return Deferred.fromCoroutine(self._commit(group, member_id, generation, positions))

    async def _commit(
        self, group: str, member_id: str, generation: int, positions: Mapping[Partition, int]
    ) -> None:
        self._of(group, member_id).check(member_id, generation, positions)
        await self._check_positions(positions)
        # Others may have joined meanwhile. The engine saves in the order of the calls.
        self._of(group, member_id).check(member_id, generation, positions)
        await self._engine.commit(group, positions)

    async def _check_positions(self, positions: Mapping[Partition, int]) -> None:
        extents = await self._extents({partition.topic for partition in positions})
        for partition, offset in positions.items():
            extent = extents.get(partition)
            if extent is None:
                count = len([each for each in extents if each.topic == partition.topic])
                raise UnknownPartition(*partition, count)
            if not 0 <= offset <= extent.high:
                raise OffsetOutOfRange(*partition, offset, low=extent.low, high=extent.high)

    async def _extents(self, topics: set[str]) -> dict[Partition, PartitionExtent]:
        return {
            Partition(topic, number): extent
            for topic in sorted(topics)
            for number, extent in enumerate(await self._engine.extents(topic))
        }

    def _of(self, group: str, member_id: str) -> GroupMembership:
        membership = self._groups.get(group)
        # Who asks a node that does not lead the group learns the right one when it joins.
        if membership is None or not self._leases.holds(group):
            raise UnknownMember(member_id, group)
        return membership

    def _partitions(self, topics: frozenset[str]) -> dict[str, int]:
        """Return the number of partitions of those topics that exist."""
        known = {name: self._engine.topic(name) for name in topics}
        return {name: each.partitions for name, each in known.items() if each is not None}

    def _look(self) -> None:
        """Remove the members whose sessions have timed out."""
        now = self._clock.seconds()
        self._looking = None
        pause = self._running.beat()
        for group, membership in list(self._groups.items()):
            if pause:
                membership.forgive(now, pause)  # no heartbeat could be read
            gone = membership.expire(now)
            if gone:
                self._log.info(
                    "{count} members of group {group} sent no heartbeat in time: {members}",
                    count=len(gone),
                    group=group,
                    members=", ".join(gone[:10]),
                )
            self._drop_if_empty(group)
        if self._groups:
            self._look_later()

    def _look_later(self) -> None:
        """Look again when the next session times out, if that is soon."""
        ends = [membership.next_expiry() for membership in self._groups.values()]
        soonest = min((end for end in ends if end is not None), default=inf)
        wait = min(LOOK, max(0.0, soonest - self._clock.seconds()))
        self._looking = self._clock.callLater(wait, self._look)

    def _drop_if_empty(self, group: str) -> None:
        if self._groups[group].empty:
            del self._groups[group]
            self._leases.release(group)

    def _lost(self, group: str) -> None:
        """Another node leads a group now: its members have to join there."""
        self._groups.pop(group, None)

    # -- administration

    def names(self) -> Deferred[list[str]]:
        """Return the names of all groups, sorted."""

        def both(saved: list[str]) -> list[str]:
            return sorted({*saved, *self._groups})

        found: Deferred[list[str]] = self._engine.groups()
        return found.addCallback(both)

    def describe(self, group: str) -> Deferred[GroupDescription]:
        """Return the members of a group and how far it is; fails with :class:`UnknownGroup`."""
        return Deferred.fromCoroutine(self._describe(group))

    async def _describe(self, group: str) -> GroupDescription:
        await self._leases.hold(group)
        try:
            return await self._describe_led(group)
        finally:
            self._release_unused(group)

    async def _describe_led(self, group: str) -> GroupDescription:
        committed: Mapping[Partition, int] = await self._engine.committed(group)
        membership = self._groups.get(group)
        if membership is None and not committed:
            raise UnknownGroup(group)
        members = {} if membership is None else membership.members
        topics = {partition.topic for partition in committed}
        topics.update(*(member.topics for member in members.values()))
        extents = await self._extents(topics & set(self._engine.topics()))
        stride = self._engine.capabilities.stride
        owners = {
            partition: name
            for name, member in members.items()
            for partition in (*member.assigned, *member.revoked)
        }
        positions = {}
        for partition, extent in sorted(extents.items()):
            following = max(extent.low, committed.get(partition, 0))
            positions[partition] = GroupPosition(
                committed.get(partition),
                -(-(extent.high - following) // stride),
                owners.get(partition),
                await self._age(partition, following) if following < extent.high else 0,
            )
        generation = 0 if membership is None else membership.generation
        return GroupDescription(group, generation, members, positions)

    async def _age(self, partition: Partition, offset: int) -> int:
        """Return how long ago the batch of an offset was written, in milliseconds."""
        try:
            batches = await self._engine.read(partition, offset, 1)
        except OffsetOutOfRange as error:  # it was dropped since
            batches = await self._engine.read(partition, error.low, 1)
        except UnknownTopic:  # it was deleted since
            return 0
        return max(0, int(self._wall() * 1000) - batches[0].at) if batches else 0

    def reset(
        self,
        group: str,
        topic: str,
        place: Callable[[Partition], Deferred[int]],
        *,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> Deferred[dict[Partition, int]]:
        """Set the offsets of a group in a topic, or in one ``partition`` of it; returns them.

        ``place`` returns the offset for a partition, as :meth:`kupool.topics.service.Topics.latest`
        does. With ``dry_run`` nothing is saved. Fails with :class:`InvalidGroup`, with
        :class:`GroupInUse` while the group has members, with :class:`UnknownTopic` and
        :class:`UnknownPartition`.
        """
        return Deferred.fromCoroutine(self._reset(group, topic, place, partition, dry_run=dry_run))

    async def _reset(
        self,
        group: str,
        topic: str,
        place: Callable[[Partition], Deferred[int]],
        only: int | None,
        *,
        dry_run: bool,
    ) -> dict[Partition, int]:
        if not valid_name(group):
            raise InvalidGroup(f"{group!r:.80} is no name of a group: use {NAMES}")
        settings = self._engine.topic(topic)
        if settings is None:
            raise UnknownTopic(topic)
        if only is not None and only >= settings.partitions:
            raise UnknownPartition(topic, only, settings.partitions)
        found = {}
        for number in range(settings.partitions) if only is None else (only,):
            partition = Partition(topic, number)
            found[partition] = await place(partition)
        await self._leases.hold(group)
        try:
            self._check_unused(group)
            if not dry_run:
                await self._engine.commit(group, found)
        finally:
            self._release_unused(group)
        return found

    def delete(self, group: str) -> Deferred[None]:
        """Forget the offsets of a group; fails with :class:`GroupInUse` while it has members."""
        return Deferred.fromCoroutine(self._delete(group))

    async def _delete(self, group: str) -> None:
        await self._leases.hold(group)
        try:
            self._check_unused(group)
            await self._engine.forget_group(group)
        finally:
            self._release_unused(group)

    def _release_unused(self, group: str) -> None:
        """Let any node lead a group that has no members here."""
        if group not in self._groups and group not in self._coming:
            self._leases.release(group)

    def _check_unused(self, group: str) -> None:
        if group in self._groups or group in self._coming:
            raise GroupInUse(group)

    def committed(self, group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the offsets that a group reads next."""
        found: Deferred[Mapping[Partition, int]] = self._engine.committed(group)
        return found

    def close(self) -> None:
        """Stop looking for sessions that have timed out."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None


__all__ = [
    "LOOK",
    "PER_START",
    "ConsumerGroups",
    "GroupDescription",
    "GroupLimits",
    "GroupPosition",
]
