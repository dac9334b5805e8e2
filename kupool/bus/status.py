"""The status of a bus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recent:
    """A recent message of a topic; ``at`` is in seconds since 1970.

    ``outcome`` is empty while there is none; ``start`` is the beginning of the data.
    """

    id: str
    at: float
    model: str
    size: int
    start: bytes
    outcome: str


@dataclass(frozen=True)
class SubscriberStatus:
    """A subscriber: its topics, when it subscribed, and the calls that it has not answered."""

    id: str
    since: float
    topics: tuple[str, ...]
    unanswered: int


@dataclass(frozen=True)
class TopicStatus:
    """A topic: counts by event, waiting messages, and its recent messages, oldest first."""

    topic: str
    counts: dict[str, int]
    waiting: int
    buffered: int
    recent: tuple[Recent, ...]


@dataclass(frozen=True)
class BusStatus:
    """The whole status of a bus; ``calls`` counts those without an outcome."""

    calls: int
    calls_bytes: int
    counts: dict[str, int]
    topics: tuple[TopicStatus, ...]
    subscribers: tuple[SubscriberStatus, ...]


@dataclass(frozen=True)
class Step:
    """A step of a message's trace, at a time in seconds since 1970.

    ``event`` is ``published``, ``offered``, ``buffered``, ``delivered``, ``failed``, ``not mine``,
    ``lost``, ``late``, or the name of the outcome.
    """

    at: float
    message: str
    event: str
    subscriber: str = ""


__all__ = ["BusStatus", "Recent", "Step", "SubscriberStatus", "TopicStatus"]
