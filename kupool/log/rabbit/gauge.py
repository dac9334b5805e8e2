"""An estimate of the number of messages in a queue. Pure."""

from __future__ import annotations


class Gauge:
    """An estimate that is never too low for long, and exact when nothing moves.

    The broker's count lags: a delivered message is not counted any more, but may not have arrived.
    So the estimate uses the higher of the last two counts.
    """

    def __init__(self) -> None:
        self._older = self._newer = 0

    @property
    def waiting(self) -> int:
        """Messages in the queue that no consumer holds."""
        return max(self._older, self._newer, 0)

    def seen(self, count: int) -> None:
        """The broker has reported a count."""
        self._older, self._newer = max(self._newer, 0), count

    def put(self, count: int = 1) -> None:
        """This process has published or returned messages."""
        self._older += count
        self._newer += count

    def taken(self, count: int = 1) -> None:
        """This process has received messages."""
        self._older -= count
        self._newer -= count


__all__ = ["Gauge"]
