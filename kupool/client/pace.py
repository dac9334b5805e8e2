"""The pace of a worker: when it may submit, and when it should. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: The longest interval between two submissions, in seconds.
LONGEST = 60.0

#: Seconds by which the longest interval is shortened, because timers fire late.
EARLY = 0.5


@dataclass(frozen=True)
class PaceSettings:
    """The pace settings of a worker. Times are in seconds.

    ``interval`` is the time between submissions while no new job comes. ``gap`` is the
    server's minimum time between two accepted ones. ``margin`` is added to it, because
    clocks differ. Raises :class:`ValueError` for an interval that is not above 0 or is
    above a minute, for a gap or margin below 0, and for a sum of both above a minute.
    """

    interval: float = 1.0
    gap: float = 1.0
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.interval <= LONGEST:
            raise ValueError(
                f"interval: {self.interval:g} s is not above 0 and at most {LONGEST:g} s, "
                "so that there is at least one submission a minute"
            )
        if self.gap < 0 or self.margin < 0 or self.gap + self.margin > LONGEST:
            raise ValueError(f"gap and margin are from 0 to {LONGEST:g} s together")


class Pace:
    """Computes when the next submission is due.

    It counts from the *answers*. The server judged a submission before its answer arrived.
    So a submission that is sent one gap after the answer arrives at least one gap after
    that judgement, whatever the network delays.
    """

    def __init__(self, settings: PaceSettings) -> None:
        self._interval = min(settings.interval, LONGEST - EARLY)
        self._gap = settings.gap
        self._margin = settings.margin if settings.gap else 0.0
        self._sent = float("-inf")
        self._not_before = float("-inf")
        self._refused = 0

    def sent(self, now: float) -> None:
        """Record that a submission was sent."""
        self._sent = now

    def accepted(self, now: float) -> None:
        """Record that it was accepted; the answer arrived now."""
        self._refused = 0
        self._not_before = now + self._gap + self._margin

    def too_frequent(self, now: float) -> None:
        """Record that it was refused as too frequent: the server's gap is longer."""
        self._refused = min(self._refused + 1, 16)
        wait = (self._gap + self._margin or 1.0) * 2.0 ** (self._refused - 1)
        self._not_before = now + min(LONGEST - 1.0, wait)

    def earliest(self) -> float:
        """Return when the next submission for a new job may be sent."""
        return max(self._sent + self._gap, self._not_before)

    def due(self) -> float:
        """Return when the next submission should be sent if no new job comes."""
        return max(self._sent + self._interval, self.earliest())
