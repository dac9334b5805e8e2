"""Workers that submit at a steady pace, from threads, for as long as they are wanted."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tests.servers.running_daemon import LineClient, RunningDaemon

#: Seconds until a worker whose connection has ended comes again.
AWAY = 0.2


class Crew:
    """A worker for each username. Every ``wrong_every``-th submission of each has a wrong result.

    Use it as a context manager. A worker whose connection ends comes again. ``accepted`` counts
    the submissions of each username that were answered with true, ``rejected`` those that were
    answered with an error, by its text; both are exact once the crew has left.
    """

    def __init__(
        self,
        daemon: RunningDaemon,
        usernames: Sequence[str],
        *,
        password: str = "",
        pause: float = 0.2,
        wrong_every: int = 0,
    ) -> None:
        self._daemon = daemon
        self._login = {"password": password} if password else {}
        self._pause = pause
        self._wrong_every = wrong_every
        self._ends = threading.Event()
        self._numbers = itertools.count(1)
        #: No crew uses the nonces of another one.
        self._mark = secrets.token_hex(4)
        self.accepted: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._work, args=(name,), daemon=True) for name in usernames
        ]

    def __enter__(self) -> Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """End all sessions; every submission has its answer then."""
        self._ends.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a worker of the crew does not end"

    def _work(self, username: str) -> None:
        while not self._ends.is_set():
            try:
                client = LineClient(self._daemon)
            except OSError:
                self._ends.wait(AWAY)
                continue
            try:
                self._submit(client, username)
            except (EOFError, OSError):
                self._ends.wait(AWAY)
            finally:
                client.close()

    def _submit(self, client: LineClient, username: str) -> None:
        reply = client.request("authorize", username=username, **self._login)
        assert reply.get("result") is True, reply
        job: Mapping[str, Any] = client.job()
        for number in self._numbers:
            wrong = self._wrong_every and number % self._wrong_every == 0
            changes = {"result": "0" * 64} if wrong else {}
            answer = client.submit(job, f"{self._mark}-{number}", **changes)
            if answer.get("result") is True:
                self.accepted[username] += 1
            else:
                self.rejected[str(answer.get("error"))] += 1
            if self._ends.wait(self._pause):
                return
            job = self._newest(client, job)

    def _newest(self, client: LineClient, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the newest job of those that have arrived."""
        for message in client.notifications:
            if message.get("method") == "job":
                job = message["params"]
        client.notifications.clear()
        return job
