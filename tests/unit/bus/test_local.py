"""The bus in one process: the arguments of its methods, and what is left of it after its end."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Kind, Message, Model, Subscription
from kupool.bus.broker import Broker
from kupool.bus.local import LocalBus, topics_of


class LocalBusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = LocalBus(self.clock, wall=self.clock.seconds)
        self.heard: list[Message] = []

    def subscribe(self, handler: Any, *topics: str) -> Subscription:
        return self.successResultOf(self.bus.subscribe(topics or ("t",), handler))

    def test_ids_of_subscribers(self) -> None:
        """A-37: the name of the bus and a number; one handler has one id."""
        other = self.subscribe(lambda message: None)
        first = self.subscribe(self.heard.append)
        again = self.subscribe(self.heard.append, "u")
        self.assertEqual(other, Subscription("local/1", ("t",)))
        self.assertEqual(first, Subscription("local/2", ("t",)))
        self.assertEqual(again, Subscription("local/2", ("t", "u")))
        broker = Broker(self.clock, wall=self.clock.seconds)
        named = LocalBus(self.clock, wall=self.clock.seconds, broker=broker, name="here")
        done = named.subscribe(["t"], self.heard.append)
        self.assertEqual(self.successResultOf(done).id, "here/1")

    def test_a_publish_without_options(self) -> None:
        """A-20: it has no key, no headers, and three seconds."""
        self.subscribe(self.heard.append)
        self.bus.publish(Model.RELIABLE_SPECIFIC, b"1", "t")
        self.bus.publish_reliable_specific(b"2", "t")
        self.bus.publish_reliable_random(b"3", "t")
        self.clock.advance(0)
        self.assertEqual([m.data for m in self.heard], [b"1", b"2", b"3"])
        found = {(m.key, tuple(m.headers), m.timeout) for m in self.heard}
        self.assertEqual(found, {("", (), 3.0)})

    def test_close(self) -> None:
        """A-22: nothing that waits for a handler is handled, and no one can subscribe."""
        self.subscribe(self.heard.append)
        outcome = self.bus.publish_reliable_random(b"", "t")
        self.bus.close()
        self.bus.close()
        self.clock.pump([0, 5.0])
        self.assertIs(self.successResultOf(outcome).kind, Kind.REFUSED)
        self.assertEqual((self.heard, self.clock.getDelayedCalls()), ([], []))
        self.assertIsNone(self.successResultOf(self.bus.unsubscribe(self.heard.append)))
        with self.assertRaisesRegex(ValueError, "the bus is closed"):
            self.bus.subscribe(["t"], self.heard.append)

    def test_one_topic_alone(self) -> None:
        self.assertEqual(topics_of(["a", 7]), ("a", 7))
        for wrong in ("a", 7):
            with self.assertRaisesRegex(ValueError, "topics: expected a list, not "):
                topics_of(wrong)  # type: ignore[arg-type]
