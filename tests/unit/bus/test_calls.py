"""What the broker knows of a subscriber and of its calls, and the order of a random choice."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import CallVerdict, Response, Subscriber, Taken, in_any_order


class SubscriberTests(SynchronousTestCase):
    """A-15: the calls in hand of a subscriber are counted by their bytes."""

    def test_bytes_in_hand(self) -> None:
        """A call that it does not have any more takes nothing away."""
        subscriber = Subscriber("a", lambda message, number: Taken.YES, 0.0)
        subscriber.take(1, 10)
        subscriber.take(2, 5)
        seen = [subscriber.calls_bytes]
        for number in (1, 1, 2):
            subscriber.drop(number)
            seen.append(subscriber.calls_bytes)
        self.assertEqual((seen, subscriber.calls), ([15, 5, 5, 0], {}))


class ResponseTests(SynchronousTestCase):
    """Nodes of all releases have to mean the same by a response."""

    def test_words(self) -> None:
        words = ["answer", "refuse", "not mine", "failed", "lost"]
        self.assertEqual([verdict.value for verdict in CallVerdict], words)

    def test_what_need_not_be_given(self) -> None:
        self.assertEqual(Response(CallVerdict.ANSWER), (CallVerdict.ANSWER, b"", 0, ""))


class OrderTests(SynchronousTestCase):
    """A-33: every order of the subscribers is possible."""

    def test_every_order(self) -> None:
        random = Random(1)
        for count, orders in ((0, 1), (1, 1), (2, 2), (3, 6)):
            found = {tuple(in_any_order(random, count)) for _ in range(100)}
            self.assertEqual(len(found), orders)
            self.assertEqual({tuple(sorted(order)) for order in found}, {tuple(range(count))})
