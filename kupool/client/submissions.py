"""Submissions on their way: each is answered once, whatever happens to connections."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.client.answers import Answer, Incoming, Outcome, read_answer
from kupool.client.failures import TooManyUnanswered
from kupool.client.settings import ClientSettings
from kupool.wire.messages import SubmitParams, encode_request

#: Seconds before a submission is sent again that could not be taken for the moment: at
#: least the interval that servers keep between two of them.
RETRY_FIRST = 1.05


class _Submission:
    """One submission, from the first time it is sent until its answer is final."""

    __slots__ = ("answered", "params", "sent_at", "timer", "tries", "unanswered")

    def __init__(self, params: SubmitParams, canceller: Callable[[_Submission], None]) -> None:
        self.params = params
        self.answered: Deferred[Answer] = Deferred(lambda _: canceller(self))
        #: Whether a connection was lost before its answer came: it may be counted.
        self.unanswered = False
        self.tries = 0
        self.sent_at = 0.0
        self.timer: IDelayedCall | None = None


class Submissions:
    """Sends submissions, matches their answers, and sends again what needs it.

    ``next_id`` makes message ids that are never used again, so that an answer cannot
    be taken for another's.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        next_id: Callable[[], int],
        settings: ClientSettings,
        random: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._next_id = next_id
        self._settings = settings
        self._random = random
        self._send: Callable[[bytes], None] | None = None
        self._sent: dict[int, _Submission] = {}
        self._queue: deque[_Submission] = deque()
        self._retrying: set[_Submission] = set()
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sent) + len(self._queue) + len(self._retrying)

    @property
    def oldest(self) -> float | None:
        """When the one was sent that has waited longest for its answer, if any."""
        return next(iter(self._sent.values())).sent_at if self._sent else None

    def add(self, job_id: int, client_nonce: str, result: str) -> Deferred[Answer]:
        """Submit; what is added between two connections goes out on the next one.

        Fails with :class:`TooManyUnanswered` when the bound is reached.
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
        """A session stands: send what waits, with the nonces it had."""
        self._send = send
        waiting, self._queue = self._queue, deque()
        for submission in waiting:
            if submission.unanswered:
                self.counters["resubmitted"] += 1
            self._transmit(submission, send)

    def disconnected(self) -> None:
        """The session is gone: what was not answered waits for the next one."""
        self._send = None
        for submission in self._sent.values():
            submission.unanswered = True
        self._queue.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    def answered(self, reply: Incoming) -> bool:
        """Take a reply; returns whether it belongs to a submission."""
        found = self._sent.pop(reply.id, None) if isinstance(reply.id, int) else None
        if found is None:
            return False
        answer = read_answer(reply, found.unanswered)
        if answer.outcome is Outcome.DUPLICATE and found.unanswered:
            # The nonce is our own, so what was counted under it is this submission.
            answer = answer._replace(outcome=Outcome.ACCEPTED)
        if self._worth_retrying(found, answer):
            self._retry(found)
        else:
            self._settle(found, answer)
        return True

    def fail(self, error: Exception) -> None:
        """Give up all that is not answered."""
        self._send = None
        given_up = [*self._sent.values(), *self._queue, *self._retrying]
        self._sent.clear()
        self._queue.clear()
        self._retrying.clear()
        for submission in given_up:
            if submission.timer is not None and submission.timer.active():
                submission.timer.cancel()
        for submission in given_up:
            submission.answered.errback(error)

    def _transmit(self, submission: _Submission, send: Callable[[bytes], None]) -> None:
        message_id = self._next_id()
        self._sent[message_id] = submission
        submission.sent_at = self._clock.seconds()
        send(encode_request(message_id, "submit", submission.params))

    def _worth_retrying(self, submission: _Submission, answer: Answer) -> bool:
        if submission.tries >= self._settings.retries:
            return False
        if answer.outcome is Outcome.UNAVAILABLE:
            return True
        again = submission.unanswered or submission.tries > 0
        return again and answer.outcome is Outcome.TOO_FREQUENT

    def _retry(self, submission: _Submission) -> None:
        submission.tries += 1
        self.counters["retried"] += 1
        most = min(self._settings.backoff_most, 2.0 ** (submission.tries - 1))
        wait = RETRY_FIRST + self._random() * most
        self._retrying.add(submission)
        submission.timer = self._clock.callLater(wait, self._send_again, submission)

    def _send_again(self, submission: _Submission) -> None:
        submission.timer = None
        self._retrying.discard(submission)
        if self._send is None:
            self._queue.append(submission)
        else:
            self._transmit(submission, self._send)

    def _settle(self, submission: _Submission, answer: Answer) -> None:
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
        """Nobody waits for it any more: it is not sent again."""
        if submission.timer is not None and submission.timer.active():
            submission.timer.cancel()
        self._retrying.discard(submission)
        if submission in self._queue:
            self._queue.remove(submission)
        for message_id, sent in self._sent.items():
            if sent is submission:
                del self._sent[message_id]
                break
