"""The counts themselves: what a store is given, what became of it, and a row of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class BatchCounts(NamedTuple):
    """What one batch adds: a submission for each username, all in one UTC minute.

    ``minute`` is in seconds since the epoch; ``digest`` tells batches of the same id
    but other content apart. ``position`` is the batch's place in the log, 0 where it is not
    known, as for what a queue of RabbitMQ delivers. With ``earlier`` it was appended before
    the newest epoch of the log began, which may not hold it.
    """

    batch_id: str
    digest: bytes
    minute: int
    usernames: Sequence[str]
    position: int = 0
    earlier: bool = False


class Applied(NamedTuple):
    """What became of some batches: counted, known already, or of a known id but with
    other content: ``conflicts``, which are not counted, as (id, digest).
    """

    new: int
    repeated: int
    conflicts: Sequence[tuple[str, bytes]]


class MinuteCount(NamedTuple):
    """A row of the per-minute table, for a user or, where ``worker`` is not empty, one
    of the user's workers.
    """

    username: str
    worker: str
    minute: int
    submissions: int


__all__ = ["Applied", "BatchCounts", "MinuteCount"]
