"""Copies a log, entry by entry in order, and continues where the target ends."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from kupool.log import Entry
from kupool.migration import CannotMove
from kupool.migration.logs import ENTRIES, LogSide, same_entry
from kupool.migration.positions import MapBuilder, PositionMap
from kupool.migration.reports import Compared, Report

#: Bytes of bodies that are appended at once.
_BYTES = 4 * 1024 * 1024


class Entries:
    """The entries of a log in order, read in pieces. ``log`` is an ``ILog``."""

    def __init__(self, log: Any, after: int) -> None:
        self._log = log
        self._after = after
        self._read: deque[Entry] = deque()

    async def next(self) -> Entry | None:
        """Return the next entry without taking it; None at the end."""
        if not self._read:
            found: Sequence[Entry] = await self._log.read(self._after, ENTRIES)
            if not found:
                return None
            self._read.extend(found)
            self._after = found[-1].position
        return self._read[0]

    def take(self) -> None:
        """Advance to the next entry."""
        self._read.popleft()

    async def piece(self) -> list[Entry]:
        """Take as many entries as are appended at once; none at the end."""
        taken: list[Entry] = []
        size = 0
        while len(taken) < ENTRIES and size < _BYTES:
            entry = await self.next()
            if entry is None:
                break
            self.take()
            taken.append(entry)
            size += len(entry.body)
        return taken


class Matched(NamedTuple):
    """How many entries of the source are in the target, in order.

    ``missing`` is the first entry that is not. ``surplus`` is how many more the target has: an
    entry whose confirm was lost is there twice.
    """

    positions: PositionMap
    number: int
    surplus: int
    checksum: str
    missing: Entry | None


async def match(source: Entries, target: LogSide, builder: MapBuilder, report: Report) -> Matched:
    """Find the target's entries in the source, in order."""
    digest, count, surplus = hashlib.sha256(), 0, 0
    async for piece in target.landed():
        found = 0
        for entry in piece:
            expected = await source.next()
            if expected is None or not same_entry(expected, entry):
                surplus += 1
                continue
            source.take()
            builder.add(expected.position, entry.position)
            digest.update(b"%d %d " % (len(entry.entry_id), len(entry.body)))
            digest.update(entry.entry_id.encode() + entry.body)
            found += 1
        count += found
        report.advance(found)
    missing = await source.next()
    return Matched(builder.build(), count, surplus, digest.hexdigest(), missing)


async def copy_log(
    log: Any, target: LogSide, first: int, base: int, *, total: int, report: Report
) -> None:
    """Append the entries that the target lacks of an ``ILog``, from the position ``first`` on."""
    report.begin("Copying the log", total)
    source = Entries(log, first - 1)
    await match(source, target, MapBuilder(first, base), report)
    while piece := await source.piece():
        await target.append(piece)
        report.advance(len(piece))


async def check_log(
    log: Any, target: LogSide, first: int, base: int, *, total: int, report: Report
) -> tuple[PositionMap, Compared]:
    """Compare both logs; returns where the entries are in the target.

    Raises :class:`CannotMove` if an entry is missing.
    """
    report.begin("Comparing the log", total)
    found = await match(Entries(log, first - 1), target, MapBuilder(first, base), report)
    if found.missing is not None:
        raise CannotMove(
            f"entry {found.missing.entry_id!r} at position {found.missing.position} of the log "
            f"is not in {target.shown} in its place; run the command again, and if that does "
            "not help, empty the target and start again"
        )
    return found.positions, Compared("log", found.number, None, found.checksum)


async def move_dead_letters(source: LogSide, target: LogSide, report: Report) -> Compared:
    """Copy the dead letters; raises :class:`CannotMove` if one is missing afterwards."""
    report.begin("Dead letters", 0)
    await target.bury(source.dead_letters())
    theirs, ours = await _fold(source), await _fold(target)
    if theirs != ours:
        raise CannotMove(
            f"{theirs.number} dead letters of {source.shown} became {ours.number} in "
            f"{target.shown}; run the command again"
        )
    return theirs


async def _fold(side: LogSide) -> Compared:
    """Return the number and a checksum of dead letters, independent of their order."""
    count = total = 0
    async for letter in side.dead_letters():
        count += 1
        total += int.from_bytes(letter.digest, "big")
    return Compared("dead letters", count, None, f"{total % 2**256:064x}")


__all__ = ["Entries", "Matched", "check_log", "copy_log", "match", "move_dead_letters"]
