"""What a publication to 10,000 subscribers costs, as a ratio to a job to as many connections.

``python -m bench.live`` runs a server in this process, and all of its peers in another process,
which reads what arrives. In turn it publishes a job over a channel of the hub, and the same bytes
over a live channel with history. The ratio of a round is that of the CPU times of this process.
The median is printed. ``--without-history`` uses a live channel without history, and ``--presence``
one with presence. Exits with status 2 if the system allows too few open files.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from bench.fan_out import JOB, PAUSE, Everybody, read_all, start_peers
from bench.sessions import SPARE, allow_files
from kupool.live.hub import Hub
from kupool.live.publications import ClientDetails, NewPublication, PublicationGap, PublishedRecord
from kupool.live.rules import ChannelRule, ChannelRules
from kupool.live.service import LiveService
from kupool.live.session import LiveLimits
from kupool.live.table import ChannelSources
from kupool.live.wishes import SubscribeWishes
from kupool.net.collector import collect_rarely
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.session.connection import Connection

#: The most that a publication may cost in units of the job.
TARGET = 1.3

#: The channel that is published to.
CHANNEL = "bench"


class BareEncoding:
    """Sends the data alone, so that both messages have the same size."""

    def publication(self, channel: str, record: PublishedRecord) -> bytes:
        """Return the data."""
        return record.data

    def join(self, channel: str, details: ClientDetails) -> bytes:
        """Return a placeholder: no subscriber asks for it."""
        return b"0"

    leave = join


class BenchSubscriber:
    """A connection that is subscribed to the live channel."""

    user = role = ""
    connection_info = b""

    def __init__(self, connection: Connection, encoding: BareEncoding) -> None:
        self.client_id = str(connection.id)
        self.peer = connection
        self.encoding = encoding

    def gap(self, channel: str, gap: PublicationGap) -> None:
        """Fail: a subscriber missed a publication, so the round is not valid."""
        raise AssertionError(f"{self.client_id} missed {gap}")

    def unsubscribed(self, channel: str, reason: str) -> None:
        """Do nothing."""

    def too_slow(self, channel: str) -> None:
        """Do nothing."""


class WatchingEverybody(Everybody):
    """Lets every connection that comes have the jobs and the live channel."""

    def __init__(self, hub: Hub, number: int, live: LiveService) -> None:
        super().__init__(hub, number)
        self._live = live
        self._encoding = BareEncoding()

    def opened(self, connection: Connection) -> None:
        """Subscribe a connection to both."""
        session = self._live.connect(BenchSubscriber(connection, self._encoding))
        subscribed = session.subscribe(CHANNEL, SubscribeWishes(recoverable=True))
        subscribed.addCallback(lambda outcome: outcome.subscription.start())
        super().opened(connection)


class LiveRound(NamedTuple):
    """Seconds of this process for all connections: by the live channel, and by the job."""

    live: float
    job: float


async def measure(
    reactor: Any, connections: int, rounds: int, *, rule: ChannelRule
) -> list[LiveRound]:
    """Return what each round cost."""
    hub = Hub(reactor)
    live = LiveService(
        ChannelSources(reactor, hub, time.time, lambda: "epoch"),
        ChannelRules([rule]),
        may=lambda *_: True,
        limits=LiveLimits(),
    )
    everybody = WatchingEverybody(hub, connections, live)
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
            began = time.process_time()
            await live.publish(CHANNEL, NewPublication(data=JOB))
            published = time.process_time() - began
            await deferLater(reactor, PAUSE)
            began = time.process_time()
            await everybody.channel.publish(JOB)
            found.append(LiveRound(published, time.process_time() - began))
        return found[1:]
    finally:
        peers.terminate()
        peers.wait()
        live.stop()
        await server.stop()


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without-history", action="store_true")
    parser.add_argument("--presence", action="store_true")
    parser.add_argument("--peers-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    refused = allow_files(arguments.connections + SPARE)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    if arguments.peers_of:
        read_all(arguments.peers_of, arguments.connections)
        return 0
    rule = ChannelRule(
        pattern=CHANNEL,
        history_size=0 if arguments.without_history else 100,
        presence=arguments.presence,
    )

    async def run(reactor: Any) -> None:
        found = await measure(reactor, arguments.connections, arguments.rounds, rule=rule)
        ratios = [each.live / each.job for each in found]
        middle = statistics.median(ratios)
        live, job = (
            statistics.median(times) * 1e6 / arguments.connections
            for times in zip(*found, strict=True)
        )
        verdict = "met" if middle <= TARGET else "NOT MET"
        print(
            f"a publication to {arguments.connections} subscribers: {middle:.2f}  "
            f"({min(ratios):.2f} to {max(ratios):.2f})  target {TARGET:g} {verdict}  "
            f"{live:.2f} us for each against {job:.2f} for a job"
        )

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
