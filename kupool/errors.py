"""The table of error texts, error codes and close reasons (docs/protocol.md, section 6).

Every error sent to a peer is a row of this table, and every close is a row of
:data:`CLOSE_REASONS`. No other module defines such texts. :func:`after_close` alone decides
what a client does after a close. Pure.
"""

from __future__ import annotations

import re
from math import ceil
from typing import NamedTuple


class ErrorText(NamedTuple):
    """A row of the error table: a code and its text.

    If the text ends in a detail after a colon, ``text`` is the part before the colon, and
    :meth:`about` adds the detail.
    """

    code: int
    text: str

    def about(self, detail: str) -> ErrorText:
        """Return the row with a detail after the text: ``text: detail``."""
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
STALE_GENERATION = ErrorText(39, "stale generation")
OFFSET_OUT_OF_RANGE = ErrorText(40, "offset out of range")
NOT_THE_OWNER = ErrorText(41, "not the owner")
WRONG_NODE = ErrorText(42, "wrong node")
TOO_LARGE = ErrorText(43, "too large")

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
    STALE_GENERATION,
    OFFSET_OUT_OF_RANGE,
    NOT_THE_OWNER,
    WRONG_NODE,
    TOO_LARGE,
)


def damaged(what: str) -> ErrorText:
    """Return the row of :data:`INTERNAL_ERROR` for stored data that cannot be read: it has what is
    wrong instead of a reference.
    """
    return ErrorText(INTERNAL_ERROR.code, f"internal error: {what}")


class CloseReason(NamedTuple):
    """A close reason: why the server ends a connection, and whether the client should reconnect.

    With a ``reconnect`` of False the client should not reconnect without a person's
    decision. With ``immediate`` it may reconnect at once, without backoff. ``detail`` says
    for people what exactly was wrong; programs ignore it.
    """

    code: int
    reason: str
    reconnect: bool
    immediate: bool = False
    detail: str = ""

    def about(self, detail: str) -> CloseReason:
        """Return the row with ``detail``; code and reason are unchanged."""
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

#: Sent if the first byte of a connection belongs to no framing. The wire contract
#: gives this close no code of its own, so it has the code of its error text.
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

#: The longest time for which a server can keep a client away, in seconds: a day.
LONGEST_WAIT = 86_400.0

_BY_REASON = {row.reason: row for row in CLOSE_REASONS}
_BY_CODE = {row.code: row for row in CLOSE_REASONS}
_TIMED = re.compile(r"(?P<reason>.+): (?P<seconds>[0-9]{1,9}) s", re.ASCII | re.DOTALL)


class Announced(NamedTuple):
    """A close as announced to a client.

    ``code`` is None if the framing carries none and the reason is not in the table.
    ``reconnect`` is None if the framing does not carry it. ``retry_after`` is in seconds.
    ``detail`` says what exactly was wrong, if the server sent it.
    """

    reason: str
    code: int | None = None
    reconnect: bool | None = None
    retry_after: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        """Return the reason, with the detail if there is one."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def close_text(reason: CloseReason, retry_after: float | None = None) -> str:
    """Return a close as text: the reason, and for a ban its seconds."""
    if retry_after is None or reason.code != BANNED.code:
        return reason.reason
    return f"{reason.reason}: {ceil(min(max(retry_after, 0.0), LONGEST_WAIT))} s"


def announced_by_text(text: str, code: int | None = None) -> Announced:
    """Parse a close of which a framing carries only the text of :func:`close_text`.

    A reason of the table gets its code, unless the framing carries a code.
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

    - ``returns``: it reconnects by itself.
    - ``at_once``: the first time, it reconnects without backoff.
    - ``elsewhere``: it tries another server first, if it has one.
    - ``wait``: seconds before its backoff begins.
    """

    returns: bool
    at_once: bool = False
    elsewhere: bool = True
    wait: float = 0.0


def after_close(close: Announced | None) -> AfterClose:
    """Return what a client does after a close, or, with None, after a loss without one.

    - 4000 and 4001: reconnect at once.
    - 41xx: reconnect with backoff.
    - 4503: reconnect after the announced seconds.
    - Other 45xx: do not reconnect.
    - Any other code, or none: like 41xx, unless the server says not to reconnect.
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
