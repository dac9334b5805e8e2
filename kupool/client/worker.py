"""Work: a submission for every job, at the pace that the server permits."""

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

#: Random bytes of a nonce, which is sent as their hex digits.
NONCE_BYTES = 12


def solve(server_nonce: str, client_nonce: str) -> str:
    """Return the result for two nonces: the SHA-256 of both as text, in hex."""
    return sha256((server_nonce + client_nonce).encode()).hexdigest()


class Worker:
    """Submits through a client: at once for a new job, where that is permitted, and at
    the interval of ``settings`` while none comes.

    It takes the hooks ``on_job`` and ``on_disconnected`` of the client, and has an
    ``on_job`` and an ``on_answer`` (job, nonce, answer) of its own, which may be coroutines,
    too. ``random_bytes``
    returns so many bytes that nobody can guess. One submission is on its way at a time.
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
        """Submit nothing more, whatever jobs come; the client stays as it is."""
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
        """See to the next submission, unless one is on its way: then its answer does."""
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
        """The client ended, or takes no more: the next job is the next chance."""
        self._waiting = False
        if not failure.check(ClientError):
            self._log.failure("A submission failed", failure)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
