"""The buffer of unreliable messages: what it keeps, for how long, and of whom."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.accounts import Accounts
from kupool.bus.buffer import Buffer, BufferOwner, Kept
from kupool.bus.messages import Message, Model
from kupool.bus.settings import BusSettings
from kupool.timing.timers import Timers


def message(data: bytes = b"", topic: str = "t") -> Message:
    return Message("id", topic, data, Model.UNRELIABLE_ALL, {})


class BufferTests(SynchronousTestCase):
    """A-35: bounded per topic, by count and bytes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.settings = BusSettings(buffer_count=5, buffer_bytes=100)
        self.expired: list[bytes] = []
        self.accounts = Accounts(self.settings, self.clock.seconds)
        self.timers = Timers(self.clock)
        self.buffer = Buffer(
            self.timers, self.settings, lambda kept: self.expired.append(kept.message.data)
        )

    def keep(self, data: bytes, topic: str = "t") -> bool:
        made = message(data, topic)
        return self.buffer.keep(made, self.accounts.published(made))

    def test_bounds(self) -> None:
        self.assertEqual([self.keep(b"x") for _ in range(6)], [True] * 5 + [False])
        self.assertEqual([self.keep(b"x" * 60, "u") for _ in range(2)], [True, False])
        self.assertFalse(self.keep(b"x" * 101, "v"))
        self.assertEqual([self.buffer.count(t) for t in "tuv"], [5, 1, 0])
        for n in range(998):
            self.assertTrue(self.keep(b"", f"n{n}"))
        self.assertFalse(self.keep(b"", "one more"))
        self.clock.advance(3.0)
        self.assertEqual(len(self.expired), 1004)
        self.assertTrue(self.keep(b"", "one more"))

    def test_bytes_of_a_topic_are_free_again(self) -> None:
        """Each message takes its own bytes with it, and those alone."""
        self.keep(b"x" * 60)
        self.clock.advance(1.0)
        self.assertEqual([self.keep(b"x" * 40), self.keep(b"x")], [True, False])
        self.clock.advance(2.1)
        self.assertEqual(self.expired, [b"x" * 60])
        self.assertEqual([self.keep(b"x" * size) for size in (61, 60, 1)], [False, True, False])

    def test_all_topics_together(self) -> None:
        """A-13: many topics with little each are bounded, too."""
        self.buffer = Buffer(
            self.timers, BusSettings(buffer_total=100), lambda kept: self.expired.append(b"")
        )
        self.assertEqual(
            [self.keep(b"x" * 30, f"t{n}") for n in range(5)], [True] * 3 + [False] * 2
        )
        self.buffer.drain("t1", lambda kept: True)
        self.assertEqual([self.keep(b"x" * 30, f"u{n}") for n in range(2)], [True, False])
        self.clock.advance(3.0)
        self.assertEqual([self.keep(b"x" * 30, f"v{n}") for n in range(4)], [True] * 3 + [False])

    def test_of_one_owner(self) -> None:
        """Issue 13: what one user or address publishes leaves room for others, in bytes and in
        topics; what is delivered or expires is free again.
        """
        self.buffer = Buffer(
            self.timers, BusSettings(buffer_total=800), lambda kept: self.expired.append(b"")
        )
        ann, bob, here = (
            BufferOwner(True, "ann"),
            BufferOwner(True, "bob"),
            BufferOwner(False, "192.0.2.1"),
        )

        def keep(data: bytes, topic: str, *owners: BufferOwner) -> bool:
            made = message(data, topic)
            kept = self.buffer.keep(made, self.accounts.published(made), owners)
            self.assertEqual(kept, not self.buffer.over_share(made, owners) or kept)
            return kept

        self.assertEqual([keep(b"x" * 50, "t", ann, here) for _ in range(3)], [True, True, False])
        self.assertEqual([keep(b"x" * 50, "u", bob, here) for _ in range(3)], [True, True, False])
        self.assertFalse(keep(b"x" * 50, "t", BufferOwner(True, "eve"), here))
        self.assertTrue(keep(b"x" * 50, "t", BufferOwner(True, "eve")))
        self.buffer.drain("u", lambda kept: True)
        self.assertTrue(keep(b"x" * 50, "t", BufferOwner(True, "joe"), here))
        self.clock.advance(3.0)
        self.assertEqual([keep(b"", f"t{n}", ann) for n in range(126)], [True] * 125 + [False])
        self.assertTrue(keep(b"", "t1", ann))
        self.assertTrue(keep(b"", "mine", bob))

    def test_expiry(self) -> None:
        """A-32: each after its own three seconds."""
        for n in range(3):
            self.keep(b"%d" % n)
            self.clock.advance(1.0)
        self.assertEqual(self.expired, [b"0"])
        self.clock.advance(0.9)
        self.assertEqual(self.expired, [b"0"])
        self.clock.advance(0.2)
        self.assertEqual(self.expired, [b"0", b"1"])
        taken: list[bytes] = []

        def give(kept: Kept) -> bool:
            taken.append(kept.message.data)
            return True

        self.buffer.drain("t", give)
        self.clock.advance(5.0)
        self.assertEqual((taken, self.expired), ([b"2"], [b"0", b"1"]))
        self.assertEqual(len(self.timers), 0)

    def test_not_taken(self) -> None:
        """A-32: what a subscriber does not take waits on."""
        for n in range(3):
            self.keep(b"%d" % n)
        left = [True, False]
        self.buffer.drain("t", lambda kept: left.pop(0))
        self.assertEqual(self.buffer.count("t"), 2)
        self.assertEqual(self.buffer.topics("*"), ["t"])
        self.buffer.clear()
        self.assertEqual((self.buffer.topics(">"), len(self.timers)), ([], 0))

    def test_all_bytes_together_to_the_last(self) -> None:
        """A-13: exactly as many bytes as are allowed fit, also after some have gone or all were
        cleared.
        """
        ann = BufferOwner(True, "ann")
        self.buffer = Buffer(self.timers, BusSettings(buffer_total=100), lambda kept: None)

        def fills() -> bool:
            kept = [self.keep(b"x" * 60, "t"), self.keep(b"x" * 40, "u"), self.keep(b"x", "v")]
            return kept == [True, True, False]

        self.assertTrue(fills())
        self.clock.advance(3.0)
        self.assertTrue(fills())
        self.buffer.clear()
        self.assertTrue(fills())
        self.buffer.clear()
        hers = message(b"x" * 12)
        for _ in range(2):
            self.assertTrue(self.buffer.keep(hers, self.accounts.published(hers), [ann]))
            self.assertTrue(self.buffer.over_share(hers, [ann]))
            self.buffer.clear()
            self.assertFalse(self.buffer.over_share(hers, [ann]))

    def test_no_timer_without_a_message(self) -> None:
        """A-32: a topic whose messages were all delivered is not looked at again."""
        self.keep(b"1")
        self.keep(b"2")
        self.assertEqual(len(self.timers), 1)
        self.buffer.drain("t", lambda kept: True)
        self.assertEqual((len(self.timers), self.buffer.count("t")), (0, 0))
        self.assertEqual(self.buffer.topics("t"), [])

    def test_drained_from_within(self) -> None:
        """A-32: of two that drain a topic at the same time each message goes to one, and what is
        kept meanwhile stays.
        """
        for inner, count in ((1, 0), (2, 1)):
            self.buffer.clear()
            taken: list[bytes] = []
            left = [True] * inner + [False]

            def give_within(kept: Kept, taken: list[bytes] = taken, left: Any = left) -> bool:
                if left[0]:
                    taken.append(kept.message.data)
                return left.pop(0)

            def give(kept: Kept, taken: list[bytes] = taken, within: Any = give_within) -> bool:
                if kept.message.data == b"1":
                    self.buffer.drain("t", within)
                    self.keep(b"3")
                else:
                    taken.append(kept.message.data)
                return True

            self.keep(b"1")
            self.keep(b"2")
            self.buffer.drain("t", give)
            self.assertEqual(taken, [b"1", b"2", b"3"][: 3 - count])
            self.assertEqual((self.buffer.count("t"), len(self.timers)), (count, count))

    def test_topics_of_a_pattern(self) -> None:
        """A-11: those with messages, and no others."""
        for topic in ("a", "a.b", "b"):
            self.keep(b"", topic)
        found = {p: self.buffer.topics(p) for p in ("a", "c", "a.*", "*", ">")}
        expected = {"a": ["a"], "c": [], "a.*": ["a.b"], "*": ["a", "b"], ">": ["a", "a.b", "b"]}
        self.assertEqual(found, expected)
