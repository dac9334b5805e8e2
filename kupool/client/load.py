"""A load generator: many sessions, each with a number of unanswered submissions.

To work for a pool, use :mod:`kupool.client.worker` instead: a load does not reconnect and
sends no lost submission again. It does as little as possible per submission, so that one
process can find the limits of a server.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.client.failures import ClientError
from kupool.client.load_counts import LoadCounts
from kupool.client.load_session import LoadSession
from kupool.client.load_settings import LoadSettings
from kupool.net.dialling.dialler import Place
from kupool.timing.chunks import in_chunks

#: Most sessions that connect at the same time, and that start in one reactor turn.
AT_ONCE = 100

#: Seconds before a submission is sent again that the server could not accept.
PAUSE = 1.0


class Load:
    """The sessions of a load, and their counters.

    Sessions are distributed over the ``servers``. ``name`` returns the username of a
    session by its number, from 1 on.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        servers: Sequence[Place],
        name: Callable[[int], str],
        password: str | None,
        *,
        settings: LoadSettings,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._servers = servers
        self._name = name
        self._password = password
        self._random_bytes = random_bytes
        self._opened: set[LoadSession] = set()
        self._sessions: set[LoadSession] = set()
        self._numbers = iter(range(1, settings.sessions + 1))
        self._refiller = LoopingCall(self._refill)
        self._refiller.clock = clock
        self._stopping = False
        self._crowd: list[Deferred[None]] = []
        self.counts = LoadCounts()
        #: Number of sessions that could not be opened or were lost, by reason.
        self.lost: Counter[str] = Counter()

    @property
    def connected(self) -> int:
        """Number of established sessions."""
        return len(self._sessions)

    async def connect(self) -> None:
        """Open every session; raises :class:`ClientError` if the first ones fail."""
        self._crowd = [Deferred.fromCoroutine(self._open_some()) for _ in range(AT_ONCE)]
        await DeferredList(self._crowd)
        if not self._sessions:
            reason = next(iter(self.lost), "interrupted")
            raise ClientError(f"no session could be opened: {reason}")

    async def _open_some(self) -> None:
        for number in self._numbers:
            if self._stopping:
                return
            try:
                await self._open(number)
            except Exception as error:  # an endpoint may fail with anything
                if not self._stopping:
                    self.lost[str(error).rstrip(".") or type(error).__name__] += 1
                if not self._sessions:
                    self._stopping = True

    async def _open(self, number: int) -> None:
        session = LoadSession(
            self._clock,
            self._servers[number % len(self._servers)],
            self.settings,
            self.counts,
            prefix=self._random_bytes(12).hex().encode(),
            left=self._left,
        )
        self._opened.add(session)
        try:
            await session.open(self._name(number), self._password)
        except Exception:
            if not self._stopping:  # it may have a socket to close
                self._opened.discard(session)
            raise
        self._sessions.add(session)

    def _left(self, session: LoadSession, reason: str) -> None:
        """Handle the end of a session's connection."""
        self._opened.discard(session)
        if session in self._sessions:
            self._sessions.discard(session)
            if not self._stopping:
                self.lost[reason] += 1

    def start(self) -> None:
        """Start submitting, a part of the sessions in each reactor turn."""
        self._refiller.start(PAUSE, now=False).addErrback(
            lambda failure: self._log.failure("Submissions could not be replaced", failure)
        )

        def fill(session: LoadSession) -> None:
            if not self._stopping:
                session.fill(self._clock.seconds())

        in_chunks(self._clock, self._sessions, fill, size=AT_ONCE)

    def _refill(self) -> None:
        now = self._clock.seconds()
        for session in list(self._sessions):
            if session.parked:
                session.refill(now)

    def stop(self) -> None:
        """Stop submitting; answers are still accepted."""
        self._stopping = True
        if self._refiller.running:
            self._refiller.stop()
        for session in self._sessions:
            session.running = False

    async def drain(self, timeout: float) -> None:
        """Wait for pending answers, for at most ``timeout`` seconds."""
        until = self._clock.seconds() + timeout
        while any(session.busy for session in self._sessions) and self._clock.seconds() < until:
            pause: Deferred[None] = Deferred()
            self._clock.callLater(0.02, pause.callback, None)
            await pause

    async def close(self) -> None:
        """Close every session; returns when the last socket is closed."""
        self.stop()
        for opening in self._crowd:
            opening.cancel()
        await DeferredList([session.close() for session in list(self._opened)])


__all__ = ["AT_ONCE", "PAUSE", "Load", "LoadSettings"]
