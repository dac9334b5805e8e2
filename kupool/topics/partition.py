"""A partition of a topic. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Partition(NamedTuple):
    """A partition of a topic; the first has number 0."""

    topic: str
    number: int

    def __str__(self) -> str:
        """Return the partition as text: ``topic/number``."""
        return f"{self.topic}/{self.number}"


__all__ = ["Partition"]
