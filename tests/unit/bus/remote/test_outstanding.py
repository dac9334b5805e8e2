"""A client's publishes, with a connection that notes what is sent."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Kind, Model, Outcome
from kupool.bus.remote.outstanding import Outstanding
from kupool.net.dialling.answers import Answers
from kupool.net.dialling.deadlines import Reading
from kupool.wire.incoming import ServerMessage


class Link:
    """A connection that notes what is sent over it, or cannot carry it."""

    def __init__(self) -> None:
        self.outbound = 0
        self.sent: list[Any] = []
        self.problem = ""

    def send(self, payload: bytes) -> None:
        if self.problem:
            raise ValueError(self.problem)
        self.sent.append(json.loads(payload))


class OutstandingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link: Link | None = Link()
        self.refusal = ""
        reading = Reading(self.clock, lambda: 0)
        self.answers = Answers(self.clock, reading, Counter(), most=100)
        self.publishes = self.make()

    def make(self, **settings: Any) -> Outstanding:
        return Outstanding(
            self.clock,
            BusSettings(**settings),
            lambda: cast(Any, self.link),
            answers=self.answers,
            reading=Reading(self.clock, lambda: 0),
            refusal=lambda: self.refusal,
        )

    def publish(
        self,
        model: Model = Model.RELIABLE_RANDOM,
        data: bytes = b"",
        timeout: float | None = None,
    ) -> Deferred[Outcome]:
        return self.publishes.publish(model, data, "t", timeout=timeout, key="", headers=None)

    def unreliable(self, data: bytes = b"") -> Deferred[Outcome]:
        return self.publish(Model.UNRELIABLE_ALL, data)

    def passes(self, seconds: float) -> None:
        """Let time pass, with a few turns of the reactor at its end."""
        self.clock.advance(seconds)
        for _ in range(3):
            self.clock.advance(0)

    def sent(self) -> list[Any]:
        assert self.link is not None
        sent, self.link.sent = self.link.sent, []
        return sent

    def reply(self, number: int, **result: Any) -> None:
        encoded = msgspec.Raw(json.dumps(result).encode())
        self.assertTrue(self.answers.take(ServerMessage(id=number, result=encoded)))

    def lose(self) -> None:
        """Lose the connection."""
        self.link = None
        self.answers.fail(ConnectionError("lost"))

    def reconnect(self) -> None:
        self.link = Link()
        self.publishes.up(cast(Any, self.link))

    def reason(self, outcome: Deferred[Outcome]) -> tuple[Kind, str]:
        found = self.successResultOf(outcome)
        return found.kind, found.reason


class DeadlineTests(OutstandingCase):
    """A-21: the outcome of a call comes 50 ms after its deadline at the latest."""

    def test_no_answer(self) -> None:
        waiting, later = self.publish(timeout=0.5), self.publish()
        self.passes(0.549)
        self.assertNoResult(waiting)
        self.passes(0.003)
        self.assertEqual(self.reason(waiting), (Kind.TIMEOUT, ""))
        self.passes(2.497)
        self.assertNoResult(later)
        self.passes(0.003)
        self.assertEqual(self.reason(later), (Kind.TIMEOUT, ""))

    def test_no_answer_to_an_unreliable_message(self) -> None:
        """It has the time of the settings: three seconds."""
        waiting = self.unreliable()
        self.passes(3.049)
        self.assertNoResult(waiting)
        self.passes(0.003)
        self.assertEqual(self.reason(waiting), (Kind.REFUSED, "the server said nothing"))

    def test_no_connection(self) -> None:
        self.link = None
        waiting = self.publish(timeout=0.5)
        self.passes(0.552)
        self.assertEqual(self.reason(waiting), (Kind.TIMEOUT, "not connected"))

    def test_what_is_left_of_the_time(self) -> None:
        """The server gets the rest of it, and is told of the repetition."""
        waiting = self.publish(timeout=2.0)
        ((first),) = self.sent()
        self.assertEqual(first["params"]["timeout_ms"], 2000.0)
        self.assertNotIn("redelivered", first["params"])
        self.clock.advance(0.5)
        self.lose()
        self.reconnect()
        (again,) = self.sent()
        self.assertEqual(
            again["params"], {**first["params"], "timeout_ms": 1500.0, "redelivered": True}
        )
        self.reply(again["id"], outcome="answered", data="x")
        self.assertEqual(self.successResultOf(waiting).data, b"x")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_less_than_ten_milliseconds(self) -> None:
        """It is not sent any more; the answers to others still count."""
        self.link = None
        waiting, short = self.publish(), self.publish(timeout=0.5)
        self.clock.advance(0.495)
        self.reconnect()
        (request,) = self.sent()
        self.assertEqual(request["params"]["timeout_ms"], 2505.0)
        self.passes(0.1)
        self.assertEqual(self.reason(short), (Kind.TIMEOUT, ""))
        self.reply(request["id"], outcome="answered", data="x")
        self.assertEqual(self.successResultOf(waiting).data, b"x")

    def test_more_than_ten_milliseconds(self) -> None:
        self.link = None
        self.publish(timeout=0.5)
        self.clock.advance(0.489)
        self.reconnect()
        self.assertEqual(len(self.sent()), 1)


class RefusedTests(OutstandingCase):
    """A-13, A-24: what is refused at once, and why."""

    def test_so_many_calls(self) -> None:
        self.publishes = self.make(max_calls=2)
        waiting = [self.publish() for _ in range(3)]
        self.assertEqual(self.reason(waiting[2]), (Kind.REFUSED, "the bus is full"))
        self.reply(1, outcome="sent")
        self.assertNoResult(self.publish())

    def test_so_many_bytes(self) -> None:
        self.publishes = self.make(max_calls_bytes=10)
        waiting = self.publish(data=b"x" * 10)
        self.assertNoResult(waiting)
        self.assertEqual(self.reason(self.publish(data=b"x")), (Kind.REFUSED, "the bus is full"))
        self.reply(1, outcome="sent")
        self.assertEqual(
            self.reason(self.publish(data=b"x" * 11)), (Kind.REFUSED, "the bus is full")
        )
        self.assertNoResult(self.publish(data=b"x" * 10))

    def test_unreliable_messages(self) -> None:
        """They do not wait for a connection, nor for a server that reads slowly."""
        assert self.link is not None
        self.link.outbound = 1
        self.assertEqual(self.reason(self.unreliable()), (Kind.REFUSED, "the connection is slow"))
        self.assertNoResult(self.publish())
        self.link = None
        self.assertEqual(self.reason(self.unreliable()), (Kind.REFUSED, "not connected"))
        self.assertNoResult(self.publish())

    def test_what_the_connection_cannot_carry(self) -> None:
        assert self.link is not None
        self.link.problem = "too large"
        self.assertEqual(self.reason(self.publish()), (Kind.REFUSED, "too large"))
        self.assertEqual(len(self.answers), 0)

    def test_no_connection_any_more(self) -> None:
        waiting = self.publish()
        self.lose()
        self.refusal = "banned"
        self.publishes.gone()
        for outcome in (waiting, self.publish()):
            self.assertEqual(self.reason(outcome), (Kind.REFUSED, "banned"))

    def test_closed(self) -> None:
        waiting = self.publish()
        self.publishes.close()
        for outcome in (waiting, self.publish()):
            self.assertEqual(self.reason(outcome), (Kind.REFUSED, "the bus is closed"))
        self.assertEqual((len(self.answers), self.clock.getDelayedCalls()), (0, []))


class LostTests(OutstandingCase):
    """A-22, A-24: the connection is lost before the outcome."""

    def test_reliable_and_unreliable(self) -> None:
        """What is unreliable is not sent again."""
        reliable, unreliable = self.publish(), self.unreliable()
        self.lose()
        self.assertNoResult(reliable)
        self.assertEqual(self.reason(unreliable), (Kind.REFUSED, "the connection was lost"))
        self.reconnect()
        self.assertEqual(len(self.sent()), 1)

    def test_cancelled(self) -> None:
        """The next connection sends nothing, and nothing waits."""
        waiting = self.publish()
        self.lose()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.reconnect()
        self.assertEqual((self.sent(), self.clock.getDelayedCalls()), ([], []))
