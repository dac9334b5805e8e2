"""A member of a consumer group: reads its partitions, and commits what was processed.

It joins the group, sends heartbeats, and reads each partition that it is assigned from the
committed offset on. The handler gets one record at a time of each key, and ``workers`` at a time in
all. A record whose handler fails is tried again after a delay. After the last attempt the function
``give_away`` gets it: see :meth:`kupool.topics.dead_letters.DeadLetters.give_away`. Offsets are
committed while it runs, and before a partition is given back. A record may be processed twice,
after a crash or if the session timed out; none is left out.

A batch that cannot be read ends the reading of its partition: the log and ``unreadable`` are told
once, the records before it are processed, and other partitions go on. It is never left out, unless
:meth:`GroupConsumer.skip` says so.

Where topics are is hidden behind :class:`IGroupClient`: in this process, or at a server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from kupool.callbacks import called
from kupool.timing.doubling import Doubling
from kupool.timing.progress import ContiguousProgress
from kupool.timing.waiting import UnderWay, Waiters
from kupool.topics.errors import (
    IllegalGeneration,
    OffsetOutOfRange,
    UnknownMember,
    UnreadableBatch,
)
from kupool.topics.lanes import DeliveredRecord, KeyLanes
from kupool.topics.membership import GroupSubscription, MemberBeat, MemberPlace
from kupool.topics.partition import Partition
from kupool.topics.service import Fetched

#: Seconds before something is tried again that failed.
_RETRIES = Doubling(0.1, 10.0)


class IGroupClient(Interface):
    """What a consumer asks of topics and groups; every call returns a Deferred."""

    def join(group: str, member_id: str, subscription: GroupSubscription) -> Deferred[MemberPlace]:
        """Add a member to a group."""

    def leave(group: str, member_id: str) -> Deferred[None]:
        """Remove a member from a group."""

    def heartbeat(group: str, member_id: str, beat: MemberBeat) -> Deferred[MemberPlace]:
        """Keep a member alive."""

    def commit(
        group: str, member_id: str, generation: int, positions: Mapping[Partition, int]
    ) -> Deferred[None]:
        """Save offsets."""

    def committed(group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the saved offsets."""

    def fetch(
        partition: Partition, offset: int, *, max_bytes: int, wait: float
    ) -> Deferred[Fetched]:
        """Read records."""

    def start(partition: Partition, latest: bool) -> Deferred[int]:
        """Return the oldest offset of a partition, or the next one."""


@dataclass(frozen=True)
class MemberSettings:
    """How a consumer works; times are in seconds.

    ``latest`` begins with new records where nothing was committed, instead of the oldest ones.
    ``in_flight`` is the most records that it has read and not processed. A record is tried
    ``attempts`` times, each after twice the time, beginning with ``retry_delay``.
    """

    session_timeout: float = 10.0
    heartbeat_interval: float = 2.0
    commit_interval: float = 1.0
    latest: bool = False
    workers: int = 1
    in_flight: int = 1000
    max_bytes: int = 1024 * 1024
    wait: float = 5.0
    attempts: int = 5
    retry_delay: float = 0.5


class _PartitionReading:
    """A partition that is being read."""

    def __init__(self, progress: ContiguousProgress) -> None:
        self.progress = progress
        self.committed = progress.position
        self.stopped = False
        #: What its loop waits for; it may be cancelled.
        self.waits_for: Deferred[Any] | None = None
        #: The batch before which it stands, as it cannot be read.
        self.before: UnreadableBatch | None = None


#: Gets a record that failed in every attempt, and why; the record counts as processed after it.
GiveAway = Callable[[DeliveredRecord, Failure], Awaitable[object]]


class GroupConsumer:
    """A member of a group; ``handler`` gets each :class:`~kupool.topics.lanes.DeliveredRecord`.

    ``member`` is the name of the group and the id of the member, which is unique in the group.
    ``give_away`` gets what failed in every attempt. ``unreadable`` is called with the error of a
    batch that cannot be read, which has its partition and offset.
    """

    _log = Logger()

    def __init__(
        self,
        client: Any,
        clock: IReactorTime,
        member: tuple[str, str],
        *,
        topics: frozenset[str],
        handler: Callable[[DeliveredRecord], object],
        give_away: GiveAway,
        settings: MemberSettings,
        unreadable: Callable[[UnreadableBatch], object] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._group, self._member_id = member
        self._subscription = GroupSubscription(topics, settings.session_timeout)
        self._handler = handler
        self._give_away = give_away
        self._unreadable = unreadable
        self._settings = settings
        self._generation = 0
        self._readings: dict[Partition, _PartitionReading] = {}
        self._lanes = KeyLanes(settings.workers)
        #: The records of each partition that handlers have.
        self._busy: dict[Partition, int] = {}
        self._under_way = UnderWay()
        #: Those who wait until more may be read.
        self._room: Waiters[None] = Waiters()
        self._paused = self._stopping = False
        self._beating = self._handing_out = False
        self._beat_timer: IDelayedCall | None = None
        self._commit_timer: IDelayedCall | None = None

    @property
    def assigned(self) -> frozenset[Partition]:
        """The partitions that it reads now."""
        return frozenset(each for each, reading in self._readings.items() if not reading.stopped)

    @property
    def in_flight(self) -> int:
        """The number of records that are read and not processed."""
        return self._lanes.running + self._lanes.waiting

    def start(self) -> Deferred[None]:
        """Join the group, and begin; fails with what the group refuses."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        await self._join()
        self._beat_later()
        self._commit_later()

    def pause(self) -> None:
        """Read nothing more until :meth:`resume`; what was read is processed."""
        self._paused = True

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._room.tell(None)

    @property
    def unreadable(self) -> dict[Partition, UnreadableBatch]:
        """The partitions that it does not read on, and the batch before which each stands."""
        return {p: r.before for p, r in self._readings.items() if r.before is not None}

    def skip(self, partition: Partition) -> bool:
        """Leave out the batch before which a partition stands, and read on; returns whether it
        stands before one.

        The offset behind it is committed like any other, once all before it is processed.
        """
        reading = self._readings.get(partition)
        if reading is None or reading.before is None or reading.waits_for is None:
            return False
        skipped, reading.before = reading.before, None
        self._log.warn(
            "Group {group} leaves out the batch at offset {offset} of {partition}",
            group=self._group,
            offset=skipped.offset,
            partition=str(partition),
        )
        reading.progress.skip_to(skipped.next_offset)
        reading.waits_for.callback(None)
        return True

    def stop(self) -> Deferred[None]:
        """Stop: wait for the handlers, commit, and leave the group."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        for partition in list(self._readings):
            self._stop_reading(partition)
        # Heartbeats continue meanwhile: the partitions stay here until their records are processed.
        await self._under_way.finish()
        for timer in (self._beat_timer, self._commit_timer):
            if timer is not None and timer.active():
                timer.cancel()
        try:
            await self._commit_last()
            await self._client.leave(self._group, self._member_id)
        except Exception as error:
            self._log.warn(
                "Member {member} could not leave group {group}: {reason}",
                member=self._member_id,
                group=self._group,
                reason=str(error),
            )
        self._readings.clear()

    async def _commit_last(self) -> None:
        """Commit; if the group has a newer generation, learn it first."""
        try:
            await self._commit()
        except IllegalGeneration:
            beat = MemberBeat(self._generation, frozenset(self._readings))
            await self._take(await self._client.heartbeat(self._group, self._member_id, beat))
            await self._commit()

    # -- membership

    async def _join(self) -> None:
        place = await self._client.join(self._group, self._member_id, self._subscription)
        await self._take(place)

    async def _take(self, place: MemberPlace) -> None:
        """Go by what the group says: begin with new partitions, stop with revoked ones."""
        self._generation = place.generation
        for partition in list(self._readings):
            if partition in place.revoked:
                self._stop_reading(partition)
            elif partition not in place.assigned:
                self._stop_reading(partition)
                del self._readings[partition]
        fresh = [each for each in sorted(place.assigned) if each not in self._readings]
        if not fresh or self._stopping:
            return
        committed = await self._client.committed(self._group)
        for partition in fresh:
            offset = committed.get(partition)
            if offset is None:
                offset = await self._client.start(partition, self._settings.latest)
            if self._stopping or partition in self._readings:
                continue
            reading = self._readings[partition] = _PartitionReading(ContiguousProgress(offset))
            Deferred.fromCoroutine(self._read(partition, reading, offset)).addErrback(
                self._read_failed, partition
            )

    def _read_failed(self, failure: Failure, partition: Partition) -> None:
        self._log.failure("Reading partition {at} has ended", failure, at=str(partition))

    def _stop_reading(self, partition: Partition) -> None:
        reading = self._readings[partition]
        if reading.stopped:
            return
        reading.stopped = True
        self._lanes.drop(partition)
        reading.before = None
        if reading.waits_for is not None:
            reading.waits_for.cancel()
        self._room.tell(None)

    def _beat_later(self, delay: float | None = None) -> None:
        if self._beat_timer is not None and self._beat_timer.active():
            self._beat_timer.cancel()
        seconds = self._settings.heartbeat_interval if delay is None else delay
        self._beat_timer = self._clock.callLater(seconds, self._beat)

    def _beat(self) -> None:
        if self._beating:
            return
        self._beating = True

        def ended(failure: Failure | None) -> None:
            self._beating = False
            if failure is not None:
                self._log.warn(
                    "Heartbeat of member {member} of group {group}: {reason}",
                    member=self._member_id,
                    group=self._group,
                    reason=failure.getErrorMessage(),
                )
            if not self._under_way.finishing or self._busy:
                self._beat_later()

        Deferred.fromCoroutine(self._exchange_beat()).addBoth(ended)

    async def _exchange_beat(self) -> None:
        """Send a heartbeat; partitions without work are committed first, and given back by it."""
        idle = [
            p for p, reading in self._readings.items() if reading.stopped and p not in self._busy
        ]
        try:
            if idle:
                try:
                    await self._commit()
                except IllegalGeneration:
                    idle = []  # the answer tells the new one, and the next heartbeat commits
            holding = frozenset(self._readings) - frozenset(idle)
            place = await self._client.heartbeat(
                self._group, self._member_id, MemberBeat(self._generation, holding)
            )
        except (UnknownMember, IllegalGeneration):  # a generation that never was
            for partition in list(self._readings):
                self._stop_reading(partition)
                del self._readings[partition]
            if not self._stopping:
                await self._join()
            return
        for partition in idle:
            if partition in place.assigned:
                self._readings.pop(partition, None)  # it has come back: it begins anew
        await self._take(place)

    # -- reading

    async def _read(self, partition: Partition, reading: _PartitionReading, offset: int) -> None:
        delay = 0.0
        while not reading.stopped:
            if self._paused or self.in_flight >= self._settings.in_flight:
                await self._room.wait()
                continue
            try:
                fetching = reading.waits_for = self._client.fetch(
                    partition, offset, max_bytes=self._settings.max_bytes, wait=self._settings.wait
                )
                fetched: Fetched = await fetching
            except CancelledError:
                return
            except UnreadableBatch as error:
                if not reading.stopped:
                    await self._skipped(reading, error)
                offset = error.next_offset
                continue
            except OffsetOutOfRange as error:
                self._log.warn(
                    "The consumer goes on at the oldest record: {reason}", reason=str(error)
                )
                offset = error.low
                reading.progress.skip_to(offset)
                continue
            except Exception as error:
                delay = _RETRIES.after(delay)
                self._log.warn(
                    "Partition {partition} cannot be read, trying again in {delay:g} s: {reason}",
                    partition=str(partition),
                    delay=delay,
                    reason=str(error),
                )
                await self._sleep(reading, delay)
                continue
            delay = 0.0
            if reading.stopped:
                return
            for record in fetched.records:
                reading.progress.add(record.offset)
                self._lanes.add(DeliveredRecord(partition, record))
            offset = fetched.next_offset
            self._process()

    async def _skipped(self, reading: _PartitionReading, error: UnreadableBatch) -> None:
        """Tell of a batch that cannot be read; returns when it is left out, or nobody reads on."""
        skipped: Deferred[None] = Deferred()
        reading.waits_for, reading.before = skipped, error
        self._log.error(
            "Group {group} does not read on in {partition}, as a batch cannot be read: {reason}",
            group=self._group,
            partition=str(error.partition),
            reason=str(error),
        )
        if self._unreadable is not None:
            called(self._unreadable, error).addErrback(
                lambda failure: self._log.failure("The callback of an unreadable batch", failure)
            )
        try:
            await skipped
        except CancelledError:
            pass  # the partition was given back

    async def _sleep(self, reading: _PartitionReading, seconds: float) -> None:
        done: Deferred[Any] = Deferred()
        timer = self._clock.callLater(seconds, done.callback, None)
        reading.waits_for = done
        try:
            await done
        except CancelledError:
            timer.cancel()

    # -- processing

    def _process(self) -> None:
        """Hand out the records that may be processed now.

        A handler that is done at once ends in a call from here: that one hands out nothing itself,
        since many of them would be a deep recursion.
        """
        if self._handing_out:
            return
        self._handing_out = True
        try:
            while (delivery := self._lanes.next()) is not None:
                self._busy[delivery.partition] = self._busy.get(delivery.partition, 0) + 1
                self._under_way.begin()
                self._attempt(delivery)
        finally:
            self._handing_out = False

    def _attempt(self, delivery: DeliveredRecord) -> None:
        called(self._handler, delivery).addCallbacks(
            lambda _: self._ended(delivery, settled=True),
            partial(self._failed, delivery),
        ).addErrback(lambda failure: self._log.failure("A record could not be settled", failure))

    def _failed(self, delivery: DeliveredRecord, failure: Failure) -> None:
        reading = self._readings.get(delivery.partition)
        if reading is None or reading.stopped:
            self._ended(delivery, settled=False)  # the next owner gets it
            return
        delay = self._settings.retry_delay * 2 ** (delivery.attempt - 1)
        if delivery.attempt < self._settings.attempts:
            again = delivery._replace(attempt=delivery.attempt + 1)
            self._clock.callLater(delay, self._try_again, again)
            return
        called(self._give_away, delivery, failure).addCallbacks(
            lambda _: self._ended(delivery, settled=True),
            lambda why: self._not_given_away(delivery, why),
        ).addErrback(lambda error: self._log.failure("A record could not be settled", error))

    def _try_again(self, delivery: DeliveredRecord) -> None:
        reading = self._readings.get(delivery.partition)
        if reading is None or reading.stopped:
            self._ended(delivery, settled=False)
        else:
            self._attempt(delivery)

    def _not_given_away(self, delivery: DeliveredRecord, why: Failure) -> None:
        self._log.error(
            "The record at {partition} offset {offset} failed, and could not be kept apart; "
            "trying again: {reason}",
            partition=str(delivery.partition),
            offset=delivery.record.offset,
            reason=why.getErrorMessage(),
        )
        self._clock.callLater(self._settings.retry_delay, self._try_again, delivery)

    def _ended(self, delivery: DeliveredRecord, *, settled: bool) -> None:
        partition = delivery.partition
        reading = self._readings.get(partition)
        if settled and reading is not None:
            reading.progress.settle((delivery.record.offset,))
        self._lanes.done(delivery)
        self._busy[partition] -= 1
        if not self._busy[partition]:
            del self._busy[partition]
            if reading is not None and reading.stopped and not self._stopping:
                self._beat_later(0)  # to give it back
        self._process()
        if self.in_flight < self._settings.in_flight:
            self._room.tell(None)
        self._under_way.end()

    # -- committing

    def _commit_later(self) -> None:
        self._commit_timer = self._clock.callLater(self._settings.commit_interval, self._commit_due)

    def _commit_due(self) -> None:
        def ended(failure: Failure | None) -> None:
            if failure is not None:
                self._log.warn(
                    "Offsets of group {group} could not be saved: {reason}",
                    group=self._group,
                    reason=failure.getErrorMessage(),
                )
            if self._under_way.finishing:
                return
            if failure is not None and failure.check(IllegalGeneration, UnknownMember):
                self._beat_later(0)
            self._commit_later()

        Deferred.fromCoroutine(self._commit()).addBoth(ended)

    async def _commit(self) -> None:
        """Save the offsets of all partitions that have gone on."""
        positions = {
            partition: reading.progress.position
            for partition, reading in self._readings.items()
            if reading.progress.position != reading.committed
        }
        if not positions:
            return
        await self._client.commit(self._group, self._member_id, self._generation, positions)
        for partition, position in positions.items():
            reading = self._readings.get(partition)
            if reading is not None:
                reading.committed = position


__all__ = ["GiveAway", "GroupConsumer", "IGroupClient", "MemberSettings"]
