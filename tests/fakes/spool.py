"""A scripted log and a database without a thread, to drive a spool step by step."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from kupool.log import Entry, Extent, Identity, ILog, LogStatus, LogUnavailable, Mark
from kupool.storage.migrations import migrate


@implementer(ILog)
class ScriptedLog:
    """Takes entries, or not, and says so when it is told to.

    ``takes`` says whether entries arrive; ``answers`` whether it says at once what became
    of them. What was not answered waits in ``waiting``, with whether it was taken.
    """

    persistent = True
    instant = False
    positional = False

    def __init__(self) -> None:
        self.identities: list[Identity] = []
        self.told: list[Any] = []
        self.refusal = ""
        self.takes = self.answers = True
        self.taken: list[str] = []
        self.asked: list[str] = []
        self.waiting: list[tuple[str, bool, Deferred[None]]] = []
        self.opened = self.closed = 0
        self.open_error: Exception | None = None
        self.problem = ""

    def open(self) -> Deferred[None]:
        self.opened += 1
        return fail(self.open_error) if self.open_error is not None else succeed(None)

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        assert body == body_of(entry_id)
        self.asked.append(entry_id)
        if self.takes:
            self.taken.append(entry_id)
        done: Deferred[None] = Deferred()
        self.waiting.append((entry_id, self.takes, done))
        if self.answers:
            self.answer(len(self.waiting) - 1)
        return done

    def answer(self, index: int, lie: bool = False) -> None:
        """Say of an entry what became of it; with ``lie``, that it was not taken."""
        _, taken, done = self.waiting.pop(index)
        if taken and not lie:
            done.callback(None)
        else:
            done.errback(LogUnavailable("gone"))

    def answer_all(self) -> None:
        while self.waiting:
            self.answer(0)

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        chosen = self.taken[after : after + limit]
        return succeed([Entry(after + n + 1, i, 0.0, body_of(i)) for n, i in enumerate(chosen)])

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        return succeed(Extent(known, 1, len(self.taken), bool(self.taken), mark.position))

    def identify(self, identity: Identity) -> Deferred[None]:
        self.identities.append(identity)
        return succeed(None)

    def watch(self, told: Callable[[], object]) -> None:
        self.told.append(told)

    def refuse(self, reason: str) -> None:
        self.refusal = reason

    def consume(self, group: str, consumer: Any, prefetch: int, after: int | None = None) -> Any:
        return succeed((group, consumer, prefetch, after))

    def trim(self, now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        return succeed(7)

    def status(self) -> LogStatus:
        return LogStatus(len(self.taken), 3, 2, self.problem)

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)


def body_of(entry_id: str) -> bytes:
    """The body that an entry of this id has."""
    return b"body of " + entry_id.encode()


class SteppedDatabase:
    """As a :class:`kupool.storage.database.Database`, but works only when told to.

    Another one made on the same connection is the next run of the process.
    """

    def __init__(self, connection: sqlite3.Connection | None = None, schema: str = "spool") -> None:
        self._schema = schema
        self.connection = connection or sqlite3.connect(":memory:", isolation_level=None)
        self.broken = False
        self.problem = ""
        #: Of each piece of work, whether it is to be done without a transaction, and whether it
        #: shares none with others.
        self.singles: list[bool] = []
        self.alones: list[bool] = []
        self._queue: deque[tuple[Callable[[sqlite3.Connection], Any], Deferred[Any]]] = deque()
        self._closed = False

    def open(self) -> Deferred[None]:
        migrate(self.connection, self._schema)
        return succeed(None)

    def run(
        self,
        call: Callable[[sqlite3.Connection], Any],
        *,
        alone: bool = False,
        single: bool = False,
    ) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        if self._closed:
            return fail(sqlite3.ProgrammingError("closed"))
        self.singles.append(single)
        self.alones.append(alone)
        self._queue.append((call, done))
        return done

    @property
    def idle(self) -> bool:
        return not self._queue

    def step(self) -> None:
        """Do one piece of work."""
        if not self._queue:
            return
        call, done = self._queue.popleft()
        self.connection.execute(f"PRAGMA query_only = {self.broken:d}")
        self.connection.execute("BEGIN")
        try:
            found = call(self.connection)
        except sqlite3.Error as error:
            self.connection.execute("ROLLBACK")
            done.errback(error)
            return
        self.connection.execute("COMMIT")
        done.callback(found)

    def work(self) -> None:
        """Do all the work there is, and what that leads to."""
        while self._queue:
            self.step()

    def share(self) -> None:
        """Do all the work there is in one transaction, and answer when it is written."""
        queue, self._queue = self._queue, deque()
        self.connection.execute("BEGIN")
        found = [(done, call(self.connection)) for call, done in queue]
        self.connection.execute("COMMIT")
        for done, result in found:
            done.callback(result)

    def close(self) -> Deferred[None]:
        self.work()
        self._closed = True
        return succeed(None)

    def rows(self) -> list[str]:
        """The ids of the entries in the file."""
        found = self.connection.execute("SELECT entry_id FROM spooled ORDER BY position")
        return [row[0] for row in found]
