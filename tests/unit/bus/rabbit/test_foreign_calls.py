"""The calls of other nodes: handled once, however often they come, and within limits."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.messages import Message, Model
from kupool.bus.rabbit.foreign_calls import ForeignCalls
from kupool.bus.rabbit.items import NodeCall
from kupool.bus.settings import BusSettings

YES = Response(CallVerdict.ANSWER, b"yes")
LOST = CallVerdict.LOST
FAILED = CallVerdict.FAILED


class ForeignCallsTests(SynchronousTestCase):
    """A-22: a call that comes again is handled once, and its answer is sent again."""

    def setUp(self) -> None:
        self.clock = Clock()
        #: What was delivered: the number by which it is answered.
        self.numbers: list[int] = []
        #: What was sent back: the address, the number of the call, and the response.
        self.sent: list[tuple[str, int, Response]] = []
        self.taken: Any = Taken.YES
        self.calls = self.make()

    def make(self, remembered: int = 10, **limits: Any) -> ForeignCalls:
        return ForeignCalls(
            self.clock,
            BusSettings(**limits),
            remembered,
            lambda key, address, response: self.sent.append((address, key[1], response)),
        )

    def deliver(self, message: Message, number: int | None) -> Taken:
        if self.taken is Taken.YES:
            assert number is not None
            self.numbers.append(number)
        return self.taken  # type: ignore[no-any-return]

    def take(
        self, number: int, data: bytes = b"", address: str = "a.1", there: bool = True
    ) -> None:
        message = Message("id", "t", data, Model.RELIABLE_RANDOM, {}, "", 3.0)
        call = NodeCall(number, "s", message)
        self.calls.take("a", address, call, self.deliver if there else None)

    def answer(self, response: Response = YES) -> None:
        self.calls.answered("s", self.numbers.pop(0), response)

    def verdicts(self) -> list[tuple[int, CallVerdict]]:
        return [(number, response.verdict) for _, number, response in self.sent]

    def test_again_before_the_answer(self) -> None:
        """The answer goes once, to where the caller is by then."""
        self.take(1)
        self.take(1, address="a.2")
        self.assertEqual((len(self.numbers), self.sent), (1, []))
        self.answer()
        self.assertEqual(self.sent, [("a.2", 1, YES)])

    def test_again_after_the_answer(self) -> None:
        """The answer is sent again, unless it is too large to be kept: then it is asked for."""
        for data, times in ((b"x" * 4096, 1), (b"x" * 4097, 2)):
            self.setUp()
            large = Response(CallVerdict.ANSWER, data)
            self.take(1)
            self.answer(large)
            self.take(1, address="a.2")
            self.assertEqual(len(self.numbers), times - 1)
            for _ in self.numbers[:]:
                self.answer(large)
            self.assertEqual(self.sent, [("a.1", 1, large), ("a.2", 1, large)])

    def test_so_many_answers_are_remembered(self) -> None:
        self.calls = self.make(remembered=2)
        for number in (1, 2, 3):
            self.take(number)
            self.answer()
        for number in (2, 3):
            self.take(number)
        self.assertEqual(self.numbers, [])
        self.take(1)
        self.assertEqual(len(self.numbers), 1)

    def test_an_answer_that_is_too_large(self) -> None:
        """A-13: it is a failure."""
        self.calls = self.make(max_data=3)
        for data, verdict in ((b"123", CallVerdict.ANSWER), (b"1234", FAILED)):
            self.take(len(data))
            self.answer(Response(CallVerdict.ANSWER, data))
            self.assertEqual(self.sent.pop()[2].verdict, verdict)

    def test_numbers(self) -> None:
        """Issue 13: none can be guessed, nor be one of a call that began here."""
        for number in range(20):
            self.take(number)
        self.assertEqual(len(set(self.numbers)), 20)
        self.assertGreaterEqual(min(self.numbers), 1 << 63)
        self.assertLess(max(self.numbers), 1 << 64)
        self.assertGreater(max(self.numbers) - min(self.numbers), 1 << 58)

    def test_answers_that_nobody_asked_for(self) -> None:
        self.take(1)
        (number,) = self.numbers
        self.calls.answered("other", number, YES)
        self.calls.answered("s", number + 1, YES)
        self.assertEqual((self.sent, len(self.calls)), ([], 1))
        self.answer()
        self.calls.answered("s", number, YES)
        self.assertEqual((len(self.sent), len(self.calls)), (1, 0))

    def test_no_subscriber(self) -> None:
        """The caller is told, and nothing is kept: it may be there the next time."""
        self.take(1, there=False)
        self.assertEqual((self.verdicts(), len(self.calls)), ([(1, LOST)], 0))
        self.take(1)
        self.assertEqual(len(self.numbers), 1)

    def test_a_subscriber_that_does_not_take_it(self) -> None:
        """A-33: the caller is told why, and it may be offered again."""
        self.calls = self.make(max_calls_bytes=3)
        for taken, verdict in ((Taken.FULL, FAILED), (Taken.GONE, LOST)):
            self.taken = taken
            self.take(1, b"123")
            self.assertEqual((self.verdicts().pop(), len(self.calls)), ((1, verdict), 0))
        self.taken = Taken.YES
        self.take(1, b"123")
        self.assertEqual(len(self.numbers), 1, "its bytes do not count any more")

    def test_limits(self) -> None:
        """A-13: so many calls, and so many bytes of them, are open at a time."""
        for limits in ({"max_calls": 2}, {"max_calls_bytes": 6}):
            self.setUp()
            self.calls = self.make(**limits)
            for number in (1, 2, 3):
                self.take(number, b"123")
            self.assertEqual(self.verdicts(), [(3, FAILED)])
            self.assertEqual(self.sent[-1][2].text, "the subscriber has enough to do")
            self.assertEqual((len(self.numbers), len(self.calls)), (2, 2))

    def test_what_has_ended_does_not_count(self) -> None:
        """A-13: whichever way it ended: answered, its subscriber lost, or too late."""
        self.calls = self.make(max_calls_bytes=3)
        self.take(1, b"123")
        self.answer()
        self.take(2, b"123")
        self.calls.lost("other")
        self.assertEqual(len(self.calls), 1)
        self.calls.lost("s")
        self.take(3, b"123")
        self.clock.advance(3.0)
        self.calls.sweep()
        self.assertEqual(len(self.calls), 1, "its time is just over")
        self.clock.advance(0.1)
        self.calls.sweep()
        self.assertEqual(len(self.calls), 0)
        self.take(4, b"123")
        self.assertEqual(len(self.numbers), 3)
        self.assertEqual(self.verdicts(), [(1, CallVerdict.ANSWER)])

    def test_again_when_it_was_lost_or_too_late(self) -> None:
        """It is handled anew: nobody has answered it."""
        self.take(1)
        self.calls.lost("s")
        self.take(1)
        self.clock.advance(3.1)
        self.calls.sweep()
        self.take(1)
        self.assertEqual(len(self.numbers), 3)
