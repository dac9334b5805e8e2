"""Notes of job ids in the log, for ids that no store may know, and the log's newest position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from kupool.log import ILog
from kupool.wire.batches import VERSION, Batch, encode_batch


class JobNotes:
    """Writes notes into the log. A note says that jobs up to an id may have been sent.

    A note is a batch without submissions. ``instance`` makes the ids of this process's notes
    unique. ``wall`` returns seconds since the epoch.
    """

    def __init__(self, log: ILog, wall: Callable[[], float], instance: str) -> None:
        self._store: Any = log
        self._wall = wall
        self._instance = instance
        self._serial = 0

    @property
    def position(self) -> int:
        """A position that all later entries of the log are above."""
        return int(self._store.status().appended)

    @property
    def durable(self) -> bool:
        """Whether a note outlives the process."""
        return bool(self._store.persistent)

    def write(self, jobs_until: int) -> Deferred[None]:
        """Write that jobs up to an id may have been sent; fires when the note is durable.

        Fails as an append to the log does.
        """
        self._serial += 1
        note = Batch(
            VERSION,
            f"{self._instance}-jobs-{self._serial}",
            int(self._wall() * 1000),
            [],
            [],
            [],
            jobs_until,
        )
        # A caller that stops waiting must not cancel the append: the log may have the note already.
        written: Deferred[None] = Deferred()
        appended: Deferred[None] = self._store.append(note.batch, encode_batch(note))
        appended.addCallbacks(written.callback, written.errback)
        return written


__all__ = ["JobNotes"]
