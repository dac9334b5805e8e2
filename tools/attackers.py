"""One attack on a daemon, until standard input ends: ``python -m tools.attackers KIND``.

It prints what it did as one JSON object. Plain sockets on epoll in one thread, so that it is faster
than the daemon. ``tools.attack`` starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from hashlib import sha256

from tools.swarm import Line, Swarm, request

#: Connections that are opened in a second at the most, where an attack has no rate of its own.
OPENED = 3000

_CODE = re.compile(rb'"code":(\d+)')
_JOB = re.compile(rb'"job_id":(\d+),"server_nonce":"([^"]+)"')


class Attack:
    """One attack, as ``user`` with its ``token``; :meth:`press` is called in each turn."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.user: str = arguments.user
        self.token: str = arguments.token
        self.began = time.monotonic()
        self._port: int = arguments.http_port if arguments.kind == "http" else arguments.port
        self.swarm = Swarm((arguments.host, self._port), self.heard)
        self._due = 0.0
        self._looked = self.began
        self._job: tuple[int, str] | None = None
        self._serial = 0
        self._press = {
            "connections": self._connections,
            "passwords": self._passwords,
            "names": self._names,
            "rejections": self._rejections,
            "http": self._http,
        }[arguments.kind]

    def press(self) -> None:
        """Do what is due now."""
        self._press()

    def heard(self, line: Line, data: bytes) -> None:
        """Count what the daemon says, and do what the attack does then."""
        swarm = self.swarm
        for code in _CODE.findall(data):
            swarm.counts[f"code {code.decode()}"] += 1
        swarm.counts["results true"] += data.count(b'"result":true')
        found = _JOB.search(data)
        if found:
            self._job = int(found[1]), found[2].decode()
        if line.group == "password" or (line.group == "name" and self._settled(data)):
            swarm.end(line)
        elif line.group == "stats":
            # Each answer, a refusal too, is followed by the next request of the same connection.
            swarm.counts["HTTP answers"] += data.count(b"HTTP/1.1 ")
            swarm.send(line, self._stats_request())

    def _settled(self, data: bytes) -> bool:
        return b'"id":2' in data or b'"method":"close"' in data

    def _allowed(self, rate: float) -> int:
        """Return how many things are due at a rate, and take them as done."""
        now = time.monotonic()
        self._due = min(self._due + (now - self._looked) * rate, rate)
        self._looked = now
        whole = int(self._due)
        self._due -= whole
        return whole

    def _top_up(self, group: str, wanted: int, out: Callable[[], bytes], budget: int) -> int:
        missing = min(wanted - self.swarm.open[group], budget)
        for _ in range(missing):
            self.swarm.start(out(), group)
        return budget - max(0, missing)

    def _authorize(self, worker: str = "idle", password: str = "") -> bytes:
        return request(
            "authorize", username=f"{self.user}.{worker}", password=password or self.token
        )

    def _connections(self) -> None:
        """200 connections that say nothing, and 10,000 that log in and then do nothing."""
        left = self._top_up("silent", 200, bytes, self._allowed(OPENED))
        self._top_up("idle", 10_000, self._authorize, left)

    def _passwords(self) -> None:
        """5,000 wrong passwords a second."""
        for _ in range(min(self._allowed(5000), 9000 - self.swarm.open["password"])):
            self._serial += 1
            self.swarm.start(self._authorize("a", f"wrong {self._serial}"), "password")

    def _names(self) -> None:
        """100,000 names a minute, each of which counts one submission."""
        for _ in range(min(self._allowed(100_000 / 60), 5000 - self.swarm.open["name"])):
            self._serial += 1
            out = self._authorize(f"n{self._serial}")
            if self._job is not None:
                number, nonce = self._job
                mine = f"{self._serial}"
                result = sha256((nonce + mine).encode()).hexdigest()
                out += request("submit", 2, job_id=number, client_nonce=mine, result=result)
                self.swarm.counts["names"] += 1
            self.swarm.start(out, "name")

    def _rejections(self) -> None:
        """599,000 wrong submissions, by 599 sessions in bursts of 100."""
        sessions, burst, most = 599, 100, 599_000
        self._top_up("session", sessions, self._authorize, self._allowed(OPENED))
        if self._job is None or self.swarm.counts["submitted"] >= most:
            return
        wrong = request("submit", 2, job_id=self._job[0], client_nonce="x", result="0" * 64)
        for line in self.swarm.lines("session"):
            if not line.out:
                self.swarm.send(line, wrong * burst)
                self.swarm.counts["submitted"] += burst

    def _http(self) -> None:
        """100 requests whose body never ends, and 100 connections that ask for all counts."""
        left = self._top_up("body", 100, self._slow_request, self._allowed(OPENED))
        self._top_up("stats", 100, self._stats_request, left)
        if time.monotonic() - self.began > self._serial:
            self._serial += 1
            for line in self.swarm.lines("body"):
                self.swarm.send(line, b" ")

    def _slow_request(self) -> bytes:
        return (
            b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 4000\r\n\r\n"
        )

    def _stats_request(self) -> bytes:
        return (
            b"GET /stats HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            + self.token.encode()
            + b"\r\n\r\n"
        )


#: The attacks by their names.
KINDS = ("connections", "passwords", "names", "rejections", "http")


def main() -> int:
    """Attack until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.attackers", description="One attack on a daemon; see tools.attack."
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--user", required=True, help="the account that the attacker has")
    parser.add_argument("--token", required=True, help="a token of that account")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack = Attack(arguments)
    os.set_blocking(0, False)
    while True:
        attack.press()
        attack.swarm.turn()
        try:
            if not os.read(0, 1):
                break
        except BlockingIOError:
            pass
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - attack.began,
                "open": +attack.swarm.open,
                "counts": +attack.swarm.counts,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
