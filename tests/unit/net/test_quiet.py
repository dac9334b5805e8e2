"""A message is not worth a line: what passes in good order is logged nowhere."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Kind, NotMine
from kupool.bus.local import LocalBus
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.wire.framing import Tlv


class QuietTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_the_bus(self) -> None:
        """A-40: all four models, whatever their outcome."""
        clock = Clock()
        bus = LocalBus(clock, wall=clock.seconds)

        def not_mine(message: Any) -> bytes:
            raise NotMine

        self.successResultOf(bus.subscribe(["a"], lambda message: message.data))
        self.successResultOf(bus.subscribe(["b"], not_mine))
        outcomes = []
        for topic in ("a", "b", "nobody"):
            for _ in range(50):
                for publish in (
                    bus.publish_reliable_random,
                    bus.publish_reliable_specific,
                    bus.publish_unreliable_all,
                    bus.publish_unreliable_random,
                ):
                    publish(b"data", topic).addCallback(outcomes.append)
        for _ in range(50):
            clock.advance(0.1)
        self.assertEqual(len(outcomes), 3 * 50 * 4)
        self.assertEqual(
            {outcome.kind for outcome in outcomes},
            {Kind.ANSWERED, Kind.NO_SUBSCRIBER, Kind.SENT},
        )
        self.assertEqual(self.events, [])

    def test_a_server(self) -> None:
        """P-64: messages that are answered, those that no handler knows included."""
        network = MemoryNetwork()
        router = IdRouter()
        router.add(1, lambda connection, message_id, data: data)
        server = Server(network, Observer(router), framing="tlv")
        network.run(server.listen([":8000"]))
        peer = network.connect(8000, "tlv")
        for number in (1, 1, 2, 1):
            peer.tell(Tlv(number, b"x"))
        self.assertEqual([item.message_id for item in peer.items()], [1, 1, 0, 1])
        self.assertEqual(router.unknown, 1)
        self.assertEqual(self.events, [])
