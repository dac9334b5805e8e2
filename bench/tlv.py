"""What an echo of messages with ids costs on the framework, compared with a bare echo.

``python -m bench.tlv`` runs two servers in turn: a bare echo on Twisted's stock transport, and a
server of ``kupool.net`` with the framing ``tlv`` and a router, whose handler answers with the data
it got. Both move the same bytes, under the same load, each on its own core. A row's figure is the
median of the rounds' ratios of the CPU time per message. The load generator needs a C compiler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import protocol

from bench.load import CORE
from bench.servers import free_port, pinned, running
from kupool.net.command import run
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server

SOURCE = Path(__file__).with_name("echo_load.c")

#: The id that the load generator sends.
ECHO = 7

#: Bytes of data in each message.
SIZE = 64


class Row(NamedTuple):
    """A load, and the most that the framework may cost in units of the bare echo."""

    connections: int
    depth: int
    target: float | None


ROWS = (Row(100, 1, 0.45), Row(100, 16, 2.0), Row(1000, 1, None))


class Bare(protocol.Protocol):
    """Sends back what it receives."""

    def connectionMade(self) -> None:
        """Send small answers at once, as the framework does."""
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)  # type: ignore[union-attr]


def serve_bare(port: int) -> None:
    """Run the bare echo."""
    from twisted.internet import reactor

    factory: Any = protocol.Factory.forProtocol(Bare)
    reactor.listenTCP(port, factory, backlog=1024, interface="127.0.0.1")
    reactor.run()


def serve_framework(port: int) -> None:
    """Run the framework's echo."""
    router = IdRouter()
    router.add(ECHO, lambda connection, message_id, data: data)

    def make(reactor: Any, arguments: argparse.Namespace) -> Server:
        return Server(reactor, Observer(router), ServerSettings(), framing="tlv")

    run(make, arguments=[f"--port={port}"])


SERVERS: dict[str, Callable[[int], None]] = {"bare": serve_bare, "framework": serve_framework}


def measured(binary: Path, server: str, row: Row, seconds: float) -> float:
    """Return what one message costs a server's CPU, in microseconds."""
    port = free_port()
    command = [sys.executable, "-m", "bench.tlv", "--serve", server, "--port", str(port)]
    with running(command, port) as pid:
        load = [binary, "127.0.0.1", port, row.connections, row.depth, SIZE, 0.5, seconds, pid]
        done = subprocess.run(
            pinned(CORE, [str(part) for part in load]), capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"the load generator failed: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    if found["wrong"] or not found["answers"]:
        raise SystemExit(f"{server} answered wrong: {found}")
    return float(found["cpu_s"] / found["answers"] * 1e6)


def main() -> None:
    """Measure every row and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        SERVERS[flags.serve](flags.port)
        return
    folder = Path(__file__).with_name(".build")
    folder.mkdir(exist_ok=True)
    binary = folder / "echo_load"
    subprocess.run(["cc", "-O2", "-o", str(binary), str(SOURCE)], check=True)
    for row in ROWS:
        costs: dict[str, list[float]] = {name: [] for name in SERVERS}
        for _ in range(flags.rounds):
            for name, values in costs.items():
                values.append(measured(binary, name, row, flags.seconds))
        ratios = [a / b for a, b in zip(costs["framework"], costs["bare"], strict=True)]
        ours, bare = (statistics.median(costs[name]) for name in ("framework", "bare"))
        target = "" if row.target is None else f", target {row.target}"
        print(
            f"{row.connections} connections, {row.depth} in flight: {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f} to {max(ratios):.2f}){target}; {ours:.2f} us against {bare:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
