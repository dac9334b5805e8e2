"""The one table of error texts and codes (docs/protocol.md, section 6).

Every error that reaches a peer is made from a row of this table, and every close
names a row of :data:`CLOSE_REASONS`. Nothing else in the project writes such a text.
What a client does after a close is :func:`after_close`, and nowhere else. Pure.
"""

from __future__ import annotations

import re
from math import ceil
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
    ``detail`` says what exactly was wrong, for a person; no program decides by it.
    """

    code: int
    reason: str
    reconnect: bool
    immediate: bool = False
    detail: str = ""

    def about(self, detail: str) -> CloseReason:
        """Return the row with ``detail`` beside it; code and reason stay as they are."""
        return self._replace(detail=detail)


GOING_DOWN = CloseReason(4000, "server going down", True, True)
RESTARTING = CloseReason(4001, "server restarting", True, True)
SLOW_READER = CloseReason(4100, "slow reader", True)
IDLE_TIMEOUT = CloseReason(4101, "idle timeout", True)
TOO_MANY_CONNECTIONS = CloseReason(4102, "too many connections", True)
TRY_AGAIN = CloseReason(4103, "try again", True)
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
    TRY_AGAIN,
    CLOSE_UNAUTHORIZED,
    FRAME_TOO_LARGE,
    TOO_MANY_ERRORS,
    BANNED,
    CLOSE_MALFORMED,
)

#: Seconds for which a server can keep a client away at most: a day.
LONGEST_WAIT = 86_400.0

_BY_REASON = {row.reason: row for row in CLOSE_REASONS}
_BY_CODE = {row.code: row for row in CLOSE_REASONS}
_TIMED = re.compile(r"(?P<reason>.+): (?P<seconds>[0-9]{1,9}) s", re.ASCII | re.DOTALL)


class Announced(NamedTuple):
    """A close as a client hears it announced.

    ``code`` is None where the framing carries none and the reason is not in the table;
    ``reconnect`` is None where the framing does not say; ``retry_after`` is in seconds;
    ``detail`` says what exactly was wrong, where the server told that.
    """

    reason: str
    code: int | None = None
    reconnect: bool | None = None
    retry_after: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        """Return the reason, and the detail where there is one."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def close_text(reason: CloseReason, retry_after: float | None = None) -> str:
    """Return a close as text alone: the reason, and of a ban how many seconds it lasts."""
    if retry_after is None or reason.code != BANNED.code:
        return reason.reason
    return f"{reason.reason}: {ceil(min(max(retry_after, 0.0), LONGEST_WAIT))} s"


def announced_by_text(text: str, code: int | None = None) -> Announced:
    """Read a close of which a framing carries the text of :func:`close_text` alone.

    A reason of the table gets its code, unless the framing has one of its own.
    """
    timed = _TIMED.fullmatch(text)
    reason, wait = (timed["reason"], float(timed["seconds"])) if timed else (text, None)
    row = _BY_REASON.get(reason)
    if row is None and code is None:
        return Announced(text or "closed by the server")
    if row is not None and code in (None, row.code):
        return Announced(row.reason, row.code, row.reconnect, wait)
    return Announced(reason or "closed by the server", code, None, wait)


class AfterClose(NamedTuple):
    """What a client does after a connection has ended.

    ``returns``: it comes back by itself. ``at_once``: without a backoff, the first time.
    ``elsewhere``: it tries another server first, if it knows one. ``wait``: seconds that
    pass before its backoff begins.
    """

    returns: bool
    at_once: bool = False
    elsewhere: bool = True
    wait: float = 0.0


def after_close(close: Announced | None) -> AfterClose:
    """Return what a client does after a close, or with None after a loss without one.

    4000 and 4001: at once. 41xx: with backoff. 4503: after the seconds that it names.
    Other 45xx: never. Any other code, or none, is like 41xx, unless the server says that
    nobody is to come back, as it may with a reason of its own.
    """
    if close is None:
        return AfterClose(True)
    wait = close.retry_after
    if wait is not None and wait < 0:
        wait = None
    waits = min(wait or 0.0, LONGEST_WAIT)
    if close.code == BANNED.code and wait is not None:
        return AfterClose(True, wait=waits)
    row = None if close.code is None else _BY_CODE.get(close.code)
    if row is not None and row.immediate:
        elsewhere = row is not RESTARTING
        return AfterClose(True, at_once=wait is None, elsewhere=elsewhere, wait=waits)
    if close.code is not None and 4500 <= close.code < 4600:
        return AfterClose(False)
    temporary = close.code is not None and 4000 <= close.code < 4200
    return AfterClose(temporary or close.reconnect is not False, wait=waits)


class RequestError(Exception):
    """Raised by a handler to answer its request with a row of the error table.

    >>> raise RequestError(NOT_FOUND.about("room 7"))
    """

    def __init__(self, error: ErrorText) -> None:
        super().__init__(error.text)
        self.error = error
