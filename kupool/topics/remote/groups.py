"""Groups of a server, as a consumer sees them.

::

    client = RemoteGroupClient(topics)
    consumer = GroupConsumer(
        client,
        reactor,
        ("billing", "worker-1"),
        topics=frozenset(["clicks"]),
        handler=handle,
        give_away=client.burial("billing", "worker-1"),
        settings=MemberSettings(workers=4),
    )
    await consumer.start()

A member goes on by itself when the connection was lost, when the server was restarted, and when
another server leads its group: what it asked is asked again, or fails, and its next heartbeat says
what it has now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.topics.api.params import (
    BuryParams,
    CommitParams,
    GroupParams,
    HeartbeatParams,
    JoinParams,
    LeaveParams,
    PartitionParams,
    PositionParams,
)
from kupool.topics.consumer import GiveAway, IGroupClient
from kupool.topics.errors import UnknownGroup, UnknownMember
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.membership import GroupSubscription, MemberBeat, MemberPlace
from kupool.topics.partition import Partition
from kupool.topics.remote.failures import BadAnswer
from kupool.topics.remote.operations import GroupDetails, PlaceEntry, PlaceResult
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.service import Fetched

#: The most offsets that are saved by one request.
_COMMIT = 200

#: The most characters of the reason of a dead letter.
_REASON = 1000


@implementer(IGroupClient)
class RemoteGroupClient:
    """Asks the server of some topics; several consumers may share it."""

    def __init__(self, topics: RemoteTopics) -> None:
        self._topics = topics
        self._nodes = topics.nodes
        #: The newest generation that each member was told.
        self._generations: dict[tuple[str, str], int] = {}

    def join(
        self, group: str, member_id: str, subscription: GroupSubscription
    ) -> Deferred[MemberPlace]:
        """Add a member to a group."""
        params = JoinParams(
            group,
            sorted(subscription.topics),
            member_id,
            int(subscription.session_timeout * 1000),
        )
        return Deferred.fromCoroutine(self._place("group.join", params))

    def heartbeat(self, group: str, member_id: str, beat: MemberBeat) -> Deferred[MemberPlace]:
        """Keep a member alive."""
        params = HeartbeatParams(group, member_id, beat.generation)
        if beat.holding is not None:
            params.holding = [PartitionParams(*partition) for partition in sorted(beat.holding)]
        return Deferred.fromCoroutine(self._place("group.heartbeat", params))

    async def _place(self, method: str, params: Any) -> MemberPlace:
        result: PlaceResult = await self._nodes.ask(method, params, group=params.group)
        if result.member != params.member:
            raise BadAnswer(f"{method}: the answer is for member {result.member:.80}")
        assigned, revoked = _partitions(result.assigned), _partitions(result.revoked)
        if assigned & revoked:
            raise BadAnswer(f"{method}: a partition is assigned and revoked")
        self._generations[params.group, params.member] = result.generation
        return MemberPlace(params.member, result.generation, assigned, revoked)

    def leave(self, group: str, member_id: str) -> Deferred[None]:
        """Remove a member from a group; one that is gone already is no error."""
        return Deferred.fromCoroutine(self._leave(group, member_id))

    async def _leave(self, group: str, member_id: str) -> None:
        params = LeaveParams(group, member_id)
        try:
            await self._nodes.ask("group.leave", params, group=group, again=True)
        except UnknownMember:
            pass  # its session timed out, or the first of two requests did it
        finally:
            self._generations.pop((group, member_id), None)
        if not any(name == group for name, _ in self._generations):
            await self._nodes.forget_group(group)

    def commit(
        self, group: str, member_id: str, generation: int, positions: Mapping[Partition, int]
    ) -> Deferred[None]:
        """Save offsets, :data:`_COMMIT` in a request."""
        return Deferred.fromCoroutine(self._commit(group, member_id, generation, positions))

    async def _commit(
        self, group: str, member_id: str, generation: int, positions: Mapping[Partition, int]
    ) -> None:
        offsets = [PositionParams(*partition, offset) for partition, offset in positions.items()]
        for first in range(0, len(offsets), _COMMIT):
            params = CommitParams(group, member_id, generation, offsets[first : first + _COMMIT])
            await self._nodes.ask("group.commit", params, group=group)

    def committed(self, group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the saved offsets."""
        return Deferred.fromCoroutine(self._committed(group))

    async def _committed(self, group: str) -> Mapping[Partition, int]:
        try:
            details: GroupDetails = await self._nodes.ask(
                "group.describe", GroupParams(group), group=group
            )
        except UnknownGroup:
            return {}
        return {
            Partition(each.topic, each.partition): each.committed
            for each in details.positions
            if each.committed is not None
        }

    def fetch(
        self, partition: Partition, offset: int, *, max_bytes: int, wait: float
    ) -> Deferred[Fetched]:
        """Read records."""
        return self._topics.fetch(partition, offset, max_bytes=max_bytes, wait=wait)

    def start(self, partition: Partition, latest: bool) -> Deferred[int]:
        """Return the oldest offset of a partition, or the next one."""
        return self._topics.latest(partition) if latest else self._topics.earliest(partition)

    # -- dead letters

    def burial(self, group: str, member_id: str) -> GiveAway:
        """Return what a consumer does with a record that failed in every attempt.

        The server writes it to the dead letters of its topic.
        """

        async def give_away(delivery: DeliveredRecord, failure: Failure) -> None:
            kind = getattr(failure.type, "__name__", "failure")
            partition, record, attempts = delivery
            params = BuryParams(
                group,
                member_id,
                self._generations.get((group, member_id), 0),
                *partition,
                offset=record.offset,
                reason=f"{kind}: {failure.getErrorMessage()}"[:_REASON],
                attempts=attempts,
            )
            await self._nodes.ask("log.bury", params, group=group)

        return give_away


def _partitions(entries: Iterable[PlaceEntry]) -> frozenset[Partition]:
    return frozenset(Partition(each.topic, each.partition) for each in entries)


__all__ = ["RemoteGroupClient"]
