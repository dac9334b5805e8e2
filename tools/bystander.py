"""A good client beside an attack: ``python -m tools.bystander``.

Its sessions submit every 1.25 s, each at its own time. A submission's time begins when it is due,
so that a daemon that stalls is charged for what it kept waiting. Beside that it asks for ``/ready``
ten times a second, and logs in anew once a second. Whenever a line comes on standard input, it
prints what it has seen since the last one as one JSON object; it ends when standard input does.
``tools.attack`` starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from typing import Any

#: Seconds after which an answer is no longer waited for.
PATIENCE = 10.0

#: Seconds between two submissions of a session: more than the daemon asks for, since one that was
#: answered late is followed by one in time.
PERIOD = 1.25


class Session:
    """A session that submits when it is told to."""

    def __init__(self, address: tuple[str, int], username: str, token: str) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.settimeout(PATIENCE)
        self._file = self.socket.makefile("rb")
        self._serial = 0
        self._job: dict[str, Any] = {}
        self._due: dict[int, float] = {}
        self.send("authorize", username=username, password=token)
        self._authorized = self._next()
        if self._authorized.get("result") is not True:
            raise ConnectionError(str(self._authorized.get("error") or self._authorized))
        while not self._job:
            self._take(self._next())

    def send(self, method: str, **params: object) -> None:
        """Send a request."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": params}
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def submit(self, due: float) -> None:
        """Submit what was due at a time."""
        nonce = f"{os.getpid()}-{id(self)}-{self._serial}"
        result = sha256((self._job["server_nonce"] + nonce).encode()).hexdigest()
        self._due[self._serial + 1] = due
        self.send("submit", job_id=self._job["job_id"], client_nonce=nonce, result=result)

    def begin(self) -> None:
        """Stop waiting for what comes: :meth:`read` takes what is there."""
        self.socket.setblocking(False)
        self._rest = b""

    def read(self) -> list[tuple[float, str]]:
        """Return the seconds that each answer took, and its error; raises for a lost connection."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        *lines, self._rest = (self._rest + data).split(b"\n")
        now = time.monotonic()
        found = []
        for line in filter(None, lines):
            message = json.loads(line)
            self._take(message)
            due = self._due.pop(message.get("id") or 0, None)
            if due is not None:
                found.append((now - due, message.get("error", "")))
        return found

    def waiting(self, now: float) -> list[float]:
        """Return how long each submission has waited that has no answer yet."""
        return [now - due for due in self._due.values()]

    def _next(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise ConnectionError("closed")
        found: dict[str, Any] = json.loads(line)
        return found

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "job":
            self._job = message["params"]
        elif message.get("method") == "close":
            raise ConnectionError(message["params"]["reason"])


class Seen:
    """What the client has seen since it was last asked."""

    def __init__(self) -> None:
        self.submissions: list[float] = []
        self.ready: list[float] = []
        self.logins: list[float] = []
        self.errors = Counter[str]()

    def shown(self) -> dict[str, Any]:
        """Return it for the one who asks: times in ms."""
        submissions = sorted(self.submissions)
        return {
            "submissions": len(submissions),
            "p50": _part(submissions, 0.5),
            "p99": _part(submissions, 0.99),
            "ready": _part(sorted(self.ready), 1),
            "login": _part(sorted(self.logins), 1),
            "errors": self.errors,
        }


def _part(times: list[float], part: float) -> float | None:
    if not times:
        return None
    return round(times[min(len(times) - 1, int(len(times) * part))] * 1000, 2)


class Bystander:
    """The client: its sessions in the main thread, its other questions in another one."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._pool = (arguments.host, arguments.port)
        self._http = (arguments.host, arguments.http_port)
        self._user: str = arguments.user
        self._token: str = arguments.token
        self._clients: int = arguments.clients
        self._sessions: dict[int, Session] = {}
        self._seen = Seen()

    def run(self) -> None:
        """Submit until standard input ends."""
        poll = select.epoll()
        for number in range(self._clients):
            session = self._session(f"w{number}")
            session.begin()
            self._sessions[session.socket.fileno()] = session
            poll.register(session.socket, select.EPOLLIN)
        poll.register(0, select.EPOLLIN)
        print("ready", flush=True)
        threading.Thread(target=self._ask, daemon=True).start()
        order = list(self._sessions.values())
        start, turn = time.monotonic(), 0
        while True:
            due = start + turn * PERIOD / self._clients
            now = time.monotonic()
            if now >= due:
                with suppress(OSError):  # one that is lost has no socket any more
                    order[turn % self._clients].submit(due)
                turn += 1
                continue
            for descriptor, _ in poll.poll(due - now):
                if descriptor != 0:
                    self._read(descriptor)
                elif os.read(0, 4096):
                    self._tell()
                else:
                    return

    def _read(self, descriptor: int) -> None:
        try:
            for seconds, error in self._sessions[descriptor].read():
                self._seen.submissions.append(seconds)
                if error:
                    self._seen.errors[error] += 1
        except BlockingIOError:
            pass
        except OSError as error:
            self._seen.errors[f"lost: {error}"] += 1
            self._sessions.pop(descriptor).socket.close()  # and epoll forgets it

    def _tell(self) -> None:
        seen, self._seen = self._seen, Seen()
        now = time.monotonic()
        late = [s for session in self._sessions.values() for s in session.waiting(now) if s > 1]
        seen.submissions += late
        if late:
            seen.errors["no answer yet"] += len(late)
        print(json.dumps(seen.shown()), flush=True)

    def _session(self, worker: str) -> Session:
        return Session(self._pool, f"{self._user}.{worker}", self._token)

    def _ask(self) -> None:
        turn = 0
        while True:
            began = time.monotonic()
            try:
                status = self._ready()
                self._seen.ready.append(time.monotonic() - began)
                if status != "200":
                    self._seen.errors[f"/ready: {status}"] += 1
            except OSError as error:
                self._seen.ready.append(time.monotonic() - began)
                self._seen.errors[f"/ready: {error}"] += 1
            if turn % 10 == 0:
                self._log_in()
            turn += 1
            time.sleep(max(0.0, began + 0.1 - time.monotonic()))

    def _ready(self) -> str:
        with socket.create_connection(self._http, PATIENCE) as sock:
            sock.sendall(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
            found = b""
            while data := sock.recv(65536):
                found += data
        return found[:12].decode("latin-1").partition(" ")[2] or "no answer"

    def _log_in(self) -> None:
        began = time.monotonic()
        try:
            self._session("new").socket.close()
            self._seen.logins.append(time.monotonic() - began)
        except OSError as error:
            self._seen.errors[f"a new login: {error}"] += 1


def main() -> int:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bystander",
        description="A good client beside an attack; see tools.attack.",
    )
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--clients", type=int, default=200, metavar="N")
    arguments = parser.parse_args()
    with suppress(OSError):  # it shares a core with the attacker, and must not wait for it
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    Bystander(arguments).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
