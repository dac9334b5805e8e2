"""Messages, the answers of handlers, and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

#: A topic as a publisher gives it; an integer is the topic of its decimal digits.
Topic = str | int

#: Makes a named tuple from its class and a tuple of all its values, in half the time that calling
#: the class takes: every call needs several.
with_values = tuple.__new__


class Model(Enum):
    """How a message is delivered, by its name in the wire protocol."""

    RELIABLE_RANDOM = "reliable-random"
    RELIABLE_SPECIFIC = "reliable-specific"
    UNRELIABLE_ALL = "unreliable-all"
    UNRELIABLE_RANDOM = "unreliable-random"

    def __init__(self, name: object) -> None:
        #: The same as ``value``, in an eighth of the time.
        self.text = str(name)
        #: Whether the publisher gets an answer.
        self.reliable = self.text.startswith("reliable")


class Kind(Enum):
    """The kinds of outcomes."""

    #: A subscriber answered; the outcome carries its data and status.
    ANSWERED = "answered"
    #: A subscriber refused or failed, or the bus refused the message.
    REFUSED = "refused"
    #: The deadline passed without an answer.
    TIMEOUT = "timeout"
    #: There was no subscriber until the deadline, or all subscribers said "not mine".
    NO_SUBSCRIBER = "no subscriber"
    #: An unreliable message was sent.
    SENT = "sent"

    def __init__(self, text: str) -> None:
        #: The same as ``value``, in a thirtieth of the time.
        self.text = text


class Outcome(NamedTuple):
    """The outcome of a publish.

    ``data`` and ``status`` are those of the answer (status 0 means success). ``reason`` says why a
    message was refused. ``subscriber`` is the one that answered or refused. ``receivers`` counts
    the subscribers that an unreliable message was sent to; 0 means that it waits for a subscriber.
    """

    kind: Kind
    data: bytes = b""
    status: int = 0
    reason: str = ""
    subscriber: str = ""
    receivers: int = 0


class Message(NamedTuple):
    """A message as a handler gets it.

    ``timeout`` is the time left to answer in seconds, 0 if no answer is expected. ``redelivered``
    says that another subscriber may have received it already.
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
        """Return the message for a subscriber that has this many seconds left to answer."""
        # Every call comes here, and _replace() takes five times as long.
        message_id, topic, data, model, headers, key, _, _ = self
        return with_values(
            Message, (message_id, topic, data, model, headers, key, timeout, redelivered)
        )


class Answer(NamedTuple):
    """A handler's answer with a status or other fields besides the data."""

    data: bytes = b""
    status: int = 0


class NotMine(Exception):
    """A handler raises this to decline a message; another subscriber gets it."""


class Refusal(Exception):
    """Raised by a handler: the publisher gets ``str(self)`` at once, as the reason."""


class BusError(Exception):
    """The bus is unavailable, or did not do what it was asked for."""


#: A handler: gets a message and returns the data of the answer, an :class:`Answer`, None for an
#: empty answer, or a Deferred or coroutine of these. It may raise :class:`NotMine` or
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
    "with_values",
]
