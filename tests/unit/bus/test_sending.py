"""Unreliable messages on their way, at a fake clock: how many may wait for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import Subscriber, Taken
from kupool.bus.messages import Message, Model
from kupool.bus.sending import Sending
from kupool.bus.settings import BusSettings
from kupool.timing.chunks import CHUNK


class WaitingTests(SynchronousTestCase):
    """A-13: what is published while another message is sent waits, within the limits of calls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.given: Counter[bytes] = Counter()
        self.reported: list[bytes] = []
        self.refused: list[bytes] = []
        #: What the first subscriber to get a message publishes then.
        self.within: list[bytes] = []

    def sending(self, subscribers: int, **limits: int) -> Sending:
        there = tuple(Subscriber(str(n), lambda m, n: Taken.YES, 0.0) for n in range(subscribers))
        return Sending(
            self.clock,
            BusSettings(**limits),
            random=Random(1),
            listening=lambda topic: there,
            give=self.give,
        )

    def give(self, message: Message, subscriber: Subscriber) -> Taken:
        self.given[message.data] += 1
        within, self.within = self.within, []
        for data in within:
            self.send(data)
        return Taken.YES

    def send(self, data: bytes, model: Model = Model.UNRELIABLE_ALL) -> None:
        def sent(told: Counter[Taken], meant: Sequence[Subscriber]) -> None:
            self.assertEqual(told, {Taken.YES: self.given[data]})
            self.reported.append(data)

        if not self.tested.send(Message("id", "t", data, model, {}), sent):
            self.refused.append(data)

    def test_what_is_sent_at_once_does_not_count_as_waiting(self) -> None:
        """The limit is for what waits: a message to up to a chunk of subscribers does not."""
        for model in (Model.UNRELIABLE_ALL, Model.UNRELIABLE_RANDOM):
            for subscribers in (1, CHUNK):
                self.setUp()
                self.tested = self.sending(subscribers, max_calls=2)
                self.within = [b"2", b"3", b"4"]
                self.send(b"1", model)
                self.clock.pump([0] * 3)
                self.assertEqual((self.reported, self.refused), ([b"1", b"2", b"3"], [b"4"]))
                self.assertEqual(self.given[b"2"], subscribers)

    def test_one_that_is_on_its_way_counts(self) -> None:
        """A message to more than a chunk waits for its next turn."""
        self.tested = self.sending(CHUNK + 1, max_calls=2)
        self.send(b"1")
        self.assertEqual(self.given, {b"1": CHUNK})
        self.send(b"2")
        self.send(b"3")
        self.clock.pump([0] * 3)
        self.assertEqual((self.reported, self.refused), ([b"1", b"2"], [b"3"]))
        self.assertEqual(self.given, {b"1": CHUNK + 1, b"2": CHUNK + 1})

    def test_bytes(self) -> None:
        """Those of all that wait count, and only until they are sent."""
        self.tested = self.sending(CHUNK + 1, max_calls_bytes=3)
        for _ in range(2):
            self.given.clear()
            self.send(b"1")
            self.send(b"22")
            self.send(b"3")
            self.clock.pump([0] * 4)
        self.assertEqual(self.reported, [b"1", b"22"] * 2)
        self.assertEqual(self.refused, [b"3"] * 2)

    def test_one_of_many_gets_a_message_that_had_to_wait(self) -> None:
        """A-33: in its turn, one more of a chunk; it is one that listens then."""
        self.tested = self.sending(CHUNK + 1)
        self.send(b"1")
        self.send(b"2", Model.UNRELIABLE_RANDOM)
        self.send(b"3", Model.UNRELIABLE_RANDOM)
        self.assertEqual(self.reported, [])
        self.clock.advance(0)
        self.assertEqual(self.reported, [b"1", b"2", b"3"])
        self.assertEqual(self.given, {b"1": CHUNK + 1, b"2": 1, b"3": 1})

    def test_many_for_one_of_many(self) -> None:
        """A-33: five hundred in a turn, in which each counts as one."""
        self.tested = self.sending(CHUNK + 1)
        self.send(b"first")
        for n in range(600):
            self.send(b"%d" % n, Model.UNRELIABLE_RANDOM)
        seen: list[int] = []
        self.clock.callLater(0, lambda: seen.append(len(self.reported)))
        self.clock.advance(0)
        self.assertEqual((seen, len(self.reported)), ([500], 601))
