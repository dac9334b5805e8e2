"""Exponential backoff: the wait doubles after each failure, up to a maximum. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Doubling(NamedTuple):
    """A sequence of waits in seconds: ``first``, then doubling up to ``most``.

    It has no state: the caller keeps the last wait, which is 0 before the first failure.
    """

    first: float
    most: float

    def after(self, wait: float) -> float:
        """Return the wait that follows ``wait``; after 0 that is the first one."""
        return min(self.most, wait * 2 or self.first)


__all__ = ["Doubling"]
