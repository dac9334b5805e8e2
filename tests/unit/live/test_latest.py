"""Channels of which only the newest message matters."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.live import IChannel
from kupool.live.hub import Hub
from kupool.wire.framing import FRAME, LINE
from tests.fakes.peers import Bench


class LatestChannelTests(SynchronousTestCase):
    """K-26, K-28: subscribers get what is published, slow ones the newest only."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.channel = Hub(self.bench.clock).latest("jobs")

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IChannel, self.channel))

    def test_subscribers_only(self) -> None:
        one, mine = self.bench.connect(LINE)
        two, frame = self.bench.connect(FRAME)
        _, other = self.bench.connect()
        for connection in (one, two, one):
            self.channel.subscribe(connection)
        self.assertEqual(len(self.channel), 2)
        self.successResultOf(self.channel.publish(b"job"))
        self.assertEqual(mine.value(), b"job\n")
        self.assertEqual(frame.value(), FRAME.encode(b"job"))
        self.assertEqual(other.value(), b"")

    def test_unsubscribe(self) -> None:
        connection, transport = self.bench.connect()
        self.channel.subscribe(connection)
        self.channel.unsubscribe(connection)
        self.channel.unsubscribe(connection)
        self.channel.publish(b"job")
        self.assertEqual((len(self.channel), transport.value()), (0, b""))

    def test_one_that_has_ended_is_not_kept(self) -> None:
        connection, _ = self.bench.connect()
        connection.lost(Failure(ConnectionDone()))
        self.channel.subscribe(connection)
        self.assertEqual(len(self.channel), 0)

    def test_each_a_payload_of_its_own(self) -> None:
        one, mine = self.bench.connect()
        two, other = self.bench.connect()
        self.channel.subscribe(one)
        self.channel.subscribe(two)
        self.successResultOf(self.channel.publish_each(lambda c: b"for %d" % c.id))
        self.assertEqual(mine.value(), b"for %d\n" % one.id)
        self.assertEqual(other.value(), b"for %d\n" % two.id)

    def test_a_slow_reader_skips_to_the_newest(self) -> None:
        connection, transport = self.bench.connect()
        self.channel.subscribe(connection)
        transport.full = True
        self.channel.publish(b"job 0")
        for n in range(1, 5):
            self.channel.publish(b"job %d" % n)
            self.channel.publish_each(lambda c, n=n: b"own job %d" % n)  # type: ignore[misc]
        transport.clear()
        transport.drain()
        self.assertEqual(transport.value(), b"own job 4\n")
        self.assertEqual(self.bench.manager.counters.dropped, 7)
