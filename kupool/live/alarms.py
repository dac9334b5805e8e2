"""What operators have to know of live channels: counted, logged and told, once a minute at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.timing.summaries import Summaries

#: Seconds between two tellings of the same alarm.
PERIOD = 60.0

#: The longest text of a detail, in characters.
LONGEST_DETAIL = 255


class LiveAlarm(Enum):
    """What is wrong; the value is the type of the event."""

    #: Publications were not compared with all that were published lately.
    UNCHECKED = "live.duplicates_unchecked"
    #: A durable channel has the same event more than once.
    DUPLICATES = "live.duplicates"
    #: The sequence of a device has a gap, or goes back.
    SEQUENCE = "live.sequence"
    #: Something was left of a client that has gone.
    LEFTOVERS = "live.leftovers"


#: What the log says of each.
_TEXTS = {
    LiveAlarm.UNCHECKED: "Live publications could not be compared with all earlier ones, and may "
    "be there twice: {reason}",
    LiveAlarm.DUPLICATES: "Topic {topic}, partition {partition}, has events more than once, such "
    "as {event_id} at offset {offset}, first at {first}",
    LiveAlarm.SEQUENCE: "The sequence of device {device} in channel {channel} is not in order: "
    "{what}, {first} to {last}",
    LiveAlarm.LEFTOVERS: "The sweep of live channels has removed what was left: {found}",
}

#: Is told the type of an event, and its fields; must not raise.
TellAlarm = Callable[[str, Mapping[str, object]], object]


class LiveAlarms:
    """Counts alarms, and tells them: the first at once, and then what has come in each minute."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self.counts: Counter[LiveAlarm] = Counter()
        self._summaries: Summaries[LiveAlarm] = Summaries(clock, PERIOD, self._say)
        self._newest: dict[LiveAlarm, Mapping[str, object]] = {}
        self._told: tuple[TellAlarm, ...] = ()

    def tell(self, told: TellAlarm) -> None:
        """Tell somebody the alarms from now on."""
        self._told += (told,)

    def note(self, alarm: LiveAlarm, details: Mapping[str, object], count: int = 1) -> None:
        """Count an alarm; the ``details`` of the newest one are told.

        They are JSON, and have what the text of the alarm names.
        """
        self.counts[alarm] += count
        self._newest[alarm] = {
            name: value[:LONGEST_DETAIL] if isinstance(value, str) else value
            for name, value in details.items()
        }
        self._summaries.note(alarm, count)

    def recent(self, alarm: LiveAlarm) -> bool:
        """Return whether an alarm was told in the last minute."""
        return alarm in self._summaries

    def stop(self) -> None:
        """Tell what was not told, and stop the timers."""
        self._summaries.stop()

    def _say(self, alarm: LiveAlarm, count: int) -> None:
        details, total = self._newest.pop(alarm, {}), self.counts[alarm]
        self._log.warn(
            _TEXTS[alarm] + "; {count}, {total} since the start",
            **details,
            count=count,
            total=total,
        )
        for told in self._told:
            told(alarm.value, {**details, "count": count, "total": total})


__all__ = ["LiveAlarm", "LiveAlarms", "TellAlarm"]
