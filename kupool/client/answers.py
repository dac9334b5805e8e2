"""What the answer to a submission means."""

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
from kupool.wire.incoming import TRUE, Incoming


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
    if reply.error is None and reply.result == TRUE:
        return Answer(Outcome.ACCEPTED, resubmitted=resubmitted)
    code = error_code(reply)
    outcome = Outcome.OTHER if code is None else _OUTCOMES.get(code, Outcome.OTHER)
    return Answer(outcome, reply.error or "no reason given", code, resubmitted)
