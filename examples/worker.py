"""A worker for a KuPool pool with nothing but Python's standard library: read and translate.

``python examples/worker.py --connect localhost:8080 --username alice.rig1``; Ctrl-C ends it.
Messages are JSON, one to a line: docs/protocol.md, sections 2 and 3. One socket, one
submission at a time, no threads. A worker that submits every second needs no ``ping``.
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

AUTHORIZE, SUBMIT = 1, 2  # the ids of our requests: only one of each is ever open
PACE = 1.05  # seconds from an answer to the next submission: the permitted 1.000 and a margin
SILENCE = 180.0  # seconds after which a server that owes us something counts as dead
PASSING = (26, 27)  # the codes of errors after which the same submission is tried again


def solve(job: dict[str, Any]) -> dict[str, Any]:
    """Return the params of a submission for a job."""
    nonce = secrets.token_hex(12)
    result = hashlib.sha256((job["server_nonce"] + nonce).encode()).hexdigest()
    return {"job_id": job["job_id"], "client_nonce": nonce, "result": result}


class Worker:
    """A session that outlives its connections.

    ``unsettled`` is the submission that has no final answer. It is sent again after a
    reconnect: ``Duplicate submission`` then says that the first one was counted.
    """

    def __init__(self, username: str) -> None:
        self.username = username
        self.unsettled: dict[str, Any] = {}
        self.job: dict[str, Any] = {}
        self.due = 0.0  # when to submit, in seconds of time.monotonic()
        self.owed = 0  # the request that the server has not answered

    def session(self, sock: socket.socket) -> int:
        """Work until the connection ends; returns the code of the server's close, or 0."""
        half, self.due, self.owed = b"", 0.0, AUTHORIZE
        send(sock, AUTHORIZE, "authorize", {"username": self.username})
        while True:
            wait = SILENCE if self.owed else max(0.0, self.due - time.monotonic())
            if select.select([sock], [], [], wait)[0]:
                data = sock.recv(65536)
                *lines, half = (half + data).split(b"\n")
                for line in lines:
                    if code := self.handle(json.loads(line)):
                        return code
                if not data:
                    return 0
            elif self.owed:
                return 0
            else:
                self.unsettled, self.owed = self.unsettled or solve(self.job), SUBMIT
                send(sock, SUBMIT, "submit", self.unsettled)

    def handle(self, message: dict[str, Any]) -> int:
        """Take one message of the server; returns the code of a close, else 0."""
        if message.get("method") == "job":
            self.job = message["params"]  # only the newest matters
            self.owed = SUBMIT if self.owed == SUBMIT else 0
        elif message.get("method") == "close":
            print("closed:", message["params"]["reason"], flush=True)
            return int(message["params"]["code"])
        elif message["id"] == SUBMIT:
            self.due, self.owed = time.monotonic() + PACE, 0
            print(message.get("error", "accepted"), self.unsettled, flush=True)
            self.unsettled = self.unsettled if message.get("code") in PASSING else {}
        elif message["id"] == AUTHORIZE and message["result"] is not True:
            print("not authorized:", message["error"], flush=True)  # a close follows
        return 0


def send(sock: socket.socket, number: int, method: str, params: dict[str, Any]) -> None:
    """Send one request."""
    message = {"id": number, "method": method, "params": params}
    sock.sendall(json.dumps(message).encode() + b"\n")


def main(host: str, port: int, username: str) -> None:
    """Work, and come back when the connection ends, after a random wait that doubles."""
    worker, most = Worker(username), 0.5
    while True:
        began, code = time.monotonic(), 0
        with suppress(OSError), socket.create_connection((host, port), 10) as sock:
            code = worker.session(sock)
        if code >= 4500:
            sys.exit(1)  # nobody is wanted back without a person
        most = 0.5 if time.monotonic() - began > 10 else min(30.0, most * 2)
        if code not in (4000, 4001):  # a server that goes down or restarts: at once
            time.sleep(random.uniform(0, most))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--username", default="worker")
    arguments = parser.parse_args()
    host, _, port = arguments.connect.rpartition(":")
    with suppress(KeyboardInterrupt):
        main(host, int(port), arguments.username)
