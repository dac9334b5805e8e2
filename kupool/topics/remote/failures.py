"""The errors of a client of topics: what a server refused, and what is unknown. Pure.

What a server refuses becomes the exception that topics of this process raise, where it is known
which; else a :class:`RefusedByServer`. :func:`write_state` says for each whether the records were
written.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

from kupool.errors import (
    ALREADY_EXISTS,
    INTERNAL_ERROR,
    NOT_FOUND,
    OFFSET_OUT_OF_RANGE,
    STALE_GENERATION,
    UNAVAILABLE,
    WRONG_NODE,
    ErrorText,
)
from kupool.topics.errors import (
    GroupInUse,
    IllegalGeneration,
    OffsetOutOfRange,
    SequenceTooOld,
    TopicError,
    TopicExists,
    TopicsUnavailable,
    UnknownGroup,
    UnknownMember,
    UnknownTopic,
    UnreadableBatch,
)
from kupool.topics.partition import Partition

_RANGE = re.compile(r"low=(\d{1,19}) high=(\d{1,19})")
_UNREADABLE = re.compile(
    r"batch at offset \d+: (?P<why>.*); read on from \d+ "
    r"\(offset=(?P<offset>\d{1,19}) next=(?P<next>\d{1,19})\)",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d{1,19}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):(?P<port>\d{1,5})")


class WriteState(Enum):
    """Whether records were written."""

    WRITTEN = "written"
    NOT_WRITTEN = "not written"
    UNKNOWN = "unknown"


class RefusedByServer(TopicError):
    """The server refused a request with a row of the table of errors; see :attr:`code`."""

    def __init__(self, error: ErrorText) -> None:
        super().__init__(f"{error.text} ({error.code})")
        self.code = error.code


class LedElsewhere(TopicError):
    """Another server is responsible for the group, the one at ``host`` and ``port``."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"the server at {host}:{port} is responsible for it")
        self.host = host
        self.port = port


class NotSent(TopicError):
    """The request was not sent: there is no connection, or too much is waiting already."""


class TopicsClosed(NotSent):
    """The client of topics was closed: nothing is sent any more."""

    def __init__(self) -> None:
        super().__init__("the client of topics was closed")


class AnswerLost(TopicError):
    """The request was sent, and its answer did not come: whether it was done is unknown."""


class BadAnswer(TopicError):
    """The answer of the server is not what was asked for; what it did is unknown."""


class ClientRefused(TopicError):
    """The server refuses this client for good: see the text, and connect again."""


class BufferFull(TopicError):
    """The producer has as many records that wait as its settings permit: nothing was written."""

    def __init__(self) -> None:
        super().__init__("the producer's buffer is full: wait for outcomes, or raise buffer_bytes")


class ProducerClosed(TopicError):
    """The producer was closed before these records were sent: nothing was written."""

    def __init__(self) -> None:
        super().__init__("the producer is closed")


class NotProduced(TopicError):
    """Records have no place: see :attr:`state` for whether they were written.

    The cause, ``__cause__``, is the last error.
    """

    def __init__(self, state: WriteState, cause: Exception) -> None:
        says = {
            WriteState.WRITTEN: "the records were written, their offsets are unknown",
            WriteState.NOT_WRITTEN: "the records were not written",
            WriteState.UNKNOWN: "whether the records were written is unknown",
        }
        super().__init__(f"{says[state]}: {cause}")
        self.state = state
        self.__cause__ = cause


def write_state(error: Exception) -> WriteState:
    """Return whether the records of a request that failed were written."""
    if isinstance(error, NotProduced):
        return error.state
    if isinstance(error, SequenceTooOld):
        return WriteState.WRITTEN
    if isinstance(error, (AnswerLost, BadAnswer)):
        return WriteState.UNKNOWN
    if isinstance(error, RefusedByServer) and error.code == INTERNAL_ERROR.code:
        return WriteState.UNKNOWN
    return WriteState.NOT_WRITTEN if isinstance(error, TopicError) else WriteState.UNKNOWN


def refusal(error: ErrorText, method: str, params: Any) -> TopicError:
    """Return the exception for a row of the table of errors that answered a request."""
    known = _KNOWN.get(error.code)
    found = None if known is None else known(error.text, method, params)
    return RefusedByServer(error) if found is None else found


def _unavailable(text: str, method: str, params: Any) -> TopicError:
    return TopicsUnavailable(text)


def _not_found(text: str, method: str, params: Any) -> TopicError | None:
    topic, group = getattr(params, "topic", None), getattr(params, "group", None)
    if topic is not None and f"there is no topic {topic}:" in text:
        return UnknownTopic(topic)
    if group is not None and f"there is no group {group}:" in text:
        return UnknownGroup(group)
    if method in ("group.heartbeat", "group.commit", "group.leave", "log.bury"):
        return UnknownMember(params.member, params.group)
    return None


def _exists(text: str, method: str, params: Any) -> TopicError | None:
    if method == "topic.create":
        return TopicExists(params.topic)
    if method == "log.produce":
        return SequenceTooOld(params.producer, params.sequence, _last_number(text))
    return GroupInUse(params.group) if hasattr(params, "group") else None


def _stale(text: str, method: str, params: Any) -> TopicError | None:
    generation = getattr(params, "generation", None)
    return None if generation is None else IllegalGeneration(generation, _last_number(text))


def _out_of_range(text: str, method: str, params: Any) -> TopicError | None:
    found = _RANGE.search(text)
    if found is None or method != "log.fetch":
        return None
    low, high = int(found[1]), int(found[2])
    offset = params.offset if isinstance(params.offset, int) else -1
    return OffsetOutOfRange(params.topic, params.partition, offset, low=low, high=high)


def _unreadable(text: str, method: str, params: Any) -> TopicError | None:
    found = _UNREADABLE.search(text)
    if found is None or method != "log.fetch" or int(found["next"]) <= int(found["offset"]):
        return None
    partition = Partition(params.topic, params.partition)
    return UnreadableBatch(partition, int(found["offset"]), int(found["next"]), found["why"])


def _wrong_node(text: str, method: str, params: Any) -> TopicError | None:
    found = _ADDRESS.fullmatch(text.removeprefix(f"{WRONG_NODE.text}: "))
    if found is None or not 0 < int(found["port"]) < 65536:
        return None
    return LedElsewhere(found["host"], int(found["port"]))


def _last_number(text: str) -> int:
    numbers = _NUMBER.findall(text)
    return int(numbers[-1]) if numbers else 0


_KNOWN = {
    INTERNAL_ERROR.code: _unreadable,
    UNAVAILABLE.code: _unavailable,
    NOT_FOUND.code: _not_found,
    ALREADY_EXISTS.code: _exists,
    STALE_GENERATION.code: _stale,
    OFFSET_OUT_OF_RANGE.code: _out_of_range,
    WRONG_NODE.code: _wrong_node,
}


__all__ = [
    "AnswerLost",
    "BadAnswer",
    "BufferFull",
    "ClientRefused",
    "LedElsewhere",
    "NotProduced",
    "NotSent",
    "ProducerClosed",
    "RefusedByServer",
    "TopicsClosed",
    "WriteState",
    "refusal",
    "write_state",
]
