"""Submissions without a pause, on several sessions at once, from threads."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.servers.running_daemon import LineClient, RunningDaemon


class Load:
    """Sessions of users ``user0`` to ``userN``, each submitting as fast as it is answered.

    Each goes on until its connection ends. ``accepted`` holds the nonces of each user
    that were answered with true, ``closes`` the reasons of the closes.
    """

    def __init__(self, daemon: RunningDaemon, sessions: int) -> None:
        self.accepted: dict[str, list[str]] = {f"user{n}": [] for n in range(sessions)}
        self.closes: list[str] = []
        self.errors: list[BaseException] = []
        self.job: Mapping[str, Any] = {}
        self._enough = threading.Event()
        self._wanted = 0
        self._threads = []
        for username in self.accepted:
            client = LineClient(daemon)
            self.job = client.authorize(username)
            thread = threading.Thread(target=self._submit, args=(client, username), daemon=True)
            self._threads.append(thread)

    def run_until(self, accepted: int) -> None:
        """Begin, and wait until so many have been accepted in all."""
        self._wanted = accepted
        for thread in self._threads:
            thread.start()
        assert self._enough.wait(30), (self.errors, Counter(map(len, self.accepted.values())))

    def finish(self) -> dict[str, int]:
        """Wait for the ends of all sessions; returns how many were accepted of each."""
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()
        assert not self.errors, self.errors
        return {username: len(nonces) for username, nonces in self.accepted.items()}

    def _submit(self, client: LineClient, username: str) -> None:
        nonces = self.accepted[username]
        number = 0
        try:
            while True:
                nonce = f"n{number}"
                number += 1
                answer = client.submit(self.job, nonce)
                assert answer["result"] is True, answer
                nonces.append(nonce)
                if sum(map(len, self.accepted.values())) >= self._wanted:
                    self._enough.set()
        except (EOFError, ConnectionError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.closes += [
                message["params"]["reason"]
                for message in client.notifications
                if message["method"] == "close"
            ]
            client.close()


def counted(data: Path) -> dict[str, int]:
    """Return the counts of each user in the table of a data folder, over all minutes."""
    with closing(sqlite3.connect(data / "store.sqlite")) as connection:
        return dict(
            connection.execute(
                "SELECT username, sum(submission_count) FROM submissions GROUP BY username"
            )
        )
