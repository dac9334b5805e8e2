"""What the sweep finds of connections, and of clients of the Centrifuge protocol."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.rules import ChannelRule
from kupool.live.sweep import LiveSweep, SweptIndex
from kupool.live.wishes import SubscribeWishes
from kupool.net.manager import ServerSettings
from kupool.session.lifecycle import CLOSED
from kupool.web.centrifuge_clients import CentrifugeClients, Visit, client_limits
from kupool.web.event_streams import EventStreams, StreamRequest
from kupool.wire.websocket import WEBSOCKET
from tests.fakes.centrifuge import CentrifugeServer
from tests.fakes.live import LiveWorld
from tests.fakes.peers import PeerTransport

INTERVAL = 300.0


class SilentTransport(PeerTransport):
    """A transport that ends without telling anybody."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    abortConnection = loseConnection


class LeftoverCase(SynchronousTestCase):
    def swept(self, world: LiveWorld, indexes: Any) -> LiveSweep:
        found: list[SweptIndex] = [*world.service.swept(), *indexes]
        sweep = LiveSweep(world.clock, world.service.alarms, found, INTERVAL)
        sweep.start()
        self.addCleanup(sweep.stop)
        return sweep


class StreamLeftoverTests(LeftoverCase):
    """W-11: a reader at ``/events`` whose end nobody has told."""

    def test_a_transport_that_does_not_end(self) -> None:
        world = LiveWorld(ChannelRule(pattern="*"))
        streams = EventStreams(
            world.service,
            world.clock,
            lambda: 0.0,
            lambda: "id",
            heartbeat=100_000.0,
            limits=ServerSettings(max_connections=1, idle_timeout=0.0),
        )
        sweep = self.swept(world, streams.swept())
        asked = StreamRequest("", "anonymous", ["a"], SubscribeWishes(), {})
        protocol = streams.protocol(asked, "192.0.2.1")
        protocol.makeConnection(SilentTransport())
        (connection,) = streams.manager
        connection.abort()
        world.clock.advance(INTERVAL)
        self.assertEqual(len(streams), 1)
        world.clock.advance(INTERVAL)
        self.assertEqual((len(streams), world.service.clients), (0, 0))
        self.assertIs(connection.state, CLOSED)
        protocol.connectionLost()  # at last
        self.assertEqual(sweep.found, {"streams": 1, "sessions": 1})
        self.assertIsNone(streams.manager.refusal("192.0.2.1"), "its place is free")


class CentrifugeLeftoverTests(LeftoverCase):
    """W-11: clients of the Centrifuge protocol, in each index."""

    def setUp(self) -> None:
        self.world = LiveWorld(ChannelRule(pattern="*", presence=True))
        server = CentrifugeServer(self.world, ping=25.0, pong_wait=8.0)
        self.clients = CentrifugeClients(server.world, client_limits(10))
        self.sweep = self.swept(self.world, self.clients.swept())

    def connect(self, *, emulated: bool = False) -> Any:
        transport = SilentTransport()
        connection = self.clients.manager.admit(transport, "192.0.2.1", WEBSOCKET)
        assert connection is not None
        client = self.clients.begin(connection, Visit(emulated=emulated))
        assert client is not None
        client.receive(b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}')
        self.world.turns()
        self.assertTrue(client.connected)
        self.assertEqual(self.world.service.presence_stats("a").clients, 1)
        return client

    def sweeps(self, count: int) -> None:
        for _ in range(count):
            self.world.clock.advance(INTERVAL)
            self.world.turns()

    def assert_nothing_is_left(self) -> None:
        service = self.world.service
        self.assertEqual((service.clients, service.users, service.channels()), (0, 0, []))
        self.assertEqual(service.presence_stats("a").clients, 0)
        self.assertIsNone(self.clients.emulated("client2"))

    def test_one_that_has_answered_nothing(self) -> None:
        """The timer of its pings is lost, and it is silent for several intervals."""
        client = self.connect()
        client._timer.cancel()
        self.sweeps(1)
        self.assertTrue(client.connected, "it is seen a second time before it is closed")
        self.sweeps(1)
        self.assert_nothing_is_left()
        self.assertEqual(self.sweep.found, {"silent clients": 1})
        self.sweeps(2)
        self.assertEqual(self.sweep.found, {"silent clients": 1, "connections of clients": 1})
        self.assertEqual(len(self.clients), 0)

    def test_one_that_answers(self) -> None:
        """After a pause of this process, what it has sent is read before the second look."""
        client = self.connect()
        client._timer.cancel()
        for _ in range(5):
            self.sweeps(1)
            client.receive(b"{}")
        self.assertTrue(client.connected)
        self.assertEqual(self.sweep.found, {})
        self.clients.manager.each(lambda connection: connection.close(None))

    def test_an_emulated_one(self) -> None:
        """Its secret is forgotten, though its connection has not said that it ends."""
        client = self.connect(emulated=True)
        client.lost()
        self.assertEqual(len(self.clients._emulated), 1)
        self.sweeps(2)
        self.assertEqual(len(self.clients._emulated), 0)
        self.assertEqual(self.sweep.found, {"emulated clients": 1})
        self.clients.manager.each(lambda connection: connection.close(None))

    def test_one_whose_end_was_not_heard(self) -> None:
        """Its connection has ended, and nobody was told: not even its session."""
        client = self.connect()
        client._timer.cancel()
        client.peer.context = None
        client.peer.abort()
        self.sweeps(2)
        self.assert_nothing_is_left()
        self.assertEqual(self.sweep.found, {"sessions": 1, "connections of clients": 1})
