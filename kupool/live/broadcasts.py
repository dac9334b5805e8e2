"""Figures of broadcasts: how many subscribers each has reached, and how long that took. Pure."""

from __future__ import annotations


class BroadcastFigures:
    """Figures of the broadcasts of a channel, or of all.

    ``count`` publications were fanned out to subscribers. ``reached`` adds up the subscribers that
    had each in their outbox or queue, or did not want it. For ``failed`` something raised.
    ``dropped`` adds up what subscribers did not get, for whatever reason. ``overflowed`` are
    publications for which the fan-out had no room: their subscribers read them from the history,
    or are told that they miss them. ``seconds`` is the time of all broadcasts, from the first
    subscriber to the last one, and ``longest`` that of the longest.
    """

    __slots__ = ("count", "dropped", "failed", "longest", "overflowed", "reached", "seconds")

    def __init__(self) -> None:
        self.count = self.reached = self.failed = self.dropped = self.overflowed = 0
        self.seconds = self.longest = 0.0

    def add(self, reached: int, failed: int, seconds: float) -> None:
        """Count a broadcast that has ended."""
        self.count += 1
        self.reached += reached
        self.failed += failed
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    @property
    def average(self) -> float:
        """The average time of a broadcast, in seconds; 0 if there was none."""
        return self.seconds / self.count if self.count else 0.0


__all__ = ["BroadcastFigures"]
