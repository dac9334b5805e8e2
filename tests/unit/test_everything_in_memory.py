"""X-11: the parts together on one network in memory, which is their one clock, too."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Kind, Message
from kupool.bus.local import LocalBus
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import BusService
from kupool.client import PoolClient
from kupool.client.worker import Worker
from kupool.errors import FORBIDDEN
from kupool.net.dialling.client import Client
from kupool.net.heartbeat import Heartbeat
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.net.transport.detecting import DetectingFactory
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Incoming, Room
from kupool.stats.consumer import StatsConsumer
from kupool.stats.memory import MemoryStats
from tests.fakes.pool_fixture import PoolBench


class Talk(RoomHooks):
    """A room whose members hear what the others say."""

    def on_parse_user(self, connection: Any, request: Any) -> object:
        return "tea", str(connection.id)

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        room.notify("said", {"user": incoming.member.user}, without=[incoming.member])
        return True


class EverythingTests(SynchronousTestCase):
    """X-11: pool, live channel, log, statistics, bus, rooms, and the clients of each."""

    def setUp(self) -> None:
        self.network = MemoryNetwork(chunk=11)

    def test_the_pool(self) -> None:
        """Workers that connect by a name submit for each job, and all of it is counted."""
        pool = PoolBench(clock=self.network, interval=30.0).start()
        self.network.listenTCP(8080, DetectingFactory(pool.manager))
        counts = MemoryStats()
        self.network.run(StatsConsumer(self.network, counts).start(pool.log))
        accepted: Counter[str] = Counter()
        for framing in ("line", "frame", "int32"):
            client = PoolClient(self.network, ["pool.example:8080"], framing, framing=framing)

            def answered(job: Any, nonce: str, answer: Any, name: str = framing) -> None:
                accepted[name] += answer.accepted

            Worker(self.network, client, on_answer=answered)
            connecting = client.connect()
            self.network.settle()
            self.successResultOf(connecting)
        self.network.advance(100)
        self.assertEqual(len(pool.published), 4)
        self.assertEqual(set(accepted), {"line", "frame", "int32"})
        self.assertTrue(min(accepted.values()) >= 4, accepted)
        for name, count in accepted.items():
            counted = self.successResultOf(counts.total(0, 2**40, name))
            self.assertEqual(counted, count)

    def test_the_bus(self) -> None:
        """A call that nobody answers, and one that somebody does, to the tenth of a second."""
        bus = LocalBus(self.network, wall=self.network.seconds)
        server = Server(self.network, BusService(bus.broker))
        self.network.run(server.listen(["bus.example:8000"]))
        near, far = (
            RemoteBus(self.network, HostnameEndpoint(self.network, b"bus.example", 8000))
            for _ in range(2)
        )
        for each in (near, far):
            connecting = each.connect()
            self.network.settle()
            self.successResultOf(connecting)

        def upper(message: Message) -> bytes:
            return message.data.upper()

        self.network.run(near.subscribe(["shout"], upper))
        call = far.publish_reliable_random(b"hello", "shout", timeout=2.0)
        outcome: Any = self.network.run(call)
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b"HELLO"))
        self.network.run(near.subscribe(["silence"], lambda message: self.never()))
        waiting = far.publish_reliable_random(b"hello", "silence", timeout=2.0)
        self.network.advance(1.9)
        self.assertNoResult(waiting)
        self.network.advance(0.2)
        self.assertEqual(self.successResultOf(waiting).kind, Kind.TIMEOUT)

    def never(self) -> Any:
        return Deferred()

    def test_rooms(self) -> None:
        """A room, its members, and a client of one's own in one of their places."""
        lobby, router = Lobby(self.network, Talk()), Router()
        for method in ("join", "say"):
            router.add(method, lobby.request, object)
        server = Server(self.network, LobbyObserver(router, lobby))
        self.network.run(server.listen(["localhost:8000"]))
        ann = self.network.connect(8000)
        ann.ask("join")
        heard: list[str] = []
        incoming = Router()
        incoming.add("said", lambda c, m: heard.append(m.params["user"]), dict)
        bob = Client(self.network, "tcp:localhost:8000", incoming)
        self.network.run(bob.connect())
        self.network.run(bob.request("join"))
        self.assertEqual(ann.ask("say")["result"], True)
        self.assertEqual(heard, ["1"])
        self.network.run(bob.close(), patience=5)

    def test_silent_peers(self) -> None:
        """The timeouts of the framework are of the same clock."""
        router = Router()
        router.add("forbid", lambda c, m: FORBIDDEN)
        server = Server(self.network, LobbyObserver(router, Lobby(self.network, Talk())))
        beat = Heartbeat(server.manager, 10.0, missed=2)
        server.after_start(lambda s: beat.start())
        server.before_stop(lambda s: beat.stop())
        self.network.run(server.start([":8000"]))
        peer = self.network.connect(8000, "frame")
        peer.ask("forbid")
        self.network.advance(29)
        self.assertTrue(peer.open)
        self.network.advance(12)
        self.assertFalse(peer.open)
        self.network.run(server.stop(), patience=10)
        self.assertEqual(self.network.getDelayedCalls(), [])
