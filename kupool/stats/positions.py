"""Where counted batches are in the log, by minute. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kupool.stats import BatchCounts

#: Positions between two marks that are kept: a store has one for each so many batches.
MARK_SPACING = 1000


class Span(NamedTuple):
    """All batches of a minute are above one position, and up to another."""

    after: int
    to: int


#: The position before a minute that no log holds wholly.
NOWHERE = -1


def spans(batches: Iterable[BatchCounts], mark: int) -> dict[int, Span]:
    """Return the span of each minute in seconds since the epoch.

    A batch whose position is not known is above ``mark``, the store's own; but one of an earlier
    epoch may be in no log.
    """
    found: dict[int, list[int]] = {}
    for _, _, minute, usernames, position, earlier in batches:
        if not usernames:
            continue
        after, to = (position - 1, position) if position else (mark, mark + 1)
        if earlier:
            after = NOWHERE
        known = found.get(minute)
        if known is None:
            found[minute] = [after, to]
        else:
            known[0] = min(known[0], after)
            known[1] = max(known[1], to)
    return {minute: Span(after, to) for minute, (after, to) in found.items()}


__all__ = ["MARK_SPACING", "NOWHERE", "Span", "spans"]
