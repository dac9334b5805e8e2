"""``kupool log fetch`` and ``kupool log replay``: print the records that a topic has."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple

from twisted.internet.task import deferLater

from kupool.commands.api import ApiClient
from kupool.commands.api_flags import add_api_parser
from kupool.commands.partition_reader import (
    PartitionReader,
    add_skip_unreadable,
    partitions_of,
)
from kupool.commands.places import PLACES, milliseconds, place
from kupool.commands.progress import ShownProgress, shown_progress
from kupool.commands.record_lines import RecordLines, add_record_flags


def add_reading(actions: Any) -> None:
    """Add the actions."""
    fetch = add_api_parser(actions, "fetch", "print records, one partition after the other", _fetch)
    fetch.add_argument("topic")
    starts = fetch.add_mutually_exclusive_group()
    _add_from(starts)
    starts.add_argument(
        "--group", metavar="NAME", help="begin where this group reads next; it stays there"
    )
    _add_partition(fetch)
    fetch.add_argument(
        "--limit", type=int, default=100, metavar="N", help="most records; 0: no limit [100]"
    )
    add_record_flags(fetch)
    replay = add_api_parser(
        actions,
        "replay",
        "print the records of all partitions in the order of their times, with the pauses "
        "between them",
        _replay,
    )
    replay.add_argument("topic")
    _add_from(replay)
    replay.add_argument(
        "--to", type=milliseconds, metavar="TIME", help="end before this time [what is there now]"
    )
    replay.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="so many times as fast as they were written, or max: without pauses [1]",
    )
    _add_partition(replay)
    add_record_flags(replay)


def _add_from(parser: Any) -> None:
    parser.add_argument(
        "--from",
        dest="start",
        type=place,
        default={"at": "earliest"},
        metavar="PLACE",
        help=f"{PLACES} [earliest]",
    )


def _add_partition(parser: Any) -> None:
    parser.add_argument("--partition", type=int, metavar="N", help="only this one [all]")
    add_skip_unreadable(parser)


def _speed(text: str) -> float:
    try:
        speed = inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither max nor a number above 0")
    return speed


class _Stored:
    """What a partition held when its reading began; yields it, whatever is written meanwhile."""

    def __init__(self, reader: PartitionReader) -> None:
        self._reader = reader
        self._end: int | None = None

    @property
    def partition(self) -> int:
        """The number of the partition."""
        return self._reader.partition

    @property
    def part(self) -> float:
        """How much of it was read, from 0 to 1."""
        if self._end is None:
            return 0.0
        whole = self._end - self._reader.first
        return 1.0 if whole <= 0 else min(1.0, (self._reader.next - self._reader.first) / whole)

    async def fetch(self) -> Sequence[Mapping[str, Any]]:
        """Return the next records; none at the end."""
        if self._end is not None and self._reader.next >= self._end:
            return []
        records = await self._reader.fetch()
        if self._end is None:
            self._end = self._reader.high
        return [each for each in records if each["offset"] < self._end]


async def _stored(
    arguments: argparse.Namespace, api: ApiClient, start: Mapping[str, object]
) -> list[_Stored]:
    numbers = await partitions_of(api, arguments.topic, arguments.partition)
    skip = arguments.skip_unreadable
    return [
        _Stored(PartitionReader(api, arguments.topic, number, start, skip_unreadable=skip))
        for number in numbers
    ]


@contextmanager
def _bar() -> Iterator[ShownProgress]:
    """Show a progress bar, unless the records go to the same terminal."""
    if sys.stdout.isatty():
        yield lambda what, part: None
    else:
        with shown_progress() as tell:
            yield tell


async def _fetch(arguments: argparse.Namespace, api: ApiClient) -> int:
    start = {"group": arguments.group} if arguments.group else arguments.start
    lines = RecordLines(arguments)
    left = arguments.limit or inf
    with _bar() as tell:
        partitions = await _stored(arguments, api, start)
        for number, partition in enumerate(partitions):
            while left > 0 and (records := await partition.fetch()):
                for record in records[: int(min(left, len(records)))]:
                    lines.print(partition.partition, record)
                    left -= 1
                tell(f"Reading {arguments.topic}", (number + partition.part) / len(partitions))
    return 0


class _Timed(NamedTuple):
    """A record of a partition."""

    partition: int
    record: Mapping[str, Any]


class _Merged:
    """The records of several partitions in the order of their times."""

    def __init__(self, partitions: Sequence[_Stored]) -> None:
        self._partitions = partitions
        self._buffers: list[deque[Mapping[str, Any]]] = [deque() for _ in partitions]

    @property
    def part(self) -> float:
        """How much was read, from 0 to 1."""
        return sum(each.part for each in self._partitions) / max(1, len(self._partitions))

    async def records(self) -> AsyncIterator[_Timed]:
        """Yield all records; those of a partition in its order."""
        going = dict(enumerate(self._partitions))
        while going:
            for index, partition in list(going.items()):
                if not self._buffers[index]:
                    self._buffers[index].extend(await partition.fetch())
                    if not self._buffers[index]:
                        del going[index]
            if going:
                first = min(going, key=lambda index: self._buffers[index][0]["timestamp"])
                yield _Timed(going[first].partition, self._buffers[first].popleft())


async def _replay(arguments: argparse.Namespace, api: ApiClient) -> int:
    lines = RecordLines(arguments)
    merged = _Merged(await _stored(arguments, api, arguments.start))
    clock = api.reactor
    began: tuple[float, int] | None = None
    with _bar() as tell:
        async for partition, record in merged.records():
            at = record["timestamp"]
            if arguments.to is not None and at >= arguments.to:
                continue
            if began is None:
                began = clock.seconds(), at
            due = began[0] + (at - began[1]) / 1000 / arguments.speed
            if due > clock.seconds():
                await deferLater(clock, due - clock.seconds())
            lines.print(partition, record)
            tell(f"Replaying {arguments.topic}", merged.part)
    return 0


__all__ = ["add_reading"]
