"""Which entries of a stream are copies of an earlier one. Pure."""

from __future__ import annotations

#: The newest entries that are remembered. A copy follows soon: it is sent again after a lost
#: connection, as one of those that were not confirmed.
REMEMBERED_ENTRIES = 10_000


class FirstCopies:
    """Remembers where the newest entries were seen first, so that later copies are recognized."""

    def __init__(self, most: int = REMEMBERED_ENTRIES) -> None:
        self._most = most
        #: The id of an entry -> its lowest position.
        self._positions: dict[str, int] = {}

    def is_first(self, entry_id: str, position: int) -> bool:
        """Return whether no earlier entry of this id is known."""
        known = self._positions.get(entry_id)
        if known is not None and known <= position:
            return known == position
        if known is None and len(self._positions) >= self._most:
            del self._positions[next(iter(self._positions))]
        self._positions[entry_id] = position
        return True


__all__ = ["REMEMBERED_ENTRIES", "FirstCopies"]
