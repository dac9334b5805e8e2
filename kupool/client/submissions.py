"""Pending submissions: each gets exactly one answer, even across lost connections."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.client.answers import SubmissionAnswer, SubmissionOutcome, read_answer
from kupool.client.failures import TooManyUnanswered
from kupool.client.settings import PoolClientSettings
from kupool.net.dialling.answers import Answers
from kupool.net.dialling.failures import RequestTimeout
from kupool.timing.doubling import Doubling
from kupool.wire.incoming import ServerMessage
from kupool.wire.messages import SubmitParams, encode_request

#: Least seconds before a submission is sent again that the server could not accept: at
#: least the interval that servers keep between two of them.
RETRY_FIRST = 1.05

#: The counter of answers that say that the server could not store a submission.
NOT_STORED = "not stored"


class _Submission:
    """One submission, from the first time it is sent until its final answer."""

    __slots__ = ("answered", "backoff", "params", "timer", "tries", "unanswered")

    def __init__(self, params: SubmitParams, canceller: Callable[[_Submission], None]) -> None:
        self.params = params
        self.answered: Deferred[SubmissionAnswer] = Deferred(lambda _: canceller(self))
        #: Whether a connection was lost before its answer: the server may have counted it.
        self.unanswered = False
        self.tries = 0
        #: Seconds: the upper limit of the last wait's random part; 0 before the first wait.
        self.backoff = 0.0
        self.timer: IDelayedCall | None = None


class Submissions:
    """Sends submissions, and sends them again when needed.

    ``answers`` matches their answers. ``late`` is called if an answer takes longer than the
    ``answer_timeout`` of the settings; the connection then counts as dead.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        answers: Answers,
        settings: PoolClientSettings,
        counters: Counter[str],
        *,
        random: Callable[[], float],
        late: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._answers = answers
        self._settings = settings
        self._backoffs = Doubling(1.0, settings.backoff_most)
        self._random = random
        self._late = late
        self._send: Callable[[bytes], None] | None = None
        #: The request id of each sent submission.
        self._sent: dict[_Submission, int] = {}
        self._queue: deque[_Submission] = deque()
        self._retrying: set[_Submission] = set()
        self.counters = counters

    def __len__(self) -> int:
        return len(self._sent) + len(self._queue) + len(self._retrying)

    def add(self, job_id: int, client_nonce: str, result: str) -> Deferred[SubmissionAnswer]:
        """Submit; without a session, it is sent when the next one is established.

        Fails with :class:`TooManyUnanswered` above the limit.
        """
        most = self._settings.max_unanswered
        if len(self) >= most:
            return fail(TooManyUnanswered(most))
        submission = _Submission(SubmitParams(job_id, client_nonce, result), self._cancelled)
        if self._send is None:
            self._queue.append(submission)
        else:
            self._transmit(submission, self._send)
        return submission.answered

    def connected(self, send: Callable[[bytes], None]) -> None:
        """A session is established: send the waiting submissions, with their old nonces."""
        self._send = send
        waiting, self._queue = self._queue, deque()
        for submission in waiting:
            if submission.unanswered:
                self.counters["resubmitted"] += 1
            self._transmit(submission, send)

    def disconnected(self) -> None:
        """The session has ended: unanswered submissions wait for the next one."""
        self._send = None

    def _told(self, submission: _Submission, reply: ServerMessage | bytes | Exception) -> None:
        del self._sent[submission]
        if not isinstance(reply, ServerMessage):
            # They may be counted. The oldest are sent first on the next connection.
            submission.unanswered = True
            self._queue.append(submission)
            if isinstance(reply, RequestTimeout):
                self._late(f"no answer for {self._settings.answer_timeout:g} s")
            return
        answer = read_answer(reply, submission.unanswered)
        if answer.outcome is SubmissionOutcome.DUPLICATE and submission.unanswered:
            # The nonce is ours alone, so the counted submission is this one.
            answer = answer._replace(outcome=SubmissionOutcome.ACCEPTED)
        if self._worth_retrying(submission, answer):
            self._retry(submission, answer)
        else:
            self._settle(submission, answer)

    def fail(self, error: Exception) -> None:
        """Fail all unanswered submissions."""
        self._send = None
        given_up = [*self._sent, *self._queue, *self._retrying]
        for number in self._sent.values():
            self._answers.forget(number)
        self._sent.clear()
        self._queue.clear()
        self._retrying.clear()
        for submission in given_up:
            if submission.timer is not None and submission.timer.active():
                submission.timer.cancel()
        for submission in given_up:
            submission.answered.errback(error)

    def _transmit(self, submission: _Submission, send: Callable[[bytes], None]) -> None:
        number = self._answers.next_id()
        self._sent[submission] = number
        told = partial(self._told, submission)
        self._answers.expect(number, told, self._settings.answer_timeout)
        send(encode_request(number, "submit", submission.params))

    def _worth_retrying(self, submission: _Submission, answer: SubmissionAnswer) -> bool:
        if submission.tries >= self._settings.retries:
            return False
        if answer.outcome is SubmissionOutcome.UNAVAILABLE:
            return True
        again = submission.unanswered or submission.tries > 0
        return again and answer.outcome is SubmissionOutcome.TOO_FREQUENT

    def _retry(self, submission: _Submission, answer: SubmissionAnswer) -> None:
        submission.tries += 1
        self.counters["retried"] += 1
        submission.backoff = self._backoffs.after(submission.backoff)
        wait = RETRY_FIRST + self._random() * submission.backoff
        if answer.outcome is SubmissionOutcome.UNAVAILABLE:
            self.counters[NOT_STORED] += 1
            self._log.warn(
                "The server could not store a submission for job {job_id}: {text}; it is submitted "
                "again in {wait:.1f} s",
                job_id=submission.params.job_id,
                text=answer.text,
                wait=wait,
            )
        self._retrying.add(submission)
        submission.timer = self._clock.callLater(wait, self._send_again, submission)

    def _send_again(self, submission: _Submission) -> None:
        submission.timer = None
        self._retrying.discard(submission)
        if self._send is None:
            self._queue.append(submission)
        else:
            self._transmit(submission, self._send)

    def _settle(self, submission: _Submission, answer: SubmissionAnswer) -> None:
        self.counters[answer.outcome.value] += 1
        if not answer.accepted:
            self._log.warn(
                "Submission for job {job_id} refused: {text} ({code})",
                job_id=submission.params.job_id,
                text=answer.text,
                code=answer.code,
            )
        submission.answered.callback(answer)

    def _cancelled(self, submission: _Submission) -> None:
        """The caller has cancelled it: do not send it again."""
        if submission.timer is not None and submission.timer.active():
            submission.timer.cancel()
        self._retrying.discard(submission)
        if submission in self._queue:
            self._queue.remove(submission)
        number = self._sent.pop(submission, None)
        if number is not None:
            self._answers.forget(number)
