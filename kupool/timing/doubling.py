"""Waits that grow: twice as long after each failure, up to a maximum. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Doubling(NamedTuple):
    """Waits in seconds: ``first``, then twice as long each time, and never above ``most``.

    It keeps nothing: whoever waits keeps the last wait, and 0 where nothing has failed.
    """

    first: float
    most: float

    def after(self, wait: float) -> float:
        """Return the wait that follows another; after 0 that is the first one."""
        return min(self.most, wait * 2 or self.first)


__all__ = ["Doubling"]
