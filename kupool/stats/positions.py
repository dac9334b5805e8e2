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
    found: dict[int, Span] = {}
    for batch in batches:
        if not batch.usernames:
            continue
        after, to = (batch.position - 1, batch.position) if batch.position else (mark, mark + 1)
        if batch.earlier:
            after = NOWHERE
        known = found.get(batch.minute)
        if known is not None:
            after, to = min(after, known.after), max(to, known.to)
        found[batch.minute] = Span(after, to)
    return found


__all__ = ["MARK_SPACING", "NOWHERE", "Span", "spans"]
