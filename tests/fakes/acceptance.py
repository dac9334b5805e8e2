"""The acceptance of submissions with a log that a test holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.events import NoEvents
from kupool.pool.jobs import Job
from kupool.pool.session import Session

WALL = 1_800_000_000.0  # a whole minute


class HeldLog:
    """A log whose appends are decided by the test."""

    instant = False

    def __init__(self) -> None:
        self.appended: list[tuple[str, bytes, Deferred[None]]] = []

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.appended.append((entry_id, body, done))
        return done

    def decide(self, error: Exception | None = None) -> None:
        done = self.appended.pop(0)[2]
        if error is None:
            done.callback(None)
        else:
            done.errback(error)


class Peer:
    """What acceptance sees of a connection."""

    def __init__(self, clock: Clock, username: str = "alice") -> None:
        self.context = Session(username, "user")
        self.sent: list[dict[str, Any]] = []
        self.writes = 0
        self._clock = clock
        self.around = self

    def after_turn(self, call: Callable[[], object]) -> None:
        self._clock.callLater(0, call)

    @property
    def last_seen(self) -> float:
        return self._clock.seconds()

    def send(self, payload: bytes) -> None:
        self.writes += 1
        self.sent.append(json.loads(payload))

    def send_many(self, payloads: list[bytes]) -> None:
        self.writes += 1
        self.sent += [json.loads(payload) for payload in payloads]


class AcceptanceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = HeldLog()
        self.acceptance = self.make()
        self.job = Job(1, "ab" * 16, 0.0, WALL)
        self.peer = Peer(self.clock)

    def make(self, **changes: Any) -> Acceptance:
        settings = BatchSettings(**changes)
        return Acceptance(
            self.clock,
            lambda: WALL + self.clock.seconds(),
            self.log,
            settings,
            instance="i",
            events=NoEvents(),
        )

    def add(self, message_id: int, nonce: str, peer: Peer | None = None) -> bool:
        peer = peer or self.peer
        peer.context.enter(self.job)
        return self.acceptance.add(peer, message_id, self.job, nonce)  # type: ignore[arg-type]

    def turn(self) -> None:
        """Let one reactor turn pass.

        Unlike ``Clock.advance``, a reactor leaves calls made meanwhile to the next turn.
        """
        for call in list(self.clock.calls):
            if call.active() and call.getTime() <= self.clock.seconds():
                self.clock.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
