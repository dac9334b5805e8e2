"""From batches to counts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

from kupool.stats import BatchCounts, MinuteCount
from kupool.wire.batches import decode_head
from kupool.wire.messages import split_username


def fold_entry(body: bytes) -> BatchCounts:
    """Return what a log entry adds; raises :class:`kupool.wire.batches.PoisonBatch`."""
    head = decode_head(body)
    return BatchCounts(head.batch, sha256(body).digest(), head.minute, head.usernames)


def fold_rows(batches: Iterable[BatchCounts]) -> Counter[tuple[str, str, int]]:
    """Return (user, worker, minute) -> count: a row for each user and for each worker.

    The user's row, whose worker is empty, holds what all of the workers did.
    """
    minutes: dict[int, Counter[str]] = {}
    for batch in batches:
        # Counting an iterable is done in C; a name is only looked into once a minute.
        minutes.setdefault(batch.minute, Counter()).update(batch.usernames)
    rows: Counter[tuple[str, str, int]] = Counter()
    for minute, names in minutes.items():
        for username, count in names.items():
            user, worker = split_username(username)
            rows[user, "", minute] += count
            if worker:
                rows[user, worker, minute] += count
    return rows


def as_rows(folded: Counter[tuple[str, str, int]]) -> list[MinuteCount]:
    """Return folded counts as sorted rows."""
    return sorted(MinuteCount(*key, count) for key, count in folded.items())
