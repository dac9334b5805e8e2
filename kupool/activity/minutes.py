"""What clients asked in a minute, and how its counts are kept. Pure."""

from __future__ import annotations

from collections import Counter

import msgspec

from kupool.timing.histogram import Histogram

#: Seconds of a minute, and the minutes that are kept: a day.
MINUTE = 60
KEPT_MINUTES = 1440


class MinuteRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The counts of a minute as they are kept.

    ``latency`` has the counts of a :class:`~kupool.timing.histogram.Histogram` that are not 0, and
    ``longest`` is its largest duration, in seconds.
    """

    methods: dict[str, int]
    accepted: int
    rejected: int
    latency: dict[int, int]
    longest: float


class MinuteCounts:
    """The counts of a minute that is not over.

    ``methods`` are the requests by their method. ``latency`` is that of submissions.
    """

    __slots__ = ("accepted", "latency", "methods", "rejected")

    def __init__(self) -> None:
        self.methods: Counter[str] = Counter()
        self.accepted = self.rejected = 0
        self.latency = Histogram()

    def record(self) -> MinuteRecord:
        """Return the counts, to be kept."""
        methods = {method: count for method, count in self.methods.items() if count}
        latency = self.latency
        return MinuteRecord(
            methods, self.accepted, self.rejected, latency.counts(), latency.largest
        )

    @classmethod
    def of(cls, record: MinuteRecord) -> MinuteCounts:
        """Return counts that go on from those that were kept."""
        made = cls()
        made.methods.update(record.methods)
        made.accepted, made.rejected = record.accepted, record.rejected
        made.latency = Histogram.restored(record.latency, record.longest)
        return made


def encode_minute(record: MinuteRecord) -> bytes:
    """Return the counts of a minute as JSON."""
    return msgspec.json.encode(record)


def decode_minute(text: bytes | str) -> MinuteRecord:
    """Return the counts of a minute; raises :class:`ValueError` for something else."""
    return msgspec.json.decode(text, type=MinuteRecord)


__all__ = [
    "KEPT_MINUTES",
    "MINUTE",
    "MinuteCounts",
    "MinuteRecord",
    "decode_minute",
    "encode_minute",
]
