"""Q-08, Q-83: a file of topics is checked batch by batch, and a fault is named with its place."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.database import connect
from kupool.topics.partition import Partition
from kupool.topics.sqlite_verify import TopicFault, TopicsVerifier, VerifiedPartition
from tests.fakes.data_folder import change, query, write_topics

P0, P1 = Partition("t", 0), Partition("t", 1)

#: Positions of partition 1 of the file begin here.
FIRST = 1 << 43


class TopicsVerifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        write_topics(self.folder, "t", 2, 3, 4)
        self.read = 0

    def change(self, statement: str, *values: object) -> None:
        change(self.folder, "topics", statement, *values)

    def progress(self, size: int) -> None:
        self.read += size

    def verify(self) -> tuple[list[VerifiedPartition], list[TopicFault]]:
        faults: list[TopicFault] = []
        with closing(connect(self.folder / "topics.sqlite")) as connection:
            verifier = TopicsVerifier(connection, faults.append, self.progress)
            return list(verifier.verify()), faults

    def fault(self) -> TopicFault:
        (found,) = self.verify()[1]
        return found

    def test_what_is_in_order(self) -> None:
        """Q-83: the numbers of each partition, and nothing wrong."""
        ((size,),) = query(self.folder, "topics", "SELECT bytes FROM partitions WHERE id = 1")
        assert isinstance(size, int)
        expected = [VerifiedPartition(P0, 0, 9, 3, 9, size), VerifiedPartition(P1, 0, 0, 0, 0, 0)]
        self.assertEqual(self.verify(), (expected, []))
        self.assertEqual(self.read, size)

    def test_changed_bytes(self) -> None:
        """Q-08: the batch is named, and those behind it are checked as well."""
        for base in (0, 5):
            self.change(
                "UPDATE batches SET body = CAST(substr(body, 1, length(body) - 1) || '!' AS BLOB) "
                "WHERE position = ?",
                FIRST + base,
            )
        found = self.verify()[1]
        self.assertEqual([(each.partition, each.offset) for each in found], [(P0, 0), (P0, 5)])
        self.assertIn("its checksum is wrong", found[0].what)

    def test_a_missing_batch(self) -> None:
        """Q-01: offsets have no gap."""
        self.change("DELETE FROM batches WHERE position = ?", FIRST + 2)
        found = self.verify()[1]
        self.assertEqual(found[0], TopicFault(P0, 5, "records from 2 to 4 before it are missing"))
        self.assertIn("and the partition says", found[1].what)

    def test_a_missing_end(self) -> None:
        self.change("DELETE FROM batches WHERE position = ?", FIRST + 5)
        self.assertEqual(
            self.fault(), TopicFault(P0, 5, "batches end at offset 5, and the partition at 9")
        )

    def test_a_missing_beginning(self) -> None:
        self.change("DELETE FROM batches WHERE position = ?", FIRST)
        self.assertIn("records from 0 to 1 before it are missing", self.verify()[1][0].what)

    def test_a_known_gap(self) -> None:
        """Q-86: what a restore passed over is not missing, at the end and between."""
        self.change("INSERT INTO offset_gaps VALUES (1, 9, 100)")
        self.change("UPDATE partitions SET next = 100 WHERE id = 1")
        self.assertEqual(self.verify()[1], [])
        write_topics(self.folder, "t", 1)
        self.assertEqual(self.verify()[1], [])
        self.assertEqual(self.verify()[0][0][1:5], (0, 101, 4, 10))

    def test_a_topic_that_compacts(self) -> None:
        """Q-12: records that later ones replaced are not missing."""
        change = 'UPDATE topics SET settings = \'{"partitions":2,"compaction":"key"}\''
        self.change(change)
        self.change("DELETE FROM batches WHERE position = ?", FIRST + 2)
        self.assertIn("bytes, and the partition says", self.fault().what)

    def test_batches_that_overlap(self) -> None:
        self.change("UPDATE batches SET position = position - 1 WHERE position = ?", FIRST + 5)
        self.assertIn("it overlaps the batch before it, which ends at 5", self.verify()[1][0].what)

    def test_another_number_of_records(self) -> None:
        """A row that says more than its batch holds would hide the records behind it."""
        self.change("UPDATE batches SET count = 5 WHERE position = ?", FIRST + 5)
        self.change("UPDATE partitions SET next = 10 WHERE id = 1")
        self.assertEqual(self.fault(), TopicFault(P0, 5, "it has 4 records, and its row says 5"))

    def test_times_that_go_back(self) -> None:
        """Q-17: finding by time relies on their order."""
        self.change("UPDATE batches SET appended_at = 1 WHERE position = ?", FIRST + 2)
        self.assertEqual(
            self.fault(), TopicFault(P0, 2, "it has an earlier time than the batch before it")
        )
        self.change("UPDATE batches SET appended_at = 2000 WHERE position > 0")
        self.assertEqual(
            self.fault(),
            TopicFault(P0, None, "the newest batch is newer than the partition says"),
        )

    def test_another_size(self) -> None:
        self.change("UPDATE partitions SET bytes = 1 WHERE id = 1")
        self.assertIn("bytes, and the partition says 1", self.fault().what)

    def test_batches_of_nobody(self) -> None:
        """Those of a topic that was just deleted are being removed, others are a fault."""
        self.change("INSERT INTO batches VALUES (?, 1, 0, x'00')", 7 << 43)
        self.assertEqual(
            self.fault(),
            TopicFault(None, None, f"batches at position {7 << 43} are of no partition"),
        )
        self.change("INSERT INTO deleted_partitions VALUES (7)")
        self.assertEqual(self.verify()[1], [])

    def test_groups_that_are_ahead(self) -> None:
        """Q-45: a position behind the end would pass over records."""
        self.change("INSERT INTO group_positions VALUES ('g', 1, 9), ('h', 1, 10), ('i', 2, 1)")
        self.assertEqual(
            self.fault(), TopicFault(P0, 10, "the position 10 of group h is behind the end 9")
        )
