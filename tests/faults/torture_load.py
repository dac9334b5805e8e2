"""The load of the torture: clients that keep account of everything they are told."""

from __future__ import annotations

import random
from typing import Any

from kupool.wire.framing import FRAMINGS
from kupool.wire.messages import split_username
from tests.faults import kill9
from tests.faults.crowd import Crowd
from tests.faults.kill9 import session_name

#: A submission as the judge knows it: the user, the job, the nonce.
Key = tuple[str, int, str]


class Books(kill9.Books):
    """What all clients together were told; the lists are emptied by who reads them."""

    def __init__(self) -> None:
        super().__init__()
        #: Told that they count: answered with ``true``, or a duplicate only of themselves.
        self.told: list[Key] = []
        #: Told that their job is gone, when it was not known whether they count.
        self.unknown: list[Key] = []
        self.answered_true = self.answered_again = self.gone = 0


class Client(kill9.Client):
    """A session that outlives its connections, and whatever happens to them."""

    books: Books
    #: How many were refused and are to be sent once more.
    waiting = 0

    def answered(self, message: dict[str, Any]) -> None:
        pending = self.unanswered.pop(message["id"], None)
        if pending is None:
            self.books.differences.add(f"{self.name}: an answer to nothing: {message}")
            return
        job, nonce, again = pending
        key = (split_username(self.name)[0], job["job_id"], nonce)
        error = message.get("error")
        if message["result"] is True:
            self.books.answered_true += 1
            self.books.true_again += again
            self.books.told.append(key)
        elif error == "Duplicate submission" and again:
            # It is true, but the answer was lost.
            self.books.answered_again += 1
            self.books.told.append(key)
        elif error == "Temporarily unavailable":
            # Not counted, and the nonce is free again; what was sent before may count.
            self.books.retried += 1
            self.waiting += 1
            self.crowd.call_later(self._random.uniform(0.05, 0.2), lambda: self._retry(pending))
        elif error == "Task does not exist":
            # After a start without the log, jobs whose nonces nobody can tell are retired.
            self.books.gone += 1
            if again:
                self.books.unknown.append(key)
        else:
            self.books.other[str(error)] += 1
            self.books.differences.add(f"{key}: answered {message}, again: {again}")

    def _retry(self, pending: tuple[dict[str, Any], str, bool]) -> None:
        """Send once more what was refused."""
        if self.ready:
            self.waiting -= 1
            self._send(*pending)
        else:
            self.crowd.call_later(0.1, lambda: self._retry(pending))


class Load:
    """A crowd that submits at a steady rate while it is ``on``."""

    def __init__(self, crowd: Crowd, port: int, clients: int, rate: float, seed: int) -> None:
        """``rate`` is the submissions a second of all clients together."""
        self.crowd = crowd
        self.books = Books()
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
        return sum(len(client.unanswered) + client.waiting for client in self.clients)

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
