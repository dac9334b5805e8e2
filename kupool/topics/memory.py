"""Topics in memory, for tests and trials. They are lost with the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from kupool.topics.errors import (
    OffsetOutOfRange,
    SequenceTooOld,
    TopicError,
    TopicExists,
    TopicsUnavailable,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.interfaces import (
    FIRST_DELAY,
    REMEMBERED,
    Append,
    Capabilities,
    Content,
    DelayedBatch,
    DelayPlace,
    ITopicEngine,
    PartitionExtent,
    StoredBatch,
    without_stamp,
)
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp
from kupool.topics.settings import TopicSettings, check_change

#: Bytes of a batch besides its body: the objects that hold it.
BATCH_BYTES = 250

#: What is wrong when the memory is used up.
FULL = "the memory of topics is full: raise it, or let topics keep less"


class _Sequence:
    """The batches of one partition."""

    def __init__(self) -> None:
        self.batches: list[StoredBatch] = []
        self.next = 0
        #: The bytes of its bodies, and those that it takes.
        self.bytes = self.size = 0
        self.newest_at = 0
        #: Offsets below which everything was there at a time of the clock of ages, oldest first.
        self.ages: list[tuple[int, float]] = []
        #: Producer -> sequence -> offset, for the newest batches.
        self.stamps: dict[str, dict[int, int]] = {}
        #: The hash of a content -> offset and time of its batch, oldest first.
        self.contents: dict[bytes, tuple[int, int]] = {}
        #: The oldest offset that can be read.
        self.low = 0
        #: The hash of a key -> offset of its last batch, and whether that is passing.
        self.newest_of_keys: dict[bytes, tuple[int, bool]] = {}
        #: The offsets of batches that later ones have replaced.
        self.replaced: set[int] = set()

    def known(self, stamp: Stamp | None) -> int | None:
        """Return the offset of a batch that was appended before; None if it is new."""
        if stamp is None:
            return None
        sent = self.stamps.get(stamp.producer, {})
        if stamp.sequence in sent:
            return sent[stamp.sequence]
        if len(sent) >= REMEMBERED and stamp.sequence < min(sent):
            raise SequenceTooOld(*stamp, min(sent))
        return None

    def append(self, append: Append, now: int) -> int:
        """Append a batch, unless it was before; returns its offset."""
        known = self.known(append.stamp)
        if known is not None:
            return known
        self.newest_at = max(self.newest_at, now if append.at is None else append.at)
        base = None if append.content is None else self._with(append.content)
        if base is None:
            base = self._append(append)
        if append.stamp is not None:
            sent = self.stamps.setdefault(append.stamp.producer, {})
            sent[append.stamp.sequence] = base
            if len(sent) > REMEMBERED:
                del sent[min(sent)]
        return base

    def _with(self, content: Content) -> int | None:
        """Return the offset of a batch with the same content that is new enough."""
        for digest, (base, at) in list(self.contents.items()):
            too_many = content.window and self.next - base > content.window
            if too_many or (content.seconds and self.newest_at - at > content.seconds * 1000):
                del self.contents[digest]
            else:
                break  # those behind it are newer
        found = self.contents.get(content.hash)
        return None if found is None else found[0]

    def _append(self, append: Append) -> int:
        base, self.next = self.next, self.next + append.records
        if append.content is not None:
            self.contents[append.content.hash] = (base, self.newest_at)
        if append.key is not None:
            before = self.newest_of_keys.get(append.key.hash)
            if before is not None:
                self.replaced.add(before[0])
            self.newest_of_keys[append.key.hash] = (base, append.key.passing)
        self.batches.append(StoredBatch(base, append.records, self.newest_at, append.body))
        self.bytes += len(append.body)
        self.size += len(append.body) + BATCH_BYTES
        return base

    def drop_below(self, offset: int) -> int:
        """Drop what ends below an offset, or at it; returns how many records."""
        ends = bisect_right(self.batches, offset, key=lambda batch: batch.base + batch.records)
        return self._drop_oldest(ends)

    def _drop_oldest(self, count: int) -> int:
        """Drop so many of the oldest batches; returns how many records."""
        if not count:
            return 0
        dropped = self.batches[:count]
        del self.batches[:count]
        self.low = self.batches[0].base if self.batches else self.next
        return self._forget(dropped)

    def _forget(self, dropped: Sequence[StoredBatch]) -> int:
        """Count batches as gone; returns how many records."""
        size = sum(len(batch.body) for batch in dropped)
        self.bytes -= size
        self.size -= size + len(dropped) * BATCH_BYTES
        if self.newest_of_keys:
            gone = {batch.base for batch in dropped}
            self.replaced -= gone
            for key in [key for key, (base, _) in self.newest_of_keys.items() if base in gone]:
                del self.newest_of_keys[key]
        return sum(batch.records for batch in dropped)

    def trim(self, settings: TopicSettings, age: float) -> int:
        """Drop what is due; returns how many records. The newest batch stays."""
        if self.batches and (not self.ages or self.ages[-1][0] < self.next):
            self.ages.append((self.next, age))
        before = age - settings.retention_time if settings.retention_time else -inf
        old = max((offset for offset, at in self.ages if at <= before), default=0)
        records = self._compact(old) if settings.compacts else self._expire(settings, old)
        useful = [each for each in self.ages if each[0] > self.low and each[0] >= old]
        self.ages = useful or self.ages[-1:]
        return records

    def _expire(self, settings: TopicSettings, old: int) -> int:
        """Drop the oldest batches: those below the offset ``old``, and those above the size."""
        excess = self.bytes - settings.retention_bytes if settings.retention_bytes else 0
        size = count = 0
        for batch in self.batches[:-1]:
            if batch.base >= old and size >= excess:
                break
            size, count = size + len(batch.body), count + 1
        return self._drop_oldest(count)

    def _compact(self, old: int) -> int:
        """Drop what was replaced, and what is passing below the offset ``old``."""
        gone = self.replaced.union(
            base for base, passing in self.newest_of_keys.values() if passing and base < old
        )
        if self.batches:
            gone.discard(self.batches[-1].base)
        if not gone:
            return 0
        dropped = [batch for batch in self.batches if batch.base in gone]
        self.batches = [batch for batch in self.batches if batch.base not in gone]
        return self._forget(dropped)


@implementer(ITopicEngine)
class MemoryTopics:
    """Keeps up to ``capacity`` bytes of batches, with :data:`BATCH_BYTES` added for each.

    If they are used up, nothing is appended until a trim makes room. ``wall`` returns seconds
    since the epoch.
    """

    name = "memory"
    capabilities = Capabilities(dense=True, atomic=True, persistent=False)

    def __init__(self, wall: Callable[[], float], capacity: int = 256 * 1024 * 1024) -> None:
        self._wall = wall
        self._capacity = capacity
        self._settings: dict[str, TopicSettings] = {}
        self._partitions: dict[str, list[_Sequence]] = {}
        #: How many topics were created, and which of them each one is.
        self._created = 0
        self._numbers: dict[str, int] = {}
        self._positions: dict[str, dict[Partition, int]] = {}
        self._generations: dict[str, int] = {}
        #: The ids of delayed batches, with the time at which each is due.
        self._delayed: dict[int, tuple[int, Append]] = {}
        self._delays = 0
        self._age = 0.0
        self._trimmed_at: float | None = None
        self._full = False
        #: The bytes of all partitions, or more.
        self._most = 0

    def open(self) -> Deferred[None]:
        """Prepare the engine."""
        return succeed(None)

    def watch(self, told: Callable[[Partition], object]) -> None:
        """Do nothing: there are no other nodes."""

    def topics(self) -> Mapping[str, TopicSettings]:
        """Return the topics by name."""
        return dict(self._settings)

    def topic(self, name: str) -> TopicSettings | None:
        """Return the settings of a topic; None if there is no such topic."""
        return self._settings.get(name)

    def identity(self, name: str) -> str:
        """Return the number of a topic."""
        number = self._numbers.get(name)
        return "" if number is None else str(number)

    def create(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Create a topic; fails with :class:`TopicExists`."""
        if name in self._settings:
            return fail(TopicExists(name))
        self._settings[name] = settings
        self._created += 1
        self._numbers[name] = self._created
        self._partitions[name] = [_Sequence() for _ in range(settings.partitions)]
        return succeed(None)

    def change(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Change the settings of a topic; partitions may be added."""
        try:
            partitions = self._of(name)
            check_change(self._settings[name], settings)
        except TopicError as error:
            return fail(error)
        self._settings[name] = settings
        partitions += [_Sequence() for _ in range(settings.partitions - len(partitions))]
        return succeed(None)

    def delete(self, name: str) -> Deferred[None]:
        """Delete a topic with all that it holds."""
        if self._settings.pop(name, None) is None:
            return fail(UnknownTopic(name))
        del self._partitions[name], self._numbers[name]
        self._delayed = {k: v for k, v in self._delayed.items() if v[1].partition.topic != name}
        for positions in self._positions.values():
            for partition in [each for each in positions if each.topic == name]:
                del positions[partition]
        return succeed(None)

    def append(self, appends: Sequence[Append]) -> Deferred[list[int]]:
        """Append batches, all or none."""
        try:
            found = [(self._at(each.partition), each) for each in appends]
            for sequence, each in found:
                sequence.known(each.stamp)
            self._take_room(appends)
        except TopicError as error:
            return fail(error)
        now = int(self._wall() * 1000)
        return succeed([sequence.append(each, now) for sequence, each in found])

    def _take_room(self, appends: Sequence[Append]) -> None:
        """Count batches that come; raises :class:`TopicsUnavailable` if there is no room."""
        size = sum(len(each.body) + BATCH_BYTES for each in appends)
        # Looked at only when it may be too much: partitions have become smaller meanwhile.
        self._most += size
        if self._most > self._capacity:
            self._most = self._size() + size
        self._full = self._most > self._capacity
        if self._full:
            raise TopicsUnavailable(FULL)

    def _size(self) -> int:
        kept = sum(sequence.size for found in self._partitions.values() for sequence in found)
        delayed = sum(len(each.body) + BATCH_BYTES for _, each in self._delayed.values())
        return kept + delayed

    def _of(self, name: str) -> list[_Sequence]:
        if name not in self._partitions:
            raise UnknownTopic(name)
        return self._partitions[name]

    def _at(self, partition: Partition) -> _Sequence:
        sequences = self._of(partition.topic)
        if not 0 <= partition.number < len(sequences):
            raise UnknownPartition(*partition, len(sequences))
        return sequences[partition.number]

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, and those behind it."""
        try:
            sequence = self._at(partition)
            if offset < sequence.low:
                raise OffsetOutOfRange(*partition, offset, low=sequence.low, high=sequence.next)
        except TopicError as error:
            return fail(error)
        if offset >= sequence.next:
            return succeed([])
        start = bisect_right(sequence.batches, offset, key=lambda batch: batch.base) - 1
        if start < 0 or sequence.batches[start].base + sequence.batches[start].records <= offset:
            start += 1  # compaction dropped the batch of this offset
        found: list[StoredBatch] = []
        for batch in sequence.batches[start:]:
            max_bytes -= len(batch.body)
            if max_bytes < 0 and found:
                break
            found.append(batch)
        return succeed(found)

    def find(self, partition: Partition, at: int) -> Deferred[int]:
        """Return the offset of the first batch appended at a time or later."""
        try:
            sequence = self._at(partition)
        except TopicError as error:
            return fail(error)
        place = bisect_left(sequence.batches, at, key=lambda batch: batch.at)
        if place == len(sequence.batches):
            return succeed(sequence.next)
        return succeed(sequence.batches[place].base)

    def extents(self, name: str) -> Deferred[list[PartitionExtent]]:
        """Return what each partition of a topic holds."""
        try:
            sequences = self._of(name)
        except TopicError as error:
            return fail(error)
        return succeed([PartitionExtent(each.low, each.next, each.bytes) for each in sequences])

    def trim(self, now: float) -> Deferred[int]:
        """Drop what is older or larger than the topics keep."""
        if self._trimmed_at is not None:
            self._age += max(0.0, now - self._trimmed_at)
        self._trimmed_at = now
        self._full = False
        return succeed(
            sum(
                sequence.trim(self._settings[name], self._age)
                for name, sequences in self._partitions.items()
                for sequence in sequences
            )
        )

    def drop_below(self, partition: Partition, offset: int) -> Deferred[int]:
        """Drop the batches that end below an offset, or at it."""
        try:
            sequence = self._at(partition)
        except TopicError as error:
            return fail(error)
        self._full = False
        return succeed(sequence.drop_below(offset))

    def delay(self, appends: Sequence[Append], due: int) -> Deferred[list[int]]:
        """Keep batches, and append them at a time or later."""
        try:
            for append in appends:
                self._at(without_stamp(append).partition)
            self._take_room(appends)
        except (TopicError, ValueError) as error:
            return fail(error)
        ids = []
        for append in appends:
            self._delays += 1
            self._delayed[self._delays] = (due, append)
            ids.append(self._delays)
        return succeed(ids)

    def append_due(self, now: int) -> Deferred[Mapping[Partition, int]]:
        """Append the batches that are due."""
        due = sorted((at, each) for each, (at, _) in self._delayed.items() if at <= now)
        found: Counter[Partition] = Counter()
        for _, delay_id in due:
            append = self._delayed.pop(delay_id)[1]
            self._at(append.partition).append(append, now)
            found[append.partition] += append.records
        return succeed(found)

    def delayed(
        self, topic: str, start: DelayPlace = FIRST_DELAY, limit: int | None = None
    ) -> Deferred[Sequence[DelayedBatch]]:
        """Return the batches of a topic that are not due yet."""
        if topic not in self._settings:
            return fail(UnknownTopic(topic))
        places = sorted(
            DelayPlace(due, delay_id)
            for delay_id, (due, append) in self._delayed.items()
            if append.partition.topic == topic and (due, delay_id) >= start
        )
        found = []
        for due, delay_id in places[:limit]:
            append = self._delayed[delay_id][1]
            found.append(DelayedBatch(delay_id, due, append.partition, append.records))
        return succeed(found)

    def next_due(self) -> Deferred[int | None]:
        """Return when the next batch is due."""
        return succeed(min((due for due, _ in self._delayed.values()), default=None))

    def cancel(self, topic: str, delay_id: int) -> Deferred[bool]:
        """Forget a delayed batch of a topic."""
        if topic not in self._settings:
            return fail(UnknownTopic(topic))
        known = delay_id in self._delayed and self._delayed[delay_id][1].partition.topic == topic
        return succeed(known and self._delayed.pop(delay_id, None) is not None)

    def commit(self, group: str, positions: Mapping[Partition, int]) -> Deferred[None]:
        """Save the offsets that a group reads next, all or none."""
        try:
            for partition in positions:
                self._at(partition)
        except TopicError as error:
            return fail(error)
        if positions:
            self._positions.setdefault(group, {}).update(positions)
        return succeed(None)

    def committed(self, group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the offsets that a group has saved."""
        return succeed(dict(self._positions.get(group, {})))

    def next_generation(self, group: str) -> Deferred[int]:
        """Return a number above all that the group had."""
        self._generations[group] = self._generations.get(group, 0) + 1
        return succeed(self._generations[group])

    def groups(self) -> Deferred[Sequence[str]]:
        """Return the names of the groups that have saved anything."""
        return succeed(sorted(name for name, found in self._positions.items() if found))

    def forget_group(self, group: str) -> Deferred[None]:
        """Forget the offsets that a group has saved."""
        self._positions.pop(group, None)
        return succeed(None)

    def problem(self) -> str:
        """Return why nothing can be stored now; empty if it can."""
        return FULL if self._full else ""

    def close(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


__all__ = ["BATCH_BYTES", "MemoryTopics"]
