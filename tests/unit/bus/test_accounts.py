"""What a bus remembers of what went over it."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.accounts import Accounts
from kupool.bus.messages import Message, Model
from kupool.bus.settings import BusSettings
from kupool.bus.status import Recent, Step


class AccountsTests(SynchronousTestCase):
    """A-37: counts by outcome, the last messages of each topic, and the ways of messages."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.accounts = self.make()

    def make(self, **limits: Any) -> Accounts:
        return Accounts(BusSettings(**limits), self.clock.seconds)

    def message(
        self, name: str = "id", topic: str = "t", data: bytes = b"", **headers: str
    ) -> Message:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return Message(name, topic, data, Model.UNRELIABLE_ALL, named)

    def shown(self) -> Any:
        return self.accounts.shown(lambda topic: 1, lambda topic: 2)

    def steps(self, trace_id: str) -> list[str]:
        return [step.event for step in self.accounts.trace(trace_id)]

    def test_counts(self) -> None:
        """Of each topic, and of the whole bus."""
        for topic, outcome in (("t", "delivered"), ("t", "expired"), ("u", "delivered")):
            message = self.message(topic=topic)
            self.accounts.ended(message, self.accounts.published(message), outcome)
        for _ in range(3):
            self.accounts.happened(self.message(topic="t"), "not sent")
        first, second = self.shown()[1], self.shown()[0]
        self.assertEqual((first.topic, second.topic), ("t", "u"))
        counts = {"published": 2, "delivered": 1, "expired": 1, "not sent": 3}
        self.assertEqual((first.counts, first.waiting, first.buffered), (counts, 1, 2))
        self.assertEqual(second.counts, {"published": 1, "delivered": 1})
        everything = {"published": 3, "delivered": 2, "expired": 1, "not sent": 3}
        self.assertEqual(self.accounts.counts, everything)

    def test_last_messages(self) -> None:
        """With the first 64 bytes of the data, its size, the time, and the outcome."""
        self.accounts = self.make(recent=2)
        for n in range(3):
            self.clock.advance(1)
            message = self.message(str(n), data=b"x" * (64 + n))
            note = self.accounts.published(message)
        self.accounts.ended(message, note, "delivered")
        (account,) = self.shown()
        model, start = "unreliable-all", b"x" * 64
        expected = (
            Recent("1", 2.0, model, 65, start, ""),
            Recent("2", 3.0, model, 66, start, "delivered"),
        )
        self.assertEqual(account.recent, expected)

    def test_the_way_of_a_message(self) -> None:
        message = self.message()
        note = self.accounts.published(message)
        self.clock.advance(1)
        self.accounts.step(message, "offered", "s")
        self.accounts.ended(message, note, "delivered")
        expected = (
            Step(0.0, "id", "published", ""),
            Step(1.0, "id", "offered", "s"),
            Step(1.0, "id", "delivered", ""),
        )
        self.assertEqual(self.accounts.trace("id"), expected)
        self.assertEqual(self.accounts.trace("other"), ())

    def test_by_what_its_publisher_calls_it(self) -> None:
        for name in ("1", "2"):  # of two publishers
            self.clock.advance(1)
            self.accounts.published(self.message(name), "mine")
        self.accounts.step(self.message("1"), "offered")
        self.accounts.published(self.message("3"))
        self.accounts.published(self.message("4", trace_id="both"), "in a trace")
        self.assertEqual(self.accounts.trace("mine"), (Step(2.0, "2", "published"),))
        self.assertEqual(self.steps("1"), ["published", "offered"])
        self.assertEqual(self.steps("both"), ["published"])
        for unknown in ("in a trace", "other", ""):
            self.assertEqual(self.steps(unknown), [])

    def test_several_messages_of_one_trace(self) -> None:
        for name in ("1", "2"):
            self.accounts.published(self.message(name, trace_id="both"))
        self.assertEqual([step.message for step in self.accounts.trace("both")], ["1", "2"])
        self.assertEqual(self.steps("1"), [])

    def test_bounds(self) -> None:
        """The oldest are forgotten: steps, traces, names of publishers and topics."""
        self.accounts = self.make(max_traces=2, max_topics=2)
        for name in "abc":
            self.accounts.published(self.message(name, name), f"my {name}")
        self.assertEqual([self.steps(name) for name in "abc"], [[], ["published"], ["published"]])
        self.assertEqual([self.steps(f"my {n}") for n in "abc"], [[], ["published"], ["published"]])
        self.assertEqual([account.topic for account in self.shown()], ["b", "c"])
        self.accounts.happened(self.message("b", "b"), "expired")
        self.accounts.published(self.message("d", "d"))
        self.assertEqual([account.topic for account in self.shown()], ["b", "d"])
        for _ in range(200):
            self.accounts.step(self.message("d", "d"), "offered")
        self.assertEqual(len(self.steps("d")), 100)

    def test_the_name_of_a_publisher_goes_with_its_trace(self) -> None:
        """The newest trace of that name is found, and none that others continue."""
        self.accounts = self.make(max_traces=2)
        self.accounts.published(self.message("a"), "mine")
        self.accounts.published(self.message("b", trace_id="a"), "other")
        self.assertEqual(self.steps("mine"), ["published"] * 2)
        self.assertEqual(self.steps("other"), [])
        self.accounts.published(self.message("c"), "mine")
        self.assertEqual(self.steps("mine"), ["published"])
        for name in "de":
            self.accounts.published(self.message(name), name)
        self.assertEqual(self.steps("mine"), [])

    def test_a_message_that_its_publisher_gave_no_name(self) -> None:
        """It is found by its own id alone."""
        self.accounts.published(self.message())
        self.accounts.step(self.message("2"), "offered")  # its trace was forgotten meanwhile
        self.assertEqual(self.steps("2"), ["offered"])
        for other in ("", "!", "other"):
            self.assertEqual(self.steps(other), [])

    def test_no_traces(self) -> None:
        self.accounts = self.make(max_traces=0)
        self.accounts.published(self.message())
        self.assertEqual(self.steps("id"), [])
