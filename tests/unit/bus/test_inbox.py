"""What a handler may answer: each limit on both of its sides."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Answer, Message, Model, Refusal
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.inbox import Inbox, answered
from kupool.bus.settings import BusSettings


class AnsweredTests(SynchronousTestCase):
    """A-22: an answer that no form of the bus can carry is a failure of the handler."""

    def test_status(self) -> None:
        """A signed number of 64 bits, but for the smallest."""
        for status in (0, 1, -1, 2**63 - 1, -(2**63) + 1):
            response = answered(Answer(b"x", status), 10)
            self.assertEqual(response, Response(CallVerdict.ANSWER, b"x", status))

    def test_what_cannot_be_sent(self) -> None:
        failed = Response(CallVerdict.FAILED, text="an answer that cannot be sent")
        wrong: tuple[Any, ...] = (2**63, -(2**63), True, 1.0, "1", None)
        for status in wrong:
            self.assertEqual(answered(Answer(b"x", status), 10), failed, status)
        for data in ("text", bytearray(b"x"), None):
            self.assertEqual(answered(Answer(data), 10), failed, data)  # type: ignore[arg-type]

    def test_size(self) -> None:
        self.assertEqual(answered(Answer(b"x" * 10), 10).verdict, CallVerdict.ANSWER)
        too_large = answered(Answer(b"x" * 11), 10)
        self.assertEqual(
            too_large, Response(CallVerdict.FAILED, text="answer of 11 bytes: too large")
        )


class HandlingTests(SynchronousTestCase):
    """A-16: what a handler gets, and what is told of its result."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[Message] = []
        self.responses: list[Response] = []
        self.result: Any = None

    def handler(self, message: Message) -> Any:
        self.heard.append(message)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def ask(self, inbox: Inbox, timeout: float = 3.0) -> None:
        message = Message("id", "t", b"x", Model.RELIABLE_RANDOM, {}, "k", timeout, True)
        inbox.put(message, self.responses.append)

    def test_results(self) -> None:
        inbox = Inbox(self.clock, BusSettings(max_data=3), self.handler)
        for result, response in (
            (None, Response(CallVerdict.ANSWER)),
            (b"123", Response(CallVerdict.ANSWER, b"123")),
            (b"1234", Response(CallVerdict.FAILED, text="answer of 4 bytes: too large")),
            (Answer(b"1", 7), Response(CallVerdict.ANSWER, b"1", 7)),
            (Refusal("x" * 1001), Response(CallVerdict.REFUSE, text="x" * 1000)),
            (Refusal("\udcff"), Response(CallVerdict.REFUSE, text="\\udcff")),
        ):
            self.result = result
            self.ask(inbox)
            self.clock.advance(0)
            self.assertEqual(self.responses.pop(), response)

    def test_time_that_is_left(self) -> None:
        """The time in the queue counts; all else is as it came."""
        inbox = Inbox(self.clock, BusSettings(max_running=1), self.handler)
        self.result = first = Deferred()
        self.ask(inbox)
        self.ask(inbox, 1.0)
        self.ask(inbox, 0.25)
        self.clock.advance(0)
        self.clock.advance(0.25)
        first.callback(b"")
        self.clock.advance(0)
        self.assertEqual([m.timeout for m in self.heard], [3.0, 0.75])
        self.assertEqual([(m.key, m.redelivered) for m in self.heard], [("k", True)] * 2)

    def test_bytes_in_the_queue(self) -> None:
        """A-13: as many as are allowed, to the last; they are free when the handler begins."""
        inbox = Inbox(self.clock, BusSettings(max_unanswered_bytes=3), self.handler)
        for _ in range(2):
            taken = [inbox.put(self.message(data), None) for data in (b"12", b"3", b"4")]
            self.assertEqual(taken, [Taken.YES, Taken.YES, Taken.FULL])
            self.clock.advance(0)
        self.assertEqual([m.data for m in self.heard], [b"12", b"3"] * 2)

    def message(self, data: bytes) -> Message:
        return Message("id", "t", data, Model.UNRELIABLE_ALL, {})

    def test_one_that_is_too_late_holds_up_no_other(self) -> None:
        """The next is handled in the same turn."""
        inbox = Inbox(self.clock, BusSettings(), self.handler)
        self.ask(inbox, 0.25)
        self.ask(inbox, 3.0)
        seen: list[int] = []
        self.clock.callLater(0, lambda: seen.append(len(self.heard)))
        self.clock.advance(0.5)
        self.assertEqual((seen, [m.timeout for m in self.heard]), ([1], [2.5]))

    def test_several_results_that_are_pending(self) -> None:
        """Each ends by itself, in any order, and leaves no timer."""
        inbox = Inbox(self.clock, BusSettings(), self.handler)
        results: list[Deferred[bytes]] = []
        for _ in range(3):
            self.result = Deferred()
            results.append(self.result)
            self.ask(inbox)
            self.clock.advance(0)
        for n in (1, 2, 0):
            results[n].callback(b"%d" % n)
        self.assertEqual([r.data for r in self.responses], [b"1", b"2", b"0"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """What has not begun is dropped; what runs is cancelled, and nobody is told."""
        cancelled: list[object] = []
        self.result = Deferred(cancelled.append)
        inbox = Inbox(self.clock, BusSettings(max_running=1), self.handler)
        self.ask(inbox)
        self.clock.advance(0)
        self.ask(inbox)
        inbox.close()
        self.assertEqual(len(cancelled), 1)
        self.clock.pump([0, 10.0])
        self.assertEqual((len(self.heard), len(cancelled)), (1, 1))
        self.assertEqual((self.responses, self.clock.getDelayedCalls()), ([], []))
        self.flushLoggedErrors()
