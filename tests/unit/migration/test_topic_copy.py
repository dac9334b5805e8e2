"""Q-37, Q-85: topics are copied while they are written to, in order, and go on after a kill."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.migration import CannotMove
from kupool.migration.topic_copy import MARKED, TopicCopier
from kupool.migration.topic_groups import GroupMover
from kupool.migration.topic_progress import TopicMoveProgress
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.errors import TopicsUnavailable
from kupool.topics.interfaces import Append, StoredBatch
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.settings import TopicSettings
from tests.fakes.topic_source import EngineSource

P0, P1 = Partition("t", 0), Partition("t", 1)


class Told:
    """A report that counts."""

    def __init__(self) -> None:
        self.total = self.steps = 0

    def begin(self, text: str, total: int) -> None:
        self.total += total

    def advance(self, steps: int) -> None:
        self.steps += steps


class MoveCase(SynchronousTestCase):
    """Two engines in memory."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "topic-move.sqlite"
        self.now = 1000.0
        self.old, self.new = MemoryTopics(self.wall), MemoryTopics(self.wall)
        self.source = EngineSource(self.old)
        self.codec = RecordCodec()
        self.number = 0
        self.report = Told()
        self.progress = TopicMoveProgress(self.path)
        self.addCleanup(lambda: self.progress.close())
        self.run_(self.old.create("t", TopicSettings(partitions=2)))

    def wall(self) -> float:
        self.now += 1
        return self.now

    def run_(self, result: Any) -> Any:
        return self.successResultOf(
            result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)
        )

    def append(self, *sizes: int, partition: Partition = P0, **more: Any) -> list[int]:
        """Append batches with these numbers of records to the old side."""
        appends = []
        for size in sizes:
            self.number += 1
            records = [NewRecord(b"%d" % n, **more) for n in range(size)]
            body = self.codec.encode(records, f"b{self.number}", 5, Compression())
            appends.append(Append(partition, size, body))
        found: list[int] = self.run_(self.old.append(appends))
        return found

    def batches(self, engine: MemoryTopics, partition: Partition = P0) -> Sequence[StoredBatch]:
        low = self.run_(engine.extents(partition.topic))[partition.number].low
        found: Sequence[StoredBatch] = self.run_(engine.read(partition, low, 10**9))
        return found

    def bodies(self, engine: MemoryTopics, partition: Partition = P0) -> list[bytes]:
        return [batch.body for batch in self.batches(engine, partition)]

    def copier(self) -> TopicCopier:
        return TopicCopier(self.source, self.new, self.progress, self.report)

    def copy(self) -> int:
        """Copy and verify, as a new process does; returns how many records."""
        copier = self.copier()
        copied: int = self.run_(copier.copy())
        self.run_(copier.verify())
        return copied

    def again(self) -> None:
        """Go on with what another process would find."""
        self.progress.close()
        self.progress = TopicMoveProgress(self.path)

    def refusal(self, running: Any) -> str:
        """Return why a copy cannot be made."""
        return str(self.failureResultOf(Deferred.fromCoroutine(running), CannotMove).value)

    def mapped(self, offset: int, partition: Partition = P0) -> int:
        mover = GroupMover(self.source, self.new, self.progress, lambda n: n + 1000)
        found: int = self.run_(mover.position_of(partition, offset))
        return found


class CopyTests(MoveCase):
    def test_batches_are_copied_as_they_are(self) -> None:
        """Q-37: bodies, numbers of records, order and times are those of the source."""
        self.append(2, 3)
        self.append(1, partition=P1)
        self.assertEqual(self.copy(), 6)
        for partition in (P0, P1):
            self.assertEqual(self.batches(self.new, partition), self.batches(self.old, partition))
        self.assertEqual(self.new.topic("t"), self.old.topic("t"))
        self.assertEqual((self.report.steps, self.report.total), (12, 12))

    def test_what_is_written_meanwhile(self) -> None:
        """Q-37: each pass copies what the one before left, and nothing twice."""
        for _ in range(3):
            self.append(2, 1)
            self.again()
            self.assertEqual(self.copy(), 3)
        self.assertEqual(self.copy(), 0)
        self.assertEqual(self.bodies(self.new), self.bodies(self.old))

    def test_after_a_kill(self) -> None:
        """Q-37: batches that arrived, though nobody noted it, are found and not copied again."""
        self.append(2, 1, 4)
        body = self.bodies(self.old)[0]
        self.copy()
        self.append(1, 5)
        bodies = self.bodies(self.old)
        self.run_(self.new.append([Append(P0, 1, bodies[3])]))
        self.again()
        self.assertEqual(self.copy(), 6)
        self.assertEqual(self.bodies(self.new), bodies)
        self.assertEqual(bodies[0], body)
        self.assertEqual(self.mapped(8), 8)

    def test_before_the_first_note(self) -> None:
        """The topic is made, and nothing of it is noted yet."""
        self.append(2, 1)
        self.run_(self.new.create("t", TopicSettings()))
        self.progress.begin("t", self.source.identity("t"))
        self.run_(self.new.append([Append(P0, 2, self.bodies(self.old)[0])]))
        self.copy()
        self.assertEqual(self.bodies(self.new), self.bodies(self.old))

    def test_records_of_others(self) -> None:
        """What somebody else wrote to the new side is neither deleted nor mixed with ours."""
        self.append(2)
        self.copy()
        self.run_(self.new.append([Append(P0, 1, b"of somebody else")]))
        self.again()
        self.assertIn(
            "partition 0 of topic t has other records in the target from offset 2",
            self.refusal(self.copier().copy()),
        )

    def test_a_topic_that_is_there_already(self) -> None:
        self.run_(self.new.create("t", TopicSettings()))
        self.assertIn("the target has a topic t already", self.refusal(self.copier().copy()))

    def test_a_copy_that_differs(self) -> None:
        """Q-37: count and checksum are of what the target gives back."""
        self.append(2, 3)
        copier = self.copier()
        self.run_(copier.copy())
        read = self.new.read

        def other(partition: Partition, offset: int, size: int) -> Any:
            return read(partition, offset, size).addCallback(
                lambda found: [batch._replace(body=batch.body[:-1] + b"!") for batch in found]
            )

        self.patch(self.new, "read", other)
        self.assertIn(
            "the target has 5 records in 2 batches, and 5 in 2 were copied, or others",
            self.refusal(copier.verify()),
        )

    def test_checksums(self) -> None:
        """Q-37: they are over ids, numbers and bodies in order, whatever pieces were copied."""
        self.append(2, 3)
        self.copy()
        self.append(1)
        self.copy()
        at_once = TopicMoveProgress(self.path.with_name("other"))
        self.addCleanup(at_once.close)
        copier = TopicCopier(self.source, MemoryTopics(self.wall), at_once, self.report)
        self.run_(copier.copy())
        self.run_(copier.verify())
        self.assertEqual(copier.compared(), self.copier().compared())
        tally = copier.compared()[P0]
        self.assertEqual((tally.batches, tally.records), (3, 6))
        self.assertEqual(len(tally.checksum), 32)

    def test_topics_come_and_go(self) -> None:
        """Q-37: what is deleted, made anew or changed in the source is so in the target."""
        self.append(2)
        self.run_(self.old.create("gone", TopicSettings()))
        self.copy()
        self.run_(self.old.delete("gone"))
        self.run_(self.old.delete("t"))
        self.run_(self.old.create("t", TopicSettings(partitions=1)))
        self.source.identities["t"] = "another"
        self.append(1)
        self.copy()
        self.assertEqual(list(self.new.topics()), ["t"])
        self.assertEqual(self.bodies(self.new), self.bodies(self.old))
        self.run_(self.old.change("t", TopicSettings(partitions=3, retention_time=9)))
        self.append(4, partition=Partition("t", 2))
        self.copy()
        self.assertEqual(self.new.topic("t"), TopicSettings(partitions=3, retention_time=9))
        self.assertEqual(len(self.bodies(self.new, Partition("t", 2))), 1)

    def test_records_that_are_dropped_meanwhile(self) -> None:
        """Q-11: retention goes on in the source: what was copied stays, the rest is copied."""
        self.append(2, 3)
        self.copy()
        self.append(4, 5)
        self.run_(self.old.drop_below(P0, 9))
        self.copy()
        bodies = self.bodies(self.new)
        self.assertEqual(len(bodies), 3)
        self.assertEqual(bodies[2:], self.bodies(self.old))

    def test_marks_of_producers(self) -> None:
        """Q-24: what a producer sends again after the move gets the offset of the first time."""
        append = Append(P0, 1, b"x", Stamp("p", 7))
        self.append(2)
        self.run_(self.old.append([append]))
        self.source.stamped[P0] = {2: Stamp("p", 7)}
        self.copy()
        self.assertEqual(self.run_(self.new.append([append])), [2])
        self.assertEqual(len(self.bodies(self.new)), 2)

    def test_topics_that_compact(self) -> None:
        """Q-12: the copy knows the key of each record."""
        settings = TopicSettings(compaction="key")
        self.run_(self.old.create("keys", settings))
        place = Partition("keys", 0)
        for key in (b"a", b"b", b"a", None):
            self.append(1, partition=place, key=key)
        self.copy()
        self.run_(self.new.trim(0))
        bases = [batch.base for batch in self.batches(self.new, place)]
        self.assertEqual(bases, [1, 2, 3])

    def test_a_target_that_takes_nothing(self) -> None:
        """It is said, and what arrived before stays."""
        self.append(2)
        self.copy()
        self.append(3)
        self.new = MemoryTopics(self.wall, 1)
        self.run_(self.new.create("t", TopicSettings(partitions=2)))
        failure = Deferred.fromCoroutine(self.copier().copy())
        self.failureResultOf(failure, TopicsUnavailable)


class GroupTests(MoveCase):
    """The new side has lost what came before: its offsets are others."""

    def setUp(self) -> None:
        super().setUp()
        self.append(2, 3)
        self.run_(self.old.drop_below(P0, 5))
        self.append(4, 1, 3)

    def move(self) -> Mapping[Partition, int]:
        self.copy()
        self.run_(GroupMover(self.source, self.new, self.progress, lambda n: n + 1000).move())
        found: Mapping[Partition, int] = self.run_(self.new.committed("g"))
        return found

    def test_positions(self) -> None:
        """Q-37: at the beginning, in the middle of a batch, at the end, and before what is left."""
        self.copy()
        self.assertEqual([self.mapped(n) for n in (0, 4)], [0, 0])
        self.assertEqual([self.mapped(n) for n in range(5, 14)], list(range(9)))
        self.assertEqual(self.mapped(13), 8)

    def test_positions_in_the_submissions(self) -> None:
        """Q-37: the topic is empty here, since its records are in the log, which moved, too."""
        self.run_(self.old.create("submissions", TopicSettings()))
        place = Partition("submissions", 0)
        self.run_(self.old.commit("g", {place: 7 * 65_536 + 3}))
        self.assertEqual(self.move(), {place: 1007 * 65_536 + 3})

    def test_positions_of_several_pieces(self) -> None:
        """A piece begins anywhere, and its first batch may be gone from the source."""
        for size in (3, 1, 2):
            self.append(size)
            self.copy()
        self.assertEqual([self.mapped(n) for n in range(5, 20)], list(range(15)))
        self.run_(self.old.drop_below(P0, 14))
        self.assertEqual([self.mapped(n) for n in (5, 14, 16, 17, 19)], [8, 9, 11, 12, 14])

    def test_positions_in_large_pieces(self) -> None:
        """Of a piece with many batches some are noted, and the others found from there."""
        self.append(*[2] * 3 * MARKED)
        self.copy()
        for number in (13, 14, 13 + 2 * MARKED, 12 + 2 * MARKED, 12 + 6 * MARKED):
            self.assertEqual(self.mapped(number), number - 5)

    def test_groups(self) -> None:
        """Q-45, Q-46: positions are kept, generations go on, what was forgotten is forgotten."""
        self.source.generations["g"] = 300
        self.run_(self.old.commit("g", {P0: 7, P1: 0}))
        self.run_(self.old.commit("gone", {P0: 7}))
        self.assertEqual(self.move(), {P0: 2, P1: 0})
        self.assertGreater(self.run_(self.new.next_generation("g")), 300)
        self.run_(self.old.forget_group("gone"))
        self.run_(self.old.commit("g", {P0: 13}))
        self.assertEqual(self.move(), {P0: 8, P1: 0})
        self.assertEqual(self.run_(self.new.groups()), ["g"])

    def test_delayed_records(self) -> None:
        """Q-52: they are moved once, however often it is tried."""
        self.source.waiting["t"] = [(5000, Append(P0, 1, b"x")), (4000, Append(P1, 2, b"yz"))]
        self.move()
        self.move()
        found = self.run_(self.new.delayed("t"))
        self.assertEqual([each[1:] for each in found], [(4000, P1, 2), (5000, P0, 1)])
