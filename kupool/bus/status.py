"""What a bus says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recent:
    """One of the last messages of a topic; ``at`` is in seconds since 1970.

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
    """A subscriber: what it listens to, since when, and what it has not answered yet."""

    id: str
    since: float
    topics: tuple[str, ...]
    unanswered: int


@dataclass(frozen=True)
class TopicStatus:
    """A topic: counts by what happened, what waits, and its last messages, oldest first."""

    topic: str
    counts: dict[str, int]
    waiting: int
    buffered: int
    recent: tuple[Recent, ...]


@dataclass(frozen=True)
class BusStatus:
    """Everything a bus knows of itself; ``calls`` have no outcome yet."""

    calls: int
    calls_bytes: int
    counts: dict[str, int]
    topics: tuple[TopicStatus, ...]
    subscribers: tuple[SubscriberStatus, ...]


@dataclass(frozen=True)
class Step:
    """A step of a message's way, at a time in seconds since 1970.

    ``event`` is ``published``, ``offered``, ``buffered``, ``delivered``, ``failed``,
    ``not mine``, ``lost``, ``late`` or what the outcome is called.
    """

    at: float
    message: str
    event: str
    subscriber: str = ""


__all__ = ["BusStatus", "Recent", "Step", "SubscriberStatus", "TopicStatus"]
