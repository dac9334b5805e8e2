"""The members of a consumer group: Q-42, Q-43, Q-44, Q-46."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import (
    IllegalGeneration,
    NotPartitionOwner,
    TopicError,
    UnknownMember,
)
from kupool.topics.membership import (
    GroupMembership,
    GroupSubscription,
    MemberBeat,
    MemberPlace,
)
from kupool.topics.partition import Partition

_IDS = st.sampled_from("abcde")
_COUNTS = st.dictionaries(st.sampled_from("tu"), st.integers(0, 7))


def numbers(*which: int) -> frozenset[Partition]:
    return frozenset(Partition("t", number) for number in which)


class GroupTestCase(SynchronousTestCase):
    """A group of members that subscribe to the topic t, of four partitions."""

    def setUp(self) -> None:
        self.now = 100.0
        self.partitions = {"t": 4}
        self.group = GroupMembership(7, "counters")

    def join(self, member: str, *topics: str, timeout: float = 10.0) -> MemberPlace:
        subscription = GroupSubscription(frozenset(topics or ("t",)), timeout)
        return self.group.join(member, subscription, self.partitions, self.now)

    def leave(self, member: str) -> None:
        self.group.leave(member, self.partitions, self.now)

    def beat(
        self, member: str, generation: int, holding: Collection[Partition] | None = None
    ) -> MemberPlace:
        held = None if holding is None else frozenset(holding)
        beat = MemberBeat(generation, held)
        return self.group.heartbeat(member, beat, self.partitions, self.now)

    def place(self, member: str) -> MemberPlace:
        """What a member has now; the question changes nothing."""
        found = self.group.members[member]
        return MemberPlace(member, self.group.generation, found.assigned, found.revoked)


class JoinAndLeaveTests(GroupTestCase):
    """Q-42: the partitions are assigned as members come and go."""

    def test_first(self) -> None:
        self.assertTrue(self.group.empty)
        self.assertEqual(self.join("a"), MemberPlace("a", 8, numbers(0, 1, 2, 3), numbers()))
        self.assertFalse(self.group.empty)

    def test_last(self) -> None:
        self.join("a")
        self.leave("a")
        self.assertTrue(self.group.empty)
        self.assertEqual(self.group.members, {})
        self.assertEqual(self.join("b").assigned, numbers(0, 1, 2, 3))

    def test_leave_hands_over_at_once(self) -> None:
        self.join("a")
        self.join("b")
        self.leave("a")
        self.assertEqual(self.place("b").assigned, numbers(0, 1, 2, 3))

    def test_stranger(self) -> None:
        """Who is not in the group can neither leave nor beat nor commit."""
        self.join("a")
        self.leave("a")
        with self.assertRaisesRegex(UnknownMember, "^member a is not in group counters: join"):
            self.leave("a")
        self.assertRaises(UnknownMember, self.beat, "a", 8)
        self.assertRaises(UnknownMember, self.group.check, "a", self.group.generation, [])
        self.assertEqual(self.group.generation, 9)
        self.assertTrue(issubclass(UnknownMember, TopicError))

    def test_description(self) -> None:
        self.join("a", "t", "x", timeout=3.0)
        found = self.group.members["a"]
        self.assertEqual(found.topics, {"t", "x"})
        self.assertEqual((found.session_timeout, found.last_seen), (3.0, 100.0))
        self.assertEqual((found.assigned, found.revoked), (numbers(0, 1, 2, 3), numbers()))


class CooperationTests(GroupTestCase):
    """Q-42: a partition that moves has its new owner only after the old one gave it back."""

    def setUp(self) -> None:
        super().setUp()
        self.join("a")
        self.join("b")
        # Now partitions 0 and 1 move from a to b.

    def test_waits(self) -> None:
        self.assertEqual(self.place("a"), MemberPlace("a", 9, numbers(2, 3), numbers(0, 1)))
        self.assertEqual(self.place("b"), MemberPlace("b", 9, numbers(), numbers()))

    def test_given_back(self) -> None:
        """One by one; this begins no generation."""
        self.assertEqual(self.beat("a", 9, numbers(1, 2, 3)).revoked, numbers(1))
        self.assertEqual(self.place("b").assigned, numbers(0))
        self.assertEqual(self.beat("a", 9, numbers(2, 3)).revoked, numbers())
        self.assertEqual(self.place("b"), MemberPlace("b", 9, numbers(0, 1), numbers()))

    def test_beat_that_holds_all(self) -> None:
        self.assertEqual(self.beat("a", 9).revoked, numbers(0, 1))

    def test_late_beat_gives_nothing_back(self) -> None:
        """Q-43: its sender did not know what was revoked; the answer tells it."""
        answer = self.beat("a", 8, numbers())
        self.assertEqual(answer, MemberPlace("a", 9, numbers(2, 3), numbers(0, 1)))
        self.assertEqual(self.place("b").assigned, numbers())

    def test_assigned_is_not_given_back(self) -> None:
        """A member that has not begun with a partition keeps it."""
        self.assertEqual(self.beat("a", 9, numbers()).assigned, numbers(2, 3))

    def test_given_back_by_leaving(self) -> None:
        self.join("c")
        self.leave("a")
        assigned = [self.place(member).assigned for member in "bc"]
        self.assertEqual(frozenset().union(*assigned), numbers(0, 1, 2, 3))

    def test_given_back_by_expiry(self) -> None:
        self.now += 9
        self.beat("b", 9)
        self.assertEqual(self.group.expire(self.now + 1), ["a"])
        self.assertEqual(self.place("b").assigned, numbers(0, 1, 2, 3))

    def test_stays_when_the_next_owner_leaves(self) -> None:
        """Q-43: what a member has not given back yet is its own again."""
        self.leave("b")
        self.assertEqual(self.place("a"), MemberPlace("a", 10, numbers(0, 1, 2, 3), numbers()))

    def test_visitor(self) -> None:
        """Q-43: a member that leaves before anything was given back changes nothing."""
        self.partitions = {"t": 12}
        for _ in range(2):
            generation = self.beat("a", self.group.generation, numbers()).generation
        before = [self.place("a").assigned, self.place("b").assigned]
        self.assertEqual([len(share) for share in before], [6, 6])
        self.assertEqual(self.join("c").assigned, numbers())
        self.leave("c")
        self.assertEqual([self.place("a").assigned, self.place("b").assigned], before)
        self.assertEqual(self.group.generation, generation + 2)

    def test_joins_again(self) -> None:
        """Even if it left without giving back, a member has only what is free."""
        self.leave("a")
        place = self.join("a")
        self.assertEqual((place.assigned, place.revoked), (numbers(), numbers()))
        self.assertEqual(self.place("b").revoked | self.place("b").assigned, numbers(0, 1, 2, 3))

    def test_stops_to_subscribe(self) -> None:
        """A partition that nobody subscribes to any more is given back, too."""
        self.leave("b")
        place = self.join("a", "other")
        self.assertEqual((place.assigned, place.revoked), (numbers(), numbers(0, 1, 2, 3)))
        self.assertEqual(self.beat("a", place.generation, numbers()).revoked, numbers())

    def test_fewer_partitions(self) -> None:
        """What is deleted is revoked."""
        self.partitions = {"t": 3}
        self.group.partitions_changed(self.partitions, self.now)
        self.assertIn(Partition("t", 3), self.place("a").revoked)


class GenerationTests(GroupTestCase):
    """Q-43: each change begins one generation, and nothing else does."""

    def begins(self, expected: int) -> None:
        self.assertEqual(self.group.generation, expected)

    def test_changes(self) -> None:
        self.begins(7)
        self.join("a")
        self.begins(8)
        self.join("b")
        self.begins(9)
        self.join("b", "t", "x")
        self.begins(10)
        self.leave("b")
        self.begins(11)
        self.group.expire(self.now + 10)
        self.begins(12)

    def test_several_expire(self) -> None:
        self.join("a")
        self.join("b")
        self.assertEqual(self.group.expire(self.now + 10), ["a", "b"])
        self.begins(10)

    def test_number_of_partitions(self) -> None:
        """However the group learns it."""
        self.join("a")
        self.partitions = {"t": 5}
        self.group.partitions_changed(self.partitions, self.now)
        self.begins(9)
        self.group.partitions_changed(self.partitions, self.now)
        self.begins(9)
        self.partitions = {"t": 6}
        self.assertEqual(self.beat("a", 9).assigned, numbers(*range(6)))
        self.begins(10)
        self.partitions = {"t": 7}
        self.assertEqual(self.join("a").assigned, numbers(*range(7)))
        self.begins(11)

    def test_partitions_and_members(self) -> None:
        """Two changes at once are one."""
        self.join("a")
        self.partitions = {"t": 5}
        self.join("b")
        self.begins(9)

    def test_partitions_of_others(self) -> None:
        """A topic that nobody in the group subscribes to does not matter."""
        self.join("a")
        self.partitions = {"t": 4, "other": 3}
        self.beat("a", 8)
        self.group.partitions_changed(self.partitions, self.now)
        self.begins(8)
        self.join("a", "t", "other")
        self.assertIn(Partition("other", 2), self.place("a").assigned)

    def test_no_change(self) -> None:
        """Not a beat, not an expiry of nobody, not a repeated join with another timeout."""
        self.join("a")
        self.now += 1
        self.beat("a", 8)
        self.group.expire(self.now)
        self.group.forgive(self.now, 0.5)
        self.assertEqual(self.join("a", timeout=30.0).assigned, numbers(0, 1, 2, 3))
        self.begins(8)
        self.assertEqual(self.group.next_expiry(), self.now + 30)

    def test_generation_that_never_was(self) -> None:
        """Its beat changes nothing, and does not keep the member alive."""
        self.join("a")
        self.now += 5
        for generation in (9, -1):
            with self.assertRaisesRegex(IllegalGeneration, f"{generation} never was.* 8: join"):
                self.beat("a", generation, numbers())
        self.assertEqual(self.group.members["a"].last_seen, 100.0)


class SessionTests(GroupTestCase):
    """Q-44: a member is alive as long as it beats."""

    def test_timeout(self) -> None:
        self.join("a", timeout=10.0)
        self.assertEqual(self.group.next_expiry(), 110.0)
        self.assertEqual(self.group.expire(109.9), [])
        self.assertEqual(self.group.expire(110.0), ["a"])
        self.assertRaises(UnknownMember, self.beat, "a", 8)
        self.assertIsNone(self.group.next_expiry())

    def test_beat(self) -> None:
        """A beat of any generation that was counts."""
        self.join("a", timeout=10.0)
        self.now = 105.0
        self.beat("a", 7)
        self.assertEqual(self.group.next_expiry(), 115.0)
        self.assertEqual(self.group.expire(114.0), [])

    def test_beat_before_the_expiry_was_noticed(self) -> None:
        self.join("a", timeout=10.0)
        self.now = 120.0
        self.beat("a", 8)
        self.assertEqual(self.group.expire(120.0), [])

    def test_join_counts(self) -> None:
        self.join("a", timeout=10.0)
        self.now = 105.0
        self.join("a", timeout=10.0)
        self.assertEqual(self.group.next_expiry(), 115.0)

    def test_own_timeouts(self) -> None:
        """Each member has its own, and the next expiry is the nearest."""
        self.join("a", timeout=30.0)
        self.join("b", timeout=3.0)
        self.assertEqual(self.group.next_expiry(), 103.0)
        self.assertEqual(self.group.expire(103.0), ["b"])
        self.assertEqual(self.group.next_expiry(), 130.0)

    def test_never(self) -> None:
        self.join("a", timeout=inf)
        self.assertEqual(self.group.expire(1e12), [])

    def test_a_long_pause(self) -> None:
        """Each member has the time to beat that it had before the pause."""
        self.join("a", timeout=10.0)
        self.now = 103.0
        self.join("b", timeout=20.0)
        self.group.forgive(1000.0, 1000.0 - 104.0)
        self.assertEqual(self.group.expire(1005.9), [])
        self.assertEqual(self.group.expire(1006.0), ["a"])
        self.assertEqual(self.group.next_expiry(), 1019.0)

    def test_a_short_pause_within_the_session(self) -> None:
        """A member that was killed before is removed as if there had been none: one that lives
        beats when the pause is over.
        """
        self.join("a", timeout=5.0)
        for end in (101.5, 103.0, 104.0):
            self.group.forgive(end, 1.0)
            self.assertEqual(self.group.next_expiry(), 105.0)

    def test_a_short_pause_at_the_end_of_the_session(self) -> None:
        """As long after the pause as it took."""
        self.join("a", timeout=5.0)
        self.group.forgive(104.5, 1.0)
        self.assertEqual(self.group.next_expiry(), 105.5)
        self.group.forgive(107.0, 2.0)
        self.assertEqual(self.group.next_expiry(), 107.5)

    @given(st.floats(0, 1e9), st.floats(0.001, 1e5))
    def test_due_at_the_next_expiry(self, now: float, timeout: float) -> None:
        """Who asks when the next session ends finds it ended then, in spite of rounding."""
        group = GroupMembership(0, "g")
        group.join("a", GroupSubscription(frozenset("t"), timeout), {"t": 1}, now)
        self.assertEqual(group.expire(group.next_expiry() or 0.0), ["a"])


class CommitTests(GroupTestCase):
    """Q-46: only who holds a partition commits, and only in the current generation."""

    def setUp(self) -> None:
        super().setUp()
        self.join("a")
        self.join("b")
        self.beat("a", 9, numbers(0, 2, 3))
        # Partition 0 is still to be given back by a; 1 is b's already.

    def test_held(self) -> None:
        """What is revoked can be committed until it is given back."""
        self.group.check("a", 9, numbers(0, 2, 3))
        self.group.check("b", 9, numbers(1))

    def test_not_held(self) -> None:
        for member, partition in (("a", 1), ("b", 0), ("b", 3), ("a", 9)):
            with self.assertRaisesRegex(NotPartitionOwner, f"{member} does not.* t/{partition}:"):
                self.group.check(member, 9, numbers(partition))

    def test_one_of_several(self) -> None:
        with self.assertRaises(NotPartitionOwner) as caught:
            self.group.check("a", 9, [Partition("t", 0), Partition("t", 1)])
        self.assertEqual(caught.exception.partition, Partition("t", 1))

    def test_other_generation(self) -> None:
        for generation, text in ((8, "has ended: learn generation 9"), (10, "never was")):
            with self.assertRaisesRegex(IllegalGeneration, text) as caught:
                self.group.check("a", generation, numbers(2))
            self.assertEqual(caught.exception.generation, generation)
            self.assertEqual(caught.exception.current, 9)

    def test_after_expiry(self) -> None:
        self.group.expire(self.now + 10)
        self.assertRaises(UnknownMember, self.group.check, "a", 9, numbers(2))


class Member:
    """A client as it should be: it works on what the last answer that it got allows."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        self.generation = 0
        self.works: set[Partition] = set()

    def beat(self) -> MemberBeat:
        return MemberBeat(self.generation, frozenset(self.works))

    def learn(self, place: MemberPlace, slow: bool = False) -> None:
        """Begin with what is assigned, and stop what is revoked, unless it is slow."""
        self.generation = place.generation
        self.works = set(place.assigned) | (self.works & place.revoked if slow else set())


class Group(RuleBasedStateMachine):
    """Members that join, leave, fall silent and beat, with answers that are late or lost."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.partitions = {"t": 5, "u": 2}
        self.group = GroupMembership(3, "g")
        self.alive: dict[str, Member] = {}
        self.sent: list[tuple[str, MemberBeat]] = []
        self.newest = 3

    @rule(member=_IDS, topics=st.sampled_from(["t", "u", "tu"]), lost=st.booleans())
    def join(self, member: str, topics: str, lost: bool) -> None:
        subscription = GroupSubscription(frozenset(topics), 10.0)
        place = self.group.join(member, subscription, self.partitions, self.now)
        client = self.alive[member] = Member(member)
        if not lost:
            client.learn(place)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.alive)))
        self.group.leave(member, self.partitions, self.now)
        del self.alive[member]

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        for member in self.group.expire(self.now):
            del self.alive[member]
        assert self.alive.keys() == self.group.members.keys()

    @rule(counts=_COUNTS)
    def change_partitions(self, counts: dict[str, int]) -> None:
        self.partitions = counts
        self.group.partitions_changed(counts, self.now)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), slow=st.booleans(), lost=st.booleans())
    def beat(self, data: st.DataObject, slow: bool, lost: bool) -> None:
        client = self.alive[data.draw(st.sampled_from(sorted(self.alive)))]
        self.send(client, slow, lost)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def late_beat(self, data: st.DataObject) -> None:
        """A beat comes once more, and long after it was sent; nobody gets the answer."""
        member, beat = data.draw(st.sampled_from(self.sent))
        try:
            self.group.heartbeat(member, beat, self.partitions, self.now)
        except UnknownMember:
            assert member not in self.alive

    @rule()
    def everybody_beats_twice(self) -> None:
        """Q-42: then all partitions have an owner."""
        for _ in range(2):
            for client in self.alive.values():
                self.send(client, False, False)
        wanted = set().union(*(m.topics for m in self.group.members.values()))
        every = {
            Partition(topic, number)
            for topic, count in self.partitions.items()
            for number in range(count)
            if topic in wanted
        }
        assigned = [p for m in self.group.members.values() for p in m.assigned]
        assert sorted(assigned) == sorted(every)
        assert not any(m.revoked for m in self.group.members.values())

    def send(self, client: Member, slow: bool, lost: bool) -> None:
        beat = client.beat()
        self.sent.append((client.member_id, beat))
        place = self.group.heartbeat(client.member_id, beat, self.partitions, self.now)
        assert place.generation == self.group.generation
        if not lost:
            client.learn(place, slow)

    @invariant()
    def one_holder(self) -> None:
        """Q-42: in the eyes of the group, and among those who do the work."""
        held = [p for m in self.group.members.values() for p in (*m.assigned, *m.revoked)]
        assert len(held) == len(set(held)), held
        worked = [p for client in self.alive.values() for p in client.works]
        assert len(worked) == len(set(worked)), worked

    @invariant()
    def only_what_is_subscribed(self) -> None:
        for member in self.group.members.values():
            assert {p.topic for p in member.assigned} <= member.topics

    @invariant()
    def generations_grow(self) -> None:
        """Q-43"""
        assert self.group.generation >= self.newest
        self.newest = self.group.generation

    @invariant()
    def commits(self) -> None:
        """Q-46: all commits of the current generation are taken, and none of an older one."""
        for client in self.alive.values():
            try:
                self.group.check(client.member_id, client.generation, client.works)
            except IllegalGeneration:
                assert client.generation != self.group.generation
            else:
                assert client.generation == self.group.generation
            for partition in client.works:
                self.refuses_others(client, partition)

    def refuses_others(self, client: Member, partition: Partition) -> None:
        for other in self.alive.keys() - {client.member_id}:
            try:
                self.group.check(other, self.group.generation, [partition])
            except NotPartitionOwner:
                continue
            raise AssertionError(f"{other} commits {partition}, {client.member_id} works on it")


class AnyOrderTests(SynchronousTestCase):
    """Q-42, Q-43, Q-44, Q-46: whatever happens in whatever order."""

    def test_any_order(self) -> None:
        run_state_machine_as_test(
            Group, settings=settings(max_examples=100, stateful_step_count=40)
        )

    @given(st.integers(0, 30), st.lists(st.tuples(_IDS, st.booleans()), max_size=15))
    def test_moves(self, count: int, changes: list[tuple[str, bool]]) -> None:
        """Q-43: a join, a leave or an expiry moves at most ceil(P/M) partitions."""
        partitions = {"t": count}
        group, alive, now = GroupMembership(0, "g"), dict[str, Member](), 0.0

        def settle() -> dict[Partition, str]:
            for _ in range(3):
                for client in alive.values():
                    beat = client.beat()
                    client.learn(group.heartbeat(client.member_id, beat, partitions, now))
            return {p: client.member_id for client in alive.values() for p in client.works}

        for member, by_expiry in changes:
            before, largest = settle(), len(alive)
            if member not in alive:
                alive[member] = Member(member)
                timeout = 10.0 if by_expiry else inf
                subscription = GroupSubscription(frozenset("t"), timeout)
                group.join(member, subscription, partitions, now)
                largest += 1
            elif group.members[member].session_timeout == inf:
                group.leave(member, partitions, now)
                del alive[member]
            else:
                now += 5
                del alive[member]
                settle()
                now += 5
                self.assertEqual(group.expire(now), [member])
            after = settle()
            if alive:
                self.assertEqual(len(after), count)
                moved = sum(after[partition] != owner for partition, owner in before.items())
                self.assertLessEqual(moved, ceil(count / largest))
