"""The leases of groups: kept while they are held, and lost when another node has taken them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.topics.errors import TopicsUnavailable, WrongNode
from kupool.topics.leases import IGroupLeases, OnlyNode
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.leases import NodeName, StoreLeases
from kupool.topics.rabbit.statements import GroupLease


class LeaseRows:
    """A store that has the rows of leases in memory; its clock is that of the test."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Group -> the lease, and until when.
        self.rows: dict[str, tuple[GroupLease, float]] = {}
        self.away = False

    def run(self, work: partial[Any]) -> Deferred[Any]:
        if self.away:
            return fail(TopicsUnavailable("away"))
        answers: dict[Callable[..., Awaitable[Any]], Callable[..., Any]] = {
            statements.take_lease: self.take,
            statements.keep_leases: self.keep,
            statements.drop_leases: self.drop,
        }
        return maybeDeferred(answers[work.func], **work.keywords)

    def take(self, group: str, node: str, address: str, seconds: float) -> GroupLease:
        now = self._clock.seconds()
        known, until = self.rows.get(group, (GroupLease("", "", 0), 0.0))
        if known.node in ("", node) or until < now:
            term = known.term + (known.node != node)
            self.rows[group] = (GroupLease(node, address, term), now + seconds)
        return self.rows[group][0]

    def keep(self, node: str, terms: dict[str, int], seconds: float) -> set[str]:
        kept = {g for g, term in terms.items() if self.rows[g][0][::2] == (node, term)}
        for group in kept:
            self.rows[group] = (self.rows[group][0], self._clock.seconds() + seconds)
        return kept

    def drop(self, node: str, groups: list[str]) -> None:
        for group in groups:
            self.rows[group] = (self.rows[group][0], 0.0)


class LeaseTests(SynchronousTestCase):
    """Q-36, Q-46: one node leads a group at a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.store = LeaseRows(self.clock)
        self.lost: list[str] = []
        self.a, self.b = self.make("a"), self.make("b")
        self.a.watch(self.lost.append)

    def make(self, name: str) -> StoreLeases:
        return StoreLeases(self.store, self.clock, NodeName(name, lambda: f"{name}:1"), seconds=9)

    def hold(self, leases: StoreLeases, group: str = "g") -> None:
        self.assertIs(self.successResultOf(leases.hold(group)), None)

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IGroupLeases, self.a))
        only = OnlyNode()
        self.assertTrue(verifyObject(IGroupLeases, only))
        self.assertTrue(only.holds("g"))

    def test_the_other_node_is_named(self) -> None:
        """Q-36: by its address, for clients to go there."""
        self.hold(self.a)
        error = self.failureResultOf(self.b.hold("g"), WrongNode).value
        self.assertEqual((error.group, error.address), ("g", "a:1"))
        self.assertIn("a:1", str(error))
        self.assertEqual((self.a.holds("g"), self.b.holds("g")), (True, False))

    def test_it_is_kept_for_as_long_as_it_is_held(self) -> None:
        self.hold(self.a)
        self.clock.pump([1.0] * 60)
        self.assertTrue(self.a.holds("g"))
        self.failureResultOf(self.b.hold("g"), WrongNode)
        self.assertEqual(self.lost, [])

    def test_a_store_that_is_away_for_too_long_ends_it(self) -> None:
        """Q-46: on the node's own clock, from before it asked; before another one can have it."""
        self.hold(self.a)
        self.store.away = True
        self.clock.pump([1.0] * 8)
        self.assertTrue(self.a.holds("g"))
        self.clock.pump([1.0])
        self.assertFalse(self.a.holds("g"))
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.lost, ["g"])
        self.store.away = False
        self.hold(self.b)

    def test_one_that_was_taken_over_is_lost(self) -> None:
        """Q-46: also if this node gets it again: what it knew of the group is old."""
        self.hold(self.a)
        first = self.a.fence("g")
        self.store.rows["g"] = (GroupLease("b", "b:1", 2), 0.0)
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.lost, ["g"])
        self.hold(self.a)
        self.assertGreater(self.a.fence("g").term, first.term)

    def test_one_that_is_released_is_free_at_once(self) -> None:
        self.hold(self.a)
        self.a.release("g")
        self.clock.advance(0.1)
        self.hold(self.b)
        self.assertEqual(self.lost, [])
        self.assertFalse(self.a.holds("g"))

    def test_closed(self) -> None:
        self.hold(self.a)
        self.hold(self.a, "h")
        self.successResultOf(Deferred.fromCoroutine(self.a.close()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(0.1)
        self.hold(self.b, "h")
