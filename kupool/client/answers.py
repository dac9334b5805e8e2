"""What a server says: messages as a client reads them, and what an answer means."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import msgspec

from kupool.errors import (
    CLOSE_REASONS,
    DUPLICATE,
    ERRORS,
    GOING_DOWN,
    INVALID_RESULT,
    RESTARTING,
    TASK_EXPIRED,
    TASK_UNKNOWN,
    TOO_FREQUENT,
    UNAVAILABLE,
)


class Incoming(msgspec.Struct, gc=False):
    """Any message of a server: with a ``method`` it is a notification or a request,
    without one it is a reply.
    """

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"null")
    result: Any = None
    error: str | None = None
    code: int | None = None


#: Decodes one payload; raises ``ValueError`` or ``RecursionError`` on what is no message.
decode_incoming = msgspec.json.Decoder(Incoming).decode


class Outcome(Enum):
    """What became of a submission."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "unknown job"
    EXPIRED = "expired"
    TOO_FREQUENT = "too frequent"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"
    OTHER = "other error"


_OUTCOMES = {
    DUPLICATE.code: Outcome.DUPLICATE,
    TASK_UNKNOWN.code: Outcome.STALE,
    TASK_EXPIRED.code: Outcome.EXPIRED,
    TOO_FREQUENT.code: Outcome.TOO_FREQUENT,
    INVALID_RESULT.code: Outcome.INVALID,
    UNAVAILABLE.code: Outcome.UNAVAILABLE,
}
_CODES = {error.text: error.code for error in ERRORS}


class Answer(NamedTuple):
    """The answer to a submission; ``text`` and ``code`` are the error's, if any.

    ``resubmitted`` says that it was sent again after a lost connection. Accepted then
    includes ``Duplicate submission``: the first one was counted.
    """

    outcome: Outcome
    text: str = ""
    code: int | None = None
    resubmitted: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the submission is counted."""
        return self.outcome is Outcome.ACCEPTED


def error_code(reply: Incoming) -> int | None:
    """Return the code of an error reply; the first servers send the text alone."""
    return reply.code if reply.code is not None else _CODES.get(reply.error or "")


def read_answer(reply: Incoming, resubmitted: bool = False) -> Answer:
    """Return what a reply to a submission says."""
    if reply.error is None and reply.result is True:
        return Answer(Outcome.ACCEPTED, resubmitted=resubmitted)
    code = error_code(reply)
    outcome = Outcome.OTHER if code is None else _OUTCOMES.get(code, Outcome.OTHER)
    return Answer(outcome, reply.error or "no reason given", code, resubmitted)


class Closing(NamedTuple):
    """A close announced by the server, and what the protocol asks of the client.

    ``elsewhere`` says that another server should be tried first, ``immediate`` that
    there is no need to wait; ``retry_after`` is in seconds.
    """

    reason: str
    code: int | None
    reconnect: bool
    immediate: bool = False
    elsewhere: bool = False
    retry_after: float | None = None


class _CloseParams(msgspec.Struct):
    reason: str = ""
    code: int | None = None
    reconnect: bool | None = None
    retry_after: float | None = None


_BY_REASON = {reason.reason: reason for reason in CLOSE_REASONS}


def close_by_text(payload: bytes) -> Closing:
    """Read the close of ``frame``, which is the reason's text alone."""
    text = payload.decode(errors="replace")
    known = _BY_REASON.get(text)
    return _closing(
        _CloseParams(text)
        if known is None
        else _CloseParams(known.reason, known.code, known.reconnect)
    )


def close_by_params(params: msgspec.Raw) -> Closing:
    """Read the notification ``close``; raises :class:`ValueError` if it is none."""
    return _closing(msgspec.json.decode(params, type=_CloseParams))


def _closing(params: _CloseParams) -> Closing:
    code = params.code
    reconnect = params.reconnect is not False
    if code is not None and 4500 <= code < 4600:
        reconnect = False
    elif code is not None and 4000 <= code < 4200:
        reconnect = True
    wait = params.retry_after
    return Closing(
        params.reason or "closed by the server",
        code,
        reconnect,
        immediate=code in (GOING_DOWN.code, RESTARTING.code),
        elsewhere=code != RESTARTING.code,
        retry_after=wait if wait is not None and wait >= 0 else None,
    )
