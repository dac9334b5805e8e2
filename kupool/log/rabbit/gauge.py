"""How many messages wait in a queue, from looks at it and from what one did oneself. Pure."""

from __future__ import annotations


class Gauge:
    """An estimate that is never too low for long, and exact once nothing moves.

    What the broker counts lags: a message on its way to us is in no queue any more and not
    here yet. So the estimate goes by the last two looks, whichever says more.
    """

    def __init__(self) -> None:
        self._older = self._newer = 0

    @property
    def waiting(self) -> int:
        """Messages in the queue that nobody holds."""
        return max(self._older, self._newer, 0)

    def seen(self, count: int) -> None:
        """The broker says how many wait."""
        self._older, self._newer = max(self._newer, 0), count

    def put(self, count: int = 1) -> None:
        """We put messages in, or gave them back."""
        self._older += count
        self._newer += count

    def taken(self, count: int = 1) -> None:
        """We were given messages."""
        self._older -= count
        self._newer -= count


__all__ = ["Gauge"]
