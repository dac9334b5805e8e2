"""What becomes of a message whose peer reads slowly."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import GOING_DOWN
from kupool.net.delivery import Delivery, Policy
from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed
from kupool.session.lifecycle import CLOSING, OPEN
from kupool.session.waiting import MAX_WAITING
from kupool.wire.framing import Tlv, encode_tlv
from kupool.wire.packets import MessageTooLarge
from tests.fakes.peers import Bench, PeerTransport


class DeliveryTests(SynchronousTestCase):
    """P-16: marks, and the policies wait, drop-new, drop-old, coalesce and close."""

    def setUp(self) -> None:
        self.bench = Bench(outbox_limit=100)

    def slow(self) -> tuple[Connection, PeerTransport]:
        """A connection whose peer takes nothing."""
        connection, transport = self.bench.connect()
        connection.pauseProducing()
        return connection, transport

    def test_a_peer_that_reads_gets_everything_at_once(self) -> None:
        for policy in Policy:
            connection, transport = self.bench.connect()
            delivery = Delivery(policy, high=10, key="k")
            for n in range(5):
                self.assertTrue(self.successResultOf(delivery.send(connection, b"x" * 50)))
                self.assertEqual(transport.value(), (b"x" * 50 + b"\n") * (n + 1))
            self.assertEqual(connection.messages_out, 5)

    def test_wait(self) -> None:
        connection, transport = self.slow()
        delivery = Delivery(Policy.WAIT, high=20, low=10)
        first = [delivery.send(connection, b"a" * 9) for _ in range(2)]
        self.assertEqual([self.successResultOf(d) for d in first], [True, True])
        later = [delivery.send(connection, bytes((65 + n,)) * 9) for n in range(3)]
        for waiting in later:
            self.assertNoResult(waiting)
        self.assertEqual(connection.outbound, 20)
        # room for what waits up to the mark; the transport is full again at once
        transport.full = True
        connection.resumeProducing()
        self.assertEqual(transport.value(), (b"a" * 9 + b"\n") * 2)
        self.assertEqual([d.called for d in later], [True, True, False])
        transport.drain()
        self.assertEqual([self.successResultOf(d) for d in later], [True] * 3)
        text = b"".join(bytes((c,)) * 9 + b"\n" for c in b"aaABC")
        self.assertEqual(transport.value(), text)
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_wait_keeps_the_order(self) -> None:
        connection, transport = self.slow()
        delivery = Delivery(Policy.WAIT, high=10)
        for n in range(50):
            delivery.send(connection, b"%02d" % n)
        transport.drain()
        delivery.send(connection, b"50")
        self.assertEqual(transport.value().split(), [b"%02d" % n for n in range(51)])

    def test_wait_has_an_end(self) -> None:
        connection, _ = self.slow()
        default, own = Delivery(Policy.WAIT, high=1), Delivery(Policy.WAIT, high=1, timeout=2.0)
        default.send(connection, b"x")
        one, two = default.send(connection, b"y"), own.send(connection, b"z")
        self.bench.clock.advance(2)
        self.assertFalse(self.successResultOf(two))
        self.assertNoResult(one)
        self.bench.clock.advance(8)
        self.assertFalse(self.successResultOf(one))
        self.assertEqual((connection.state, self.bench.manager.counters.dropped), (OPEN, 2))

    def test_wait_may_be_given_up(self) -> None:
        connection, transport = self.slow()
        delivery = Delivery(Policy.WAIT, high=1)
        delivery.send(connection, b"x")
        waiting, kept = delivery.send(connection, b"y"), delivery.send(connection, b"z")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        transport.drain()
        self.assertTrue(self.successResultOf(kept))
        self.assertEqual(transport.value(), b"x\nz\n")
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_waiting_when_the_connection_ends(self) -> None:
        for end in (
            lambda c: c.close(GOING_DOWN),
            lambda c: c.lost(Failure(ConnectionDone())),
        ):
            connection, _ = self.slow()
            delivery = Delivery(Policy.WAIT, high=1)
            delivery.send(connection, b"x")
            waiting = [delivery.send(connection, b"y") for _ in range(3)]
            end(connection)
            self.assertEqual([self.successResultOf(d) for d in waiting], [False] * 3)
            self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_so_many_wait(self) -> None:
        connection, _ = self.slow()
        delivery = Delivery(Policy.WAIT, high=1)
        delivery.send(connection, b"x")
        waiting = [delivery.send(connection, b"y") for _ in range(MAX_WAITING + 1)]
        self.assertFalse(self.successResultOf(waiting.pop()))
        for deferred in waiting:
            self.assertNoResult(deferred)
        connection.close(GOING_DOWN)

    def test_drop_new(self) -> None:
        connection, transport = self.slow()
        delivery = Delivery(Policy.DROP_NEW, high=6)
        sent = [self.successResultOf(delivery.send(connection, b"%d" % n)) for n in range(5)]
        self.assertEqual(sent, [True, True, True, False, False])
        transport.drain()
        self.assertEqual(
            (transport.value(), self.bench.manager.counters.dropped), (b"0\n1\n2\n", 2)
        )

    def test_drop_old(self) -> None:
        connection, transport = self.slow()
        delivery = Delivery(Policy.DROP_OLD, high=6)
        sent = [self.successResultOf(delivery.send(connection, b"%d" % n)) for n in range(5)]
        self.assertEqual(sent, [True] * 5)
        transport.drain()
        self.assertEqual(
            (transport.value(), self.bench.manager.counters.dropped), (b"2\n3\n4\n", 2)
        )

    def test_coalesce(self) -> None:
        connection, transport = self.slow()
        price, place = Delivery(Policy.COALESCE, key="price"), Delivery(Policy.COALESCE, key="at")
        for n in range(5):
            price.send(connection, b"price %d" % n)
            place.send(connection, b"place %d" % n)
        transport.drain()
        self.assertEqual(transport.value(), b"price 4\nplace 4\n")
        self.assertEqual(self.bench.manager.counters.dropped, 8)

    def test_close(self) -> None:
        connection, transport = self.slow()
        delivery = Delivery(Policy.CLOSE, high=6)
        sent = [self.successResultOf(delivery.send(connection, b"%d" % n)) for n in range(4)]
        self.assertEqual(sent, [True, True, True, False])
        self.assertEqual(connection.state, CLOSING)
        self.assertEqual(self.bench.manager.counters.closes, {"slow reader": 1})
        self.assertIn(b"slow reader", transport.value())

    def test_the_default_mark_is_the_outbox_limit(self) -> None:
        connection, _ = self.slow()
        delivery = Delivery(Policy.CLOSE)
        for _ in range(10):
            self.assertTrue(self.successResultOf(delivery.send(connection, b"x" * 9)))
        self.assertFalse(self.successResultOf(delivery.send(connection, b"x")))

    def test_messages_with_ids_and_those_too_large(self) -> None:
        bench = Bench(max_frame=10)
        connection, transport = bench.connect(TLV)
        delivery = Delivery(Policy.WAIT)
        delivery.send(connection, Tlv(7, b"x"))
        self.assertEqual(transport.value(), encode_tlv(b"x", 7))
        with self.assertRaises(MessageTooLarge):
            delivery.send(connection, Tlv(7, b"x" * 11))

    def test_after_the_end(self) -> None:
        """P-13: a send after the close raises, whatever the policy."""
        for policy in Policy:
            connection, transport = self.bench.connect()
            connection.close(None)
            with self.assertRaises(ConnectionClosed):
                Delivery(policy).send(connection, b"x")
            self.assertEqual(transport.value(), b"")

    def test_marks_that_make_no_sense(self) -> None:
        for high, low in ((10, 11), (None, -1)):
            with self.assertRaises(ValueError):
                Delivery(Policy.WAIT, high=high, low=low)
