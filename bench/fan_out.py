"""What a job to 10,000 connections costs, as a ratio to as many bare ``socket.send`` calls.

``python -m bench.fan_out`` runs a server in this process, and all of its peers in another process,
which reads what arrives. In turn it publishes a job over a channel, and sends the same bytes in a
loop over the same sockets. The ratio of a round is that of the CPU times of this process. The
median is printed. ``--each`` makes a payload for each connection, as ``nonce_scope=session`` does.
Exits with status 2 if the system allows too few open files.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from bench.sessions import SPARE, allow_files
from kupool.live.hub import Hub
from kupool.net.collector import collect_rarely
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.session.connection import Connection
from kupool.wire.framing import FRAME
from kupool.wire.messages import JobParams, encode_request

#: The most that a job may cost in units of the bare calls.
TARGET = 1.6

#: What is sent.
JOB = encode_request(None, "job", JobParams(1, "0123456789abcdef" * 2))

#: Seconds of quiet between two measurements, in which the peers read.
PAUSE = 0.3


class Everybody(Observer):
    """Lets every connection that comes have the jobs."""

    def __init__(self, hub: Hub, number: int) -> None:
        super().__init__(Router())
        self.channel = hub.latest("job")
        self.complete: Deferred[None] = Deferred()
        self.sockets: list[socket.socket] = []
        self._number = number

    def opened(self, connection: Connection) -> None:
        """Subscribe a connection."""
        super().opened(connection)
        self.channel.subscribe(connection)
        self.sockets.append(connection.transport.getHandle())
        if len(self.sockets) == self._number:
            self.complete.callback(None)


class Round(NamedTuple):
    """Seconds of this process for all connections: by the channel, and by the bare calls."""

    channel: float
    bare: float


async def measure(reactor: Any, connections: int, rounds: int, *, each: bool) -> list[Round]:
    """Return what each round cost."""
    everybody = Everybody(Hub(reactor), connections)
    settings = ServerSettings(max_connections=0, idle_timeout=0)
    server = Server(reactor, everybody, settings)
    await server.listen(["tcp:0:interface=127.0.0.1"])
    peers = start_peers(server.port, connections)
    try:
        await everybody.complete
        found = []
        collect_rarely()  # as the daemon does
        for _ in range(rounds + 1):  # the first one warms up
            await deferLater(reactor, PAUSE)
            channel = await by_channel(everybody, each=each)
            await deferLater(reactor, PAUSE)
            found.append(Round(channel, bare_calls(everybody)))
        return found[1:]
    finally:
        peers.terminate()
        peers.wait()
        await server.stop()


def start_peers(port: int, connections: int) -> subprocess.Popen[bytes]:
    """Start the process that connects."""
    command = [sys.executable, "-m", "bench.fan_out", "--peers-of", str(port)]
    return subprocess.Popen([*command, "--connections", str(connections)])


async def by_channel(everybody: Everybody, *, each: bool) -> float:
    """Publish a job; returns the seconds of this process until every socket has it."""
    began = time.process_time()
    if each:

        def make(connection: Connection) -> bytes:
            return b"%b%016x%b" % (JOB[:-3], connection.id, JOB[-3:])  # as the pool does

        await everybody.channel.publish_each(make)
    else:
        await everybody.channel.publish(JOB)
    return time.process_time() - began


def bare_calls(everybody: Everybody) -> float:
    """Send the same to the same sockets; returns the seconds of this process."""
    data, sends = FRAME.encode(JOB), [each.send for each in everybody.sockets]
    began = time.process_time()
    for send in sends:
        send(data)
    return time.process_time() - began


def read_all(port: int, connections: int) -> None:
    """Be all the peers: connect, say something, and read what comes."""
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            peer = socket.create_connection(("127.0.0.1", port))
            peer.sendall(FRAME.encode(b'{"id":1,"method":"ping","params":{}}'))
            selector.register(peer, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if not key.fileobj.recv(4096):  # type: ignore[union-attr]
                    return


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--each", action="store_true", help="a payload for each connection")
    parser.add_argument("--peers-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    refused = allow_files(arguments.connections + SPARE)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    if arguments.peers_of:
        read_all(arguments.peers_of, arguments.connections)
        return 0

    async def run(reactor: Any) -> None:
        found = await measure(reactor, arguments.connections, arguments.rounds, each=arguments.each)
        ratios = [each.channel / each.bare for each in found]
        middle = statistics.median(ratios)
        ours, bare = (
            statistics.median(times) * 1e6 / arguments.connections
            for times in zip(*found, strict=True)
        )
        verdict = "met" if middle <= TARGET else "NOT MET"
        target = "" if arguments.each else f"target {TARGET:g} {verdict}  "
        print(
            f"a job to {arguments.connections} connections: {middle:.2f}  "
            f"({min(ratios):.2f} to {max(ratios):.2f})  {target}"
            f"{ours:.2f} us for each against {bare:.2f}"
        )

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
