"""An open load: so many submissions a second, whatever becomes of the answers before.

The time of an answer runs from the moment its submission was due, so that a daemon that
stalls is charged for all that it keeps waiting.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from typing import Any, NamedTuple

from kupool.wire.framing import Item
from tools.crowd import Crowd, Peer, decode, submission

#: Seconds between two looks at what is due.
TICK = 0.002

_AUTHORIZE = -1


class Told(NamedTuple):
    """A submission that was answered with ``true``, and the minutes it may count in."""

    username: str
    job_id: int
    nonce: str
    first_minute: int
    last_minute: int


class _Session(Peer):
    """One client: it answers for what it is told to submit."""

    def __init__(self, crowd: Crowd, port: int, load: PacedLoad, name: str) -> None:
        self.name = name
        self.job: dict[str, Any] | None = None
        self._load = load
        Peer.__init__(self, crowd, port)

    def on_connected(self) -> None:
        params = {"username": self.name}
        self.send({"id": _AUTHORIZE, "method": "authorize", "params": params})

    def on_item(self, item: Item) -> None:
        if not isinstance(item, bytes):
            return  # the close of the framing; the end of the connection follows
        message = decode(item)
        if message.get("method") == "job":
            self.job = job = message["params"]
            self._load.server_nonces[job["job_id"]] = job["server_nonce"]
        elif message.get("id") != _AUTHORIZE:
            self._load.answered(self, message)

    def on_ended(self, reason: str) -> None:
        self._load.problems.append(f"{self.name}: the connection ended: {reason}")


class PacedLoad:
    """Sessions of one crowd that submit in turn, ``rate`` a second together."""

    def __init__(self, crowd: Crowd, port: int, sessions: int, rate: float) -> None:
        self._crowd = crowd
        self._rate = rate
        self._run = f"{time.time_ns():x}"
        self._began = 0.0
        self._stopped = False
        self.problems: list[str] = []
        #: By the number of the submission: when it was due, and how long the answer took, in
        #: seconds; not a number where there is none.
        self.due = array("d")
        self.took = array("d")
        #: How many were answered with an error, by its text.
        self.refused: Counter[str] = Counter()
        self.told: list[Told] = []
        #: By the ids of the jobs that there were.
        self.server_nonces: dict[int, str] = {}
        #: When answers came after a pause longer than all before it: (when, how long).
        self.pauses: list[tuple[float, float]] = []
        self._last_answer = 0.0
        self._jobs: dict[int, tuple[_Session, int]] = {}
        self.sessions = [
            _Session(crowd, port, self, f"user{number // 2}" + (".rig1" if number % 2 else ""))
            for number in range(sessions)
        ]

    def begin(self) -> None:
        """Wait until every session has a job, and begin to submit."""
        if not self._crowd.run(lambda: all(s.job for s in self.sessions), 30):
            raise SystemExit(f"not every session has a job: {self.problems}")
        self._began = self._last_answer = time.monotonic()
        self._tick()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def unanswered(self) -> int:
        """Submissions whose answer is still to come."""
        return len(self._jobs)

    def _tick(self) -> None:
        if self._stopped:
            return
        for number in range(len(self.due), int(self.now * self._rate)):
            self._submit(number)
        self._crowd.call_later(TICK, self._tick)

    def _submit(self, number: int) -> None:
        session = self.sessions[number % len(self.sessions)]
        job = session.job
        assert job is not None
        self.due.append(number / self._rate)
        self.took.append(math.nan)
        self._jobs[number] = (session, job["job_id"])
        session.send(submission(number, job, f"{self._run}-{number:x}"))

    def answered(self, session: _Session, message: dict[str, Any]) -> None:
        """An answer has come."""
        number = message["id"]
        asked = self._jobs.pop(number, None)
        if asked is None or asked[0] is not session:
            self.problems.append(f"{session.name}: an answer to nothing: {message}")
            return
        now = time.monotonic()
        pause = now - self._last_answer
        if not self.pauses or pause > self.pauses[-1][1]:
            self.pauses.append((now - self._began, pause))
        self._last_answer = now
        self.took[number] = took = now - self._began - self.due[number]
        if message["result"] is True:
            wall = time.time()
            first, last = int(wall - took) // 60 * 60, int(wall) // 60 * 60
            told = Told(session.name, asked[1], f"{self._run}-{number:x}", first, last)
            self.told.append(told)
        else:
            self.refused[message["error"]] += 1

    def stop(self, seconds: float = 30.0) -> None:
        """Submit nothing more, and wait so long for the answers."""
        self._stopped = True
        self._crowd.run(lambda: not self._jobs, seconds)

    def answer_times(self, start: float, end: float) -> list[float]:
        """Return the sorted times of the answers to what was due from ``start`` to ``end``."""
        first, last = int(start * self._rate), int(end * self._rate)
        return sorted(took for took in self.took[first:last] if not math.isnan(took))
