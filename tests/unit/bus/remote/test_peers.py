"""What one connection has of a bus: its publishes and its subscribers, each within limits."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.remote.peers import BusPeer
from kupool.bus.remote.shares import Share, Shares
from kupool.bus.settings import PeerLimits


class PeerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.shares = Shares()
        self.peer = self.join()

    def join(self, user: str = "ann", address: str = "192.0.2.1") -> BusPeer:
        return BusPeer(user, self.shares.join(user, address))

    @property
    def user(self) -> Share:
        return self.peer.shares[0]


class PublishTests(PeerCase):
    """A-13: so many publishes without an outcome, and so many bytes of them."""

    def test_of_one_session(self) -> None:
        limits = PeerLimits(publishing=2)
        for _ in range(2):
            self.assertEqual(self.peer.refuses_call(limits, 0), "")
            number = self.peer.begin(0)
        self.assertEqual(self.peer.refuses_call(limits, 0), "open calls of one session")
        self.assertTrue(self.peer.finished(number))
        self.assertFalse(self.peer.finished(number))
        self.assertEqual((self.peer.publishing, self.peer.refuses_call(limits, 0)), (1, ""))

    def test_of_a_user_and_of_an_address(self) -> None:
        """Over all of their connections; 0 is no limit."""
        other = self.join()
        numbers = [self.peer.begin(3), other.begin(4)]
        for limits, reason in (
            (PeerLimits(user_calls=2), "open calls of one user"),
            (PeerLimits(address_calls=2), "open calls of one address"),
            (PeerLimits(user_calls_bytes=7), "data in open calls of one user"),
            (PeerLimits(address_calls_bytes=7), "data in open calls of one address"),
            (PeerLimits(user_calls=3, address_calls=3), ""),
            (PeerLimits(user_calls_bytes=8, address_calls_bytes=8), ""),
            (PeerLimits(user_calls=0, address_calls=0), ""),
            (PeerLimits(user_calls_bytes=0, address_calls_bytes=0), ""),
        ):
            self.assertEqual(self.peer.refuses_call(limits, 1), reason)
        self.peer.finished(numbers[0])
        other.finished(numbers[1])
        self.assertEqual((self.user.calls, self.user.size), (0, 0))

    def test_ended_without_an_outcome(self) -> None:
        """Each is ended once, whether or not it can be ended yet."""
        ended: list[int] = []
        numbers = [self.peer.begin(1) for _ in range(3)]
        self.peer.finished(numbers[0])
        for number in numbers[:2]:
            self.peer.opened(number, lambda number=number: ended.append(number))
        self.assertEqual(self.peer.end_publishes(), 2)
        self.assertEqual(self.peer.end_publishes(), 0)
        self.assertEqual(ended, [numbers[1]])
        self.assertEqual((self.peer.publishing, self.user.calls, self.user.size), (0, 0, 0))
        self.assertEqual(self.peer._ends, {}, "nothing is kept of them")

    def test_all_have_their_outcomes(self) -> None:
        """Whoever waits for that is told once."""
        numbers = [self.peer.begin(1) for _ in range(2)]
        self.peer.settled = settled = Deferred()
        self.peer.finished(numbers[0])
        self.assertNoResult(settled)
        self.peer.finished(numbers[1])
        self.successResultOf(settled)
        self.assertIsNone(self.peer.settled)
        self.peer.finished(self.peer.begin(1))

    def test_ids_of_messages(self) -> None:
        """The same for the same publisher, over any connection; another for any other."""
        same = self.join(address="192.0.2.2")
        self.assertEqual(self.peer.message_id("1"), same.message_id("1"))
        others = {self.peer.message_id("2"), self.join("bob").message_id("1")}
        others |= {self.join("ann1").message_id(""), self.join("an").message_id("n1")}
        self.assertEqual(len(others | {self.peer.message_id("1")}), 5)
        self.assertEqual({len(each) for each in others}, {24})


class SubscriberTests(PeerCase):
    """A-13: so many subscribers of one session, with so many topics and keys."""

    def refused(self, limits: PeerLimits, name: str, *topics: str) -> str:
        return self.peer.refuses_subscriber(limits, name, set(topics), set())

    def test_subscribers(self) -> None:
        """One that has left counts while it has calls to answer."""
        limits = PeerLimits(subscribers=2)
        for name in "ab":
            self.assertEqual(self.refused(limits, name, "t"), "")
            self.peer.subscribed(name, ["t"], [])
        self.assertEqual(self.refused(limits, "c", "t"), "subscribers of one session")
        self.assertEqual(self.refused(limits, "a", "u"), "")
        self.peer.unsubscribed("a", [], lambda number: True)
        self.assertEqual(self.refused(limits, "c", "t"), "subscribers of one session")
        self.peer.unsubscribed("b", [], lambda number: False)
        self.assertEqual(self.refused(limits, "c", "t"), "")

    def test_topics_and_keys(self) -> None:
        """Each counts once for its subscriber."""
        limits = PeerLimits(topics=5)
        self.peer.subscribed("a", ["t", "u"], ["k"])
        self.peer.subscribed("b", ["t"], [])
        self.assertEqual(self.user.topics, 4)
        self.assertEqual(self.peer.refuses_subscriber(limits, "a", {"t", "v"}, {"k"}), "")
        reason = "topics of one session"
        self.assertEqual(self.peer.refuses_subscriber(limits, "a", {"t", "v"}, {"l"}), reason)
        self.assertEqual(self.peer.refuses_subscriber(limits, "b", {"u"}, {"k"}), reason)
        user = PeerLimits(user_topics=4)
        self.assertEqual(self.refused(user, "b", "t"), "")
        self.assertEqual(self.refused(user, "b", "u"), "topics of one user")
        self.peer.unsubscribed("a", ["u"], lambda number: True)
        self.assertEqual((self.user.topics, self.peer.topics_of("a")), (3, frozenset("u")))
        self.peer.unsubscribed("a", [], lambda number: True)
        self.assertEqual((self.user.topics, self.peer.topics_of("a")), (1, frozenset()))

    def test_numbers(self) -> None:
        """They count up, and none is used again: a late answer is not another subscriber's."""
        self.assertFalse(self.peer.has_listened)
        for number, name in enumerate("abc"):
            self.assertEqual(self.peer.number_of(name), number)
            self.peer.subscribed(name, ["t"], [])
            self.peer.subscribed(name, ["u"], [])
        self.peer.unsubscribed("c", [], lambda number: False)
        self.assertEqual((self.peer.number_of("c"), self.peer.number_of("a")), (3, 0))
        self.assertTrue(self.peer.has_listened)

    def test_leave(self) -> None:
        """Those that have left before are among them while they have calls to answer."""
        for name in "ab":
            self.peer.subscribed(name, ["t"], ["k"])
        self.peer.unsubscribed("a", [], lambda number: True)
        self.assertEqual(sorted(self.peer.leave()), [0, 1])
        self.assertEqual((self.peer.leave(), self.user.topics), ([], 0))
        self.assertEqual(self.peer.number_of("a"), 2)

    def test_those_that_have_left_are_forgotten(self) -> None:
        """With more than 16 of them, those without calls. With twice as many more as were left
        then, they are looked at again.
        """
        asked: set[int] = set()

        def leave(count: int) -> int:
            """Have so many come and go; returns how many others were looked at."""
            asked.clear()
            for _ in range(count):
                self.peer.subscribed("s", ["t"], [])
                number = self.peer.number_of("s")

                def knows(n: int, number: int = number) -> bool:
                    if n != number:
                        asked.add(n)
                    return n == number or n < 5 or n > 16

                self.peer.unsubscribed("s", [], knows)
            return len(asked)

        self.assertEqual([leave(16), leave(1)], [0, 16])
        self.assertEqual([leave(22), leave(1)], [0, 28])
        self.assertEqual(len(self.peer.leave()), 28)
