"""The message bus: topics, four delivery models, one outcome for every publish.

Publishers know a topic and nothing of who listens. The same interface is there in one
process (:mod:`kupool.bus.local`) and over a network (:mod:`kupool.bus.remote`). Only the
latter imports more than the standard library and Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

#: What a publisher gives for a topic; an integer is the topic of its decimal digits.
Topic = str | int


class Model(Enum):
    """How a message is delivered, by its name in the wire protocol."""

    RELIABLE_RANDOM = "reliable-random"
    RELIABLE_SPECIFIC = "reliable-specific"
    UNRELIABLE_ALL = "unreliable-all"
    UNRELIABLE_RANDOM = "unreliable-random"

    @property
    def reliable(self) -> bool:
        """Whether the publisher gets an answer."""
        return self in (Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC)


class Kind(Enum):
    """What became of a message, as its publisher is told."""

    #: A subscriber answered; the outcome carries its data and status.
    ANSWERED = "answered"
    #: A subscriber refused or failed, or the bus did not take the message.
    REFUSED = "refused"
    #: The deadline passed without an answer.
    TIMEOUT = "timeout"
    #: Nobody was there until the deadline, or all who were said "not mine".
    NO_SUBSCRIBER = "no subscriber"
    #: An unreliable message is on its way.
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one outcome of a publish.

    ``data`` and ``status`` are the answer's (status 0: all is well), ``reason`` says why
    a message was refused, ``subscriber`` who answered or refused. ``receivers`` counts
    who was sent an unreliable message; 0 means that it waits for a subscriber.
    """

    kind: Kind
    data: bytes = b""
    status: int = 0
    reason: str = ""
    subscriber: str = ""
    receivers: int = 0


class Message(NamedTuple):
    """A message as a handler gets it.

    ``timeout`` is how many seconds are left to answer, 0 where no answer is awaited;
    ``redelivered`` says that another subscriber may have seen it.
    """

    id: str
    topic: str
    data: bytes
    model: Model
    headers: Mapping[str, str]
    key: str = ""
    timeout: float = 0.0
    redelivered: bool = False


class Answer(NamedTuple):
    """What a handler returns that says more than bytes."""

    data: bytes = b""
    status: int = 0


class NotMine(Exception):
    """Raised by a handler: this message is for somebody else."""


class Refusal(Exception):
    """Raised by a handler: the publisher gets ``str(self)`` at once, as the reason."""


class BusError(Exception):
    """The bus is away, or does not do what it was asked for."""


#: Gets a message and returns the answer's bytes, an :class:`Answer`, None for an empty
#: answer, or a Deferred or coroutine of these. It may raise :class:`NotMine` or
#: :class:`Refusal`; after any other exception the message goes to another subscriber.
Handler = Callable[[Message], Any]


class Subscription(NamedTuple):
    """An acknowledged subscription: one handler, with all the topics it has."""

    id: str
    topics: tuple[str, ...]


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


class IBus(Interface):
    """A message bus.

    Topics are names of levels joined by ``.``; in a subscription ``*`` stands for one
    level and a last ``>`` for one or more. The four ``publish`` methods return a Deferred
    that fires with exactly one :class:`Outcome` and fails only where it is cancelled.
    ``timeout`` is in seconds, at least 0.01 and at most 3600, by default 3; ``headers``
    (at most 2 KiB) reach the handler as they are, and ``trace-id`` among them is the id
    that :meth:`trace` knows the message by.

    All raise :class:`ValueError`, at once, for an argument that cannot be right.
    """

    def publish_reliable_random(
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Have one subscriber, chosen at random, answer; another, where it does not."""

    def publish_reliable_specific(
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Have the one subscriber answer that can: all get it, the first answer counts.

        ``key`` is a hint whose message it is, for topics where hints are used.
        """

    def publish_unreliable_all(
        data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to every subscriber there is, or within 3 s to the first that comes."""

    def publish_unreliable_random(
        data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to one subscriber, chosen at random, or to the first that comes in 3 s."""

    def subscribe(
        topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Let a handler have the messages of some topics; fires when that is so.

        A handler that has a subscription gets the topics and keys in addition, and every
        message once. Handlers are told apart as keys of a dictionary are.
        """

    def unsubscribe(handler: Handler, topics: Iterable[Topic] | None = None) -> Deferred[None]:
        """Let a handler have no more of some topics, by default of all; else harmless."""

    def status() -> Deferred[BusStatus]:
        """Return topics, subscribers and counts."""

    def trace(message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the way of a recent message, by its id or ``trace-id``; empty if unknown."""

    def close() -> Deferred[None]:
        """Drop all subscriptions and end every call as refused; harmless when repeated."""


__all__ = [
    "Answer",
    "BusError",
    "BusSettings",
    "BusStatus",
    "Handler",
    "IBus",
    "Kind",
    "Message",
    "Model",
    "NotMine",
    "Outcome",
    "Recent",
    "Refusal",
    "Step",
    "SubscriberStatus",
    "Subscription",
    "Topic",
    "TopicStatus",
]
