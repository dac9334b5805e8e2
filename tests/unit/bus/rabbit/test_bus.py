"""The bus across nodes, as an application makes and closes it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Kind, Message, Model
from kupool.bus.rabbit import amqp
from kupool.bus.rabbit.bus import MeshBus, RabbitBus
from kupool.bus.rabbit.items import Bye, unpack
from kupool.bus.rabbit.settings import MeshSettings
from tests.fakes.bus_exchange import Exchange, MemoryCarrier


class MeshBusTests(SynchronousTestCase):
    """A-31, A-61: the bus of one node."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = Exchange(self.clock)
        self.heard: list[Message] = []

    def bus(self, settings: BusSettings | None = None, **options: Any) -> MeshBus:
        carrier = MemoryCarrier(self.exchange)
        bus = MeshBus(self.clock, carrier, settings, wall=self.clock.seconds, **options)
        bus.connect()
        self.settle()
        return bus

    def settle(self) -> None:
        for _ in range(10):
            self.clock.advance(0)

    def test_names(self) -> None:
        """Two nodes of the same name have different ones."""
        self.assertRegex(self.bus().node, "^[0-9a-f]{12}$")
        for _ in range(2):
            self.assertRegex(self.bus(node="new").node, "^new-[0-9a-f]{8}$")
        self.assertEqual(len(self.exchange.queues), 3)
        with self.assertRaisesRegex(ValueError, "^node: .* is not printable text"):
            self.bus(node="\n")

    def test_whether_it_is_connected(self) -> None:
        """Not before its connection, nor after its end."""
        bus = MeshBus(self.clock, MemoryCarrier(self.exchange), wall=self.clock.seconds)
        self.assertFalse(bus.connected)
        bus.connect()
        self.settle()
        self.assertTrue(bus.connected)
        bus.close()
        self.assertFalse(bus.connected)

    def test_status(self) -> None:
        """A-37: it has the counts between nodes as well."""
        bus = self.bus()
        bus.publish(Model.UNRELIABLE_ALL, b"x", "t")
        (carrier,) = self.exchange.queues.values()
        carrier.put("other", "other.1", b"", 99.0)
        self.settle()
        counts = self.successResultOf(bus.status()).counts
        self.assertEqual(counts, {"published": 1, "buffered": 1, "unreadable": 1})

    def test_publish_by_a_model(self) -> None:
        """What is not given is empty."""
        bus = self.bus()
        bus.subscribe(["t"], self.heard.append)
        bus.publish(Model.UNRELIABLE_ALL, b"x", "t")
        self.settle()
        (message,) = self.heard
        self.assertEqual((message.data, message.key, dict(message.headers)), (b"x", "", {}))

    def test_settings(self) -> None:
        """Those of the bus, and those between nodes."""
        bus = self.bus(BusSettings(max_data=3))
        with self.assertRaisesRegex(ValueError, "at most 3 are allowed"):
            bus.publish(Model.UNRELIABLE_ALL, b"1234", "t")
        other = self.bus(mesh=MeshSettings(max_unsent=0))
        self.exchange.sent.clear()
        bus.subscribe(["t"], print)
        self.settle()
        refused = other.publish(Model.UNRELIABLE_ALL, b"1", "t")
        self.settle()
        self.assertEqual(self.successResultOf(refused).kind, Kind.REFUSED)

    def test_close(self) -> None:
        """A-62: the others are told that the node ends, and not of each subscription."""
        bus = self.bus()
        bus.subscribe(["t"], print)
        self.settle()
        self.exchange.sent.clear()
        self.successResultOf(bus.close())
        items = [item for _, _, body in self.exchange.sent for item in unpack(body)]
        self.assertEqual(items, [Bye()])
        self.assertEqual(self.exchange.queues, {})


class RabbitBusTests(SynchronousTestCase):
    """A-31: the bus of the nodes at one RabbitMQ."""

    def setUp(self) -> None:
        self.links: list[Any] = []
        self.patch(amqp, "Link", self.link)

    def link(self, reactor: Any, brokers: Any, name: str, *_: Any, **options: Any) -> Any:
        case = self

        class Link:
            """A link that never connects."""

            problem = "nobody answers"

            def start(self) -> None:
                case.links.append((name, options["settings"]))

            def first(self, patience: float | None) -> Deferred[None]:
                return Deferred()

        return Link()

    def test_the_connection(self) -> None:
        """Its name says the prefix and the node; problems are told."""
        bus = RabbitBus(Clock(), "amqp://localhost", wall=lambda: 0.0)
        self.assertEqual(bus.problem, "not connected yet")
        self.assertRegex(bus.node, "^[0-9a-f]{12}$")
        bus.connect()
        mesh = MeshSettings()
        self.assertEqual(self.links, [(f"kupool.bus {bus.node}", mesh.link)])
        self.assertEqual(bus.problem, "nobody answers")

    def test_what_is_set(self) -> None:
        mesh = MeshSettings()
        bus = RabbitBus(
            Clock(), "amqp://localhost", wall=lambda: 0.0, prefix="house", node="n", mesh=mesh
        )
        bus.connect()
        ((name, link),) = self.links
        self.assertRegex(name, "^house n-[0-9a-f]{8}$")
        self.assertIs(link, mesh.link)
