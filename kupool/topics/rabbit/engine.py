"""Topics in RabbitMQ: a partition is a stream, and a batch is a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from kupool.topics.errors import (
    InvalidTopic,
    TopicError,
    TopicExists,
    TopicsUnavailable,
    UnknownTopic,
    WrongNode,
)
from kupool.topics.interfaces import (
    FIRST_DELAY,
    Append,
    Capabilities,
    DelayedBatch,
    DelayPlace,
    ITopicEngine,
    PartitionExtent,
    StoredBatch,
    without_stamp,
)
from kupool.topics.leases import OnlyNode
from kupool.topics.partition import Partition
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.broker import RabbitTopicsSettings, StreamBroker
from kupool.topics.rabbit.delays import DelayedPublishing
from kupool.topics.rabbit.directory import TopicDirectory, arguments_of
from kupool.topics.rabbit.entries import STRIDE
from kupool.topics.rabbit.leases import NodeName, StoreLeases
from kupool.topics.rabbit.once import OncePublishing
from kupool.topics.rabbit.reading import StreamReading
from kupool.topics.rabbit.sending import BatchToPublish, StreamSending, all_of
from kupool.topics.rabbit.statements import LeaseLost, StoredTopic
from kupool.topics.settings import TopicSettings, check_change

T = TypeVar("T")

#: The settings that a stream gets when it is made, and that do not change.
_OF_STREAMS = ("retention_time", "retention_bytes", "replicas")


@implementer(ITopicEngine)
class RabbitTopics:
    """Topics in the streams of a broker; ``url`` has one or several addresses of it.

    The offset of a record is 65,536 times the position of its batch in the stream, plus its place
    in the batch. Topics, positions of groups and delays are in a ``store``, an
    :class:`ITopicStore`. If it is shared with other nodes, ``node`` is the name of this one, and
    :attr:`leases` says which groups it leads. ``wall`` returns seconds since the epoch.
    """

    name = "rabbit"
    capabilities = Capabilities(
        dense=False,
        atomic=False,
        persistent=True,
        compacts=False,
        stride=STRIDE,
        shared=True,
        trims=False,
        sizes=False,
    )

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        wall: Callable[[], float],
        url: str,
        store: Any,
        *,
        settings: RabbitTopicsSettings | None = None,
        node: NodeName | None = None,
    ) -> None:
        self._settings = settings or RabbitTopicsSettings()
        self._store = store
        self.leases: StoreLeases | OnlyNode = OnlyNode()
        if store.shared:
            name = node or NodeName(uuid4().hex, lambda: "unknown")
            self.leases = StoreLeases(store, reactor, name)
        self.capabilities = self.capabilities._replace(shared=store.shared)
        self._directory = TopicDirectory(store, self._settings.prefix)
        self._broker = StreamBroker(
            reactor,
            wall,
            url,
            self._settings,
            arguments=self._directory.arguments,
            told=self._tell,
        )
        patience = self._settings.patience
        self._sending = StreamSending(
            reactor, wall, self._broker, self._directory, patience=patience
        )
        self._reading = StreamReading(reactor, self._broker, self._directory, patience=patience)
        self._delays = DelayedPublishing(
            store, self._reading.end_of, self._reading.find_message, self._publish_as
        )
        self._once = OncePublishing(
            store,
            reactor,
            wall,
            self._directory,
            sending=self._sending,
            reading=self._reading,
        )
        self._watchers: list[Callable[[Partition], object]] = []
        #: The ids of batches are the start of this process and a number.
        self._start = uuid4().hex
        self._count = 0
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.clock = reactor
        #: Why the last look for topics failed; empty if it did not.
        self._unseen = ""

    # -- begin and end

    def open(self) -> Deferred[None]:
        """Connect to the broker and to the store.

        Fails with :class:`TopicsUnavailable` where one of them refuses or does not answer, or where
        the streams belong to the topics of another store, and with what the store fails with.
        """
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        await self._store.open()
        await self._directory.refresh()
        owner = await self._store.run(statements.identity)
        await self._broker.open(self._sending.release, owner)
        self._refreshing.start(self._settings.refresh, now=True).addErrback(
            lambda failure: self._log.failure("Looking for topics failed", failure)
        )

    def watch(self, told: Callable[[Partition], object]) -> None:
        """Have ``told`` called with each partition that has new records."""
        self._watchers.append(told)

    def _tell(self, stream: str) -> None:
        partition = self._directory.partition_of(stream)
        if partition is not None:
            for told in self._watchers:
                told(partition)

    def _refresh(self) -> Deferred[None]:
        """Look for topics of other nodes, and delete what one has left half deleted."""
        done = Deferred.fromCoroutine(self._look_at_store())
        return done.addCallbacks(
            lambda _: self._looked(""), lambda failure: self._looked(failure.getErrorMessage())
        )

    def _looked(self, problem: str) -> None:
        """Say once why a look failed, however often it is tried again."""
        if problem and problem != self._unseen:
            self._log.warn("Topics of other nodes cannot be seen: {reason}", reason=problem)
        self._unseen = problem

    async def _look_at_store(self) -> None:
        for topic in await self._directory.refresh():
            self._leave(topic)
        for topic in await self._store.run(statements.abandoned):
            if not self._directory.is_changing(topic.name):
                await self._delete_streams(topic)

    def _leave(self, topic: StoredTopic) -> None:
        streams = self._directory.streams(topic)
        self._broker.leave(streams, UnknownTopic(topic.name))
        for stream in streams:
            self._reading.forget(stream)

    def problem(self) -> str:
        """Return why nothing can be stored now; empty if it can."""
        return self._broker.problem or str(self._store.problem())

    def close(self) -> Deferred[None]:
        """Finish what is under way, and disconnect."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._refreshing.running:
            self._refreshing.stop()
        self._sending.close()
        await self._broker.close()
        if isinstance(self.leases, StoreLeases):
            await self.leases.close()
        await self._store.close()

    # -- topics

    def topics(self) -> Mapping[str, TopicSettings]:
        """Return the topics by name."""
        return self._directory.settings()

    def topic(self, name: str) -> TopicSettings | None:
        """Return the settings of a topic; None if there is no such topic."""
        topic = self._directory.find(name)
        return None if topic is None else topic.settings

    def identity(self, name: str) -> str:
        """Return the key of a topic, which no other one gets."""
        topic = self._directory.find(name)
        return "" if topic is None else str(topic.key)

    def create(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Create a topic; fails with :class:`TopicExists`."""
        if self._directory.find(name) is not None or self._directory.is_changing(name):
            return fail(TopicExists(name))
        return self._changing(name, self._create(name, settings))

    def _changing(self, name: str, work: Any) -> Deferred[None]:
        self._directory.begin_change(name)

        def done(result: T) -> T:
            self._directory.end_change(name)
            return result

        return Deferred.fromCoroutine(work).addBoth(done)

    async def _create(self, name: str, settings: TopicSettings) -> None:
        topic: StoredTopic = await self._store.run(
            partial(statements.create, name=name, settings=settings)
        )
        arguments = arguments_of(settings)
        streams = dict.fromkeys(self._directory.streams(topic), arguments)
        try:
            # There may be some of a topic of that name which was not deleted completely.
            await self._broker.make(streams, anew=True)
            if not await self._store.run(partial(statements.made, key=topic.key)):
                raise TopicsUnavailable(f"topic {name} could not be made in time")
        except TopicError:
            await self._store.run(partial(statements.deleted, key=topic.key))
            raise
        self._directory.add(topic._replace(state=statements.READY))

    def change(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Change the settings of a topic; partitions may be added.

        What streams are made with cannot be changed: :class:`InvalidTopic` says what can be done.
        """
        try:
            topic = self._directory.topic(name)
            check_change(topic.settings, settings)
            for field in _OF_STREAMS:
                if getattr(topic.settings, field) != getattr(settings, field):
                    raise InvalidTopic(
                        f"{field}: in RabbitMQ a topic keeps what it was made with; lower the "
                        "limits of its streams by a policy of the broker, or make another topic"
                    )
        except TopicError as error:
            return fail(error)
        return self._changing(name, self._change(topic, settings))

    async def _change(self, topic: StoredTopic, settings: TopicSettings) -> None:
        changed = topic._replace(settings=settings)
        added = self._directory.streams(changed)[topic.settings.partitions :]
        if added:
            await self._broker.make(dict.fromkeys(added, arguments_of(settings)), anew=False)
        await self._store.run(partial(statements.change, topic=topic, settings=settings))
        self._directory.add(changed)

    def delete(self, name: str) -> Deferred[None]:
        """Delete a topic, and then its streams."""
        topic = self._directory.find(name)
        if topic is None:
            return fail(UnknownTopic(name))
        return self._changing(name, self._delete(topic))

    async def _delete(self, topic: StoredTopic) -> None:
        await self._store.run(partial(statements.delete, topic=topic))
        self._leave(topic)
        self._directory.remove(topic)
        await self._delete_streams(topic)

    async def _delete_streams(self, topic: StoredTopic) -> None:
        await self._broker.delete(self._directory.streams(topic), UnknownTopic(topic.name))
        await self._store.run(partial(statements.deleted, key=topic.key))

    # -- batches

    def append(self, appends: Sequence[Append]) -> Deferred[list[int]]:
        """Append batches, each by itself: if one fails, others may be appended."""
        if all(append.stamp is None and append.content is None for append in appends):
            return self._send(
                [
                    BatchToPublish(each.partition, self._new_id(), each.records, each.body, each.at)
                    for each in appends
                ]
            )
        return all_of([self._append_one(append) for append in appends])

    def _append_one(self, append: Append) -> Deferred[int]:
        message_id = self._new_id()
        if append.stamp is not None or append.content is not None:
            return Deferred.fromCoroutine(self._once.publish(append, message_id))
        sent = self._send(
            [BatchToPublish(append.partition, message_id, append.records, append.body, append.at)]
        )
        return sent.addCallback(lambda offsets: offsets[0])

    def _send(self, batches: Sequence[BatchToPublish]) -> Deferred[list[int]]:
        """Publish batches, behind those of earlier calls for which the store is asked first."""
        claiming = self._once.claiming
        if claiming and any(each.partition in claiming for each in batches):
            return Deferred.fromCoroutine(self._once.follow(batches))
        return self._sending.send(batches)

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._start}-{self._count}"

    def _publish_as(
        self, partition: Partition, message_id: str, records: int, body: bytes
    ) -> Deferred[list[int]]:
        return self._sending.send([BatchToPublish(partition, message_id, records, body)])

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, and those behind it."""
        try:
            return self._reading.read(partition, offset, max_bytes)
        except TopicError as error:
            return fail(error)

    def find(self, partition: Partition, at: int) -> Deferred[int]:
        """Return the offset of the first batch appended at a time or later."""
        return Deferred.fromCoroutine(self._reading.find(partition, at))

    def extents(self, name: str) -> Deferred[list[PartitionExtent]]:
        """Return what each partition of a topic holds; the sizes are not known."""
        return Deferred.fromCoroutine(self._reading.extents(name))

    def trim(self, now: float) -> Deferred[int]:
        """Drop nothing: the broker drops what is older or larger than its streams keep."""
        return succeed(0)

    def drop_below(self, partition: Partition, offset: int) -> Deferred[int]:
        """Have nothing below an offset read any more; the broker frees its storage by itself."""
        return Deferred.fromCoroutine(self._drop_below(partition, offset))

    async def _drop_below(self, partition: Partition, offset: int) -> int:
        place = self._directory.place(partition)
        count, low = await self._reading.count_below(partition, offset)
        if count:
            await self._store.run(partial(statements.raise_low, place=place, low=low))
            self._directory.raise_low(place, low)
        return count

    # -- delays

    def delay(self, appends: Sequence[Append], due: int) -> Deferred[list[int]]:
        """Keep batches, and append them at a time or later."""
        try:
            rows = [
                (self._directory.place(each.partition), each.records, each.body)
                for each in map(without_stamp, appends)
            ]
        except (TopicError, ValueError) as error:
            return fail(error)
        work = partial(statements.delay, rows=rows, due=due)
        kept: Deferred[list[int]] = self._store.run_in_order(work)
        return kept

    def append_due(self, now: int) -> Deferred[Mapping[Partition, int]]:
        """Append the batches that are due, and that no other node appends."""
        return Deferred.fromCoroutine(self._delays.publish_due(now))

    def delayed(
        self, topic: str, start: DelayPlace = FIRST_DELAY, limit: int | None = None
    ) -> Deferred[Sequence[DelayedBatch]]:
        """Return the batches of a topic that are not due yet."""
        stored = self._directory.find(topic)
        if stored is None:
            return fail(UnknownTopic(topic))
        found: Deferred[Sequence[DelayedBatch]] = self._store.run(
            partial(statements.delayed, topic=stored, start=start, limit=limit)
        )
        return found

    def next_due(self) -> Deferred[int | None]:
        """Return when the next batch is due."""
        found: Deferred[int | None] = self._store.run(statements.next_due)
        return found

    def cancel(self, topic: str, delay_id: int) -> Deferred[bool]:
        """Forget a delayed batch of a topic."""
        stored = self._directory.find(topic)
        if stored is None:
            return fail(UnknownTopic(topic))
        gone: Deferred[bool] = self._store.run(
            partial(statements.cancel, topic=stored, delay_id=delay_id)
        )
        return gone

    # -- groups

    def commit(self, group: str, positions: Mapping[Partition, int]) -> Deferred[None]:
        """Save the offsets that a group reads next, all or none.

        Fails with :class:`WrongNode` if another node leads the group, or did so since this node
        was asked to.
        """
        try:
            for each in positions:
                self._directory.place(each)
        except TopicError as error:
            return fail(error)
        if not positions:
            return succeed(None)
        return self._fenced(
            group,
            lambda fence: partial(
                statements.commit_positions, group=group, positions=positions, fence=fence
            ),
        )

    def forget_group(self, group: str) -> Deferred[None]:
        """Forget the offsets that a group has saved."""
        return self._fenced(
            group, lambda fence: partial(statements.forget_group, group=group, fence=fence)
        )

    def _fenced(self, group: str, work: Callable[[Any], Any]) -> Deferred[None]:
        """Do some work for a group that this node leads, in the term of now."""
        leases = self.leases
        if not isinstance(leases, StoreLeases):
            done: Deferred[None] = self._store.run_in_order(work(None))
            return done
        fence = leases.fence(group) if leases.has_term(group) else None
        return Deferred.fromCoroutine(self._do_fenced(leases, group, work, fence))

    async def _do_fenced(
        self, leases: StoreLeases, group: str, work: Callable[[Any], Any], fence: Any
    ) -> None:
        if fence is None:
            await leases.hold(group)
            fence = leases.fence(group)
        try:
            await self._store.run_in_order(work(fence))
        except LeaseLost:
            leases.lose(group)
            leader = await self._store.run(partial(statements.leader, group=group))
            raise WrongNode(group, leader) from None

    def committed(self, group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the offsets that a group has saved."""
        found: Deferred[Mapping[Partition, int]] = self._store.run(
            partial(statements.committed, group=group)
        )
        return found

    def next_generation(self, group: str) -> Deferred[int]:
        """Return a number above all that the group had."""
        made: Deferred[int] = self._store.run(partial(statements.next_generation, group=group))
        return made

    def groups(self) -> Deferred[Sequence[str]]:
        """Return the names of the groups that have saved anything."""
        found: Deferred[Sequence[str]] = self._store.run(statements.groups)
        return found


__all__ = ["RabbitTopics"]
