"""What a broker keeps of a subscriber, and of a call until it has its outcome. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from random import Random
from typing import NamedTuple

from kupool.bus.accounts import Note
from kupool.bus.messages import Message, Outcome
from kupool.bus.status import SubscriberStatus


class Taken(Enum):
    """What became of a message that was handed to a subscriber."""

    YES = "taken"
    #: Not now: it has enough to do.
    FULL = "full"
    #: Not any more: its end is near.
    GONE = "gone"
    #: Never: no message of this size reaches it.
    TOO_LARGE = "too large"


#: Hands a message to a subscriber. With a number for the second argument an answer is
#: awaited: it is given to ``Broker.answer`` with that number. Never raises.
Deliver = Callable[[Message, "int | None"], Taken]

#: Is told the outcome of a message, exactly once.
Done = Callable[[Outcome], object]


class CallVerdict(Enum):
    """What a subscriber says to a call."""

    ANSWER = "answer"
    REFUSE = "refuse"
    NOT_MINE = "not mine"
    FAILED = "failed"
    #: It is there no more: as if it had never been asked.
    LOST = "lost"


class Response(NamedTuple):
    """A subscriber's word: data and status of an answer, or the text of a refusal."""

    verdict: CallVerdict
    data: bytes = b""
    status: int = 0
    text: str = ""


class OfferState(Enum):
    """How a call stands with a subscriber that it was offered to."""

    OPEN = "open"
    NOT_MINE = "not mine"
    FAILED = "failed"
    LOST = "lost"


class Subscriber:
    """One subscriber: where its messages go, and which calls are open with it."""

    __slots__ = ("calls", "calls_bytes", "deliver", "full", "id", "keys", "patterns", "since")

    def __init__(self, subscriber_id: str, deliver: Deliver, since: float) -> None:
        self.id = subscriber_id
        self.deliver = deliver
        self.since = since
        self.patterns: dict[str, None] = {}
        self.keys: set[str] = set()
        self.calls: dict[int, int] = {}
        self.calls_bytes = 0
        #: Whether a call passed it over for having enough to do.
        self.full = False

    def take(self, number: int, size: int) -> None:
        """Note a call that it is to answer."""
        self.calls[number] = size
        self.calls_bytes += size

    def drop(self, number: int) -> None:
        """Note that it need not answer a call any more."""
        self.calls_bytes -= self.calls.pop(number, 0)

    def shown(self) -> SubscriberStatus:
        """Return what a status says of it."""
        return SubscriberStatus(self.id, self.since, tuple(self.patterns), len(self.calls))


class Call:
    """A reliable message that has no outcome yet.

    It waits in a queue of timers for when it is to be looked at again.
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
        #: How it stands with each subscriber that it was offered to.
        self.offers: dict[Subscriber, OfferState] = {}
        #: Whose share of the time it is.
        self.holder: Subscriber | None = None
        self.share_ends = 0.0
        #: Whether there was a subscriber at all.
        self.met = False
        #: Whether one is gone that may have seen it.
        self.lost = False
        #: What the last of those that failed said.
        self.error = self.failed_by = ""
        self.due = deadline
        self.before: Call | None = None
        self.after: Call | None = None
        self.place = -1


def in_any_order(random: Random, count: int) -> Iterator[int]:
    """Yield the numbers below ``count`` in a random order, the first at little cost."""
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
