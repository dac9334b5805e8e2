"""Workers and people who log in and come back: ``python -m tools.reconnecting``.

They reconnect as the pool client does, by the same close policy and backoff. ``tools.reconnect``
starts this process, and asks it by lines on standard input: ``state``, ``mark`` (forget what was
seen so far) and ``people`` (let them begin to log in). Each answer is one JSON object. Times in it
are in seconds of CLOCK_MONOTONIC. It ends when standard input does.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import sys
import time
from collections import Counter
from typing import Any

from kupool.client.settings import PoolClientSettings
from kupool.commands.running import raise_descriptor_limit
from kupool.errors import Announced
from kupool.net.dialling.backoff import Backoff
from tools.swarm import Line, Swarm, request

#: Workers of one account, which share a token.
OF_ACCOUNT = 100

#: They have so many addresses: 127.1.0.1, 127.1.0.2, ...
ADDRESSES = 250

#: Seconds over which the people begin to log in.
ARRIVING = 10.0


class Peer:
    """One worker, or one of the people."""

    def __init__(self, number: int, username: str, password: str) -> None:
        settings = PoolClientSettings()
        self.source = f"127.1.0.{number % ADDRESSES + 1}"
        self.greeting = request("authorize", username=username, password=password)
        self.backoff = Backoff(
            settings.backoff_first, settings.backoff_most, steady=settings.backoff_most
        )
        self.began = 0.0
        self.authorized: float | None = None
        self.close: Announced | None = None


class Peers:
    """All of them: when each was authorized, and what they were told."""

    def __init__(self, arguments: argparse.Namespace, given: dict[str, Any]) -> None:
        self._swarm = Swarm(("127.0.0.1", arguments.port), self._heard, self._ended)
        self._workers = [
            Peer(n, f"rigs{n // OF_ACCOUNT}.{n % OF_ACCOUNT}", given["tokens"][n // OF_ACCOUNT])
            for n in range(arguments.workers)
        ]
        self._people = [Peer(n, f"person{n}", given["password"]) for n in range(arguments.people)]
        self._of_line: dict[Line, Peer] = {}
        self._due: list[tuple[float, int, Peer]] = []
        self._serial = itertools.count()
        self._told = Counter[str]()
        self._gone = Counter[str]()
        for number, worker in enumerate(self._workers):
            self._later(number / arguments.ramp, worker)

    def turn(self) -> None:
        """Do what is due, and what the sockets have."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            peer = heapq.heappop(self._due)[2]
            peer.began = peer.began or now
            peer.close = None
            self._of_line[self._swarm.start(peer.greeting, source=peer.source)] = peer
        self._swarm.turn()

    def answer(self, question: str) -> dict[str, Any]:
        """Do what is asked; returns the state then."""
        if question == "mark":
            for worker in self._workers:
                worker.authorized = None
            self._told.clear()
        elif question == "people":
            for number, person in enumerate(self._people):
                self._later(number / len(self._people) * ARRIVING, person)
        return {
            "workers": sorted(w.authorized for w in self._workers if w.authorized is not None),
            "people": sorted(
                p.authorized - p.began for p in self._people if p.authorized is not None
            ),
            "told": self._told,
            "gone": self._gone,
        }

    def _later(self, seconds: float, peer: Peer) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._serial), peer))

    def _heard(self, line: Line, data: bytes) -> None:
        peer = self._of_line[line]
        if b'"id":1,"result":true' in data:
            peer.authorized = time.monotonic()
        elif b'"error"' in data:
            self._told[data.partition(b'"error":')[2].partition(b"}")[0].decode()] += 1
        if b'"method":"close"' in data:
            for text in data.splitlines():
                if b'"method":"close"' in text:
                    told = json.loads(text)["params"]
                    peer.close = Announced(
                        told["reason"], told["code"], told.get("reconnect"), told.get("retry_after")
                    )
                    self._told[f"close {peer.close.code} {peer.close.reason}"] += 1

    def _ended(self, line: Line) -> None:
        peer = self._of_line.pop(line)
        if peer.close is None:
            self._told["no connection, or lost without a word"] += 1
        now = time.monotonic()
        stood = now - peer.authorized if peer.authorized is not None else 0.0
        wait = peer.backoff.after(peer.close, stood)
        if wait is not None:
            self._later(wait, peer)
        elif peer.close is not None:
            self._gone[f"{peer.close.code} {peer.close.reason}"] += 1


def main() -> int:
    """Run the clients until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.reconnecting",
        description="Workers and people who come back; see tools.reconnect. The first line of "
        "standard input is JSON with their tokens and their password.",
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--ramp", type=float, required=True)
    arguments = parser.parse_args()
    raise_descriptor_limit(arguments.workers + arguments.people + 1000)
    with open(0, "rb", buffering=0, closefd=False) as file:  # which reads no further
        given = json.loads(file.readline())
    peers = Peers(arguments, given)
    os.set_blocking(0, False)
    heard = b""
    while True:
        peers.turn()
        try:
            data = os.read(0, 4096)
        except BlockingIOError:
            continue
        if not data:
            return 0
        *questions, heard = (heard + data).split(b"\n")
        for question in questions:
            print(json.dumps(peers.answer(question.decode())), flush=True)


if __name__ == "__main__":
    sys.exit(main())
