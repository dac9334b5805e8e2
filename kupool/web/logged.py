"""Finds submissions of a user in the log, a piece at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from twisted.internet.interfaces import IReactorTime

from kupool.log import Entry, ILogReader, LogUnavailable
from kupool.stats import IStatsStore
from kupool.stats.positions import NOWHERE, Span
from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.timing.chunks import Breaks
from kupool.web.answers import ApiError
from kupool.wire.batches import Batch, PoisonBatch, decode_batch
from kupool.wire.messages import split_username
from kupool.wire.submissions import PER_ENTRY, LoggedSubmission, logged_of

#: Bytes of the log that are read at once.
READ_BYTES = 256 * 1024

#: Bytes of the log that are searched for one batch or one minute.
SEARCH_BYTES = 256 * 1024 * 1024

#: The errors of a log that cannot be read now.
_UNREADABLE = (LogUnavailable, DatabaseClosed, DatabaseUnusable, sqlite3.Error)


class LoggedBatch(NamedTuple):
    """A batch of the log."""

    entry: Entry
    batch: Batch

    def offset(self, place: int) -> int:
        """Return the offset in the topic ``submissions`` of the submission at a place."""
        return self.entry.position * PER_ENTRY + place

    def submissions(self, user: str, worker: str = "") -> Iterator[tuple[int, LoggedSubmission]]:
        """Yield the places and the submissions of a user, or of one worker."""
        name = f"{user}.{worker}" if worker else ""
        for place, each in enumerate(logged_of(self.batch)):
            if each.username == name or (not name and split_username(each.username)[0] == user):
                yield place, each


class Cursor:
    """Reads the batches of a range of minutes that have submissions of a user, oldest first.

    ``span`` says where in the log they are. With ``most``, it ends after so many bytes, and
    ``complete`` is False then.
    """

    def __init__(
        self,
        log: LoggedSubmissions,
        user: str,
        minutes: tuple[int, int],
        span: Span,
        *,
        most: int = 0,
    ) -> None:
        self._log = log
        self._minutes = minutes
        # A name begins in the JSON of a batch as it does here, whatever follows.
        self._part = msgspec.json.encode(user)[:-1]
        self._after, self._to = span
        self._left = most
        self._most = most
        self.complete = True

    async def next(self) -> Sequence[LoggedBatch] | None:
        """Return some more batches, perhaps none of those that were read; None at the end.

        Raises :class:`ApiError` if the log cannot be read now.
        """
        if self._after >= self._to:
            return None
        if self._most and self._left <= 0:
            self.complete = False
            return None
        entries = await self._log.read(self._after)
        if not entries:
            return None
        self._after = entries[-1].position
        found = []
        start, end = self._minutes
        for entry in entries:
            if entry.position > self._to:
                break
            self._left -= len(entry.body)
            await self._log.breaks.take()
            if self._part not in entry.body:
                continue
            try:
                batch = decode_batch(entry.body)
            except PoisonBatch:
                continue  # it is with the dead letters
            if start <= batch.at // 1000 < end:
                found.append(LoggedBatch(entry, batch))
        return found


class LoggedSubmissions:
    """Reads the log beside those who append to it; ``stats`` knows where minutes are in it.

    ``positional`` says whether the positions that it knows are exact. ``reader`` is the log's, an
    :class:`~kupool.log.ILogReader`.
    """

    def __init__(
        self, clock: IReactorTime, reader: ILogReader, stats: IStatsStore, *, positional: bool
    ) -> None:
        self._reader: Any = reader
        self._stats: Any = stats
        self._positional = positional
        self.breaks = Breaks(clock)

    async def read(self, after: int) -> Sequence[Entry]:
        """Return the next entries; raises :class:`ApiError` if that is impossible now."""
        try:
            entries: Sequence[Entry] = await self._reader.read(after, READ_BYTES)
        except _UNREADABLE as error:
            raise _unreadable(error) from error
        return entries

    async def _last(self) -> int:
        try:
            return int((await self._reader.bounds()).last)
        except _UNREADABLE as error:
            raise _unreadable(error) from error

    async def counted(self, user: str, start: int, end: int) -> Cursor:
        """Return a cursor of the batches of a range that are counted."""
        span = await self._stats.history.span(start, end)
        if span is None:
            return Cursor(self, user, (start, end), Span(0, 0))
        to = span.to if self._positional else await self._last()
        return Cursor(self, user, (start, end), Span(max(span.after, 0), to))

    async def every(self, user: str, start: int, end: int) -> Cursor:
        """Return a cursor of the batches of a range, also of those that are not counted yet."""
        span = await self._stats.history.span(start, end)
        mark = (await self._stats.state()).mark.position
        after = mark if span is None else min(max(span.after, 0), mark)
        return Cursor(self, user, (start, end), Span(after, await self._last()), most=SEARCH_BYTES)

    async def uncounted(self, found: Sequence[LoggedBatch]) -> set[str]:
        """Return the ids of those of some batches that are not counted, nor will be perhaps."""
        return set(await self._stats.unapplied([each.batch.batch for each in found]))

    async def find(self, batch_id: str) -> LoggedBatch | None:
        """Return the batch of an id, if the log has it."""
        known = await self._stats.history.batch(batch_id)
        if known is None:
            after = (await self._stats.state()).mark.position
        else:
            after = known.position - 1 if self._positional else known.position
        left = SEARCH_BYTES
        while left > 0 and (entries := await self.read(after if after > NOWHERE else 0)):
            for entry in entries:
                left -= len(entry.body)
                if entry.entry_id == batch_id:
                    return _decoded(entry)
                await self.breaks.take()
            after = entries[-1].position
        return None


def _decoded(entry: Entry) -> LoggedBatch | None:
    try:
        return LoggedBatch(entry, decode_batch(entry.body))
    except PoisonBatch:
        return None


def _unreadable(error: BaseException) -> ApiError:
    return ApiError(503, f"try again: the log cannot be read now: {error}", {b"Retry-After": b"5"})


__all__ = ["READ_BYTES", "SEARCH_BYTES", "Cursor", "LoggedBatch", "LoggedSubmissions"]
