"""Finds the position of a time in a log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kupool.log import Entry, LogBounds


async def position_since(
    bounds: LogBounds, at: float, following: Callable[[int], Awaitable[Entry | None]]
) -> int:
    """Return the position of the first entry that was appended at a time or later.

    ``at`` is in seconds since the epoch. ``following`` returns the entry that follows a position,
    None at the end. Reads a few entries, as many as the number of positions has bits.
    """
    found = high = bounds.last + 1
    low = bounds.first
    while low < high:
        middle = (low + high) // 2
        entry = await following(middle - 1)
        if entry is not None and entry.appended_at < at:
            low = entry.position + 1
        else:
            high = middle
            if entry is not None and entry.position < found:
                found = entry.position
    return found


__all__ = ["position_since"]
