"""Records, as producers write them and as consumers read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to write.

    ``key`` decides about the partition, and about compaction. ``timestamp`` is in milliseconds
    since the epoch; None takes the time at which it is written.
    """

    value: bytes
    key: bytes | None = None
    headers: Mapping[str, str] = {}
    timestamp: int | None = None

    @property
    def size(self) -> int:
        """Its bytes, as limits count them: value, key, and the text of headers in UTF-8."""
        size = len(self.value) + len(self.key or b"")
        for name, text in self.headers.items():
            size += len(name.encode()) + len(text.encode())
        return size


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record that was read; ``timestamp`` is in milliseconds since the epoch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, str]


class Stamp(NamedTuple):
    """The mark of an idempotent producer: sent again, it gets the offset of the first time."""

    producer: str
    sequence: int


__all__ = ["NewRecord", "Record", "Stamp"]
