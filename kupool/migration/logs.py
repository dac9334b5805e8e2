"""The interface of a log that takes part in a move: its entries and its dead letters."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from kupool.log import Entry, Identity

#: The entries that are read or written at once, and the bytes of their bodies.
ENTRIES = 500


class Acknowledged(NamedTuple):
    """What a log that keeps positions of groups has to know: how far the counting is, and the
    position up to which entries were dropped before, 0 if none.
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
        """A value by which equal dead letters are found; not every log keeps their other fields."""
        text = "\0".join((self.entry_id, self.group, self.reason)).encode()
        return hashlib.sha256(text + b"\0" + self.body).digest()


class LogSide(Protocol):
    """A log that nobody else appends to or reads from."""

    @property
    def shown(self) -> str:
        """The log in messages, without secrets."""

    @property
    def kind(self) -> dict[str, str]:
        """The settings of a daemon that uses this log."""

    @property
    def place(self) -> tuple[str, ...]:
        """A value that is the same for the same log."""

    async def open(self) -> None:
        """Open the log without creating anything."""

    async def in_use(self) -> str:
        """Say who reads from it now; empty for nobody."""

    async def waiting(self) -> int:
        """Return how many entries wait to be counted in a separate queue."""

    async def found(self) -> list[str]:
        """Say what it contains; empty if a log can be moved there."""

    async def begin(self, identity: Identity) -> None:
        """Create what is missing, with this identity; positions begin after its last epoch's."""

    def landed(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield what was appended, in order, in pieces."""

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries with their ids and times; returns when they are durable."""

    async def finish(self, acknowledged: Acknowledged) -> None:
        """Save what a log that keeps positions of groups has to know."""

    def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Yield the dead letters, in order."""

    async def bury(self, letters: AsyncIterator[DeadLetter]) -> None:
        """Add dead letters that are not there yet."""

    async def close(self) -> None:
        """Close the log."""


def same_entry(one: Entry, other: Entry) -> bool:
    """Say whether two entries are equal except for their positions."""
    times = round(one.appended_at * 1000), round(other.appended_at * 1000)
    return one.entry_id == other.entry_id and one.body == other.body and times[0] == times[1]


__all__ = ["ENTRIES", "Acknowledged", "DeadLetter", "LogSide", "same_entry"]
