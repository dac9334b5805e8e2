"""The subscribers of a node, as it tells the others of them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.rabbit.items import SubscriberEntry
from kupool.bus.rabbit.own import OwnSubscribers

ANSWER = Response(CallVerdict.ANSWER)


class OwnSubscribersTests(SynchronousTestCase):
    """A-03: the others are told what changes, and nothing twice."""

    def setUp(self) -> None:
        self.told: list[Any] = []
        self.own = OwnSubscribers(
            added=self.told.append,
            removed=lambda *what: self.told.append(what),
            answered=lambda *what: self.told.append(what),
        )

    def subscribe(self, *topics: str, keys: tuple[str, ...] = ()) -> None:
        self.own.subscribed("s", topics, keys, deliver=lambda m, n: Taken.YES, since=7.0)

    def news(self) -> list[Any]:
        told = self.told[:]
        self.told.clear()
        return told

    def test_what_is_added(self) -> None:
        self.subscribe("a", keys=("k",))
        self.assertEqual(self.news(), [SubscriberEntry("s", 7.0, ["a"], ["k"])])
        self.subscribe("a", "b", keys=("k", "l"))
        self.assertEqual(self.news(), [SubscriberEntry("s", 7.0, ["b"], ["l"])])
        self.subscribe("a", "b", keys=("k",))
        self.assertEqual(self.news(), [])
        self.subscribe("a", "b", keys=("m",))
        self.assertEqual(self.news(), [SubscriberEntry("s", 7.0, ["a"], ["m"])], "with some topic")
        (own,) = self.own
        self.assertEqual(own.entry(), SubscriberEntry("s", 7.0, ["a", "b"], ["k", "l", "m"]))

    def test_what_is_given_up(self) -> None:
        self.subscribe("a", "b", "c")
        self.news()
        self.own.unsubscribed("s", ("a", "b", "c"))
        self.assertEqual(self.news(), [])
        self.own.unsubscribed("s", ("b",))
        self.assertEqual(self.news(), [("s", ["a", "c"], None)])
        self.own.unsubscribed("s", ())
        self.assertEqual(self.news(), [("s", None, None)])
        self.assertIsNone(self.own.get("s"))

    def test_one_that_is_gone(self) -> None:
        self.subscribe("a")
        self.news()
        self.own.removed("s", 4.0)
        self.own.removed("s", 4.0)
        self.assertEqual(self.news(), [("s", None, 4.0)])
        self.assertEqual(list(self.own), [])

    def test_one_that_is_gone_at_once(self) -> None:
        """It is no member any more."""
        self.subscribe("a")
        self.news()
        self.own.removed("s")
        self.assertEqual(self.news(), [("s", None, 0.0)])

    def test_those_of_other_nodes(self) -> None:
        """Nobody is told of them: their own node does that."""
        self.own.unsubscribed("other", ("a",))
        self.own.removed("other")
        self.assertEqual(self.news(), [])

    def test_stopped(self) -> None:
        """The others are told nothing more; what there is stays known here."""
        self.subscribe("a", "b")
        self.own.stop()
        self.news()
        self.subscribe("a", "b", "c")
        self.own.answered("s", 1, ANSWER)
        self.own.unsubscribed("s", ("a",))
        (own,) = self.own
        self.assertEqual(own.topics, ("a",))
        self.own.unsubscribed("s", ())
        self.subscribe("a")
        self.own.removed("s")
        self.assertEqual((self.news(), list(self.own)), ([], []))

    def test_answers(self) -> None:
        self.own.answered("s", 1, ANSWER)
        self.assertEqual(self.news(), [("s", 1, ANSWER)])

    def test_which_topics_one_listens_to(self) -> None:
        self.subscribe("a", "b.*")
        (own,) = self.own
        self.assertEqual(
            [own.covers(t) for t in ("a", "b.c", "b", "c")], [True, True, False, False]
        )
