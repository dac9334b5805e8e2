"""The parts of the log in RabbitMQ that need no broker."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.address import Broker, parse_brokers
from kupool.log.rabbit.gauge import Gauge
from kupool.log.rabbit.topology import Topology
from kupool.log.rabbit.wire import CUT_AFTER, Wire


class AddressTests(SynchronousTestCase):
    """K-81: several brokers in one setting."""

    def test_one(self) -> None:
        (found,) = parse_brokers("amqp://u%2C:p%40%2F@host:5673/a%2Fb")
        self.assertEqual(found, Broker("host", 5673, "u,", "p@/", "a/b"))

    def test_defaults(self) -> None:
        (found,) = parse_brokers("amqp://host")
        self.assertEqual(found, Broker("host", 5672, "guest", "guest", "/"))
        (found,) = parse_brokers("amqps://host/")
        self.assertEqual(found, Broker("host", 5671, "guest", "guest", "/", tls=True))

    def test_several(self) -> None:
        for url in (
            "amqp://u:p@one:1,two:2,[::1]/v",
            "amqp://u:p@one:1/v, two:2, [::1]",
            "amqp://u:p@one:1/v,amqp://u:p@two:2,amqp://u:p@[::1]",
        ):
            found = parse_brokers(url)
            self.assertEqual([str(broker) for broker in found], ["one:1", "two:2", "[::1]:5672"])
            self.assertEqual({(b.user, b.password, b.vhost) for b in found}, {("u", "p", "v")})

    def test_each_its_own(self) -> None:
        one, two = parse_brokers("amqp://a:b@one/x,amqps://c:d@two/y")
        self.assertEqual(one, Broker("one", 5672, "a", "b", "x"))
        self.assertEqual(two, Broker("two", 5671, "c", "d", "y", tls=True))

    def test_none(self) -> None:
        for url, why in (
            ("", "begins with amqp://"),
            ("http://u:s3cret@host", "begins with amqp://"),
            ("amqp://u:s3cret@", "a host is missing"),
            ("amqp://u:s3cret@host:99999", "a port is a number"),
            ("amqp://u:s3cret@host:x", "a port is a number"),
            ("amqp://u:s3cret@one,,two", "a host is missing"),
            ("amqp://u:s3cret@host/v?heartbeat=1", "nothing follows"),
        ):
            with self.assertRaises(ValueError) as caught:
                parse_brokers(url)
            self.assertIn(why, str(caught.exception))
            self.assertNotIn("s3cret", str(caught.exception))

    def test_no_password_is_shown(self) -> None:
        (found,) = parse_brokers("amqp://u:s3cret@host")
        self.assertNotIn("s3cret", f"{found} {found!r}")


class GaugeTests(SynchronousTestCase):
    """K-82: how much waits is never said to be less while it is on its way."""

    def test_looks(self) -> None:
        gauge = Gauge()
        gauge.seen(5)
        self.assertEqual(gauge.waiting, 5)
        gauge.seen(0)  # they may be on their way to us
        self.assertEqual(gauge.waiting, 5)
        gauge.taken(5)
        self.assertEqual(gauge.waiting, 0)
        gauge.seen(0)
        self.assertEqual(gauge.waiting, 0)

    def test_taken_by_others(self) -> None:
        gauge = Gauge()
        for count in (5, 0, 0):
            gauge.seen(count)
        self.assertEqual(gauge.waiting, 0)

    def test_own_doing(self) -> None:
        gauge = Gauge()
        gauge.put(3)
        gauge.taken()
        self.assertEqual(gauge.waiting, 2)
        gauge.taken(4)
        self.assertEqual(gauge.waiting, 0)


class WireTests(SynchronousTestCase):
    """K-81: a connection whose other side reads nothing ends all the same."""

    def test_cut(self) -> None:
        clock, transport = Clock(), StringTransport()
        wire = Wire(clock, transport)
        wire.loseConnection()
        wire.loseConnection()
        self.assertTrue(transport.disconnecting)
        clock.advance(CUT_AFTER - 0.1)
        self.assertFalse(transport.disconnected)
        clock.advance(0.1)
        self.assertTrue(transport.disconnected)

    def test_ended_in_order(self) -> None:
        clock, transport = Clock(), StringTransport()
        wire = Wire(clock, transport)
        wire.loseConnection()
        wire.ended()
        self.assertEqual(clock.getDelayedCalls(), [])


class TopologyTests(SynchronousTestCase):
    def test_names(self) -> None:
        """K-79: all names come from the name of the queue."""
        topology = Topology("q", groups=("stats", "alerts"))
        self.assertEqual(topology.queues, ("q", "q.alerts"))
        self.assertEqual(
            (topology.exchange, topology.stream, topology.dead_letters), ("q", "q.stream", "q.dead")
        )

    def test_retention(self) -> None:
        """K-76: segments are small enough for the bound to be kept."""
        arguments = Topology(max_age="7D", max_bytes=80_000_000).stream_arguments()
        self.assertEqual(
            arguments,
            {
                "x-queue-type": "stream",
                "x-max-age": "7D",
                "x-max-length-bytes": 80_000_000,
                "x-stream-max-segment-size-bytes": 10_000_000,
            },
        )
        self.assertEqual(Topology().stream_arguments(), {"x-queue-type": "stream"})
