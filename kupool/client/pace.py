"""When a worker may submit, and when it should. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: The longest time between two submissions, in seconds: at least one a minute.
LONGEST = 60.0

#: Seconds by which the longest interval is kept shorter, as timers fire late.
EARLY = 0.5


@dataclass(frozen=True)
class PaceSettings:
    """Times are in seconds.

    ``interval`` is the time between submissions while no new job comes. ``gap`` is what
    the server keeps between two accepted ones, and ``margin`` what is added to it
    against clocks that do not run alike. Raises :class:`ValueError` for an interval
    that is not above 0 or is beyond a minute, and for a gap or margin below 0 or beyond
    a minute together.
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
    """Tells when the next submission is due.

    It goes by the *answers*: the server judged a submission before its answer came, so
    what is sent a gap after that arrives at least a gap after that judgement, however
    long either took on the way.
    """

    def __init__(self, settings: PaceSettings) -> None:
        self._interval = min(settings.interval, LONGEST - EARLY)
        self._gap = settings.gap
        self._margin = settings.margin if settings.gap else 0.0
        self._sent = float("-inf")
        self._not_before = float("-inf")
        self._refused = 0

    def sent(self, now: float) -> None:
        """A submission was sent."""
        self._sent = now

    def accepted(self, now: float) -> None:
        """It was accepted, as its answer says that came now."""
        self._refused = 0
        self._not_before = now + self._gap + self._margin

    def too_frequent(self, now: float) -> None:
        """It was refused as too frequent: the server keeps a longer gap."""
        self._refused = min(self._refused + 1, 16)
        wait = (self._gap + self._margin or 1.0) * 2.0 ** (self._refused - 1)
        self._not_before = now + min(LONGEST - 1.0, wait)

    def earliest(self) -> float:
        """Return when a new job may be submitted for."""
        return max(self._sent + self._gap, self._not_before)

    def due(self) -> float:
        """Return when the next submission should leave while there is no new job."""
        return max(self._sent + self._interval, self.earliest())
