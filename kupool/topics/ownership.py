"""Who owns each partition, and who works on it: never two members at a time. Pure.

The owner is the member that shall have a partition. The holder is the member that works on it.

=======  ========  ===========================================================
Owner    Holder    Meaning
=======  ========  ===========================================================
none     none      Nobody subscribes to the topic.
A        A         It is assigned to A.
B        A         It is revoked from A, and is B's when A has given it back.
none     A         It is revoked from A, and is nobody's afterwards.
=======  ========  ===========================================================

An owner does not wait for a partition that nobody holds: it is the holder at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from kupool.topics.partition import Partition


class PartitionOwnership:
    """The owner and the holder of each partition."""

    def __init__(self) -> None:
        self._owners: dict[Partition, str] = {}
        self._holders: dict[Partition, str] = {}
        #: What each member holds: ``_holders`` the other way round.
        self._held: defaultdict[str, set[Partition]] = defaultdict(set)

    @property
    def holders(self) -> dict[Partition, str]:
        """The member that works on each partition."""
        return dict(self._holders)

    def shares(self) -> dict[str, list[Partition]]:
        """Return what each member owns, whether it works on it yet or not."""
        found: defaultdict[str, list[Partition]] = defaultdict(list)
        for partition, owner in self._owners.items():
            found[owner].append(partition)
        return dict(found)

    def assigned(self, member: str) -> frozenset[Partition]:
        """Return what a member may work on."""
        return frozenset(p for p in self._held.get(member, ()) if self._owners.get(p) == member)

    def revoked(self, member: str) -> frozenset[Partition]:
        """Return what a member holds and has to give back."""
        return frozenset(p for p in self._held.get(member, ()) if self._owners.get(p) != member)

    def holds(self, member: str, partition: Partition) -> bool:
        """Return whether a member holds a partition, assigned or revoked."""
        return self._holders.get(partition) == member

    def change_owners(self, shares: Mapping[str, Collection[Partition]]) -> None:
        """Set what each member owns; all other partitions have no owner."""
        self._owners = {p: member for member, share in shares.items() for p in share}
        self._hand_over(self._owners.keys() - self._holders.keys())

    def give_back(self, member: str, kept: Collection[Partition]) -> None:
        """Take back what was revoked from a member, but for what it keeps."""
        given_back = self.revoked(member).difference(kept)
        for partition in given_back:
            del self._holders[partition]
        self._held[member] -= given_back
        self._hand_over(given_back)

    def remove(self, member: str) -> None:
        """Take everything from a member that is gone.

        What it held has no holder until :meth:`change_owners` says who owns it now.
        """
        self._owners = {p: owner for p, owner in self._owners.items() if owner != member}
        for partition in self._held.pop(member, ()):
            del self._holders[partition]

    def _hand_over(self, free: Collection[Partition]) -> None:
        """Let the owners of partitions without a holder hold them."""
        for partition in free:
            owner = self._owners.get(partition)
            if owner is not None:
                self._holders[partition] = owner
                self._held[owner].add(partition)


__all__ = ["PartitionOwnership"]
