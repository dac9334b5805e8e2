"""Connections to RabbitMQ that come back, without a broker."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError, links
from kupool.amqp.address import BrokerAddress, parse_brokers
from kupool.amqp.links import Link, LinkSettings


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
