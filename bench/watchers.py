"""Submissions a second with live channels and watchers, as a ratio to a daemon without any.

``python -m bench.watchers`` runs two daemons in turn, each round in new processes on their own
core: one without live channels and without HTTP, and one with both and with ``--watchers`` readers
of ``/events``, who get what ``--channels`` tell. The load generator keeps the daemon busy. The
median of the ratios of the rounds is printed; below 1 the watchers cost something. Ends with status
1 if it is under ``--least``, or if a watcher hears nothing.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

from bench import servers
from bench.load import CompiledLoad, Row
from bench.run import ROWS

HERE = Path(__file__).resolve().parent.parent

#: The least that may be left of the submissions a second.
LEAST = 0.9


class Watchers:
    """Readers of ``/events``, in a thread; ``heard`` has the bytes that each one read."""

    def __init__(self, port: int, number: int, channels: str) -> None:
        query = "&".join(f"channel={name}" for name in channels.split(","))
        self.heard = [0] * number
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        for each in range(number):
            sock = _connect(port)
            sock.sendall(f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self._selector.register(sock, selectors.EVENT_READ, each)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(0.2):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                data = sock.recv(65536)
                if not data:
                    self._selector.unregister(sock)
                self.heard[key.data] += data.count(b"\ndata:")

    def stop(self) -> None:
        """Leave."""
        self._stopping = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def _connect(port: int) -> socket.socket:
    """Connect to the HTTP server, which listens a moment after the pool does."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


class Rounds:
    """Measures one row with and without watchers."""

    def __init__(self, load: CompiledLoad, row: Row, arguments: argparse.Namespace) -> None:
        self._load = load
        self._row = row
        self._arguments = arguments
        #: The least that a watcher has heard.
        self.heard = 0

    def without(self) -> float:
        """Return the submissions a second of a daemon with the pool alone."""
        with servers.kupool(self._arguments.engine, "--live=off") as (port, pid):
            return self._rate(port, pid)

    def with_watchers(self) -> float:
        """Return the submissions a second of a daemon that is watched."""
        http, arguments = servers.free_port(), self._arguments
        flags = ("--live=on", f"--http=127.0.0.1:{http}", "--live-insecure=on")
        with servers.kupool(arguments.engine, *flags) as (port, pid):
            watchers = Watchers(http, arguments.watchers, arguments.channels)
            try:
                return self._rate(port, pid)
            finally:
                watchers.stop()
                self.heard = min(watchers.heard)

    def _rate(self, port: int, pid: int) -> float:
        seconds: float = self._arguments.seconds
        found = self._load.measure(port, pid, self._row, seconds, warmup=0.5)
        return float(found["ok"]) / seconds


def main() -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=7.0, help="length of one measurement")
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--channels", default="pool,jobs")
    parser.add_argument("--rows", default="0,1,2", help="which rows of the table")
    parser.add_argument("--engine", default="sqlite")
    parser.add_argument("--least", type=float, default=LEAST)
    parser.add_argument("--loadgen", type=Path, default=HERE.parent / "shared/bench/loadgen.c")
    arguments = parser.parse_args()
    load, wrong = CompiledLoad(arguments.loadgen), 0
    for name in arguments.rows.split(","):
        rounds = Rounds(load, ROWS[name], arguments)
        pairs = []
        for number in range(arguments.rounds):
            calls = [rounds.without, rounds.with_watchers]
            rates = [call() for call in (calls if number % 2 else calls[::-1])]
            alone, watched = rates if number % 2 else rates[::-1]
            pairs.append((alone, watched))
            wrong += not rounds.heard
        found = [watched / alone for alone, watched in pairs]
        ratio = statistics.median(found)
        wrong += ratio < arguments.least
        alone, watched = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{ROWS[name].name + ', ' + arguments.engine:<44} {ratio:.3f}  ({min(found):.2f} to "
            f"{max(found):.2f})  {watched:.0f}/s against {alone:.0f}/s; each of "
            f"{arguments.watchers} watchers heard at least {rounds.heard}",
            flush=True,
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
