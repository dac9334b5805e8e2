"""Load: many sessions, each with some submissions always unanswered.

This is not how to work for a pool, which is :mod:`kupool.client.worker`: nothing is
sent again here, and no session comes back. What is done for each submission is kept
short, so that one process can find the limits of a server.
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

#: Sessions that connect at the same time, and sessions started in one reactor turn.
AT_ONCE = 100

#: Seconds until a submission is replaced that the server could not take for now.
PAUSE = 1.0


class Load:
    """The sessions, and what was counted over all of them.

    Sessions are spread over the ``servers``; ``name`` returns the username of the
    session of a number, from 1 on.
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
        #: Sessions that could not be opened or were lost, by reason.
        self.lost: Counter[str] = Counter()

    @property
    def connected(self) -> int:
        """Sessions that stand."""
        return len(self._sessions)

    async def connect(self) -> None:
        """Open every session; raises :class:`ClientError` when the first ones fail."""
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
            except Exception as error:  # whatever an endpoint fails with
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
            if not self._stopping:  # then it may have a socket to be closed
                self._opened.discard(session)
            raise
        self._sessions.add(session)

    def _left(self, session: LoadSession, reason: str) -> None:
        """A session's connection is gone."""
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
        """Submit nothing more; answers are still taken."""
        self._stopping = True
        if self._refiller.running:
            self._refiller.stop()
        for session in self._sessions:
            session.running = False

    async def drain(self, timeout: float) -> None:
        """Wait for the answers that are due, but no longer than ``timeout``."""
        until = self._clock.seconds() + timeout
        while any(session.busy for session in self._sessions) and self._clock.seconds() < until:
            pause: Deferred[None] = Deferred()
            self._clock.callLater(0.02, pause.callback, None)
            await pause

    async def close(self) -> None:
        """End every session; returns when the last socket is closed."""
        self.stop()
        for opening in self._crowd:
            opening.cancel()
        await DeferredList([session.close() for session in list(self._opened)])


__all__ = ["AT_ONCE", "PAUSE", "Load", "LoadSettings"]
