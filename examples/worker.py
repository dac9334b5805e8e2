"""A worker for a KuPool pool with only Python's standard library, to read and translate.

``python examples/worker.py --connect localhost:8080 --username alice.rig1``; Ctrl-C ends it.
Messages are JSON, one per line: docs/protocol.md, sections 2 and 3. It uses one socket, no threads,
and submits one result at a time. A worker that submits every second needs no ``ping``.
"""

import argparse
import hashlib
import json
import random
import secrets
import select
import socket
import sys
import time
from contextlib import suppress
from typing import Any

AUTHORIZE, SUBMIT = 1, 2  # the ids of our requests: one of each is open at a time
PACE = 1.05  # seconds from an answer to the next submission: the permitted 1.000 and a margin
SILENCE = 180.0  # seconds after which a server that owes an answer is dead
PASSING = (26, 27)  # the codes of errors after which the same submission is tried again


def solve(job: dict[str, Any]) -> dict[str, Any]:
    """Return the params of a submission for a job."""
    nonce = secrets.token_hex(12)
    result = hashlib.sha256((job["server_nonce"] + nonce).encode()).hexdigest()
    return {"job_id": job["job_id"], "client_nonce": nonce, "result": result}


class Worker:
    """A session that continues over several connections.

    ``unsettled`` is the submission without a final answer. It is sent again after a reconnect:
    ``Duplicate submission`` then means that the first one was counted.
    """

    def __init__(self, username: str) -> None:
        self.username = username
        self.unsettled: dict[str, Any] = {}
        self.job: dict[str, Any] = {}
        self.due = 0.0  # when to submit, in seconds of time.monotonic()
        self.owed = 0  # the request that the server has not answered
        self.since = float("inf")  # when the server let us in, in the same seconds

    def session(self, sock: socket.socket) -> dict[str, Any]:
        """Work until the connection ends; returns the params of the server's close, or nothing."""
        half, self.due, self.owed = b"", 0.0, AUTHORIZE
        send(sock, AUTHORIZE, "authorize", {"username": self.username})
        while True:
            wait = SILENCE if self.owed else max(0.0, self.due - time.monotonic())
            if select.select([sock], [], [], wait)[0]:
                data = sock.recv(65536)
                *lines, half = (half + data).split(b"\n")
                for line in lines:
                    if close := self.handle(json.loads(line)):
                        return close
                if not data:
                    return {}
            elif self.owed:
                return {}
            else:
                self.unsettled, self.owed = self.unsettled or solve(self.job), SUBMIT
                send(sock, SUBMIT, "submit", self.unsettled)

    def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """Handle one message of the server; returns the params of a close, otherwise nothing."""
        if message.get("method") == "job":
            self.job = message["params"]  # only the newest matters
            self.owed = SUBMIT if self.owed == SUBMIT else 0
        elif message.get("method") == "close":
            print("closed:", message["params"]["reason"], flush=True)
            close: dict[str, Any] = message["params"]
            return close
        elif message["id"] == SUBMIT:
            self.due, self.owed = time.monotonic() + PACE, 0
            print(message.get("error", "accepted"), self.unsettled, flush=True)
            self.unsettled = self.unsettled if message.get("code") in PASSING else {}
        elif message["id"] == AUTHORIZE and message["result"] is True:
            self.since = time.monotonic()
        elif message["id"] == AUTHORIZE:
            print("not authorized:", message["error"], flush=True)  # a close follows
        return {}


def send(sock: socket.socket, number: int, method: str, params: dict[str, Any]) -> None:
    """Send one request."""
    message = {"id": number, "method": method, "params": params}
    sock.sendall(json.dumps(message).encode() + b"\n")


def main(host: str, port: int, username: str) -> None:
    """Work, and reconnect as the server's close says, after a random wait that doubles."""
    worker, most, hurried = Worker(username), 0.5, False
    while True:
        close: dict[str, Any] = {}
        worker.since = float("inf")
        with suppress(OSError), socket.create_connection((host, port), 10) as sock:
            close = worker.session(sock)
        code, wait = close.get("code", 0), close.get("retry_after")
        banned_for_a_while = code == 4503 and wait is not None
        wanted = close.get("reconnect", True) or 4000 <= code < 4200
        if (4500 <= code < 4600 or not wanted) and not banned_for_a_while:
            sys.exit(1)  # do not reconnect: a person has to act
        if time.monotonic() - worker.since > 10:
            most, hurried = 0.5, False  # only a stable session resets the wait
        if code in (4000, 4001) and wait is None and not hurried:
            hurried = True  # a server that goes down or restarts: at once, but only once
            time.sleep(random.uniform(0, 0.25))
        else:
            time.sleep((wait or 0.0) + random.uniform(0, most))
            most = min(30.0, most * 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--username", default="worker")
    arguments = parser.parse_args()
    host, _, port = arguments.connect.rpartition(":")
    with suppress(KeyboardInterrupt):
        main(host, int(port), arguments.username)
