"""The parts of a connection to RabbitMQ that need no broker."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError, links
from kupool.amqp.address import BrokerAddress, parse_brokers
from kupool.amqp.links import Link, LinkSettings
from kupool.amqp.wire import CUT_AFTER, Wire


class AddressTests(SynchronousTestCase):
    """K-81: several brokers in one setting."""

    def test_one(self) -> None:
        (found,) = parse_brokers("amqp://u%2C:p%40%2F@host:5673/a%2Fb")
        self.assertEqual(found, BrokerAddress("host", 5673, "u,", "p@/", "a/b"))

    def test_defaults(self) -> None:
        (found,) = parse_brokers("amqp://host")
        self.assertEqual(found, BrokerAddress("host", 5672, "guest", "guest", "/"))
        (found,) = parse_brokers("amqps://host/")
        self.assertEqual(found, BrokerAddress("host", 5671, "guest", "guest", "/", tls=True))

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
        self.assertEqual(one, BrokerAddress("one", 5672, "a", "b", "x"))
        self.assertEqual(two, BrokerAddress("two", 5671, "c", "d", "y", tls=True))

    def test_none(self) -> None:
        for url, why in (
            ("", "has to begin with amqp://"),
            ("http://u:s3cret@host", "has to begin with amqp://"),
            ("amqp://u:s3cret@", "a host is missing"),
            ("amqp://u:s3cret@host:99999", "a port is a number"),
            ("amqp://u:s3cret@host:x", "a port is a number"),
            ("amqp://u:s3cret@one,,two", "a host is missing"),
            ("amqp://u:s3cret@host/v?heartbeat=1", "something after the virtual host"),
        ):
            with self.assertRaises(ValueError) as caught:
                parse_brokers(url)
            self.assertIn(why, str(caught.exception))
            self.assertNotIn("s3cret", str(caught.exception))

    def test_no_password_is_shown(self) -> None:
        (found,) = parse_brokers("amqp://u:s3cret@host")
        self.assertNotIn("s3cret", f"{found} {found!r}")


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

    def test_flow(self) -> None:
        """A-13: it knows whether the broker reads, and who waits for that is told."""
        transport, resumed = StringTransport(), []
        wire = Wire(Clock(), transport)
        self.assertTrue(wire.writable)
        wire.watch(lambda: resumed.append(wire.writable))
        transport.producer.pauseProducing()
        self.assertFalse(wire.writable)
        transport.producer.resumeProducing()
        self.assertEqual(resumed, [True])
        transport.producer.stopProducing()
        wire.ended()

    def test_flow_at_the_end(self) -> None:
        """A connection that is to end waits for no producer."""
        transport = StringTransport()
        wire = Wire(Clock(), transport)
        wire.watch(lambda: None)
        wire.loseConnection()
        self.assertIsNone(transport.producer)

    def test_ended_in_order(self) -> None:
        clock, transport = Clock(), StringTransport()
        wire = Wire(clock, transport)
        wire.loseConnection()
        wire.ended()
        self.assertEqual(clock.getDelayedCalls(), [])


class Held:
    """A connection that lasts until it is ended by the test."""

    is_open = True

    def __init__(self) -> None:
        self.over: Deferred[BrokerError] = Deferred()

    async def ended(self) -> BrokerError:
        return await self.over

    def close(self) -> None:
        self.over.callback(BrokerError("closed"))


class LinkTests(SynchronousTestCase):
    """Issue 12, point 2: a link comes back by the rules of every other client."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tried: list[str] = []
        self.answers: list[Held] = []
        self.patch(links, "connect", self.connect)
        brokers = parse_brokers("amqp://one,two")
        settings = LinkSettings(first_wait=1.0, longest_wait=6.0, settled=5.0)
        self.link = Link(
            self.clock, brokers, "test", self.set_up, settings=settings, random=lambda: 1.0
        )
        self.link.start()
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(self.link.stop())))

    async def connect(self, reactor: object, broker: BrokerAddress, *_: object) -> Held:
        self.tried.append(broker.host)
        if not self.answers:
            raise BrokerError("nobody there")
        return self.answers.pop()

    async def set_up(self, connection: object) -> None:
        pass

    def wait(self) -> float:
        """The seconds that the link waits now; it tries again then."""
        (call,) = self.clock.getDelayedCalls()
        wait = call.getTime() - self.clock.seconds()
        self.clock.advance(wait)
        return wait

    def test_brokers_have_turns_and_waits_grow(self) -> None:
        waits = [self.wait() for _ in range(9)]
        self.assertEqual(waits, [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0, 6.0])
        self.assertEqual(self.tried, ["one", "two"] * 5)

    def test_only_a_connection_that_held_begins_anew(self) -> None:
        for held, wait in ((4.5, 6.0), (5.0, 1.0)):
            for _ in range(10):
                self.wait()
            self.answers = [connection := Held()]
            self.wait()
            self.assertIs(self.link.connection, connection)
            self.clock.advance(held)
            connection.over.callback(BrokerError("gone"))
            self.assertEqual(self.wait(), wait)
        self.assertEqual(self.link.problem, "nobody there")
