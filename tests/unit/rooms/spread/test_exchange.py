"""What a host sends to the others: in order, and a message for many once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.local import LocalBus
from kupool.rooms.spread.entries import Gone, Push, decode
from kupool.rooms.spread.exchange import Exchange
from kupool.rooms.spread.settings import SpreadSettings


class PushTests(SynchronousTestCase):
    """A-45, A-51: a room's message to many connections of a host is transferred once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[Any] = []
        self.full = False
        self.exchange = Exchange(
            self.clock,
            LocalBus(self.clock, wall=self.clock.seconds),
            SpreadSettings(max_entry=10),
            "a",
            known=lambda host: host == "b",
            epoch_of=lambda host: "epoch",
            received=lambda host, entry: None,
            broken=lambda host: None,
        )
        channels: Any = self.exchange._channels
        self.patch(channels, "send", lambda host, data: self.sent.append((host, decode(data))))
        self.patch(channels, "full", lambda host: self.full)

    def push(
        self, peer: int, data: bytes, host: str = "b", key: str | None = None, policy: Any = None
    ) -> bool:
        return self.exchange.push(host, peer, data, key=key, policy=policy)

    def pushed(self) -> list[Any]:
        """Return who got what, since the last call."""
        self.clock.advance(0)
        sent, self.sent[:] = list(self.sent), []
        return [(entry.peers, entry.data, entry.key, entry.policy) for _, entry in sent]

    def test_one_message_to_many(self) -> None:
        data = b"hello"
        self.assertEqual([self.push(1, data), self.push(2, data)], [True, True])
        self.assertEqual((self.sent, self.exchange.waiting()), ([], 5))
        self.assertEqual(self.pushed(), [([1, 2], data, None, None)])
        self.assertEqual(self.exchange.waiting(), 0)
        self.push(3, data)
        self.assertEqual(self.pushed(), [([3], data, None, None)])

    def test_other_messages(self) -> None:
        """Each is sent before the next one, as it differs in what it is or how it is kept."""
        data, other = b"hello", b"world"
        kinds = [(data, None, None), (other, None, None), (other, "key", None), (other, None, "x")]
        for message, key, policy in kinds:
            self.assertTrue(self.push(1, message, key=key, policy=policy))
        self.assertEqual(self.pushed(), [([1], *kind) for kind in kinds])

    def test_in_order_with_everything_else(self) -> None:
        self.push(1, b"hello")
        self.exchange.send("b", Gone(1))
        self.assertEqual([type(entry) for _, entry in self.sent], [Push, Gone])

    def test_what_is_dropped(self) -> None:
        """K-44: for a host that is not there, too large, or while too much waits."""
        self.assertEqual(self.exchange.dropped, 0)
        self.assertFalse(self.push(1, b"hello", host="c"))
        self.assertFalse(self.push(1, b"x" * 11))
        self.assertEqual((self.exchange.dropped, self.pushed()), (2, []))
        self.assertTrue(self.push(1, b"x" * 10))
        self.full = True
        self.assertFalse(self.push(1, b"latest", key="score"))
        self.assertFalse(self.push(1, b"event", policy="drop-new"))
        self.assertTrue(self.push(1, b"needed"))
        self.assertEqual(self.exchange.dropped, 4)
        self.assertEqual([data for _, data, _, _ in self.pushed()], [b"x" * 10, b"needed"])

    def test_a_host_that_is_gone(self) -> None:
        self.push(1, b"hello")
        self.exchange.forget("b")
        self.assertEqual(self.pushed(), [])

    def test_what_is_under_way_at_the_end(self) -> None:
        """It is waited for."""
        arrived: Deferred[None] = Deferred()
        waited: list[float] = []
        channels: Any = self.exchange._channels
        self.patch(channels, "flush", lambda timeout: waited.append(timeout) or arrived)
        ended = Deferred.fromCoroutine(self.exchange.flush(1.5))
        self.assertNoResult(ended)
        arrived.callback(None)
        self.successResultOf(ended)
        self.assertEqual(waited, [1.5])

    def test_the_end(self) -> None:
        """What was to be sent in a moment is sent before."""
        for end in (lambda: self.exchange.flush(1.0), self.exchange.stop):
            self.push(1, b"hello")
            ended = Deferred.fromCoroutine(end())
            self.assertEqual(len(self.sent), 1)
            self.assertEqual([call for call in self.clock.calls if "_end_pushes" in str(call)], [])
            self.pushed()
            self.clock.advance(5)
            self.successResultOf(ended)
