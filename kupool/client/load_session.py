"""One session of a load: what is done for each submission is kept short."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kupool.client.answers import Incoming, Outcome, read_answer
from kupool.client.connection import ClientConnection
from kupool.client.failures import ConnectionEnded
from kupool.client.load_counts import LoadCounts
from kupool.wire.messages import AuthorizeParams, JobParams, encode_request

_BEGIN = b'"method":"submit","params":{"job_id":%d,"client_nonce":"%b'


class LoadSession:
    """One session; the receiver of its connection.

    ``prefix`` begins every nonce of the session. ``left`` is called with the session
    and the reason when its connection is gone.
    """

    _log = Logger()

    def __init__(
        self,
        counts: LoadCounts,
        in_flight: int,
        prefix: bytes,
        left: Callable[[LoadSession, str], object],
    ) -> None:
        self._counts = counts
        self._in_flight = in_flight
        self._prefix = prefix
        self._left = left
        self._serial = 1  # the id of authorize
        self._sent: dict[int, float] = {}
        self._begun = b""
        self._hashed = sha256()
        self._jobs = 0
        self.connection: ClientConnection | None = None
        self.authorized: Deferred[None] | None = None
        self.gone: Deferred[None] = Deferred()
        #: Submissions that wait until the server may take them again.
        self.parked = 0
        self.running = False

    # Receiver

    def opened(self, connection: ClientConnection) -> None:
        """The connection stands."""
        self.connection = connection

    def replied(self, connection: ClientConnection, reply: Incoming) -> None:
        """Count an answer, and submit again."""
        sent = self._sent.pop(reply.id, None)  # type: ignore[arg-type]
        if sent is None:
            self._authorize_answered(reply)
            return
        counts = self._counts
        now = connection.last_heard
        counts.latency.add(now - sent)
        if reply.result is True:
            counts.accepted += 1
            self._submit(now)
            return
        outcome = read_answer(reply).outcome
        counts.refused[outcome.value] += 1
        if outcome is Outcome.TOO_FREQUENT or outcome is Outcome.UNAVAILABLE:
            self.parked += 1
        else:
            self._submit(now)

    def notified(self, connection: ClientConnection, message: Incoming) -> None:
        """Turn to another job."""
        if message.method != "job":
            return
        try:
            job = msgspec.json.decode(message.params, type=JobParams)
        except ValueError as error:
            self._log.warn("A job that is none: {error}", error=str(error))
            return
        self._jobs += 1
        if self._jobs > 1:  # the first one comes with authorize, to each at its own time
            self._counts.spread.received(job.job_id, connection.last_heard)
        self._hashed = sha256(job.server_nonce.encode() + self._prefix)
        self._begun = b'"method":"submit","params":{"job_id":%d,"client_nonce":"%b' % (
            job.job_id,
            self._prefix,
        )
        if self.running and self._jobs == 1:
            self.fill(connection.last_heard)

    def ended(self, connection: ClientConnection, reason: str) -> None:
        """The connection is gone, and with it what was not answered."""
        self.connection = None
        self.running = False
        self._counts.unanswered += len(self._sent)
        self._sent.clear()
        if self.authorized is not None:
            waiting, self.authorized = self.authorized, None
            waiting.errback(ConnectionEnded(reason))
        self._left(self, reason)
        self.gone.callback(None)

    # what the load does with it

    def authorize(self, username: str, password: str | None) -> Deferred[None]:
        """Authorize; fails with what the server answered."""
        waiting: Deferred[None] = Deferred()
        self.authorized = waiting
        assert self.connection is not None
        params = AuthorizeParams(username, password)
        self.connection.send(encode_request(1, "authorize", params))
        return waiting

    def fill(self, now: float) -> None:
        """Submit as often as may be unanswered; waits for a job if there is none."""
        self.running = True
        if self._begun:
            for _ in range(self._in_flight - len(self._sent)):
                self._submit(now)

    def refill(self, now: float) -> None:
        """Replace what the server could not take."""
        parked, self.parked = self.parked, 0
        for _ in range(parked):
            self._submit(now)

    @property
    def busy(self) -> bool:
        """Whether anything is unanswered."""
        return bool(self._sent)

    def _submit(self, now: float) -> None:
        if not self.running or self.connection is None:
            return
        self._serial = serial = self._serial + 1
        number = b"%08x" % serial
        hashed = self._hashed.copy()
        hashed.update(number)
        self._sent[serial] = now
        self.connection.send(
            b'{"id":%d,%b%b","result":"%b"}}'
            % (serial, self._begun, number, hashed.hexdigest().encode())
        )

    def _authorize_answered(self, reply: Incoming) -> None:
        if self.authorized is None or reply.id != 1:
            return
        waiting, self.authorized = self.authorized, None
        if reply.result is True:
            waiting.callback(None)
        else:
            waiting.errback(ConnectionEnded(f"authorize: {reply.error}"))
