"""Positions of counted batches in the log, by minute. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kupool.stats import BatchCounts

#: Positions between two saved marks: a store keeps one mark for this many positions.
MARK_SPACING = 1000


class Span(NamedTuple):
    """The batches of a minute are above one position, and not above another."""

    after: int
    to: int


#: The position before a minute that no log contains completely.
NOWHERE = -1


def spans(batches: Iterable[BatchCounts], mark: int) -> dict[int, Span]:
    """Return the span of each minute in seconds since the epoch.

    A batch without a known position is above ``mark``, the store's own. A batch of an earlier epoch
    may be in no log.
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
