"""One session of a load, which does as little as possible per submission."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import sha256

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.client.answers import SubmissionOutcome, read_answer
from kupool.client.failures import ClientError
from kupool.client.load_counts import LoadCounts
from kupool.client.load_settings import LoadSettings
from kupool.net.dialling.dialler import Dialler, Ended, Place, User
from kupool.net.dialling.settings import DialSettings
from kupool.session.connection import Connection
from kupool.wire.framing import FRAMINGS, Item
from kupool.wire.incoming import TRUE, ServerMessage
from kupool.wire.messages import AuthorizeParams, JobParams, encode_request

_BEGIN = b'"method":"submit","params":{"job_id":%d,"client_nonce":"%b'

#: The id of ``authorize``; the ids of submissions follow it.
_AUTHORIZE = 1


class LoadSession:
    """One session of a load, which does not reconnect.

    ``prefix`` is the start of every nonce of the session. ``left`` is called with the
    session and the reason when its connection has ended.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        server: Place,
        settings: LoadSettings,
        counts: LoadCounts,
        *,
        prefix: bytes,
        left: Callable[[LoadSession, str], object],
    ) -> None:
        self._clock = clock
        self._counts = counts
        self._in_flight = settings.in_flight
        self._prefix = prefix
        self._left = left
        self._serial = _AUTHORIZE
        self._sent: dict[int, float] = {}
        self._begun = b""
        self._hashed = sha256()
        self._jobs = 0
        self._send: Callable[[bytes], None] | None = None
        self._credentials = AuthorizeParams("", None)
        self._authorized: Deferred[None] | None = None
        self._opened: Deferred[None] | None = None
        self._close_timeout = settings.close_timeout
        self._dialler = Dialler(
            clock,
            [server],
            FRAMINGS[settings.framing],
            User(self._greet, self._up, self._received, self._down, self._again, self._gone),
            settings=_dial_settings(settings),
            counters=Counter(),
        )
        #: Submissions that the server could not accept, and that are sent again.
        self.parked = 0
        self.running = False

    # callbacks of the dialler

    def _greet(self, connection: Connection) -> Deferred[None]:
        self._send = connection.send
        self._authorized = Deferred()
        connection.send(encode_request(_AUTHORIZE, "authorize", self._credentials))
        patience = self._dialler.settings.connect_timeout
        return self._authorized.addTimeout(patience, self._clock, _unanswered)

    def _up(self, connection: Connection, place: Place) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.callback(None)

    def _received(
        self, connection: Connection, item: Item, message: ServerMessage | None
    ) -> bytes | None:
        if message is not None:
            if message.method is None:
                self._replied(connection, message)
            elif message.method == "job":
                self._take_job(connection, message)
        return None

    def _down(self, why: str, stood: bool) -> None:
        """Handle the end of the connection: its unanswered submissions are lost."""
        self._send = None
        self.running = False
        self._counts.unanswered += len(self._sent)
        self._sent.clear()
        if stood:
            self._left(self, why)

    def _again(self, ended: Ended, wait: float | None) -> Exception:
        return ClientError(f"{ended.place.name}: {ended.why}")

    def _gone(self, why: Exception) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.errback(why)

    def _replied(self, connection: Connection, reply: ServerMessage) -> None:
        """Count an answer, and submit again."""
        sent = self._sent.pop(reply.id, None)  # type: ignore[arg-type]
        if sent is None:
            self._authorize_answered(reply)
            return
        counts = self._counts
        now = connection.last_seen
        counts.latency.add(now - sent)
        if reply.result == TRUE:
            counts.accepted += 1
            self._submit(now)
            return
        outcome = read_answer(reply).outcome
        counts.refused[outcome.value] += 1
        if outcome is SubmissionOutcome.TOO_FREQUENT or outcome is SubmissionOutcome.UNAVAILABLE:
            self.parked += 1
        else:
            self._submit(now)

    def _take_job(self, connection: Connection, message: ServerMessage) -> None:
        """Start with a new job."""
        try:
            job = msgspec.json.decode(message.params, type=JobParams)
        except ValueError as error:
            self._log.warn("The server sent a job that cannot be read: {error}", error=str(error))
            return
        self._jobs += 1
        if self._jobs > 1:  # the first comes with authorize, at other times
            self._counts.spread.received(job.job_id, connection.last_seen)
        self._hashed = sha256(job.server_nonce.encode() + self._prefix)
        self._begun = b'"method":"submit","params":{"job_id":%d,"client_nonce":"%b' % (
            job.job_id,
            self._prefix,
        )
        if self.running and self._jobs == 1:
            self.fill(connection.last_seen)

    # the load's callback

    def open(self, username: str, password: str | None) -> Deferred[None]:
        """Connect and authorize; fails with the reason why that was not possible."""
        self._credentials = AuthorizeParams(username, password)
        opened: Deferred[None] = Deferred()
        self._opened = opened
        self._dialler.start()
        return opened

    def close(self) -> Deferred[None]:
        """Close the session; fires when the socket is closed."""
        return self._dialler.stop(self._close_timeout)

    def fill(self, now: float) -> None:
        """Submit up to the limit of unanswered ones; waits for a job if there is none."""
        self.running = True
        if self._begun:
            for _ in range(self._in_flight - len(self._sent)):
                self._submit(now)

    def refill(self, now: float) -> None:
        """Send the submissions again that the server could not accept."""
        parked, self.parked = self.parked, 0
        for _ in range(parked):
            self._submit(now)

    @property
    def busy(self) -> bool:
        """Whether any submission is unanswered."""
        return bool(self._sent)

    def _submit(self, now: float) -> None:
        if not self.running or self._send is None:
            return
        self._serial = serial = self._serial + 1
        number = b"%08x" % serial
        hashed = self._hashed.copy()
        hashed.update(number)
        self._sent[serial] = now
        self._send(
            b'{"id":%d,%b%b","result":"%b"}}'
            % (serial, self._begun, number, hashed.hexdigest().encode())
        )

    def _authorize_answered(self, reply: ServerMessage) -> None:
        if self._authorized is None or reply.id != _AUTHORIZE:
            return
        waiting, self._authorized = self._authorized, None
        if reply.result == TRUE:
            waiting.callback(None)
        else:
            waiting.errback(ClientError(f"authorize: {reply.error}"))


def _unanswered(result: object, after: float) -> None:
    raise ClientError(f"no answer to authorize within {after:g} s; is this the port of a pool?")


def _dial_settings(settings: LoadSettings) -> DialSettings:
    return DialSettings(
        backoff_first=0.0,
        backoff_most=0.0,
        steady_after=0.0,
        connect_timeout=settings.connect_timeout,
        keepalive=0.0,
        silence=0.0,
        close_timeout=settings.close_timeout,
        write_timeout=settings.connect_timeout,
        max_frame=65536,
        most_pending=1,
    )
