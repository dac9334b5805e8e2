"""The one table of error texts and codes (docs/protocol.md, section 6).

Every error that reaches a peer is made from a row of this table, and every close
names a row of :data:`CLOSE_REASONS`. Nothing else in the project writes such a text.
"""

from __future__ import annotations

from typing import NamedTuple


class ErrorText(NamedTuple):
    """A row of the error table: a stable code and the text that goes with it.

    Where the text ends in a colon-separated detail, ``text`` holds what stands before
    the colon and :meth:`about` adds the detail.
    """

    code: int
    text: str

    def about(self, detail: str) -> ErrorText:
        """Return the row with ``detail`` after the text, as ``text: detail``."""
        return ErrorText(self.code, f"{self.text}: {detail}")


INTERNAL_ERROR = ErrorText(20, "internal error, reference")
TASK_UNKNOWN = ErrorText(21, "Task does not exist")
DUPLICATE = ErrorText(22, "Duplicate submission")
INVALID_RESULT = ErrorText(23, "Invalid result")
UNAUTHORIZED = ErrorText(24, "unauthorized")
TASK_EXPIRED = ErrorText(25, "Task expired")
TOO_FREQUENT = ErrorText(26, "Submission too frequent")
UNAVAILABLE = ErrorText(27, "Temporarily unavailable")
MALFORMED = ErrorText(30, "malformed message")
UNKNOWN_METHOD = ErrorText(31, "unknown method")
BAD_PARAMS = ErrorText(32, "bad params")
FORBIDDEN = ErrorText(33, "forbidden")
TOO_MANY_REQUESTS = ErrorText(34, "too many requests")
NOT_FOUND = ErrorText(35, "not found")
ALREADY_EXISTS = ErrorText(36, "already exists")
TIMEOUT = ErrorText(37, "timeout")
NO_SUBSCRIBER = ErrorText(38, "no subscriber")

ERRORS: tuple[ErrorText, ...] = (
    INTERNAL_ERROR,
    TASK_UNKNOWN,
    DUPLICATE,
    INVALID_RESULT,
    UNAUTHORIZED,
    TASK_EXPIRED,
    TOO_FREQUENT,
    UNAVAILABLE,
    MALFORMED,
    UNKNOWN_METHOD,
    BAD_PARAMS,
    FORBIDDEN,
    TOO_MANY_REQUESTS,
    NOT_FOUND,
    ALREADY_EXISTS,
    TIMEOUT,
    NO_SUBSCRIBER,
)


class CloseReason(NamedTuple):
    """Why the server ends a connection, and whether the client should come back.

    ``reconnect`` is what the peer is told: with ``False`` it should not return
    without a person. ``immediate`` says that it may return at once, without backoff.
    """

    code: int
    reason: str
    reconnect: bool
    immediate: bool = False


GOING_DOWN = CloseReason(4000, "server going down", True, True)
RESTARTING = CloseReason(4001, "server restarting", True, True)
SLOW_READER = CloseReason(4100, "slow reader", True)
IDLE_TIMEOUT = CloseReason(4101, "idle timeout", True)
TOO_MANY_CONNECTIONS = CloseReason(4102, "too many connections", True)
CLOSE_UNAUTHORIZED = CloseReason(4500, "unauthorized", False)
FRAME_TOO_LARGE = CloseReason(4501, "frame too large", False)
TOO_MANY_ERRORS = CloseReason(4502, "too many errors", False)
BANNED = CloseReason(4503, "banned", False)

#: Sent where the first byte of a connection belongs to no framing. The wire contract
#: gives this close no code of its own, so it carries the code of its error text.
CLOSE_MALFORMED = CloseReason(MALFORMED.code, MALFORMED.text, False)

CLOSE_REASONS: tuple[CloseReason, ...] = (
    GOING_DOWN,
    RESTARTING,
    SLOW_READER,
    IDLE_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    CLOSE_UNAUTHORIZED,
    FRAME_TOO_LARGE,
    TOO_MANY_ERRORS,
    BANNED,
    CLOSE_MALFORMED,
)


class RequestError(Exception):
    """Raised by a handler to answer its request with a row of the error table.

    >>> raise RequestError(NOT_FOUND.about("room 7"))
    """

    def __init__(self, error: ErrorText) -> None:
        super().__init__(error.text)
        self.error = error
