"""Which member of a consumer group owns which partition. Pure.

The assignment is sticky: a partition stays with its owner unless balance or a subscription demands
otherwise.

1. Each partition stays with the member that holds it, if that still subscribes to its topic.
2. A partition without an owner goes back to the member that still works on it, if there is one.
3. Each other partition goes to the least loaded of its subscribers. The partitions with the fewest
   possible owners come first.
4. While the counts of two members differ by two or more, and the larger share has a partition that
   the other member subscribes to, such a partition moves. Partitions that moved already go first.

Members with the same subscription then have counts that differ by at most one. If all members have
the same subscription, step 4 after a leave moves only partitions that had no owner, and after a
join it moves only what the new member needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from kupool.topics.partition import Partition


def assign(
    partitions: Mapping[str, int],
    members: Mapping[str, Collection[str]],
    held: Mapping[str, Collection[Partition]],
    *,
    working: Mapping[Partition, str] | None = None,
) -> dict[str, frozenset[Partition]]:
    """Return the partitions of each member.

    - ``partitions``: topic -> number of partitions.
    - ``members``: member id -> topics that it subscribes to.
    - ``held``: member id -> partitions that were assigned to it before.
    - ``working``: partition -> the member that works on it, if this is not the one that holds it.

    The result does not depend on the order of the arguments' items.
    """
    shares = _Shares(members, held, working or {})
    subscribers = _by_subscribers(partitions, members)
    for audience, theirs in subscribers.items():
        shares.keep(audience, theirs)
    for audience, theirs in subscribers.items():
        shares.complete(audience, theirs)
    # A move for one audience can unbalance another one. This ends: each move makes the sum of the
    # squares of the counts smaller.
    while sum(shares.level(audience, theirs) for audience, theirs in subscribers.items()) > 0:
        pass
    return shares.of_members()


def _by_subscribers(
    partitions: Mapping[str, int], members: Mapping[str, Collection[str]]
) -> dict[tuple[str, ...], list[Partition]]:
    """Return the partitions that the same members subscribe to, fewest members first."""
    audiences: defaultdict[str, list[str]] = defaultdict(list)
    for member in sorted(members):
        for topic in set(members[member]):
            audiences[topic].append(member)
    found: defaultdict[tuple[str, ...], list[Partition]] = defaultdict(list)
    for topic in sorted(partitions.keys() & audiences.keys()):
        for number in range(partitions[topic]):
            found[tuple(audiences[topic])].append(Partition(topic, number))
    return {audience: found[audience] for audience in sorted(found, key=lambda a: (len(a), a))}


class _Shares:
    """The partitions of each member while they are distributed."""

    def __init__(
        self,
        members: Collection[str],
        held: Mapping[str, Collection[Partition]],
        working: Mapping[Partition, str],
    ) -> None:
        self._counts = dict.fromkeys(sorted(members), 0)
        # In this order, the first of two members that claim a partition keeps it.
        self._before = {p: m for m in sorted(held, reverse=True) for p in held[m]}
        self._working = working
        self._owners: dict[Partition, str] = {}

    def of_members(self) -> dict[str, frozenset[Partition]]:
        """Return the partitions of each member."""
        found: dict[str, set[Partition]] = {member: set() for member in self._counts}
        for partition, owner in self._owners.items():
            found[owner].add(partition)
        return {member: frozenset(share) for member, share in found.items()}

    def keep(self, audience: Collection[str], partitions: Collection[Partition]) -> None:
        """Leave partitions where they are, or with who works on them; some get no owner."""
        possible = frozenset(audience)
        for partition in partitions:
            for owner in (self._before.get(partition), self._working.get(partition)):
                if owner in possible:
                    self._give(partition, owner)
                    break

    def complete(self, audience: Collection[str], partitions: Collection[Partition]) -> None:
        """Give each partition without an owner to the least loaded member of its audience."""
        for partition in partitions:
            if partition not in self._owners:
                self._give(partition, self._least_loaded(audience))

    def level(self, audience: Collection[str], partitions: Collection[Partition]) -> int:
        """Even out the members of an audience as far as these partitions allow.

        Returns how many partitions moved.
        """
        moved = 0
        movable: defaultdict[str, list[Partition]] = defaultdict(list)
        for partition in sorted(partitions, key=self._stickiness, reverse=True):
            movable[self._owners[partition]].append(partition)
        while True:
            giver = max((m for m in audience if movable[m]), key=self._counts.__getitem__)
            taker = self._least_loaded(audience)
            if self._counts[giver] - self._counts[taker] < 2:
                return moved
            partition = movable[giver].pop()
            movable[taker].append(partition)
            self._give(partition, taker)
            moved += 1

    def _stickiness(self, partition: Partition) -> tuple[bool, bool, Partition]:
        """Return the key of the order in which partitions move: the smallest moves first."""
        owner = self._owners[partition]
        before = self._before.get(partition)
        return before == owner, self._working.get(partition, before) == owner, partition

    def _least_loaded(self, audience: Collection[str]) -> str:
        return min(audience, key=self._counts.__getitem__)

    def _give(self, partition: Partition, member: str) -> None:
        owner = self._owners.get(partition)
        if owner is not None:
            self._counts[owner] -= 1
        self._owners[partition] = member
        self._counts[member] += 1


__all__ = ["Partition", "assign"]
