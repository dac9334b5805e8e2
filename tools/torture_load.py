"""The load of the torture: clients that keep account of everything they are told."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import Any

from kupool.wire.framing import FRAMINGS
from tools import kill9
from tools.crowd import Crowd, submission
from tools.kill9 import session_name

#: A submission as the judge knows it: the user, the job, the nonce.
Key = tuple[str, int, str]

#: What was told a client to count is sent again so often when it comes back: to be refused.
PROBES = 3

#: How many of those each client remembers.
_REMEMBERED = 200

#: No job id may be so large.
_LARGEST = 2**31

#: A job id that is so much higher than the one before has skipped some.
_JUMP = 900

#: What a submission that was counted before may be told.
_REFUSED = ("Duplicate submission", "Task does not exist", "Temporarily unavailable")


class Books(kill9.Books):
    """What all clients together were told; the lists are emptied by who reads them."""

    def __init__(self) -> None:
        super().__init__()
        #: Told that they count: answered with ``true``, or a duplicate only of themselves.
        self.told: list[Key] = []
        #: Told that their job is gone, when it was not known whether they count.
        self.unknown: list[Key] = []
        self.answered_true = self.answered_again = self.gone = self.probes = self.jumps = 0
        #: Since when nothing may be answered with ``true``, and why; None: it may.
        self.forbidden: tuple[float, str] | None = None
        #: While what is refused may count all the same.
        self.unsure = False

    def job(self, job_id: int, server_nonce: str) -> None:
        """Note a job that was sent."""
        if self.newest and job_id - self.newest >= _JUMP:
            self.jumps += 1
        super().job(job_id, server_nonce)
        self.differences.unless(0 < job_id < _LARGEST, f"job {job_id}: the id is out of range")


class Client(kill9.Client):
    """A session that outlives its connections, and whatever happens to them.

    When it comes back it also sends again some of what it was told to count before.
    """

    books: Books
    #: How many were refused and are to be sent once more.
    waiting = 0

    def __init__(self, *arguments: Any) -> None:
        #: What was told to count: (job, nonce); and those that are sent again, by message id.
        self.remembered: deque[tuple[dict[str, Any], str]] = deque(maxlen=_REMEMBERED)
        self.probing: dict[int, tuple[dict[str, Any], str]] = {}
        self._sent: dict[int, float] = {}
        super().__init__(*arguments)

    def authorized(self) -> None:
        """A new connection stands: send again what was not answered, and what was."""
        self.probing.clear()
        self._sent.clear()
        super().authorized()
        count = min(PROBES, len(self.remembered))
        for job, nonce in self._random.sample(list(self.remembered), count):
            self._next_id += 1
            self.probing[self._next_id] = (job, nonce)
            assert self.connection is not None
            self.connection.send(submission(self._next_id, job, nonce))

    def lost(self) -> None:
        """The connection is gone, and with it what was only tried."""
        self.probing.clear()
        super().lost()

    def _send(self, job: dict[str, Any], nonce: str, again: bool) -> None:
        # Taken before it is sent: a fault of another thread may fall in between.
        now = time.monotonic()
        super()._send(job, nonce, again)
        self._sent[self._next_id] = now

    def answered(self, message: dict[str, Any]) -> None:
        probe = self.probing.pop(message["id"], None)
        if probe is not None:
            self._probed(probe, message)
            return
        pending = self.unanswered.pop(message["id"], None)
        if pending is None:
            self.books.differences.add(f"{self.name}: an answer to nothing: {message}")
            return
        job, nonce, again = pending
        key = self._key(job, nonce)
        sent = self._sent.pop(message["id"])
        error = message.get("error")
        if message["result"] is True:
            self._check_allowed(key, sent)
            self.books.answered_true += 1
            self.books.true_again += again
            self._told(key, job)
        elif error == "Duplicate submission" and again:
            # It is true, but the answer was lost.
            self.books.answered_again += 1
            self._told(key, job)
        elif error == "Temporarily unavailable":
            # Not counted, and the nonce is free again; what was sent before may count.
            self.books.retried += 1
            self.waiting += 1
            pending = (job, nonce, again or self.books.unsure)
            self.crowd.call_later(self._random.uniform(0.05, 0.2), lambda: self._retry(pending))
        elif error == "Task does not exist":
            # After a start without the log, jobs whose nonces nobody can tell are retired.
            self.books.gone += 1
            if again:
                self.books.unknown.append(key)
        else:
            self.books.other[str(error)] += 1
            self.books.differences.add(f"{key}: answered {message}, again: {again}")

    def _key(self, job: dict[str, Any], nonce: str) -> Key:
        user, _, worker = self.name.rpartition(".")
        return (user if user and worker else self.name, job["job_id"], nonce)

    def _told(self, key: Key, job: dict[str, Any]) -> None:
        self.books.told.append(key)
        self.remembered.append((job, key[2]))

    def _check_allowed(self, key: Key, sent: float) -> None:
        forbidden = self.books.forbidden
        if forbidden is not None and sent > forbidden[0]:
            self.books.differences.add(f"{key}: answered true {forbidden[1]}")

    def _probed(self, probe: tuple[dict[str, Any], str], message: dict[str, Any]) -> None:
        """What was told to count has been sent once more, and must not count again."""
        self.books.probes += 1
        key = self._key(*probe)
        if message["result"] is True:
            self.books.told.append(key)
        elif message.get("error") not in _REFUSED:
            self.books.differences.add(f"{key}: sent again and answered {message}")

    def _retry(self, pending: tuple[dict[str, Any], str, bool]) -> None:
        """Send once more what was refused."""
        if self.ready:
            self.waiting -= 1
            self._send(*pending)
        else:
            self.crowd.call_later(0.1, lambda: self._retry(pending))


class Load:
    """A crowd that submits at a steady rate while it is ``on``."""

    def __init__(
        self, crowd: Crowd, books: Books, port: int, clients: int, rate: float, seed: int
    ) -> None:
        """``rate`` is the submissions a second of all clients together."""
        self.crowd = crowd
        self.books = books
        self.on = False
        self._every = clients / rate
        self._pace = random.Random(f"{seed}/pace")
        self.clients = [
            Client(
                crowd,
                lambda: port,
                self.books,
                session_name(number),
                list(FRAMINGS)[number % 3],
                f"{seed}/{number}",
            )
            for number in range(clients)
        ]
        for client in self.clients:
            self._submit(client)

    def _submit(self, client: Client) -> None:
        """Submit a few, and again after a while: at times of its own, not with the others."""
        size = self._pace.randint(1, 3)
        if self.on:
            for _ in range(size):
                client.submit()
        pause = size * self._every * self._pace.uniform(0.5, 1.5)
        self.crowd.call_later(pause, lambda: self._submit(client))

    @property
    def unanswered(self) -> int:
        """Submissions for which no answer has come yet."""
        return sum(
            len(client.unanswered) + client.waiting + len(client.probing) for client in self.clients
        )

    def connected(self) -> bool:
        """Whether every client has a session and a job."""
        return all(client.ready and client.job for client in self.clients)

    def take(self) -> tuple[list[Key], list[Key]]:
        """Return what clients were told since the last call: counts, and cannot be known."""
        books = self.books
        told, books.told = books.told, []
        unknown, books.unknown = books.unknown, []
        return told, unknown


__all__ = ["Books", "Client", "Key", "Load"]
