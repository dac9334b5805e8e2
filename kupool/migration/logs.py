"""A log as a move sees it: where entries go to, and what could not be processed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from kupool.log import Entry, Identity

#: Entries that are read, and written, in one piece, and the bytes of bodies in one.
ENTRIES = 500


class Acknowledged(NamedTuple):
    """What a log that keeps places itself is told: how far the counting is, and up to which
    position entries were dropped before, 0 for none.
    """

    counted: int
    trimmed: int


class DeadLetter(NamedTuple):
    """An entry that could not be processed; ``failed_at`` is in milliseconds since the epoch."""

    group: str
    position: int
    entry_id: str
    reason: str
    deliveries: int
    failed_at: int
    body: bytes

    @property
    def digest(self) -> bytes:
        """What two that are the same have in common; not every log knows the rest."""
        text = "\0".join((self.entry_id, self.group, self.reason)).encode()
        return hashlib.sha256(text + b"\0" + self.body).digest()


class LogSide(Protocol):
    """A log at rest: nobody else appends to it, or takes from it."""

    @property
    def shown(self) -> str:
        """The log in messages, without secrets."""

    @property
    def kind(self) -> dict[str, str]:
        """What the settings of a daemon must say to use it."""

    @property
    def place(self) -> tuple[str, ...]:
        """What two logs that are the same have in common."""

    async def open(self) -> None:
        """Make it ready, without making anything that is missing."""

    async def in_use(self) -> str:
        """Say who takes from it now; empty for nobody."""

    async def waiting(self) -> int:
        """Return how many entries wait to be counted in a queue of their own."""

    async def found(self) -> list[str]:
        """Say what it holds; empty where it can be moved to."""

    async def begin(self, identity: Identity) -> None:
        """Make what is missing; entries are of this identity, and above what it begins after."""

    def landed(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield what was appended, in order, in pieces."""

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries with their ids and times; done when they are durable."""

    async def finish(self, acknowledged: Acknowledged) -> None:
        """Note what a log that keeps places itself has to know."""

    def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Yield what could not be processed, in order."""

    async def bury(self, letters: AsyncIterator[DeadLetter]) -> None:
        """Add to what could not be processed, unless it is there already."""

    async def close(self) -> None:
        """Let it go."""


def same_entry(one: Entry, other: Entry) -> bool:
    """Say whether two entries are the same, wherever they are."""
    times = round(one.appended_at * 1000), round(other.appended_at * 1000)
    return one.entry_id == other.entry_id and one.body == other.body and times[0] == times[1]


__all__ = ["ENTRIES", "Acknowledged", "DeadLetter", "LogSide", "same_entry"]
