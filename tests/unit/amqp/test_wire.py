"""The socket of a connection to RabbitMQ, on a reactor in memory."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp.wire import CUT_AFTER, Wire


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
