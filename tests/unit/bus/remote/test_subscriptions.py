"""What a client remembers of its subscriptions, and of calls that may come again."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import CallVerdict, Response
from kupool.bus.inbox import Inbox
from kupool.bus.messages import Message, Model
from kupool.bus.remote.subscriptions import ClientSubscription, HandledCalls
from kupool.bus.settings import BusSettings


class SubscriptionsCase(SynchronousTestCase):
    """A subscription whose handler notes the data of its messages, and answers later."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.handled: list[bytes] = []
        self.answers: list[Deferred[bytes]] = []
        self.responses: list[Response] = []
        self.calls = HandledCalls(self.clock)
        self.subscription = self.make("s")

    def make(self, name: str) -> ClientSubscription:
        def handler(message: Message) -> Deferred[bytes]:
            self.handled.append(message.data)
            self.answers.append(Deferred())
            return self.answers[-1]

        inbox = Inbox(self.clock, BusSettings(max_running=2000), handler)
        return ClientSubscription(name, handler, inbox)

    def call(
        self,
        name: str = "id",
        data: bytes = b"",
        *,
        topic: str = "t",
        again: bool = True,
        to: ClientSubscription | None = None,
    ) -> None:
        message = Message(name, topic, data, Model.RELIABLE_RANDOM, {}, "", 3.0, redelivered=again)
        self.calls.take(to or self.subscription, message, self.responses.append)
        self.clock.advance(0)

    def answer(self, data: bytes = b"yes") -> None:
        self.answers.pop(0).callback(data)


class TopicsTests(SubscriptionsCase):
    """Issue 13: a message is checked against the topics of its handler."""

    def test_which_topics_are_its_own(self) -> None:
        """Also after that has changed."""
        self.assertFalse(self.subscription.covers("a.b"))
        self.subscription.add(["a.*", "c"], ["k"])
        found = [self.subscription.covers(topic) for topic in ("a.b", "c", "a", "d")]
        self.assertEqual(found, [True, True, False, False])
        self.subscription.remove(["a.*", "unknown"])
        self.assertEqual([self.subscription.covers(t) for t in ("a.b", "c")], [False, True])

    def test_however_many_are_asked_for(self) -> None:
        """A-13: no more than 1,000 answers are kept at a time."""
        self.subscription.add(["a.*"], [])
        for n in range(1001):
            self.assertTrue(self.subscription.covers(f"a.{n}"))
            self.assertFalse(self.subscription.covers(f"b.{n}"))
            self.assertLessEqual(len(self.subscription._known), 1000)


class HandledCallsTests(SubscriptionsCase):
    """A-22: a call that comes again is handled once, and answered each time."""

    def test_again_before_the_answer(self) -> None:
        self.call()
        self.call()
        self.assertEqual((len(self.handled), self.responses), (1, []))
        self.answer()
        self.assertEqual([r.data for r in self.responses], [b"yes"] * 2)

    def test_again_and_again_before_the_answer(self) -> None:
        """A-13: ten of them are answered; those that come after that are dropped."""
        for _ in range(12):
            self.call()
        self.answer()
        self.assertEqual((len(self.handled), len(self.responses)), (1, 10))

    def test_again_after_the_answer(self) -> None:
        """The answer is sent again, unless it is too large to be kept."""
        for size, times in ((4096, 1), (4097, 2)):
            self.setUp()
            self.call()
            self.answer(b"x" * size)
            self.call()
            self.assertEqual(
                (len(self.handled), len(self.responses)), (times, 2 - len(self.answers))
            )

    def test_another_call(self) -> None:
        """What differs in anything, or is not said to come again, is another one."""
        self.call(data=b"1")
        self.call("other", b"2")
        self.call(data=b"3")
        self.call(data=b"1", topic="u")
        self.call(data=b"1", to=self.make("other"))
        self.call(data=b"1", again=False)
        self.assertEqual(self.handled, [b"1", b"2", b"3", b"1", b"1", b"1"])

    def test_not_longer_than_it_has_time(self) -> None:
        self.call()
        self.answer()
        self.clock.advance(3.0)
        self.call()
        self.assertEqual(len(self.handled), 1)
        self.clock.advance(0.2)
        self.call()
        self.assertEqual(len(self.handled), 2)

    def test_no_more_than_so_many(self) -> None:
        """A-13: 1,000 of them are remembered, besides the one that comes."""
        for n in range(1001):
            self.call(str(n))
        self.assertEqual((len(self.handled), len(self.calls)), (1001, 1001))
        self.call("1")
        self.assertEqual((len(self.handled), len(self.calls)), (1001, 1000))
        self.call("0")
        self.assertEqual(len(self.handled), 1002)

    def test_a_handler_that_has_enough(self) -> None:
        """A-13: the call fails, and is handled if it comes again later."""
        inbox = Inbox(self.clock, BusSettings(max_unanswered=0), lambda message: b"")
        self.call(to=ClientSubscription("full", lambda message: b"", inbox))
        failed = Response(CallVerdict.FAILED, text="the subscriber has enough to do")
        self.assertEqual((self.responses, len(self.calls)), ([failed], 0))
