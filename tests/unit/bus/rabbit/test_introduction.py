"""How a node that has connected gets to know the others."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.rabbit.introduction import Gatherings, Introduction
from kupool.bus.rabbit.items import NodeState, SubscriberEntry


class IntroductionTests(SynchronousTestCase):
    """A-31: it is over when all others are known, and in any case after a while."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.over = 0
        self.introduction = Introduction(self.clock, 1.0, self.ended)

    def ended(self) -> None:
        self.over += 1

    def test_as_many_as_there_are(self) -> None:
        self.introduction.begin()
        waiting = self.introduction.wait()
        self.introduction.look({"a", "b"})
        self.assertEqual(self.over, 0, "how many there are is not known")
        self.introduction.heard_how_many(2, {"a"})
        self.assertNoResult(waiting)
        self.introduction.look({"a", "b"})
        self.successResultOf(waiting)
        self.assertEqual(self.over, 1)
        self.introduction.look({"a", "b", "c"})
        self.assertEqual((self.over, self.clock.getDelayedCalls()), (1, []))

    def test_nobody_else(self) -> None:
        self.introduction.begin()
        self.introduction.heard_how_many(0, ())
        self.assertEqual(self.over, 1)
        self.successResultOf(self.introduction.wait())

    def test_those_that_were_known_before(self) -> None:
        """After a break they will come back: others do not stand for them."""
        self.introduction.begin()
        self.introduction.heard_how_many(1, {"a"})
        self.introduction.stop({"a"})
        self.introduction.begin()
        self.introduction.heard_how_many(1, {"b"})
        self.assertEqual(self.over, 1)
        self.introduction.look({"a", "b"})
        self.assertEqual(self.over, 2)
        self.introduction.stop({"b"})
        self.introduction.begin()
        self.introduction.heard_how_many(1, {"b"})
        self.assertEqual(self.over, 3, "a was waited for once")

    def test_the_number_of_the_last_time_does_not_count(self) -> None:
        self.introduction.begin()
        self.introduction.heard_how_many(1, ())
        self.introduction.stop(())
        self.introduction.begin()
        self.introduction.look({"a"})
        self.assertEqual(self.over, 0)
        self.introduction.heard_how_many(1, {"a"})
        self.assertEqual(self.over, 1)

    def test_the_time_is_over(self) -> None:
        self.introduction.begin()
        waiting = self.introduction.wait()
        self.clock.advance(0.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.successResultOf(waiting)
        self.assertEqual(self.over, 1)

    def test_the_connection_is_lost(self) -> None:
        """Nobody waits any more; it is not over, for nobody is known."""
        self.introduction.begin()
        waiting = self.introduction.wait()
        self.introduction.stop(())
        self.successResultOf(waiting)
        self.assertEqual((self.over, self.clock.getDelayedCalls()), (0, []))
        self.successResultOf(self.introduction.wait())


class GatheringsTests(SynchronousTestCase):
    """A-03: a state comes in parts, in order, or it is asked for again."""

    def setUp(self) -> None:
        self.gatherings = Gatherings()

    def take(
        self, part: int, parts: int, *, version: int = 1, address: str = "a"
    ) -> list[str] | None:
        entry = SubscriberEntry(f"s{part}", 0.0, ["t"], [])
        state = NodeState(version, part, parts, False, [entry])
        whole = self.gatherings.take(address, state)
        return None if whole is None else [each.subscriber for each in whole[0]]

    def test_in_order(self) -> None:
        self.assertEqual(self.take(0, 1), ["s0"])
        self.assertEqual([self.take(n, 3) for n in range(3)], [None, None, ["s0", "s1", "s2"]])

    def test_those_that_are_gone(self) -> None:
        """They come with the whole state."""
        for part, lost in ((0, {"x": 1.5, "y": 2.5}), (1, {})):
            found = self.gatherings.take("a", NodeState(1, part, 2, False, [], lost))
        self.assertEqual(found, ([], {"x": 1.5, "y": 2.5}))

    def test_of_several_nodes(self) -> None:
        self.take(0, 2)
        self.take(0, 2, address="b")
        self.assertEqual(self.take(1, 2), ["s0", "s1"])
        self.assertEqual(self.take(1, 2, address="b"), ["s0", "s1"])

    def test_begun_again(self) -> None:
        """The first part begins anew, whatever has come before."""
        self.take(0, 3)
        self.take(1, 3)
        self.assertEqual([self.take(n, 2, version=2) for n in range(2)], [None, ["s0", "s1"]])

    def test_parts_that_do_not_follow(self) -> None:
        """One that is missing, or of another version, spoils what came before."""
        for part, version in ((2, 1), (1, 2)):
            self.take(0, 3)
            with self.assertRaises(LookupError):
                self.take(part, 3, version=version)
            with self.assertRaises(LookupError):
                self.take(1, 3)

    def test_numbers_that_cannot_be(self) -> None:
        for part, parts in ((0, 0), (0, -1), (0, 10_001)):
            with self.assertRaises(LookupError):
                self.take(part, parts)
        self.assertIsNone(self.take(0, 10_000))

    def test_a_node_that_is_gone(self) -> None:
        """What came of it is no beginning for another at its address."""
        for forget in (lambda: self.gatherings.forget("a"), self.gatherings.clear):
            self.take(0, 2)
            forget()
            with self.assertRaises(LookupError):
                self.take(1, 2)
