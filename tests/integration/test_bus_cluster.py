"""The bus on a cluster of RabbitMQ nodes, of which one is killed."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.amqp.links import LinkSettings
from kupool.amqp.wire import ConnectionSettings
from kupool.bus import Kind, Message, Outcome
from kupool.bus.rabbit.bus import RabbitBus
from kupool.bus.rabbit.settings import MeshSettings
from tests.servers.rabbit_cluster import RabbitCluster
from tests.servers.services import required
from tests.servers.sockets import until

#: Seconds that a call has, and that it may be late.
TIMEOUT = 2.0
SLACK = 0.1


class Calls:
    """Calls that are published all the time, and what became of each."""

    def __init__(self, reactor: Any, bus: RabbitBus) -> None:
        self._reactor = reactor
        self._bus = bus
        self._loop = LoopingCall(self._publish)
        self._loop.clock = reactor
        self.outcomes: list[list[Outcome]] = []
        self.looked = self.late = 0

    def start(self) -> None:
        self._loop.start(0.01)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _publish(self) -> None:
        outcomes: list[Outcome] = []
        self.outcomes.append(outcomes)
        self._bus.publish_reliable_random(b"x", "work", TIMEOUT).addCallback(outcomes.append)
        # What holds up the whole process is not the bus's fault: this is held up as well.
        self._reactor.callLater(TIMEOUT + SLACK, self._look, outcomes)

    def _look(self, outcomes: list[Outcome]) -> None:
        self.looked += 1
        self.late += not outcomes


class ClusterTests(TestCase):
    """A-61, A-62: nodes that are connected to different members of a cluster."""

    timeout = 300

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        with required():
            self.cluster = RabbitCluster(3)
        self.addCleanup(deferToThread, self.cluster.close)
        return deferToThread(self.cluster.start)  # type: ignore[return-value]

    async def open_bus(self, urls: list[str], first: int) -> RabbitBus:
        """Return a bus that tries the members in order, beginning with one of them."""
        mesh = MeshSettings(
            beat=0.2,
            silence=1.0,
            link=LinkSettings(ConnectionSettings(timeout=2.0), longest_wait=0.3),
        )
        url = ",".join(urls[first:] + urls[:first])
        bus = RabbitBus(self.reactor, url, wall=time.time, mesh=mesh, node=f"n{first}")
        self.addCleanup(bus.close)
        await bus.connect()
        return bus

    async def until(self, condition: Any, what: str) -> None:
        await until(self.reactor, condition, what)

    async def test_a_member_is_killed(self) -> None:
        """Calls end once and in time, nodes go to members that live, and all answer."""
        urls = await deferToThread(self.cluster.new_vhost)
        buses = [await self.open_bus(urls, first) for first in range(3)]
        heard: Counter[int] = Counter()

        def handler(number: int) -> Any:
            def handle(message: Message) -> bytes:
                heard[number] += 1
                return b"%d" % number

            return handle

        for number, bus in enumerate(buses):
            await bus.subscribe(["work"], handler(number))
        await self.until(lambda: {len(bus.nodes) for bus in buses} == {2}, "each other")

        def everyone_works() -> bool:
            return min(heard[number] for number in range(3)) > 20

        calls = Calls(self.reactor, buses[0])
        self.addCleanup(calls.stop)
        calls.start()
        await self.until(everyone_works, "work for all")
        # The first has the queue in which nodes are counted, besides a node's own.
        await deferToThread(self.cluster.kill, self.cluster.nodes[0])
        await self.until(
            lambda: all(bus.connected and len(bus.nodes) == 2 for bus in buses), "a way around"
        )
        heard.clear()
        await self.until(everyone_works, "work for all again")
        calls.stop()
        await self.until(lambda: calls.looked == len(calls.outcomes), "every deadline")
        self.assertEqual({len(outcomes) for outcomes in calls.outcomes}, {1})
        self.assertEqual(calls.late, 0)
        kinds = Counter(outcome.kind for (outcome,) in calls.outcomes)
        self.assertGreater(kinds[Kind.ANSWERED], len(calls.outcomes) // 2)
        self.assertLessEqual(set(kinds), {Kind.ANSWERED, Kind.TIMEOUT, Kind.NO_SUBSCRIBER})
