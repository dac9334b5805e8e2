"""What is in a stream before its end: read in parts, with some more than was asked for."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from kupool.amqp.streams import MOST_FETCHED, StreamFetcher, offset_of
from kupool.topics.interfaces import StoredBatch
from kupool.topics.rabbit.entries import STRIDE, StreamEntry, entry_of
from kupool.topics.rabbit.tail import REMEMBERED_IDS, read_from

#: The bytes to fetch for a reader that reads on and on.
AHEAD = 4 * 1024 * 1024

#: The least messages to fetch: each fetch costs some round trips.
LEAST = 16

#: The size of a batch, as long as none of its stream was read.
_USUAL = 16 * 1024

#: Verdicts on repeated batches that are remembered.
_VERDICTS = 10_000


class _Run(NamedTuple):
    """The batches from one position up to, but without, another."""

    start: int
    end: int
    batches: list[StoredBatch]
    size: int


class StreamHistory:
    """Reads streams, and keeps up to ``room`` bytes of what it read ahead."""

    def __init__(self, fetcher: StreamFetcher, room: int) -> None:
        self._fetcher = fetcher
        self._room = room
        #: By stream and start, those that were used last last.
        self._runs: OrderedDict[tuple[str, int], _Run] = OrderedDict()
        self._bytes = 0
        #: Stream -> the mean size of its batches.
        self._sizes: dict[str, float] = {}
        #: Stream and position of a repeated batch -> whether it is there before, too.
        self._copies: OrderedDict[tuple[str, int], bool] = OrderedDict()

    def forget(self, stream: str) -> None:
        """Forget what was read of a stream."""
        for key in [key for key in self._runs if key[0] == stream]:
            self._bytes -= self._runs.pop(key).size
        for key in [key for key in self._copies if key[0] == stream]:
            del self._copies[key]
        self._sizes.pop(stream, None)

    async def read(self, stream: str, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Return the batch that holds an offset, or the next one, and those behind it.

        Up to ``max_bytes``, at least one; none only at the end. Raises as
        :meth:`StreamFetcher.fetch` does.
        """
        while True:
            position, onward = offset // STRIDE, False
            for (name, start), run in self._runs.items():
                if name == stream and start <= position < run.end:
                    self._runs.move_to_end((name, start))
                    found = read_from(run.batches, offset, max_bytes)
                    if found:
                        return found
                    offset, onward = max(offset + 1, run.end * STRIDE), True
                    break
                onward = onward or (name == stream and position == run.end)
            else:
                if not await self._fetch(stream, position, max(max_bytes, onward and AHEAD)):
                    return []

    async def _fetch(self, stream: str, position: int, size: int) -> bool:
        """Fetch batches from a position on; returns whether there are any."""
        limit = max(LEAST, int(size / self._sizes.get(stream, _USUAL)) + 1)
        entries = await self.entries(stream, position, limit)
        if not entries:
            return False
        total = sum(entry.size for entry in entries)
        self._sizes[stream] = max(1.0, total / len(entries))
        copies = await self._find_copies(stream, entries)
        run = _Run(
            position,
            entries[-1].position + 1,
            [entry.batch for entry in entries if entry.position not in copies],
            total,
        )
        replaced = self._runs.pop((stream, position), None)
        self._bytes += run.size - (0 if replaced is None else replaced.size)
        self._runs[stream, position] = run
        while self._bytes > self._room and len(self._runs) > 1:
            self._bytes -= self._runs.popitem(last=False)[1].size
        return True

    async def entries(self, stream: str, start: int | str, limit: int) -> list[StreamEntry]:
        """Return up to ``limit`` entries from a position on, copies as well."""
        messages = await self._fetcher.fetch(stream, start, min(limit, MOST_FETCHED))
        return [entry_of(offset_of(m.headers), m.message_id, m.headers, m.body) for m in messages]

    async def _find_copies(self, stream: str, entries: list[StreamEntry]) -> set[int]:
        """Return the positions of those batches that are in the stream before, too."""
        seen: dict[str, int] = {}
        found, asked = set(), []
        for entry in entries:
            if entry.message_id and seen.setdefault(entry.message_id, entry.position) != (
                entry.position
            ):
                found.add(entry.position)
            elif entry.repeated:
                asked.append(entry)
        unknown = [each for each in asked if (stream, each.position) not in self._copies]
        if unknown:
            before = await self._ids_before(stream, entries[0].position)
            for entry in unknown:
                self._copies[stream, entry.position] = entry.message_id in before
            while len(self._copies) > _VERDICTS:
                self._copies.popitem(last=False)
        found.update(each.position for each in asked if self._copies.get((stream, each.position)))
        return found

    async def _ids_before(self, stream: str, position: int) -> set[str]:
        """Return the ids of the batches before a position, as many as a copy is behind at most."""
        start, found = max(0, position - REMEMBERED_IDS), set[str]()
        while start < position:
            entries = await self.entries(stream, start, position - start)
            found.update(each.message_id for each in entries if each.position < position)
            if not entries:
                break
            start = entries[-1].position + 1
        return found


__all__ = ["AHEAD", "StreamHistory"]
