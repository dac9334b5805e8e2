"""The progress of a move, which is saved in the target's store. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from kupool.log import Epoch, Identity
from kupool.migration.positions import PositionMap, Run, Unmoved

#: The phases, in order.
LOG, CHECK_LOG, DEAD_LETTERS, TABLES, CHECK_TABLES, DONE = range(6)


class MoveProgress(msgspec.Struct, kw_only=True):
    """The progress of a move.

    ``pool_id`` and ``epochs`` are the source's. ``first`` and ``last`` are the positions in its
    log, ``mark`` is the counted position; with them a source that has changed since is noticed.
    ``epoch`` is the target log's new epoch, which begins after ``base``; empty if the log is not
    moved. ``runs`` is known once the log is checked. ``table`` and ``key`` are the row written
    last. ``source`` and ``target`` are the settings files of the command.
    """

    source: str
    target: str
    pool_id: str
    epochs: list[tuple[str, int]]
    first: int
    last: int
    mark: int
    epoch: str = ""
    base: int = 0
    phase: int = LOG
    runs: list[tuple[int, int, int]] = []
    table: str = ""
    key: list[Any] | None = None
    newest_job: int = 0

    @property
    def moves_log(self) -> bool:
        """Whether the log is moved."""
        return bool(self.epoch)

    @property
    def positions(self) -> PositionMap:
        """The map of positions; known once the log is checked."""
        if not self.moves_log:
            return Unmoved()
        return PositionMap(self.first, self.base, tuple(Run(*run) for run in self.runs))

    @property
    def identity(self) -> Identity:
        """The identity of the target when all is done."""
        identity = Identity(self.pool_id, tuple(Epoch(*epoch) for epoch in self.epochs))
        return identity.with_epoch(self.epoch, self.base) if self.moves_log else identity

    def same_source(self, other: MoveProgress) -> bool:
        """Say whether a source has not changed since another move of it began."""
        names = ("pool_id", "epochs", "first", "last", "mark")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def encode(self) -> str:
        """Return the text to save."""
        return msgspec.json.encode(self).decode()


def decode(text: str) -> MoveProgress:
    """Return the progress in a saved text; raises :class:`ValueError` if it is none."""
    return msgspec.json.decode(text, type=MoveProgress)


__all__ = [
    "CHECK_LOG",
    "CHECK_TABLES",
    "DEAD_LETTERS",
    "DONE",
    "LOG",
    "TABLES",
    "MoveProgress",
    "decode",
]
