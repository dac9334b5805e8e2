"""The pool client: a session on a pool that survives the loss of connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import random as _random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import called
from kupool.client.answers import SubmissionAnswer, error_code
from kupool.client.failures import (
    AlreadyConnected,
    NotAuthorized,
    PoolClientClosed,
    PoolNotConnected,
    PoolUnreachable,
    SessionRefused,
)
from kupool.client.servers import parse_server
from kupool.client.settings import PoolClientSettings
from kupool.client.submissions import Submissions
from kupool.errors import INTERNAL_ERROR, TIMEOUT, TOO_MANY_REQUESTS, UNAVAILABLE, UNKNOWN_METHOD
from kupool.net.dialling.dialler import ClientState, Dialler, Ended, Place, User
from kupool.net.dialling.failures import ConnectionEnded, RequestTimeout
from kupool.net.dialling.settings import DialSettings
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters
from kupool.wire.framing import FRAMINGS, Item
from kupool.wire.incoming import TRUE, ServerMessage
from kupool.wire.messages import JobParams, encode_error, encode_request

#: Most invalid messages before a connection is ended.
MAX_MALFORMED = 10

#: Refusals of ``authorize`` that are temporary.
_PASSING = frozenset(e.code for e in (INTERNAL_ERROR, TOO_MANY_REQUESTS, UNAVAILABLE, TIMEOUT))


class PoolClient:
    """Connects, authorizes, submits, and reconnects when the connection is lost.

    ``servers`` are tried in turn: texts for :func:`~kupool.client.servers.parse_server`, or
    :class:`~kupool.net.dialling.dialler.Place` objects. ``framing`` is ``frame``, ``int32``
    or ``line``. ``random`` returns a number from 0 to 1.

    Hooks may be set at any time, and may return a Deferred or a coroutine:

    - ``on_job`` gets each job;
    - ``on_connected`` gets the name of the server that authorized;
    - ``on_disconnected`` gets the reason why a session ended;
    - ``on_gone`` gets the error after which the client does not reconnect by itself.

    Exceptions of hooks are logged. Raises :class:`ValueError` for an invalid server or
    framing.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[str | Place],
        username: str,
        password: str | None = None,
        *,
        framing: str = "frame",
        settings: PoolClientSettings | None = None,
        random: Callable[[], float] = _random,
        on_job: Callable[[JobParams], object] | None = None,
        on_connected: Callable[[str], object] | None = None,
        on_disconnected: Callable[[str], object] | None = None,
        on_gone: Callable[[Exception], object] | None = None,
    ) -> None:
        if not servers:
            raise ValueError("a client needs at least one server")
        if framing not in FRAMINGS:
            raise ValueError(f"{framing!r} is not a framing; expected one of {', '.join(FRAMINGS)}")
        self.settings = settings or PoolClientSettings()
        self.username = username
        self.on_job = on_job
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self.on_gone = on_gone
        #: The newest job of the session; None while no session is established.
        self.job: JobParams | None = None
        #: Whether a session is established.
        self.connected = False
        #: Why the last attempt or session ended; empty while a session is established.
        self.problem = ""
        #: Why this client does not reconnect by itself; None while it does.
        self.refusal: Exception | None = None
        #: Submissions by outcome, and ``resubmitted``, ``retried``, ``not stored``,
        #: ``reconnects``, ``unknown replies``.
        self.counters: Counter[str] = Counter()
        self._password = password
        self._dialler = Dialler(
            reactor,
            [
                parse_server(reactor, s, self.settings.connect_timeout) if isinstance(s, str) else s
                for s in servers
            ],
            FRAMINGS[framing],
            User(self._greet, self._up, self._received, self._down, self._again, self._gone),
            settings=_dial_settings(self.settings),
            counters=self.counters,
            random=random,
        )
        self._submissions = Submissions(
            reactor,
            self._dialler.answers,
            self.settings,
            self.counters,
            random=random,
            late=self._dialler.abort,
        )
        self._malformed = 0
        self._active = False
        self._closing = False
        self._connecting: Deferred[None] | None = None
        self._stopped = Waiters[None]()

    @property
    def state(self) -> ClientState:
        """The state of the client; for the reason of ``ClientState.GONE`` see :attr:`refusal`."""
        return self._dialler.state

    @property
    def unanswered(self) -> int:
        """Number of submissions without a final answer."""
        return len(self._submissions)

    # -- public methods

    def connect(self) -> Deferred[None]:
        """Start, and reconnect until :meth:`close`; fires when a server has authorized.

        Fails with :class:`AlreadyConnected` on a client that has started, with
        :class:`NotAuthorized` or :class:`SessionRefused` if a server refuses the client for
        good, and with :class:`PoolUnreachable` after ``max_attempts``. Cancelling it closes
        the client.
        """
        if self._active:
            return fail(AlreadyConnected())
        self._active = True
        self._closing = False
        self.refusal = None
        connecting: Deferred[None] = Deferred(self._given_up)
        self._connecting = connecting
        self._dialler.start()
        return connecting

    def submit(self, job_id: int, client_nonce: str, result: str) -> Deferred[SubmissionAnswer]:
        """Submit; fires with the final answer, on whichever connection it arrives.

        Fails with :class:`PoolNotConnected` before :meth:`connect`, with
        :class:`TooManyUnanswered` above the limit, and, once the client has ended, with the
        reason.
        """
        if not self._active or self._closing:
            return fail(self.refusal or PoolNotConnected())
        return self._submissions.add(job_id, client_nonce, result)

    def when_stopped(self) -> Deferred[None]:
        """Return a Deferred that fires when the client was closed, or fails with why it ended."""
        return self._stopped.wait() if self._active else succeed(None)

    def close(self) -> Deferred[None]:
        """Close the session; fires when the socket is closed.

        Answers that arrive until then are accepted; submissions that are still unanswered
        then fail with :class:`PoolClientClosed`.
        """
        stopped = self.when_stopped()
        if self._active and not self._closing:
            self._closing = True
            self._dialler.stop(self.settings.close_timeout).addCallback(
                lambda _: self._finish(PoolClientClosed())
            )
        return stopped.addErrback(lambda _: None)

    def _given_up(self, _: Deferred[None]) -> None:
        self._connecting = None
        self.close()

    def _finish(self, error: Exception) -> None:
        """End the client with an error."""
        self._active = False
        self._submissions.fail(error)
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.errback(error)
        self._stopped.tell(None if isinstance(error, PoolClientClosed) else Failure(error))

    # -- called by the dialler

    async def _greet(self, connection: Connection) -> None:
        """Authorize; raises :class:`NotAuthorized`, or a temporary error."""
        answers, answered = self._dialler.answers, Deferred[ServerMessage]()
        self._malformed = 0

        def told(reply: ServerMessage | bytes | Exception) -> None:
            if isinstance(reply, ServerMessage):
                answered.callback(reply)
            elif isinstance(reply, Exception):
                if isinstance(reply, RequestTimeout):
                    self._dialler.abort("no answer to authorize")
                answered.errback(reply)

        number = answers.next_id()
        answers.expect(number, told, self.settings.authorize_timeout)
        params: dict[str, str] = {"username": self.username}
        if self._password is not None:
            params["password"] = self._password
        connection.send(encode_request(number, "authorize", params))
        reply = await answered
        if reply.error is None and reply.result == TRUE:
            return
        reason = reply.error or "authorize was not answered with true"
        if error_code(reply) in _PASSING:
            self._dialler.leave(reason)
            raise ConnectionEnded(reason)
        raise NotAuthorized(self.username, self._dialler.place.name, reason)

    def _up(self, connection: Connection, place: Place) -> None:
        self.connected = True
        self.problem = ""
        self._log.info(
            "Authorized on {server} as {username}", server=place.name, username=self.username
        )
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            self.counters["reconnects"] += 1
        self._submissions.connected(connection.send)
        self._call(self.on_connected, place.name)
        if connecting is not None:
            connecting.callback(None)

    def _received(
        self, connection: Connection, item: Item, message: ServerMessage | None
    ) -> bytes | None:
        if message is None:
            self._complain(f"{item!r:.60}")
        elif message.method is None:
            self._replied_to_nothing(message)
        elif message.id is not None:
            return encode_error(message.id, UNKNOWN_METHOD)
        elif message.method == "job" and self.connected:
            self._take_job(message)
        return None

    def _replied_to_nothing(self, reply: ServerMessage) -> None:
        if reply.id is None:
            self._log.warn("The server reported an error: {text}", text=reply.error)
        else:
            self.counters["unknown replies"] += 1
            self._log.debug("The server sent a reply to no request: id {id}", id=reply.id)

    def _take_job(self, message: ServerMessage) -> None:
        try:
            job = msgspec.json.decode(message.params, type=JobParams)
        except ValueError as error:
            self._log.warn("The server sent a job that cannot be read: {error}", error=str(error))
            return
        self.job = job
        self._call(self.on_job, job)

    def _complain(self, what: str) -> None:
        self._malformed += 1
        self._log.warn("The server sent something that is not a message: {what}", what=what)
        if self._malformed >= MAX_MALFORMED:
            self._dialler.abort("the server sent too many messages that cannot be read")

    def _down(self, why: str, stood: bool) -> None:
        self._submissions.disconnected()
        if self.connected:
            self.connected = False
            self.job = None
            self._call(self.on_disconnected, why)

    def _again(self, ended: Ended, wait: float | None) -> Exception | None:
        self.problem = f"{ended.place.name}: {ended.why}"
        if isinstance(ended.error, NotAuthorized):
            return ended.error
        if wait is None:
            code = None if ended.close is None else ended.close.code
            return SessionRefused(ended.place.name, ended.why, code)
        most, failures = self.settings.max_attempts, self._dialler.failures
        if most and failures >= most:
            return PoolUnreachable(failures, ended.why)
        self._log.warn("{problem}; next attempt in {wait:.1f} s", problem=self.problem, wait=wait)
        return None

    def _gone(self, why: Exception) -> None:
        self.refusal = why
        self._call(self.on_gone, why)
        self._finish(why)

    def _call(self, hook: Callable[..., object] | None, *arguments: object) -> None:
        if hook is not None:
            called(hook, *arguments).addErrback(
                lambda failure: self._log.failure("A hook of the client failed", failure)
            )


def _dial_settings(settings: PoolClientSettings) -> DialSettings:
    return DialSettings(
        backoff_first=settings.backoff_first,
        backoff_most=settings.backoff_most,
        steady_after=settings.steady_after,
        connect_timeout=settings.connect_timeout,
        keepalive=settings.ping_interval,
        silence=settings.silence_timeout,
        close_timeout=settings.close_timeout,
        write_timeout=settings.answer_timeout,
        max_frame=settings.max_frame,
        most_pending=settings.max_unanswered,
    )
