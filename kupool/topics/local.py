"""Topics and groups of this process, as a consumer sees them."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from kupool.topics.consumer import IGroupClient
from kupool.topics.groups import ConsumerGroups
from kupool.topics.membership import GroupSubscription, MemberBeat, MemberPlace
from kupool.topics.partition import Partition
from kupool.topics.service import Fetched, Topics


@implementer(IGroupClient)
class LocalGroupClient:
    """Calls topics and groups directly."""

    def __init__(self, topics: Topics, groups: ConsumerGroups) -> None:
        self._topics = topics
        self._groups = groups

    def join(
        self, group: str, member_id: str, subscription: GroupSubscription
    ) -> Deferred[MemberPlace]:
        """Add a member to a group."""
        return self._groups.join(group, member_id, subscription)

    def leave(self, group: str, member_id: str) -> Deferred[None]:
        """Remove a member from a group."""
        return maybeDeferred(self._groups.leave, group, member_id)

    def heartbeat(self, group: str, member_id: str, beat: MemberBeat) -> Deferred[MemberPlace]:
        """Keep a member alive."""
        return maybeDeferred(self._groups.heartbeat, group, member_id, beat)

    def commit(
        self, group: str, member_id: str, generation: int, positions: Mapping[Partition, int]
    ) -> Deferred[None]:
        """Save offsets."""
        return self._groups.commit(group, member_id, generation, positions)

    def committed(self, group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the saved offsets."""
        return self._groups.committed(group)

    def fetch(
        self, partition: Partition, offset: int, *, max_bytes: int, wait: float
    ) -> Deferred[Fetched]:
        """Read records."""
        return self._topics.fetch(partition, offset, max_bytes=max_bytes, wait=wait)

    def start(self, partition: Partition, latest: bool) -> Deferred[int]:
        """Return the oldest offset of a partition, or the next one."""
        return self._topics.latest(partition) if latest else self._topics.earliest(partition)


__all__ = ["LocalGroupClient"]
