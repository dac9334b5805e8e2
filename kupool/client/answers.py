"""Interpret the answers to submissions."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from kupool.errors import (
    DUPLICATE,
    ERRORS,
    INVALID_RESULT,
    TASK_EXPIRED,
    TASK_UNKNOWN,
    TOO_FREQUENT,
    UNAVAILABLE,
)
from kupool.wire.incoming import TRUE, ServerMessage


class SubmissionOutcome(Enum):
    """The outcome of a submission."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "unknown job"
    EXPIRED = "expired"
    TOO_FREQUENT = "too frequent"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"
    OTHER = "other error"


_OUTCOMES = {
    DUPLICATE.code: SubmissionOutcome.DUPLICATE,
    TASK_UNKNOWN.code: SubmissionOutcome.STALE,
    TASK_EXPIRED.code: SubmissionOutcome.EXPIRED,
    TOO_FREQUENT.code: SubmissionOutcome.TOO_FREQUENT,
    INVALID_RESULT.code: SubmissionOutcome.INVALID,
    UNAVAILABLE.code: SubmissionOutcome.UNAVAILABLE,
}
_CODES = {error.text: error.code for error in ERRORS}


class SubmissionAnswer(NamedTuple):
    """The answer to a submission; ``text`` and ``code`` are those of its error, if any.

    ``resubmitted`` is whether it was sent again after a lost connection. Then ``Duplicate
    submission`` also means accepted, because the first one was counted.
    """

    outcome: SubmissionOutcome
    text: str = ""
    code: int | None = None
    resubmitted: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the submission is counted."""
        return self.outcome is SubmissionOutcome.ACCEPTED


def error_code(reply: ServerMessage) -> int | None:
    """Return the code of an error reply; the first servers send only the text."""
    return reply.code if reply.code is not None else _CODES.get(reply.error or "")


def read_answer(reply: ServerMessage, resubmitted: bool = False) -> SubmissionAnswer:
    """Return the answer in a reply to a submission."""
    if reply.error is None and reply.result == TRUE:
        return SubmissionAnswer(SubmissionOutcome.ACCEPTED, resubmitted=resubmitted)
    code = error_code(reply)
    outcome = (
        SubmissionOutcome.OTHER if code is None else _OUTCOMES.get(code, SubmissionOutcome.OTHER)
    )
    return SubmissionAnswer(outcome, reply.error or "no reason given", code, resubmitted)
