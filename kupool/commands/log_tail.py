"""``kupool log tail``: print the last records of a topic, and with ``-f`` each new one."""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults

from kupool.commands.api import ApiClient, ApiRefused
from kupool.commands.api_flags import add_api_parser
from kupool.commands.console import complain
from kupool.commands.partition_reader import (
    PartitionReader,
    add_skip_unreadable,
    is_unreadable,
    partitions_of,
)
from kupool.commands.record_lines import RecordLines, add_record_flags
from kupool.commands.retrying import Retrying
from kupool.commands.running import PipeReaderWatch

#: The most requests that wait for records at once.
POLLS = 16

#: Milliseconds for which a request waits: where each partition has one, and where they share them.
LONG_POLL = 25_000
SHORT_POLL = 500

#: The status of an answer about an offset that was dropped.
_OUT_OF_RANGE = 416

_LOW = re.compile(r"low=(\d{1,18})")


def add_tail(actions: Any) -> None:
    """Add the action."""
    parser = add_api_parser(
        actions, "tail", "print the last records, and with -f all that come", _tail
    )
    parser.add_argument("topic")
    parser.add_argument(
        "-n", dest="last", type=int, default=10, metavar="N", help="how many of the last ones [10]"
    )
    parser.add_argument("-f", dest="follow", action="store_true", help="go on with new ones")
    parser.add_argument("--partition", type=int, metavar="N", help="only this one [all]")
    add_skip_unreadable(parser)
    add_record_flags(parser)


async def _tail(arguments: argparse.Namespace, api: ApiClient) -> int:
    lines = RecordLines(arguments)
    numbers = await partitions_of(api, arguments.topic, arguments.partition)
    latest = await api.read("log.offsets", {"topic": arguments.topic, "at": "latest"})
    oldest = await api.read("log.offsets", {"topic": arguments.topic, "at": "earliest"})
    capabilities = await api.read("log.capabilities", {})
    # An offset has a place for each record that a batch may have.
    back = max(0, arguments.last) * int(capabilities.get("stride", 1))
    readers, last = [], []
    for number in numbers:
        if number >= len(latest["offsets"]):
            raise ApiRefused(404, f"topic {arguments.topic} has no partition {number}")
        high = latest["offsets"][number]
        low = oldest["offsets"][number]
        reader = PartitionReader(
            api,
            arguments.topic,
            number,
            {"offset": max(low, high - back)},
            skip_unreadable=arguments.skip_unreadable,
        )
        if back:
            last += await _last_of(reader, high, arguments.last)
        readers.append(reader)
    last.sort(key=lambda each: (each[1]["timestamp"], each[0], each[1]["offset"]))
    for partition, record in last[max(0, len(last) - arguments.last) :] if back else ():
        lines.print(partition, record)
    if arguments.follow:
        await _Following(api.reactor, lines, readers).run()
        return 1  # no partition can be read on
    return 0


async def _last_of(
    reader: PartitionReader, end: int, count: int
) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the last records of a partition below an offset; the reader goes on at it."""
    kept: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=count)
    records: Sequence[Mapping[str, Any]] = await reader.fetch()
    while records:
        kept += ((reader.partition, each) for each in records if each["offset"] < end)
        if reader.next >= end:
            break
        records = await reader.fetch()
    reader.jump(end)
    return list(kept)


class _Following:
    """Prints what is written to some partitions, from where their readers are.

    It reads on when the daemon was away, and beyond records that were dropped before they were
    read. It ends when each partition has come to a batch that cannot be read, and when nobody reads
    standard output any more.
    """

    def __init__(
        self, reactor: Any, lines: RecordLines, readers: Sequence[PartitionReader]
    ) -> None:
        self._reactor = reactor
        self._lines = lines
        #: Partitions that no request reads now; the one that has waited longest is the first.
        self._idle = deque(readers)
        self._polls = min(POLLS, len(readers))
        self._wait = LONG_POLL if len(readers) <= POLLS else SHORT_POLL
        self._retrying = Retrying(reactor)

    async def run(self) -> None:
        """Print until it is cancelled, or nothing can be read on; raises the error that does not
        pass.
        """
        polls = [Deferred.fromCoroutine(self._poll()) for _ in range(self._polls)]
        gone = PipeReaderWatch(self._reactor).gone
        read = gatherResults(polls, consumeErrors=True)
        ends: list[Deferred[Any]] = [read, gone]
        either = DeferredList(
            ends, fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True
        )
        try:
            await either
        except FirstError as error:
            failure = error.subFailure
            if isinstance(failure.value, FirstError):
                failure = failure.value.subFailure
            failure.raiseException()
        finally:
            for each in (*polls, gone):
                each.cancel()

    async def _poll(self) -> None:
        while self._idle:
            reader = self._idle.popleft()
            try:
                records = await self._retrying.call(partial(self._fetch, reader))
            except ApiRefused as error:
                if not is_unreadable(error):
                    raise
                complain(f"{error}; the partition is not read on (see --skip-unreadable)")
                continue
            for record in records:
                self._lines.print(reader.partition, record)
            self._idle.append(reader)

    async def _fetch(self, reader: PartitionReader) -> Sequence[Mapping[str, Any]]:
        try:
            return await reader.fetch(self._wait)
        except ApiRefused as error:
            low = _LOW.search(error.text)
            if error.status != _OUT_OF_RANGE or low is None:
                raise
            complain(
                f"partition {reader.partition}: records before offset {low[1]} were dropped "
                "before they were read"
            )
            reader.jump(int(low[1]))
            return []


__all__ = ["add_tail"]
