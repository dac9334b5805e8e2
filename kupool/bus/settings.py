"""The limits of a bus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BusSettings:
    """Limits of a bus. Times are in seconds, sizes in bytes of data.

    ``buffer_count`` and ``buffer_bytes`` bound what waits for the first subscriber of one
    topic, ``buffer_total`` the bytes of all topics.

    ``direct`` are the topics, as patterns, on which a message with a key goes to the
    subscribers that declared this key alone, where there are any. A call that got no
    answer from one subscriber for ``share`` of its time is offered to another.
    """

    timeout: float = 3.0
    share: float = 1 / 3
    direct: tuple[str, ...] = ()
    max_data: int = 45_000
    max_calls: int = 100_000
    max_calls_bytes: int = 64 * 1024 * 1024
    max_unanswered: int = 10_000
    max_unanswered_bytes: int = 16 * 1024 * 1024
    max_running: int = 1000
    handler_timeout: float = 60.0
    buffer_time: float = 3.0
    buffer_count: int = 1000
    buffer_bytes: int = 1024 * 1024
    buffer_total: int = 64 * 1024 * 1024
    max_topics: int = 1000
    recent: int = 100
    max_traces: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share!r} is not above 0 and at most 1")


__all__ = ["BusSettings"]
