"""The data of stores of counts: what they are given, return, and contain. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class BatchCounts(NamedTuple):
    """The counts of one batch: its submissions by username, all in one UTC minute.

    ``minute`` is in seconds since the epoch. ``digest`` distinguishes batches with the same id but
    other content. ``position`` is the batch's position in the log, 0 if it is unknown, as for
    deliveries of a RabbitMQ queue. ``earlier`` says that the batch was appended before the newest
    epoch of the log began, so the log may not contain it.
    """

    batch_id: str
    digest: bytes
    minute: int
    usernames: Sequence[str]
    position: int = 0
    earlier: bool = False


class Applied(NamedTuple):
    """The result for some batches: counted, or already known.

    ``conflicts`` are batches with a known id but other content, as (id, digest); they are not
    counted.
    """

    new: int
    repeated: int
    conflicts: Sequence[tuple[str, bytes]]


class MinuteCount(NamedTuple):
    """A row of the per-minute table, of a user or, if ``worker`` is not empty, of one worker."""

    username: str
    worker: str
    minute: int
    submissions: int


__all__ = ["Applied", "BatchCounts", "MinuteCount"]
