"""What is published, what handlers do with it, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

#: What a publisher gives for a topic; an integer is the topic of its decimal digits.
Topic = str | int


class Model(Enum):
    """How a message is delivered, by its name in the wire protocol."""

    RELIABLE_RANDOM = "reliable-random"
    RELIABLE_SPECIFIC = "reliable-specific"
    UNRELIABLE_ALL = "unreliable-all"
    UNRELIABLE_RANDOM = "unreliable-random"

    def __init__(self, name: object) -> None:
        #: Whether the publisher gets an answer.
        self.reliable = str(name).startswith("reliable")


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

    def __init__(self, text: str) -> None:
        #: Its value, in a thirtieth of the time that ``value`` takes.
        self.text = text


class Outcome(NamedTuple):
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

    def offered(self, timeout: float, redelivered: bool) -> Message:
        """Return it as somebody gets it who has so many seconds left to answer."""
        # Every call comes here, and _replace() takes three times as long.
        return Message(
            self.id,
            self.topic,
            self.data,
            self.model,
            self.headers,
            self.key,
            timeout,
            redelivered,
        )


class Answer(NamedTuple):
    """What a handler returns that says more than bytes."""

    data: bytes = b""
    status: int = 0


class NotMine(Exception):
    """A handler raises this to decline a message; another subscriber gets it."""


class Refusal(Exception):
    """Raised by a handler: the publisher gets ``str(self)`` at once, as the reason."""


class BusError(Exception):
    """The bus is away, or does not do what it was asked for."""


#: Gets a message and returns the answer's bytes, an :class:`Answer`, None for an empty
#: answer, or a Deferred or coroutine of these. It may raise :class:`NotMine` or
#: :class:`Refusal`; after any other exception the message goes to another subscriber.
Handler = Callable[[Message], Any]


__all__ = [
    "Answer",
    "BusError",
    "Handler",
    "Kind",
    "Message",
    "Model",
    "NotMine",
    "Outcome",
    "Refusal",
    "Topic",
]
