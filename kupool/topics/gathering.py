"""Small writes of several calls, gathered to one batch of a partition.

Most calls write one record, and to an engine a batch costs far more than a record. So the writes
of a reactor turn become one batch. While an earlier batch of the partition has no answer, those of
later turns are gathered as well, for a short while. The more is written, the larger the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import TypeVar, overload

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from kupool.topics.batch_maker import PlainWrite
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition

T = TypeVar("T")

#: Seconds that writes are gathered while an earlier batch of the partition has no answer.
PATIENCE = 0.02


class Written(msgspec.Struct, frozen=True, gc=False):
    """Where a record was written."""

    partition: int
    offset: int


class WrittenRange(Sequence[Written]):
    """Where records were written that follow each other in one partition."""

    __slots__ = ("_offsets", "_partition")

    def __init__(self, partition: int, offsets: range) -> None:
        self._partition = partition
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Written]:
        return map(Written, repeat(self._partition), self._offsets)

    @overload
    def __getitem__(self, index: int) -> Written: ...

    @overload
    def __getitem__(self, index: slice) -> WrittenRange: ...

    def __getitem__(self, index: int | slice) -> Written | WrittenRange:
        if isinstance(index, slice):
            return WrittenRange(self._partition, self._offsets[index])
        return Written(self._partition, self._offsets[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash((self._partition, self._offsets))

    def __repr__(self) -> str:
        return repr(list(self))


def places(write: PlainWrite, base: int) -> WrittenRange:
    """Return where the records of a write are, of which the first one has an offset."""
    return WrittenRange(write.partition.number, range(base, base + write.records))


class _GatheredBatch:
    """The writes of a partition that become one batch."""

    __slots__ = ("answers", "partition", "records", "since", "size", "writes")

    def __init__(self, partition: Partition, since: float) -> None:
        self.partition = partition
        self.since = since
        self.writes: list[PlainWrite] = []
        self.answers: list[Deferred[Sequence[Written]]] = []
        self.records = self.size = 0


class GatheredWrites:
    """Appends small writes together, in the order of the calls of each partition.

    ``join`` makes a batch of writes, and ``append`` appends some. ``tell`` is called with each
    partition that has new records. A batch has at most ``most_records``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        join: Callable[[Sequence[PlainWrite]], Append],
        append: Callable[[Sequence[Append]], Deferred[list[int]]],
        tell: Callable[[Partition], object],
        *,
        most_records: int,
    ) -> None:
        self._clock = clock
        self._join = join
        self._append = append
        self._tell = tell
        self._most_records = most_records
        self._gathered: dict[Partition, _GatheredBatch] = {}
        #: The number of batches of each partition that have no answer yet.
        self._under_way: dict[Partition, int] = {}
        self._end_of_turn: IDelayedCall | None = None
        self._patience: IDelayedCall | None = None

    def add(self, write: PlainWrite) -> Deferred[Sequence[Written]]:
        """Write some records; fires with the place of each, as the engine's append does.

        Who gives up the answer takes nothing back.
        """
        gathered, size = self._gathered.get(write.partition), len(write.payload)
        if gathered is not None and (
            gathered.records + write.records > self._most_records
            or gathered.size + size > write.room
        ):
            self._store(write.partition)
            gathered = None
        if gathered is None:
            gathered = self._gathered[write.partition] = _GatheredBatch(
                write.partition, self._clock.seconds()
            )
            if write.partition in self._under_way:
                self._wait(PATIENCE)
            elif self._end_of_turn is None:
                self._end_of_turn = self._clock.callLater(0, self._turn_ended)
        gathered.writes.append(write)
        gathered.records += write.records
        gathered.size += size
        answer: Deferred[Sequence[Written]] = Deferred()
        gathered.answers.append(answer)
        return answer

    def _turn_ended(self) -> None:
        self._end_of_turn = None
        for partition in [each for each in self._gathered if each not in self._under_way]:
            self._store(partition)

    def _wait(self, seconds: float) -> None:
        if self._patience is None:
            self._patience = self._clock.callLater(seconds, self._waited)

    def _waited(self) -> None:
        """Append what was gathered for too long, behind batches that have no answer yet."""
        self._patience = None
        now = self._clock.seconds()
        for gathered in list(self._gathered.values()):
            left = gathered.since + PATIENCE - now
            if left > 0:
                self._wait(left)  # they are in the order of their beginnings
                return
            self._store(gathered.partition)

    def store(self) -> None:
        """Append now what was gathered, for instance since something follows it."""
        for partition in list(self._gathered):
            self._store(partition)

    def _store(self, partition: Partition) -> None:
        gathered = self._gathered.pop(partition)
        batch = self._join(gathered.writes)
        self._under_way[partition] = self._under_way.get(partition, 0) + 1
        appended = self._append([batch])
        appended.addBoth(self._answered, gathered).addCallbacks(
            self._stored, self._failed, callbackArgs=(gathered,), errbackArgs=(gathered,)
        )

    def _answered(self, result: T, gathered: _GatheredBatch) -> T:
        partition = gathered.partition
        left = self._under_way[partition] - 1
        if left:
            self._under_way[partition] = left
        else:
            del self._under_way[partition]
            if partition in self._gathered and self._end_of_turn is None:
                # The answer may bring more to write.
                self._end_of_turn = self._clock.callLater(0, self._turn_ended)
        return result

    def _stored(self, bases: Sequence[int], gathered: _GatheredBatch) -> None:
        (base,) = bases
        self._tell(gathered.partition)
        for write, answer in zip(gathered.writes, gathered.answers, strict=True):
            answer.callback(places(write, base))
            base += write.records

    def _failed(self, failure: Failure, gathered: _GatheredBatch) -> None:
        for answer in gathered.answers:
            answer.errback(failure)


__all__ = ["GatheredWrites", "Written", "places"]
