"""The broker's state of a subscriber, and of a call until it has its outcome. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto
from random import Random
from typing import NamedTuple

from kupool.bus.accounts import Note
from kupool.bus.messages import Message, Outcome
from kupool.bus.status import SubscriberStatus


class Taken(Enum):
    """What happened to a message that was handed to a subscriber."""

    YES = "taken"
    #: Not now: the subscriber is busy.
    FULL = "full"
    #: Not any more: the subscriber is about to end.
    GONE = "gone"
    #: Never: a message of this size cannot reach it.
    TOO_LARGE = "too large"


#: Hands a message to a subscriber. If the second argument is a number, an answer is expected: it is
#: given to ``Broker.answer`` with that number. Never raises.
Deliver = Callable[[Message, int | None], Taken]

#: Called with the outcome of a message, exactly once.
Done = Callable[[Outcome], object]


class CallVerdict(Enum):
    """The kind of a subscriber's response to a call."""

    ANSWER = "answer"
    REFUSE = "refuse"
    NOT_MINE = "not mine"
    FAILED = "failed"
    #: The subscriber is gone: as if it had never been asked.
    LOST = "lost"


class Response(NamedTuple):
    """A subscriber's response: data and status of an answer, or the text of a refusal."""

    verdict: CallVerdict
    data: bytes = b""
    status: int = 0
    text: str = ""


class OfferState(Enum):
    """The state of a call at a subscriber that it was offered to."""

    OPEN = auto()
    NOT_MINE = auto()
    FAILED = auto()
    LOST = auto()


class Subscriber:
    """One subscriber: the function that delivers to it, and its open calls."""

    __slots__ = ("calls", "calls_bytes", "deliver", "full", "id", "keys", "patterns", "since")

    def __init__(self, subscriber_id: str, deliver: Deliver, since: float) -> None:
        self.id = subscriber_id
        self.deliver = deliver
        self.since = since
        self.patterns: dict[str, None] = {}
        self.keys: set[str] = set()
        self.calls: dict[int, int] = {}
        self.calls_bytes = 0
        #: Whether a call skipped it because it was busy.
        self.full = False

    def take(self, number: int, size: int) -> None:
        """Record a call that it has to answer."""
        self.calls[number] = size
        self.calls_bytes += size

    def drop(self, number: int) -> None:
        """Record that it need not answer a call any more."""
        self.calls_bytes -= self.calls.pop(number, 0)

    def shown(self) -> SubscriberStatus:
        """Return its entry in a status."""
        return SubscriberStatus(self.id, self.since, tuple(self.patterns), len(self.calls))


class Call:
    """A reliable message without an outcome.

    It is in a queue of timers until it has to be processed again.
    """

    __slots__ = (
        "after",
        "before",
        "deadline",
        "done",
        "due",
        "error",
        "failed_by",
        "holder",
        "lost",
        "message",
        "met",
        "note",
        "number",
        "offers",
        "place",
        "share_ends",
    )

    def __init__(
        self, number: int, message: Message, deadline: float, done: Done, *, note: Note
    ) -> None:
        self.number = number
        self.message = message
        self.deadline = deadline
        self.done = done
        self.note = note
        #: Its state at each subscriber that it was offered to.
        self.offers: dict[Subscriber, OfferState] = {}
        #: The subscriber whose share of the time it is.
        self.holder: Subscriber | None = None
        #: When that share ends; set before it is read.
        self.share_ends: float
        #: Whether there was a subscriber at all.
        self.met = False
        #: Whether a subscriber is gone that may have received it.
        self.lost = False
        #: The text of the last failure, and who failed; set before they are read.
        self.error: str
        self.failed_by: str
        self.due = deadline
        self.before: Call | None = None
        self.after: Call | None = None
        self.place = -1


def in_any_order(random: Random, count: int) -> Iterator[int]:
    """Yield the numbers below ``count`` in a random order; the first one costs little."""
    if not count:
        return
    first = int(random.random() * count)  # randrange() takes four times as long
    yield first
    rest = [n for n in range(count) if n != first]
    random.shuffle(rest)
    yield from rest


__all__ = [
    "Call",
    "CallVerdict",
    "Deliver",
    "Done",
    "OfferState",
    "Response",
    "Subscriber",
    "Taken",
    "in_any_order",
]
