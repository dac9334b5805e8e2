"""Which member of a consumer group owns which partition: Q-42, Q-43."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from math import ceil
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.assignment import assign
from kupool.topics.partition import Partition
from tests.requirements import ROOT

Shares = dict[str, frozenset[Partition]]

_MEMBERS = st.sampled_from([f"m{n}" for n in range(8)])
_TOPICS = st.sampled_from(["a", "b", "c", "d"])
_PARTITIONS = st.dictionaries(_TOPICS, st.integers(0, 9))
_SUBSCRIPTIONS = st.dictionaries(_MEMBERS, st.frozensets(_TOPICS))
_HELD = st.dictionaries(
    _MEMBERS, st.frozensets(st.builds(Partition, _TOPICS, st.integers(0, 11)), max_size=12)
)
_WORKING = st.dictionaries(st.builds(Partition, _TOPICS, st.integers(0, 11)), _MEMBERS)


def numbers(topic: str, *which: int) -> frozenset[Partition]:
    return frozenset(Partition(topic, number) for number in which)


def all_of(counts: Mapping[str, int]) -> set[Partition]:
    return {Partition(topic, number) for topic, count in counts.items() for number in range(count)}


def same(members: Iterable[str], *topics: str) -> dict[str, frozenset[str]]:
    return {member: frozenset(topics) for member in members}


def owners(shares: Mapping[str, Collection[Partition]]) -> dict[Partition, str]:
    return {partition: member for member, share in shares.items() for partition in share}


def moves(before: Shares, after: Shares) -> int:
    """How many partitions have another owner."""
    now = owners(after)
    return sum(now[partition] != member for partition, member in owners(before).items())


class OwnerTests(SynchronousTestCase):
    """Q-42: each partition has exactly one owner, which subscribes to its topic."""

    @given(_PARTITIONS, _SUBSCRIPTIONS, _HELD, _WORKING)
    def test_one_owner(
        self,
        partitions: dict[str, int],
        members: dict[str, frozenset[str]],
        held: Shares,
        working: dict[Partition, str],
    ) -> None:
        shares = assign(partitions, members, held, working=working)
        self.assertEqual(shares.keys(), members.keys())
        wanted = frozenset().union(*members.values())
        expected = all_of({t: count for t, count in partitions.items() if t in wanted})
        self.assertEqual(sum(map(len, shares.values())), len(expected))
        self.assertEqual(owners(shares).keys(), expected)
        for partition, owner in owners(shares).items():
            self.assertIn(partition.topic, members[owner])

    def test_nobody(self) -> None:
        self.assertEqual(assign({"t": 3}, {}, {"gone": numbers("t", 0)}), {})

    def test_topic_without_partitions(self) -> None:
        self.assertEqual(assign({"t": 0}, same(["a"], "t", "unknown"), {}), {"a": frozenset()})

    def test_text_of_a_partition(self) -> None:
        self.assertEqual(str(Partition("blocks", 3)), "blocks/3")


class BalanceTests(SynchronousTestCase):
    """Q-42: the load is even."""

    @given(_PARTITIONS, _SUBSCRIPTIONS, _HELD, _WORKING)
    def test_same_subscription(
        self,
        partitions: dict[str, int],
        members: dict[str, frozenset[str]],
        held: Shares,
        working: dict[Partition, str],
    ) -> None:
        """The counts of members with the same subscription differ by at most one."""
        shares = assign(partitions, members, held, working=working)
        for topics in set(members.values()):
            counts = [len(shares[m]) for m, theirs in members.items() if theirs == topics]
            self.assertLessEqual(max(counts) - min(counts), 1)

    def test_different_subscriptions(self) -> None:
        """The member that alone subscribes to a topic gets less of the shared one."""
        members = {"a": {"shared", "own"}, "b": {"shared"}}
        shares = assign({"shared": 4, "own": 2}, members, {})
        self.assertEqual({m: len(share) for m, share in shares.items()}, {"a": 3, "b": 3})

    def test_fewest_possible_owners_first(self) -> None:
        """Otherwise a or c would take the shared topic, and b would have nothing."""
        members = {"a": {"x", "shared"}, "b": {"shared"}, "c": {"x", "shared", "own"}}
        shares = assign({"x": 1, "own": 1, "shared": 1}, members, {})
        self.assertEqual({m: len(share) for m, share in shares.items()}, {"a": 1, "b": 1, "c": 1})

    def test_moves_all_that_it_can(self) -> None:
        """The others of a are for a alone."""
        held = {"a": numbers("own", 0, 1, 2) | numbers("shared", 0)}
        shares = assign({"own": 3, "shared": 1}, {"a": {"own", "shared"}, "b": {"shared"}}, held)
        self.assertEqual(shares, {"a": numbers("own", 0, 1, 2), "b": numbers("shared", 0)})

    def test_one_move_makes_another_possible(self) -> None:
        """b can relieve a only after c has relieved b."""
        members = {"a": {"x"}, "b": {"x", "y"}, "c": {"y"}}
        held = {"a": numbers("x", 0, 1, 2, 3), "b": numbers("y", 0, 1, 2, 3)}
        shares = assign({"x": 4, "y": 4}, members, held)
        counts = [len(shares[m]) for m in "abc"]
        self.assertLessEqual(max(counts) - min(counts), 1)


class StickyTests(SynchronousTestCase):
    """Q-43: a partition stays where it is unless balance or a subscription demands otherwise."""

    @given(_PARTITIONS, _SUBSCRIPTIONS, _HELD)
    def test_nothing_moves_without_a_change(
        self, partitions: dict[str, int], members: dict[str, frozenset[str]], held: Shares
    ) -> None:
        shares = assign(partitions, members, held)
        self.assertEqual(assign(partitions, members, shares), shares)

    @given(st.integers(0, 40), st.sets(_MEMBERS, min_size=1), _MEMBERS)
    def test_join(self, count: int, ids: set[str], new: str) -> None:
        ids.discard(new)
        before = assign({"t": count}, same(ids, "t"), {})
        ids.add(new)
        after = assign({"t": count}, same(ids, "t"), before)
        self.assertLessEqual(moves(before, after) if before else 0, ceil(count / len(ids)))
        for member in ids - {new}:
            self.assertLessEqual(after[member], before[member], "only the new member gets more")

    @given(st.integers(0, 40), st.sets(_MEMBERS, min_size=2), st.data())
    def test_leave(self, count: int, ids: set[str], data: st.DataObject) -> None:
        """Whoever still works on the partitions of the leaver: no other partition moves."""
        before = assign({"t": count}, same(ids, "t"), {})
        gone = data.draw(st.sampled_from(sorted(ids)))
        ids.remove(gone)
        workers = st.sampled_from(sorted(ids))
        working = {p: data.draw(workers) for p in sorted(before[gone]) if data.draw(st.booleans())}
        left = {member: before[member] for member in ids}
        after = assign({"t": count}, same(ids, "t"), left, working=working)
        self.assertLessEqual(moves(before, after), ceil(count / (len(ids) + 1)))
        for member in ids:
            self.assertLessEqual(before[member], after[member], "the others keep what they have")

    @given(st.integers(0, 40), st.integers(0, 40), st.sets(_MEMBERS, min_size=1))
    def test_moves_are_only_for_balance(self, count: int, held: int, ids: set[str]) -> None:
        """From any distribution: as many moves as the new balance needs, and not one more."""
        first = min(ids)
        before = {first: numbers("t", *range(min(held, count)))}
        after = assign({"t": count}, same(ids, "t"), before)
        self.assertEqual(len(before[first] & after[first]), min(held, ceil(count / len(ids))))

    def test_new_partitions(self) -> None:
        """More partitions of a topic take none away from anybody."""
        before = assign({"t": 4}, same("ab", "t"), {})
        after = assign({"t": 7}, same("ab", "t"), before)
        self.assertEqual(moves(before, after), 0)
        self.assertEqual(sorted(map(len, after.values())), [3, 4])

    def test_subscription_ends(self) -> None:
        """What a member does not subscribe to any more goes to another; the rest stays."""
        held = {"a": numbers("x", 0) | numbers("y", 0), "b": numbers("x", 1) | numbers("y", 1)}
        after = assign({"x": 2, "y": 2}, {"a": {"x"}, "b": {"x", "y"}}, held)
        self.assertEqual(after, {"a": numbers("x", 0, 1), "b": numbers("y", 0, 1)})

    def test_goes_back_to_who_works_on_it(self) -> None:
        """What has no owner stays with the members that have not given it back."""
        held = {"a": numbers("t", 0, 1), "b": numbers("t", 4, 5)}
        working = {Partition("t", 2): "b", Partition("t", 3): "a"}
        after = assign({"t": 6}, same("ab", "t"), held, working=working)
        self.assertEqual(after, {"a": numbers("t", 0, 1, 3), "b": numbers("t", 2, 4, 5)})

    def test_takes_what_has_not_arrived(self) -> None:
        """A member rather loses a partition that it does not work on yet."""
        held = {"a": numbers("t", 0, 1, 2)}
        working = {Partition("t", 2): "c"}
        after = assign({"t": 3}, same("ab", "t"), held, working=working)
        self.assertEqual(after["b"], numbers("t", 2))

    def test_claimed_twice(self) -> None:
        """Of two members that claim a partition, one keeps it."""
        held = {"b": numbers("t", 0), "a": numbers("t", 0)}
        self.assertEqual(assign({"t": 1}, same("ab", "t"), held)["a"], numbers("t", 0))


class DeterminismTests(SynchronousTestCase):
    """Q-42: the same input has the same result."""

    @given(_PARTITIONS, _SUBSCRIPTIONS, _HELD, st.randoms(use_true_random=False))
    def test_any_order(
        self,
        partitions: dict[str, int],
        members: dict[str, frozenset[str]],
        held: Shares,
        random: Random,
    ) -> None:
        """Whatever the order of the mappings and of what is in them."""

        def shuffled(items: Iterable[Any]) -> list[Any]:
            return random.sample(found := sorted(items), len(found))

        shares = assign(
            dict(shuffled(partitions.items())),
            {member: shuffled(members[member]) for member in shuffled(members)},
            {member: shuffled(held[member]) for member in shuffled(held)},
        )
        self.assertEqual(shares, assign(partitions, members, held))

    def test_any_hash(self) -> None:
        """The order of sets of strings differs between processes, the result does not."""
        script = (
            "from kupool.topics.assignment import assign\n"
            "members = {f'm{n}': {f't{k}' for k in range(9) if (n + k) % 4} for n in range(9)}\n"
            "shares = assign({f't{k}': k for k in range(9)}, members, {})\n"
            "print({member: sorted(share) for member, share in shares.items()})\n"
        )
        found = {
            subprocess.run(
                [sys.executable, "-c", script],
                cwd=ROOT,
                env={"PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2", "3")
        }
        self.assertEqual(len(found), 1)


class LargeGroupTests(SynchronousTestCase):
    """Q-43: 1,000 partitions and 100 members."""

    def test_large(self) -> None:
        ids = [f"m{n:03}" for n in range(100)]
        before = assign({"t": 1000}, same(ids, "t"), {})
        self.assertEqual({len(share) for share in before.values()}, {10})
        after = assign({"t": 1000}, same([*ids, "new"], "t"), before)
        self.assertEqual(moves(before, after), 9)
        left = assign({"t": 1000}, same(ids[1:], "t"), before)
        self.assertEqual(moves({m: before[m] for m in ids[1:]}, left), 0)
