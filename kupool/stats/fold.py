"""Makes counts from batches. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain

from kupool.stats import BatchCounts, MinuteCount
from kupool.wire.batches import BatchHead, PoisonBatch, decode_head
from kupool.wire.messages import split_username

#: The year 10000, in milliseconds since the epoch: no store can hold a later time.
END_OF_TIME = 253_402_300_800_000

#: The size of the columns for the id of a batch and for a username, in characters.
MAX_ID = 64
MAX_NAME = 255

#: Seconds of an hour and a day, into which counts are rolled up.
HOUR = 3600
DAY = 86400


def roll_ups(minutes_before: int, hours_before: int) -> Iterator[tuple[str, str, int]]:
    """Yield each roll-up: the grain, its target, and the time before which rows are rolled up.

    The grains are the suffixes of the tables' names. Only whole hours and days are rolled up, and
    nothing if the time is 0.
    """
    if (hour := minutes_before // HOUR * HOUR) > 0:
        yield "", "_hour", hour
    if (day := hours_before // DAY * DAY) > 0:
        yield "_hour", "_day", day


def fold_entry(body: bytes, position: int = 0, earlier: bool = False) -> BatchCounts:
    """Return the counts of a log entry; raises :class:`kupool.wire.batches.PoisonBatch`.

    ``position`` and ``earlier`` are as in :class:`~kupool.stats.BatchCounts`.
    """
    head = _read_head(body)
    digest = sha256(body).digest()
    return BatchCounts(head.batch, digest, head.minute, head.usernames, position, earlier)


def read_entry(body: bytes, position: int) -> BatchCounts:
    """Return the counts of a log entry without its digest; raises as :func:`fold_entry`."""
    head = _read_head(body)
    return BatchCounts(head.batch, b"", head.minute, head.usernames, position)


def _read_head(body: bytes) -> BatchHead:
    """Read the head of a batch. A batch that no store can hold is poison too: it would block the
    log.
    """
    head = decode_head(body)
    if not 0 <= head.at < END_OF_TIME:
        raise PoisonBatch(f"the time {head.at} is out of range")
    if not 0 < len(head.batch) <= MAX_ID:
        raise PoisonBatch(f"the id of the batch has {len(head.batch)} characters")
    longest = max(map(len, head.usernames), default=0)
    if longest > MAX_NAME:
        raise PoisonBatch(f"a username has {longest} characters")
    if b"\\u0000" in body and any("\0" in text for text in (head.batch, *head.usernames)):
        raise PoisonBatch("there is a NUL character in a name")
    return head


def fold_rows(batches: Iterable[BatchCounts]) -> Counter[tuple[str, str, int]]:
    """Return (user, worker, minute) -> count: a row for each user and for each worker.

    A user's row, whose worker is empty, is the total of all their workers.
    """
    minutes: defaultdict[int, list[Sequence[str]]] = defaultdict(list)
    for batch in batches:
        minutes[batch.minute].append(batch.usernames)
    rows: Counter[tuple[str, str, int]] = Counter()
    for minute, names in minutes.items():
        # Counting an iterable is done in C; each name is parsed only once a minute.
        for username, count in Counter(chain.from_iterable(names)).items():
            user, worker = split_username(username)
            rows[user, "", minute] += count
            if worker:
                rows[user, worker, minute] += count
    return rows


def as_rows(folded: Counter[tuple[str, str, int]]) -> list[MinuteCount]:
    """Return folded counts as sorted rows."""
    return sorted(MinuteCount(*key, count) for key, count in folded.items())
