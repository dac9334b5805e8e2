"""The pool: makes sessions of connections, and sends them the jobs."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.accounts.logins import Logins
from kupool.errors import CLOSE_UNAUTHORIZED
from kupool.live import IChannel
from kupool.net.interfaces import IConnectionObserver
from kupool.permissions.table import PermissionTable
from kupool.pool import IEvents
from kupool.pool.acceptance import Acceptance
from kupool.pool.greeting import Greeting
from kupool.pool.handlers import Handlers
from kupool.pool.jobs import Job, JobBook
from kupool.pool.names import Names
from kupool.pool.permitted import PermittedMethods
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.timing.buckets import Bucket
from kupool.timing.shared_buckets import SharedBuckets
from kupool.wire.messages import JobParams, encode_request


@dataclass(frozen=True)
class SessionSettings:
    """Limits of a session. Times are in seconds, sizes in bytes.

    ``user_rate`` and ``ip_rate`` limit the accepted submissions a second of a user or an address
    over all of their sessions; 0 turns a limit off.
    """

    nonce_scope: str = "pool"
    duplicate_scope: str = "user"
    user_rate: float = 0.0
    ip_rate: float = 0.0
    authorize_timeout: float = 10.0
    first_frame: int = 1024
    max_frame: int = 65536


@implementer(IConnectionObserver)
class Pool:
    """Makes sessions of connections, and sends them jobs over a channel.

    ``events`` is told about jobs and sessions. ``permissions`` say which methods a session may
    call, by default all. ``wall`` returns seconds since the epoch; without it sessions do not know
    since when they are there.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        book: JobBook,
        acceptance: Acceptance,
        handlers: Handlers,
        *,
        channel: IChannel,
        events: IEvents,
        settings: SessionSettings,
        logins: Logins | None = None,
        names: Names | None = None,
        permissions: PermissionTable | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._book = book
        self._acceptance = acceptance
        self._handlers = handlers
        self.settings = settings
        self._permissions = permissions or PermissionTable()
        self._permitted = PermittedMethods(handlers, self._permissions)
        self.greeting = Greeting(self._admit, logins, self._permissions, names)
        self._channel = channel
        self._events = events
        self._payload: tuple[Job, bytes, int] | None = None
        self._by_user = SharedBuckets(settings.user_rate, max(1.0, settings.user_rate))
        self._by_ip = SharedBuckets(settings.ip_rate, max(1.0, settings.ip_rate))
        self.users: Counter[str] = Counter()
        #: The sessions of each full name, with the worker.
        self.usernames: Counter[str] = Counter()
        self.sessions = 0
        #: Seconds until the last job was in every outbox.
        self.broadcast_seconds = 0.0

    # IConnectionObserver

    def opened(self, connection: Connection) -> None:
        """Start the time limit for ``authorize`` of a new connection."""
        connection.router = self.greeting
        connection.max_frame = min(self.settings.first_frame, self.settings.max_frame)
        patience = self.settings.authorize_timeout
        late = CLOSE_UNAUTHORIZED.about(f"no authorize within {patience:g} s")
        connection.expect_within(patience, late)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Remove the session of the connection, if it has one."""
        session = connection.context
        if session is None:
            return
        self._channel.unsubscribe(connection)
        for bucket in session.shared:
            bucket.holders -= 1
        self.sessions -= 1
        self.users[session.user] -= 1
        if not self.users[session.user]:
            del self.users[session.user]
        self.usernames[session.username] -= 1
        if not self.usernames[session.username]:
            del self.usernames[session.username]
        why = session.end or reason.getErrorMessage()
        self._log.debug(
            "{username} left: {reason}",
            username=session.username,
            session=session.session_id.hex(),
            remote=connection.peer,
            reason=why,
        )
        self._events.closed(session, why)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Let a peer that has finished sending receive its pending answers."""
        return self._acceptance.settle()

    # sessions

    def _admit(self, connection: Connection, username: str, role: str) -> bytes:
        """Make the session of a connection; returns the payload of its first job."""
        settings = self.settings
        suffix = secrets.token_hex(8) if settings.nonce_scope == "session" else ""
        since = 0.0 if self._wall is None else self._wall()
        session = Session(
            username, settings.duplicate_scope, suffix, role, peer=connection.peer, since=since
        )
        session.shared = self._shared(session, connection)
        connection.context = session
        connection.deadline = None
        connection.around.owner.welcome(connection)
        connection.max_frame = settings.max_frame
        self.route(connection)
        self._channel.subscribe(connection)
        self.sessions += 1
        self.users[session.user] += 1
        self.usernames[session.username] += 1
        self._log.debug(
            "{username} authorized",
            username=username,
            session=session.session_id.hex(),
            remote=connection.peer,
        )
        self._events.opened(session, session.peer)
        job = self._book.current
        return b"" if job is None else self._job_for(job, session)

    def route(self, connection: Connection) -> None:
        """Let a session call its methods, by the permissions as they are now.

        Only a session that may not call all of them is asked at each message.
        """
        session: Session | None = connection.context
        if session is not None:
            free = self._permissions.may_call_all(session.user, session.role)
            connection.router = self._handlers if free else self._permitted

    def _shared(self, session: Session, connection: Connection) -> tuple[Bucket, ...]:
        now = connection.last_seen
        buckets = []
        if self.settings.user_rate:
            buckets.append(self._by_user.hold(session.user, now))
        if self.settings.ip_rate and connection.host:
            buckets.append(self._by_ip.hold(connection.host, now))
        return tuple(buckets)

    # jobs

    def publish(self, job: Job) -> Deferred[None]:
        """Send a job to every session; fires when it is in every outbox."""
        began = self._clock.seconds()
        if self.settings.nonce_scope == "session":
            sent = self._channel.publish_each(lambda c: self._job_for(job, c.context))
        else:
            sent = self._channel.publish(self._encoded(job)[0])
        self._events.job(job.saved())

        def finished(_: None) -> None:
            self.broadcast_seconds = self._clock.seconds() - began

        done: Deferred[None] = sent.addCallback(finished)
        return done

    def _job_for(self, job: Job, session: Session) -> bytes:
        payload, end = self._encoded(job)
        if not session.suffix:
            return payload
        return b"%b%b%b" % (payload[:end], session.suffix.encode(), payload[end:])

    def _encoded(self, job: Job) -> tuple[bytes, int]:
        """Return the payload of a job, and the index where the server nonce ends."""
        if self._payload is None or self._payload[0] is not job:
            payload = encode_request(None, "job", JobParams(job.job_id, job.server_nonce))
            nonce = job.server_nonce.encode()
            self._payload = (job, payload, payload.rindex(nonce) + len(nonce))
        return self._payload[1:]
