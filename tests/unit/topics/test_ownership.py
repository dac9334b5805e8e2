"""Who owns each partition, and who works on it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.ownership import PartitionOwnership
from kupool.topics.partition import Partition

P, Q = Partition("t", 0), Partition("t", 1)


class OwnershipTests(SynchronousTestCase):
    """Q-42: a partition never has two holders, and an owner waits for its holder."""

    def setUp(self) -> None:
        self.ownership = PartitionOwnership()
        self.ownership.change_owners({"a": [P, Q]})

    def has(self, member: str, assigned: set[Partition], revoked: set[Partition]) -> None:
        self.assertEqual(self.ownership.assigned(member), assigned)
        self.assertEqual(self.ownership.revoked(member), revoked)
        held = {p for p in (P, Q) if self.ownership.holds(member, p)}
        self.assertEqual(held, assigned | revoked)

    def test_free(self) -> None:
        """An owner holds at once what nobody holds."""
        self.has("a", {P, Q}, set())
        self.assertEqual(self.ownership.shares(), {"a": [P, Q]})
        self.assertEqual(self.ownership.holders, {P: "a", Q: "a"})

    def test_moves(self) -> None:
        self.ownership.change_owners({"a": [P], "b": [Q]})
        self.has("a", {P}, {Q})
        self.has("b", set(), set())
        self.assertEqual(self.ownership.shares(), {"a": [P], "b": [Q]})
        self.ownership.give_back("a", [P])
        self.has("a", {P}, set())
        self.has("b", {Q}, set())

    def test_kept(self) -> None:
        """A member keeps what it still works on, for as long as it does."""
        self.ownership.change_owners({"b": [P, Q]})
        self.ownership.give_back("a", [Q])
        self.has("a", set(), {Q})
        self.has("b", {P}, set())

    def test_assigned_is_not_given_back(self) -> None:
        self.ownership.give_back("a", [])
        self.has("a", {P, Q}, set())

    def test_moves_back(self) -> None:
        """What is assigned again before it was given back needs not be given back."""
        self.ownership.change_owners({"b": [P, Q]})
        self.ownership.change_owners({"a": [P, Q]})
        self.has("a", {P, Q}, set())
        self.has("b", set(), set())

    def test_moves_on(self) -> None:
        """The last owner gets it, not the one between."""
        self.ownership.change_owners({"b": [P, Q]})
        self.ownership.change_owners({"c": [P, Q]})
        self.ownership.give_back("a", [])
        self.has("b", set(), set())
        self.has("c", {P, Q}, set())

    def test_no_owner(self) -> None:
        """What nobody owns any more is given back, too."""
        self.ownership.change_owners({"a": [P]})
        self.has("a", {P}, {Q})
        self.ownership.give_back("a", [])
        self.has("a", {P}, set())
        self.assertEqual(self.ownership.holders, {P: "a"})

    def test_gone(self) -> None:
        """What a member held that is gone belongs to those who own it next."""
        self.ownership.change_owners({"a": [P], "b": [Q]})
        self.ownership.remove("a")
        self.has("a", set(), set())
        self.assertEqual(self.ownership.shares(), {"b": [Q]})
        self.ownership.change_owners({"c": [P, Q]})
        self.has("b", set(), set())
        self.has("c", {P, Q}, set())
