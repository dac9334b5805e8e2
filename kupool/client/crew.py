"""Run many pool clients in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.client.answers import SubmissionOutcome
from kupool.client.pool import PoolClient
from kupool.client.submissions import NOT_STORED

#: Seconds between two batches of new sessions.
STEP = 0.1

#: Counters that are not errors.
_NO_ERRORS = frozenset((SubmissionOutcome.ACCEPTED.value, "retried"))


class ClientCrew:
    """Starts ``count`` clients, ``ramp`` a second, and adds up their counters.

    ``make`` is called with the number of a session, from 1 on, and returns its client, with
    its worker attached. ``gone`` is called with the last error when every started client
    has ended by itself.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        make: Callable[[int], PoolClient],
        count: int,
        *,
        ramp: float,
        gone: Callable[[BaseException], object],
    ) -> None:
        self._make = make
        self._count = count
        self._portion = max(1, round(ramp * STEP))
        self._gone = gone
        self._clients: list[PoolClient] = []
        self._ended = 0
        self._closing = False
        self._starter = LoopingCall(self._start_some)
        self._starter.clock = reactor

    def start(self) -> None:
        """Start the first batch of sessions now, and the others one batch after the other."""
        self._starter.start(STEP).addErrback(
            lambda failure: self._log.failure("Sessions could not be started", failure)
        )

    def close(self) -> Deferred[None]:
        """Close every session; fires when the last socket is closed."""
        self._closing = True
        if self._starter.running:
            self._starter.stop()
        closed = DeferredList([client.close() for client in self._clients])
        done: Deferred[None] = closed.addCallback(lambda _: None)
        return done

    @property
    def connected(self) -> int:
        """Number of established sessions."""
        return sum(client.connected for client in self._clients)

    @property
    def problem(self) -> str:
        """Why a session is not established; empty if all are."""
        return next((client.problem for client in self._clients if client.problem), "")

    @property
    def not_stored(self) -> int:
        """Number of submissions that the server could not store."""
        return self.totals[NOT_STORED]

    @property
    def totals(self) -> Counter[str]:
        """The sum of all clients' counters."""
        total: Counter[str] = Counter()
        for client in self._clients:
            total.update(client.counters)
        return total

    @property
    def accepted(self) -> int:
        """Number of accepted submissions."""
        return sum(client.counters[SubmissionOutcome.ACCEPTED.value] for client in self._clients)

    def errors(self) -> dict[str, int]:
        """Return the number of errors by name, the most frequent first."""
        counted = self.totals.most_common()
        found = {name: number for name, number in counted if name not in _NO_ERRORS}
        if self._ended:
            found["sessions ended"] = self._ended
        return found

    def _start_some(self) -> None:
        for _ in range(min(self._portion, self._count - len(self._clients))):
            client = self._make(len(self._clients) + 1)
            self._clients.append(client)
            client.connect().addErrback(lambda _: None)  # when_stopped() fails too
            client.when_stopped().addErrback(self._stopped)
        if len(self._clients) >= self._count and self._starter.running:
            self._starter.stop()

    def _stopped(self, failure: Failure) -> None:
        self._ended += 1
        error = failure.value
        if self._ended == len(self._clients) and not self._closing and error is not None:
            self._gone(error)
