"""Request handlers of an authorized session: ``submit`` and ``ping``."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import msgspec
from zope.interface import implementer

from kupool.errors import (
    ALREADY_EXISTS,
    BANNED,
    DUPLICATE,
    INVALID_RESULT,
    UNAVAILABLE,
    ErrorText,
)
from kupool.net.routing.interfaces import IRouter
from kupool.net.routing.request import LATER
from kupool.net.routing.router import Router
from kupool.pool.acceptance import Acceptance
from kupool.pool.jobs import JobBook
from kupool.pool.judge import Rules
from kupool.pool.scores import AddressScores, AddressStanding
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.timing.buckets import Bucket
from kupool.wire.framing import Item
from kupool.wire.messages import (
    AuthorizeParams,
    RequestId,
    SubmitParams,
    encode_error,
    valid_id,
)


@dataclass(frozen=True)
class AttemptSettings:
    """Limits of rejected submissions: for one session, and for one address.

    A session may have ``rate`` rejected submissions a second, and ``burst`` at once. Each further
    one adds a point to the score of its address. The score decays by ``ban_score`` points in
    ``ban_time`` seconds. From half of ``ban_score`` on, each further point also pauses reading from
    the session for ``pause`` seconds. At ``ban_score`` points the session is closed and its address
    is refused for ``ban_time``. 0 turns a limit off.
    """

    rate: float = 1.0
    burst: float = 5.0
    ban_score: float = 10_000.0
    ban_time: float = 60.0
    pause: float = 1.0


class _Submit(msgspec.Struct, gc=False, tag_field="method", tag="submit"):
    """The params of a submission whose fields have the right types."""

    params: SubmitParams
    id: RequestId = None


@implementer(IRouter)
class Handlers:
    """The request handlers of the pool.

    ``proxies`` are addresses that are never banned, because many peers may share them. The handlers
    are added to ``methods``. Messages that are not submissions go to ``others``, by default to
    ``methods``.
    """

    def __init__(
        self,
        book: JobBook,
        acceptance: Acceptance,
        rules: Rules,
        *,
        attempts: AttemptSettings,
        proxies: Container[str] = (),
        methods: Router | None = None,
        others: IRouter | None = None,
    ) -> None:
        self._jobs = book.jobs
        self._acceptance = acceptance
        self._add = acceptance.add
        self._count = acceptance.rejections.add
        #: May be replaced while the pool runs.
        self.rules = rules
        self.attempts = attempts
        self._proxies = proxies
        self._scores = AddressScores(attempts.ban_score, attempts.ban_time, proxies)
        #: How often reading from a session was paused because of too many rejected submissions.
        self.throttled = 0
        #: All methods, for the general path; :meth:`dispatch` is a shortcut for submit.
        self.router = Router() if methods is None else methods
        self.router.add("submit", self._submit, SubmitParams, invalid=self._misfit)
        self.router.add("ping", lambda connection, message: True)
        self.router.add("authorize", self._again, AuthorizeParams)
        self._others: IRouter = self.router if others is None else others
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder(_Submit).decode

    def use(self, attempts: AttemptSettings) -> None:
        """Apply other limits from now on; the scores are reset if their limits have changed."""
        score = attempts.ban_score, attempts.ban_time
        if score != (self.attempts.ban_score, self.attempts.ban_time):
            self._scores = AddressScores(*score, self._proxies)
        self.attempts = attempts

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message of an authorized session.

        Almost all messages are submissions. They take the short path, accepted or not: one decode,
        one judgement, one append or one answer.
        """
        decode = self._decode  # calling the attribute itself is slower
        try:
            message = decode(item)
        except (ValueError, RecursionError, TypeError):
            return self._others.dispatch(connection, item)
        message_id = message.id
        if type(message_id) is str and not valid_id(message_id):
            return self._others.dispatch(connection, item)
        error = self._decide(connection, message_id, message.params)
        if error is None or message_id is None:
            return None
        return encode_error(message_id, error)

    def _submit(self, connection: Connection, message: Any) -> object:
        """Handle a submission that came by the general path."""
        return self._decide(connection, message.id, message.params) or LATER

    def _decide(
        self, connection: Connection, message_id: RequestId, params: SubmitParams
    ) -> ErrorText | None:
        """Judge a submission; returns the error to answer with.

        None means that it is answered later: an accepted submission is answered when it is durable.
        """
        job: Any = self._jobs.get(params.job_id)
        error = self.rules.judge(job, connection.context, params, connection.last_seen)
        if error is not None:
            return self._reject(connection, message_id, params.client_nonce, error)
        add = self._add
        if add(connection, message_id, job, params.client_nonce):
            return None
        session: Session = connection.context
        session.rejected += 1
        session.last_rejected = connection.last_seen
        self._count(session.username, UNAVAILABLE, connection.last_seen)
        return UNAVAILABLE

    def _misfit(self, connection: Connection, message_id: RequestId, params: object) -> object:
        """Judge a submission whose fields have wrong types.

        If it names a job, it is judged in the usual order, and is at best ``invalid``.
        """
        job_id = params.get("job_id") if isinstance(params, dict) else None
        if not isinstance(params, dict) or type(job_id) is not int:
            return None
        job = self._jobs.get(job_id)
        found = params.get("client_nonce")
        nonce = found if isinstance(found, str) else ""
        guess = SubmitParams(job_id, nonce, "")
        error = self.rules.judge(job, connection.context, guess, connection.last_seen)
        return self._reject(connection, message_id, nonce, error or INVALID_RESULT) or LATER

    def _reject(
        self, connection: Connection, message_id: RequestId, nonce: str, error: ErrorText
    ) -> ErrorText | None:
        """Count a rejection; returns the error to answer with, or None if that is done already."""
        session: Session = connection.context
        session.rejected += 1  # also if that is told and counted later
        session.last_rejected = connection.last_seen
        excess = self._spend_attempt(session, connection.last_seen)
        if error is DUPLICATE:  # in the job that the judge made current
            serial = session.nonces.used.get(nonce)
            if serial is not None and self._acceptance.await_verdict(
                connection, message_id, serial
            ):
                return None
        self._count(session.username, error, connection.last_seen)
        if excess:
            standing = self._scores.add(connection, connection.last_seen)
            if standing is AddressStanding.BANNED:
                if message_id is not None:
                    connection.send(encode_error(message_id, error))
                self._ban(connection)
                return None
            if standing is AddressStanding.THROTTLED:
                self._throttle(connection)
        return error

    def _spend_attempt(self, session: Session, now: float) -> bool:
        """Take one attempt from the session; returns whether none was left."""
        settings = self.attempts
        if not settings.rate:
            return False
        if session.attempts is None:
            session.attempts = Bucket(settings.rate, settings.burst, now)
        return not session.attempts.spend(now)

    def _throttle(self, connection: Connection) -> None:
        """Stop reading from a session for a moment."""
        pause = self.attempts.pause
        if pause:
            self.throttled += 1
            connection.around.owner.note_refusal(
                "submissions, throttled after too many rejected ones",
                connection.host,
                connection.context.user,
            )
            connection.hold()
            connection.around.call_later(pause, connection.release)

    def _ban(self, connection: Connection) -> None:
        seconds = self.attempts.ban_time
        user, host = connection.context.user, connection.host
        if host and host not in self._proxies:
            why = f"too many rejected submissions, the last by {user!r:.80}"
            connection.around.owner.ban(host, seconds, why)
        connection.close(BANNED, retry_after=seconds)

    def _again(self, connection: Connection, message: Any) -> ErrorText:
        return ALREADY_EXISTS.about("this connection is authorized")
