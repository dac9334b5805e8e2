"""What an authorized session is answered: submit, ping."""

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
    """How many rejected attempts a session has, and when it has too many of them.

    ``rate`` attempts a second, up to ``burst`` at once, may be rejected; one beyond
    that adds a point to the score of its address, which loses ``ban_score`` points in
    ``ban_time`` seconds. From half of ``ban_score`` on, a session is not read for ``pause``
    seconds after each of these. At ``ban_score`` points it is closed and its address refused
    for ``ban_time``. 0 turns a limit off.
    """

    rate: float = 1.0
    burst: float = 5.0
    ban_score: float = 10_000.0
    ban_time: float = 60.0
    pause: float = 1.0


class _Submit(msgspec.Struct, gc=False, tag_field="method", tag="submit"):
    """A submission whose fields have the types that they should."""

    params: SubmitParams
    id: RequestId = None


@implementer(IRouter)
class Handlers:
    """The methods of the pool.

    ``proxies`` are addresses that are never banned, as many peers may have them. The methods
    join those that ``methods`` has already. What is no submission goes to ``others``, by
    default to ``methods``.
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
        #: How often a session was not heard for a moment, as it had too many rejected.
        self.throttled = 0
        #: Every method by the general way; :meth:`dispatch` is a short cut for submit.
        self.router = Router() if methods is None else methods
        self.router.add("submit", self._submit, SubmitParams, invalid=self._misfit)
        self.router.add("ping", lambda connection, message: True)
        self.router.add("authorize", self._again, AuthorizeParams)
        self._others: IRouter = self.router if others is None else others
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder(_Submit).decode

    def use(self, attempts: AttemptSettings) -> None:
        """Go by other limits from now on; the scores begin anew where theirs have changed."""
        score = attempts.ban_score, attempts.ban_time
        if score != (self.attempts.ban_score, self.attempts.ban_time):
            self._scores = AddressScores(*score, self._proxies)
        self.attempts = attempts

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message of an authorized session.

        Almost all are submissions. These take the short way, accepted or not: one decode,
        one judgement, one append or one answer.
        """
        try:
            message = self._decode(item)
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
        """Handle a submission that came by the general way."""
        return self._decide(connection, message.id, message.params) or LATER

    def _decide(
        self, connection: Connection, message_id: RequestId, params: SubmitParams
    ) -> ErrorText | None:
        """Judge a submission; returns the error to answer with.

        None is for one that is answered later: an accepted one when it is durable.
        """
        job: Any = self._jobs.get(params.job_id)
        error = self.rules.judge(job, connection.context, params, connection.last_seen)
        if error is not None:
            return self._reject(connection, message_id, params.client_nonce, error)
        if self._add(connection, message_id, job, params.client_nonce):
            return None
        self._count(connection.context.user, UNAVAILABLE, connection.last_seen)
        return UNAVAILABLE

    def _misfit(self, connection: Connection, message_id: RequestId, params: object) -> object:
        """Judge a submission whose fields have other types than they should.

        One that names a job is judged in the usual order, and is invalid at best.
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
        """Count a rejection; returns the error to answer with, None where that is done."""
        session: Session = connection.context
        excess = self._spend_attempt(session, connection.last_seen)
        if error is DUPLICATE:  # of the job that the judge had the session enter
            serial = session.nonces.used.get(nonce)
            if serial is not None and self._acceptance.await_verdict(
                connection, message_id, serial
            ):
                return None
        self._count(session.user, error, connection.last_seen)
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
        """Take an attempt from the session; returns whether it had none left."""
        settings = self.attempts
        if not settings.rate:
            return False
        if session.attempts is None:
            session.attempts = Bucket(settings.rate, settings.burst, now)
        return not session.attempts.spend(now)

    def _throttle(self, connection: Connection) -> None:
        """Hear nothing of a session for a moment."""
        pause = self.attempts.pause
        if pause:
            self.throttled += 1
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
