"""What the log knows of jobs: notes of ids that no store may know, and its newest position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from kupool.log import ILog
from kupool.wire.batches import VERSION, Batch, encode_batch


class JobNotes:
    """Writes notes into the log: that jobs up to an id may have been given out.

    A note is a batch without submissions. ``instance`` makes the ids of this process's notes
    unique; ``wall`` returns seconds since the epoch.
    """

    def __init__(self, log: ILog, wall: Callable[[], float], instance: str) -> None:
        self._store: Any = log
        self._wall = wall
        self._instance = instance
        self._serial = 0

    @property
    def position(self) -> int:
        """A position that whatever is appended from now on is above."""
        return int(self._store.status().appended)

    @property
    def durable(self) -> bool:
        """Whether a note outlives the process."""
        return bool(self._store.persistent)

    def write(self, jobs_until: int) -> Deferred[None]:
        """Note that jobs up to an id may be given out; fires when that is durable.

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
        # Who does not wait for it any longer must not end it: the log may have it already.
        written: Deferred[None] = Deferred()
        appended: Deferred[None] = self._store.append(note.batch, encode_batch(note))
        appended.addCallbacks(written.callback, written.errback)
        return written


__all__ = ["JobNotes"]
