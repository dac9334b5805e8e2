"""Consumer groups, on the engine in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import (
    GroupInUse,
    IllegalGeneration,
    InvalidGroup,
    NotPartitionOwner,
    OffsetOutOfRange,
    TooManyGroups,
    UnknownGroup,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.groups import (
    LOOK,
    PER_START,
    ConsumerGroups,
    GroupDescription,
    GroupLimits,
    GroupPosition,
)
from kupool.topics.interfaces import Append
from kupool.topics.membership import GroupSubscription, MemberBeat, MemberPlace
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings

P0, P1, P2, P3 = (Partition("t", number) for number in range(4))


class GroupsTestCase(SynchronousTestCase):
    """Groups on a topic ``t`` of four partitions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.engine: Any = MemoryTopics(self.clock.seconds)
        self.settle(self.engine.create("t", TopicSettings(partitions=4)))
        self.groups = self.make()

    def make(self, **limits: Any) -> ConsumerGroups:
        groups = ConsumerGroups(self.engine, self.clock, self.clock.seconds, GroupLimits(**limits))
        self.addCleanup(groups.close)
        return groups

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def join(self, member: str, *topics: str, group: str = "g", timeout: float = 10) -> MemberPlace:
        subscription = GroupSubscription(frozenset(topics or ("t",)), timeout)
        place: MemberPlace = self.settle(self.groups.join(group, member, subscription))
        return place

    def beat(self, member: str, generation: int, *holding: Partition) -> MemberPlace:
        return self.groups.heartbeat("g", member, MemberBeat(generation, frozenset(holding)))

    def commit(self, member: str, generation: int, positions: Mapping[Partition, int]) -> Any:
        return self.groups.commit("g", member, generation, positions)

    def write(self, partition: Partition, records: int) -> None:
        self.settle(self.engine.append([Append(partition, records, b"x")]))

    def committed(self) -> Any:
        return self.settle(self.groups.committed("g"))


class MemberTests(GroupsTestCase):
    """Q-42, Q-43, Q-44, Q-46."""

    def test_members_share_the_partitions(self) -> None:
        first = self.join("a")
        self.assertEqual(first, ("a", PER_START + 1, {P0, P1, P2, P3}, set()))
        second = self.join("b")
        self.assertEqual(second[1:], (PER_START + 2, set(), set()))
        place = self.beat("a", first.generation, P0, P1, P2, P3)
        self.assertEqual((len(place.assigned), len(place.revoked)), (2, 2))
        place = self.beat("a", place.generation, *place.assigned)
        other = self.beat("b", second.generation)
        self.assertEqual(place.assigned | other.assigned, {P0, P1, P2, P3})
        self.assertEqual((len(place.assigned), len(other.assigned)), (2, 2))

    def test_one_that_leaves_or_is_silent_loses_its_partitions(self) -> None:
        """Q-44: within the session timeout and a look."""
        self.join("a", timeout=5)
        place = self.join("b", timeout=20)
        self.clock.pump([LOOK] * 10)
        self.assertEqual(self.beat("b", place.generation).assigned, {P0, P1, P2, P3})
        with self.assertRaises(UnknownMember):
            self.beat("a", place.generation)
        self.join("c")
        self.groups.leave("g", "b")
        with self.assertRaises(UnknownMember):
            self.groups.leave("g", "b")
        self.assertEqual(self.join("c").assigned, {P0, P1, P2, P3})

    def test_heartbeats_keep_a_member(self) -> None:
        place = self.join("a", timeout=5)
        for _ in range(20):
            self.clock.pump([LOOK] * 8)
            self.beat("a", place.generation, P0)
        self.clock.pump([LOOK] * 9)
        self.beat("a", place.generation, P0)
        self.clock.pump([LOOK] * 10)
        with self.assertRaises(UnknownMember):
            self.beat("a", place.generation, P0)

    def test_a_process_that_was_frozen_removes_nobody(self) -> None:
        """Q-44: the heartbeats of that time could not be read."""
        place = self.join("a", timeout=5)
        self.clock.advance(100)
        self.beat("a", place.generation, P0)
        self.clock.pump([LOOK] * 9)
        self.beat("a", place.generation, P0)

    def test_a_pause_early_in_a_session_does_not_make_it_longer(self) -> None:
        """Q-44: whoever was killed before is removed in time."""
        place = self.join("a", timeout=5)
        self.clock.advance(2.4)
        self.clock.pump([LOOK] * 5 + [0.2])
        with self.assertRaises(UnknownMember):
            self.beat("a", place.generation, P0)

    def test_after_the_last_member_nothing_is_looked_for(self) -> None:
        self.join("a")
        self.join("a", group="h")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.groups.leave("g", "a")
        self.groups.leave("h", "a")
        self.clock.advance(LOOK)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1000)
        place = self.join("a", timeout=5)
        self.clock.pump([LOOK] * 9)
        self.beat("a", place.generation)

    def test_generations_go_on_above_those_of_before(self) -> None:
        """Q-46: after a group was empty, and after a restart."""
        found = [self.join("a").generation, self.join("b").generation]
        self.groups.leave("g", "a")
        self.groups.leave("g", "b")
        found.append(self.join("a").generation)
        self.groups = self.make()
        found.append(self.join("a").generation)
        self.assertEqual(
            found, [PER_START + 1, PER_START + 2, 2 * PER_START + 1, 3 * PER_START + 1]
        )

    def test_those_who_come_together_are_in_one_group(self) -> None:
        """The first generation is read from the disk meanwhile."""
        read: Deferred[int] = Deferred()
        self.patch(self.engine, "next_generation", lambda group: read)
        wanted = GroupSubscription(frozenset(("t",)), 10)
        both = [self.groups.join("g", member, wanted) for member in ("a", "b")]
        for joined in both:
            self.assertNoResult(joined)
        read.callback(7)
        self.assertEqual(
            sorted(self.settle(joined).generation for joined in both),
            [7 * PER_START + 1, 7 * PER_START + 2],
        )

    def test_a_generation_that_cannot_be_read_fails_only_the_first(self) -> None:
        reads: list[Deferred[int]] = [Deferred(), Deferred()]
        left = iter(reads)
        self.patch(self.engine, "next_generation", lambda group: next(left))
        wanted = GroupSubscription(frozenset(("t",)), 10)
        both = [self.groups.join("g", member, wanted) for member in ("a", "b")]
        reads[0].errback(Failure(OSError("full")))
        self.failureResultOf(both[0], OSError)
        reads[1].callback(8)
        self.assertEqual(self.settle(both[1]).generation, 8 * PER_START + 1)

    def test_more_partitions_are_shared_out(self) -> None:
        place = self.join("a")
        self.settle(self.engine.change("t", TopicSettings(partitions=5)))
        after = self.beat("a", place.generation)
        self.assertEqual(after.generation, place.generation + 1)
        self.assertEqual(len(after.assigned), 5)

    def test_what_is_not_valid(self) -> None:
        def refused(
            error: Any,
            text: str,
            *,
            group: str = "g",
            member: str = "m",
            topics: tuple[str, ...] = ("t",),
            timeout: float = 10,
        ) -> None:
            wanted = GroupSubscription(frozenset(topics), timeout)
            failure = self.failureResultOf(self.groups.join(group, member, wanted), error)
            self.assertIn(text, str(failure.value))

        refused(InvalidGroup, "'a/b' is no name of a group: use 1 to 249", group="a/b")
        refused(InvalidGroup, "'' is no name of a member", member="")
        refused(InvalidGroup, "member m of group g subscribes to no topic", topics=())
        refused(UnknownTopic, "there is no topic no", topics=("t", "no"))
        for timeout in (0.99, 600.1, float("nan")):
            refused(InvalidGroup, "s: expected 1 to 600", timeout=timeout)
        self.join("m", timeout=1)
        self.join("n", timeout=600)

    def test_limits(self) -> None:
        self.groups = self.make(groups=2, members=2)
        wanted = GroupSubscription(frozenset(("t",)), 10)
        self.join("a")
        self.join("b")
        error = self.failureResultOf(self.groups.join("g", "c", wanted), TooManyGroups)
        self.assertIn("group g has 2 members already", str(error.value))
        self.join("a")
        self.join("a", group="h")
        error = self.failureResultOf(self.groups.join("i", "c", wanted), TooManyGroups)
        self.assertIn("there are 2 groups with members already", str(error.value))

    def test_the_partitions_of_one_group(self) -> None:
        """Q-42, Q-62: all members together; a join takes no longer than these take."""
        self.settle(self.engine.create("wide", TopicSettings(partitions=20)))
        self.groups = self.make(partitions=21)
        self.join("a", "wide")
        error = self.failureResultOf(
            self.groups.join("g", "b", GroupSubscription(frozenset(("t",)), 10)), TooManyGroups
        )
        self.assertIn("partitions, more than 21", str(error.value))
        self.join("b", "wide")

    def test_the_groups_of_one_owner(self) -> None:
        """Q-42, Q-62: one user does not keep all others from having groups."""
        self.groups = self.make(of_owner=2)
        wanted = GroupSubscription(frozenset(("t",)), 10)

        def join(group: str, owner: str) -> Deferred[MemberPlace]:
            return self.groups.join(group, "m", wanted, owner=owner)

        for group, owner in (("a", "ann"), ("b", "ann"), ("a", "ann"), ("c", "bob"), ("d", "")):
            self.settle(join(group, owner))
        error = self.failureResultOf(join("e", "ann"), TooManyGroups)
        self.assertIn("ann has 2 groups with members already", str(error.value))
        self.settle(join("c", "ann"))  # bob has made it
        self.groups.leave("a", "m")
        self.settle(join("e", "ann"))


class CommitTests(GroupsTestCase):
    """Q-45, Q-46."""

    def test_a_commit_of_the_owner(self) -> None:
        self.write(P0, 10)
        place = self.join("a")
        self.settle(self.commit("a", place.generation, {P0: 10, P1: 0}))
        self.assertEqual(self.committed(), {P0: 10, P1: 0})

    def test_what_is_refused_saves_nothing(self) -> None:
        self.write(P0, 10)
        place = self.join("a")
        for positions, error in (
            ({P0: 1, P1: 1}, OffsetOutOfRange),
            ({P0: -1}, OffsetOutOfRange),
            ({P0: 11}, OffsetOutOfRange),
            ({P0: 1, Partition("no", 0): 0}, NotPartitionOwner),
            ({P0: 1, Partition("t", 4): 0}, NotPartitionOwner),
        ):
            self.failureResultOf(self.commit("a", place.generation, positions), error)
        self.failureResultOf(self.commit("b", place.generation, {P0: 1}), UnknownMember)
        self.failureResultOf(self.groups.commit("h", "a", 1, {P0: 1}), UnknownMember)
        second = self.join("b")
        for generation in (place.generation, second.generation + 1):
            self.failureResultOf(self.commit("a", generation, {P0: 1}), IllegalGeneration)
        self.failureResultOf(self.commit("b", second.generation, {P0: 1}), NotPartitionOwner)
        self.assertEqual(self.committed(), {})

    def test_what_is_to_be_given_back_is_committed_before(self) -> None:
        self.write(P3, 5)
        first = self.join("a")
        self.join("b")
        place = self.beat("a", first.generation, P0, P1, P2, P3)
        moved = min(place.revoked)
        self.settle(self.commit("a", place.generation, {moved: 0}))
        self.beat("a", place.generation, *place.assigned)
        self.failureResultOf(self.commit("a", place.generation, {moved: 0}), NotPartitionOwner)

    def test_a_generation_that_ends_while_the_range_is_read(self) -> None:
        """Q-46."""
        place = self.join("a")
        extents: Deferred[Any] = Deferred()
        read = self.engine.extents
        self.patch(self.engine, "extents", lambda name: extents)
        committed = self.commit("a", place.generation, {P0: 0})
        self.join("b")
        extents.callback(self.settle(read("t")))
        self.failureResultOf(committed, IllegalGeneration)
        self.assertEqual(self.committed(), {})

    def test_a_partition_that_is_gone(self) -> None:
        place = self.join("a")
        self.patch(self.engine, "extents", lambda name: Deferred.fromCoroutine(self._none()))
        self.failureResultOf(self.commit("a", place.generation, {P0: 0}), UnknownPartition)

    async def _none(self) -> list[Any]:
        return []


class ExpiryTests(GroupsTestCase):
    """Q-44."""

    def test_a_session_ends_in_time(self) -> None:
        """Also between two looks: the partitions have another owner at once."""
        self.join("a", timeout=60)
        self.clock.advance(0.3)
        self.join("b", timeout=2)
        self.clock.pump([0.1] * 19)
        self.assertIn("b", self.settle(self.groups.describe("g")).members)
        self.clock.advance(0.1)
        members = self.settle(self.groups.describe("g")).members
        self.assertEqual(members.keys(), {"a"})
        self.assertEqual(members["a"].assigned, {P0, P1, P2, P3})


class AdminTests(GroupsTestCase):
    """Q-41, Q-48."""

    def test_names_and_lag(self) -> None:
        self.settle(self.engine.change("t", TopicSettings(partitions=4, retention_bytes=1)))
        self.write(P0, 10)
        self.write(P1, 3)
        self.write(P1, 4)
        self.settle(self.engine.trim(0))
        place = self.join("a")
        self.settle(self.commit("a", place.generation, {P0: 6}))
        self.join("z", group="h")
        self.assertEqual(self.settle(self.groups.names()), ["g", "h"])
        found: GroupDescription = self.settle(self.groups.describe("g"))
        self.assertEqual(found[:2], ("g", place.generation))
        self.assertEqual(found.members["a"].assigned, {P0, P1, P2, P3})
        self.assertEqual(
            found.positions,
            {
                P0: GroupPosition(6, 4, "a"),
                P1: GroupPosition(None, 4, "a"),
                P2: GroupPosition(None, 0, "a"),
                P3: GroupPosition(None, 0, "a"),
            },
        )
        self.groups.leave("g", "a")
        found = self.settle(self.groups.describe("g"))
        self.assertEqual((found.generation, found.members), (0, {}))
        self.assertEqual(found.positions[P0], GroupPosition(6, 4, None))
        self.failureResultOf(self.groups.describe("no"), UnknownGroup)

    def test_what_was_dropped_is_no_lag(self) -> None:
        self.settle(self.engine.change("t", TopicSettings(partitions=4, retention_bytes=1)))
        self.write(P0, 10)
        self.settle(self.engine.commit("g", {P0: 2}))
        self.write(P0, 1)
        self.settle(self.engine.trim(0))
        self.assertEqual(
            self.settle(self.groups.describe("g")).positions[P0], GroupPosition(2, 1, None)
        )

    def test_reset(self) -> None:
        """With a dry run first; not while the group has members."""
        self.write(P1, 3)

        def high(partition: Partition) -> Deferred[int]:
            found: Deferred[Any] = self.engine.extents(partition.topic)
            return found.addCallback(lambda extents: extents[partition.number].high)

        wanted = {P0: 0, P1: 3, P2: 0, P3: 0}
        self.assertEqual(self.settle(self.groups.reset("g", "t", high, dry_run=True)), wanted)
        self.assertEqual(self.committed(), {})
        self.assertEqual(self.settle(self.groups.reset("g", "t", high)), wanted)
        self.assertEqual(self.committed(), wanted)
        self.failureResultOf(self.groups.reset("g", "no", high), UnknownTopic)
        self.join("a")
        self.failureResultOf(self.groups.reset("g", "t", high), GroupInUse)
        self.failureResultOf(self.groups.delete("g"), GroupInUse)
        self.groups.leave("g", "a")
        self.settle(self.groups.delete("g"))
        self.assertEqual(self.settle(self.groups.names()), [])

    def test_lag_in_time(self) -> None:
        """Q-48: the age of the oldest record that is not committed; never a negative one."""
        self.clock.advance(1000)
        self.write(P0, 1)
        self.clock.advance(2.5)
        self.write(P0, 1)
        self.join("a")
        self.clock.advance(1)
        self.assertEqual(self.lags(), [3500, 0, 0, 0])
        self.settle(self.engine.commit("g", {P0: 1}))
        self.assertEqual(self.lags(), [1000, 0, 0, 0])
        self.settle(self.engine.commit("g", {P0: 2}))
        self.assertEqual(self.lags(), [0, 0, 0, 0])
        self.clock.rightNow -= 500
        self.write(P1, 1)
        self.write(P0, 1)
        self.clock.rightNow -= 100
        self.assertEqual(self.lags(), [0, 0, 0, 0])

    def lags(self) -> list[int]:
        """Return the lags of the partitions in milliseconds."""
        found: GroupDescription = self.settle(self.groups.describe("g"))
        return [position.lag_ms for _, position in sorted(found.positions.items())]

    def test_lag_of_records_that_are_dropped_meanwhile(self) -> None:
        """Q-48: what is dropped between two looks is passed; a topic may go, too."""
        self.settle(self.engine.change("t", TopicSettings(partitions=4, retention_bytes=1)))
        self.write(P0, 1)
        self.clock.advance(7)
        self.write(P0, 1)
        self.settle(self.engine.commit("g", {P0: 0}))
        before = self.settle(self.engine.extents("t"))
        self.settle(self.engine.trim(0))
        self.clock.advance(2)
        self.patch(self.engine, "extents", lambda name: succeed(before))
        self.assertEqual(self.lags(), [2000, 0, 0, 0])
        self.patch(self.engine, "read", lambda *_: fail(UnknownTopic("t")))
        self.assertEqual(self.lags(), [0, 0, 0, 0])
