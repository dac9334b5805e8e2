"""The first items of a large set in some order, without sorting all of them. Pure."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: Items that are kept beside those that are wanted, so that most additions sort nothing.
SPARE = 1000


class Page(NamedTuple):
    """A part of a sorted list: ``limit`` items from ``offset`` on, the largest first if
    ``descending``.
    """

    limit: int = 100
    offset: int = 0
    descending: bool = False


class Selection(Generic[T]):
    """Selects the items of a page; keeps no more than the page's end needs.

    ``total`` is the number of all items that were added.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._wanted = page.offset + page.limit
        self._kept: list[tuple[Any, int, T]] = []
        self.total = 0

    def add(self, key: Any, item: T) -> None:
        """Add an item; of items with the same key, the one that was added first comes first."""
        number = -self.total if self._page.descending else self.total
        self.total += 1
        self._kept.append((key, number, item))
        if len(self._kept) >= 2 * self._wanted + SPARE:
            self._cut()

    def _cut(self) -> None:
        # Numbers differ, so that items are never compared.
        self._kept.sort(reverse=self._page.descending)
        del self._kept[self._wanted :]

    def items(self) -> list[T]:
        """Return the items of the page, in order."""
        self._cut()
        return [item for _, _, item in self._kept[self._page.offset :]]


__all__ = ["Page", "Selection"]
