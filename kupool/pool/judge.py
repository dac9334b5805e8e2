"""The judge: decides whether a submission is accepted, and if not, why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from kupool.errors import (
    DUPLICATE,
    INVALID_RESULT,
    TASK_EXPIRED,
    TASK_UNKNOWN,
    TOO_FREQUENT,
    ErrorText,
)
from kupool.pool.jobs import Job
from kupool.pool.session import Session
from kupool.wire.messages import SubmitParams

MAX_NONCE = 64

#: A verdict: None if the submission is acceptable, else the error to answer with.
Verdict = ErrorText | None


@dataclass(frozen=True)
class Rules:
    """The rules of the judge. Times are in seconds; 0 turns a rule off."""

    expire: float = 0.0
    submit_interval: float = 1.0

    def judge(
        self, job: Job | None, session: Session, submission: SubmitParams, now: float
    ) -> Verdict:
        """Judge one submission; the first check that fails decides.

        ``job`` is the job that the submission names, or None if there is no such job. ``now`` is on
        the clock of the process.
        """
        if job is None:
            return TASK_UNKNOWN
        if self.expire and now > job.created + self.expire:
            return TASK_EXPIRED
        # A sum, not a difference: rounding must not make exactly one second a little less.
        if now < session.last_accepted + self.submit_interval:
            return TOO_FREQUENT
        attempts = session.attempts
        if attempts is not None and attempts.empty(now):
            return TOO_FREQUENT
        if session.shared and any(bucket.empty(now) for bucket in session.shared):
            return TOO_FREQUENT
        nonces = session.nonces if session.job is job else session.enter(job)
        client_nonce = submission.client_nonce
        if client_nonce in nonces.used:
            return DUPLICATE
        if not 0 < len(client_nonce) <= MAX_NONCE:
            return INVALID_RESULT
        if not (client_nonce.isascii() and client_nonce.isprintable()):
            return INVALID_RESULT
        text = job.server_nonce + session.suffix + client_nonce
        try:
            # The comparison takes constant time, so that its time does not reveal the first
            # difference.
            right = compare_digest(sha256(text.encode()).hexdigest(), submission.result.lower())
        except TypeError:
            return INVALID_RESULT  # it is not ASCII
        return None if right else INVALID_RESULT
