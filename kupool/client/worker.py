"""The worker: submits for every job, as often as the server permits."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import called
from kupool.client.answers import SubmissionAnswer, SubmissionOutcome
from kupool.client.failures import ClientError
from kupool.client.pace import Pace, PaceSettings
from kupool.client.pool import PoolClient
from kupool.wire.messages import JobParams

#: Number of random bytes of a nonce, which is sent in hex.
NONCE_BYTES = 12


def solve(server_nonce: str, client_nonce: str) -> str:
    """Return the result for two nonces: the SHA-256 of their concatenated text, in hex."""
    return sha256((server_nonce + client_nonce).encode()).hexdigest()


class Worker:
    """Submits through a client: at once for a new job if permitted, else every ``interval``.

    It uses the client's hooks ``on_job`` and ``on_disconnected``. It has its own hooks
    ``on_job`` and ``on_answer`` (job, nonce, answer), which may be coroutines.
    ``random_bytes`` returns that many unpredictable bytes. At most one submission is
    unanswered at a time.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        client: PoolClient,
        settings: PaceSettings | None = None,
        *,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        on_job: Callable[[JobParams], object] | None = None,
        on_answer: Callable[[JobParams, str, SubmissionAnswer], object] | None = None,
        on_disconnected: Callable[[str], object] | None = None,
    ) -> None:
        self.on_job = on_job
        self.on_answer = on_answer
        self.on_disconnected = on_disconnected
        self._clock = clock
        self._client = client
        self._random_bytes = random_bytes
        self._pace = Pace(settings or PaceSettings())
        self._job: JobParams | None = None
        self._fresh = False
        self._waiting = False
        self._stopped = False
        self._timer: IDelayedCall | None = None
        client.on_job = self._received
        client.on_disconnected = self._disconnected

    def stop(self) -> None:
        """Stop submitting; the client is not closed."""
        self._stopped = True
        self._pause()

    def _pause(self) -> None:
        self._job = None
        self._cancel()

    def _received(self, job: JobParams) -> None:
        if self._stopped:
            return
        self._job = job
        self._fresh = True
        self._run(self.on_job, job)
        self._schedule()

    def _disconnected(self, reason: str) -> None:
        self._pause()
        self._run(self.on_disconnected, reason)

    def _run(self, hook: Callable[..., object] | None, *arguments: object) -> None:
        if hook is not None:
            called(hook, *arguments).addErrback(
                lambda failure: self._log.failure("A hook of the worker failed", failure)
            )

    def _schedule(self) -> None:
        """Schedule the next submission, unless one is unanswered: then its answer does."""
        self._cancel()
        if self._job is None or self._waiting:
            return
        due = self._pace.earliest() if self._fresh else self._pace.due()
        wait = due - self._clock.seconds()
        if wait <= 0:
            self._submit(self._job)
        else:
            self._timer = self._clock.callLater(wait, self._schedule)

    def _submit(self, job: JobParams) -> None:
        self._fresh = False
        self._waiting = True
        nonce = self._random_bytes(NONCE_BYTES).hex()
        self._pace.sent(self._clock.seconds())
        answered = self._client.submit(job.job_id, nonce, solve(job.server_nonce, nonce))
        answered.addCallbacks(self._answered, self._failed, callbackArgs=(job, nonce))

    def _answered(self, answer: SubmissionAnswer, job: JobParams, nonce: str) -> None:
        self._waiting = False
        now = self._clock.seconds()
        if answer.accepted:
            self._pace.accepted(now)
        elif answer.outcome is SubmissionOutcome.TOO_FREQUENT:
            self._pace.too_frequent(now)
        self._schedule()
        self._run(self.on_answer, job, nonce, answer)

    def _failed(self, failure: Failure) -> None:
        """Handle a failed submission; the worker continues with the next job."""
        self._waiting = False
        if not failure.check(ClientError):
            self._log.failure("A submission failed", failure)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
