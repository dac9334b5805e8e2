"""Q-08, Q-83: the files of a data folder are checked, and left as they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.backup import NoBar
from kupool.backup.verifying import FileFault, VerifiedFolder, verify_folder
from kupool.log import Epoch, Identity
from kupool.storage.copies import Progress
from kupool.storage.database import connect
from tests.fakes.data_folder import change, write_log, write_spool, write_topics

BATCH = b'{"v":1,"batch":"b","at":0,"usernames":[],"job_ids":[],"client_nonces":[]}'


class Bytes:
    """Adds up what a bar is told."""

    def __init__(self) -> None:
        self.size = self.done = 0

    def total(self, size: int) -> None:
        self.size = size

    def stage(self, text: str) -> Progress:
        def advance(count: int) -> None:
            self.done += count

        return advance


class VerifyFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "data"
        write_topics(self.folder, "t", *([50] * 400))
        write_log(self.folder, Identity("p", (Epoch("e", 0),)), 3)
        change(self.folder, "log", "UPDATE entries SET body = ?", BATCH)
        write_spool(self.folder, "s1", "s2")
        change(self.folder, "spool", "UPDATE spooled SET body = ?", BATCH)
        self.file = self.folder / "topics.sqlite"

    def verify(self, *parts: str) -> VerifiedFolder:
        return verify_folder(self.folder, parts or ("topics", "log", "spool"), NoBar())

    def faults(self, *parts: str) -> list[str]:
        return [fault.text for fault in self.verify(*parts).faults]

    def test_what_is_in_order(self) -> None:
        found = self.verify()
        self.assertEqual(found.faults, [])
        self.assertEqual(
            [(each.file, each.batches) for each in found.files],
            [("topics.sqlite", 400), ("log.sqlite", 3), ("spool.sqlite", 2)],
        )
        self.assertEqual([each.records for each in found.files[0].partitions], [20_000, 0])
        self.assertEqual(found.files[0].size, self.file.stat().st_size)

    def test_progress(self) -> None:
        """The bar is told of every page and every batch, and never of more than there is."""
        bar = Bytes()
        verify_folder(self.folder, ("topics",), bar)
        size = self.file.stat().st_size
        self.assertEqual(bar.size, 2 * size)
        self.assertTrue(1.6 * size < bar.done <= 2 * size, (bar.done, size))

    def test_flipped_bytes(self) -> None:
        """Q-08: the topic, the partition and the offset are named; the rest is checked."""
        content = bytearray(self.file.read_bytes())
        place = content.find(b"49/", content.find(b"49/") + 100_000)
        content[place] ^= 1
        self.file.write_bytes(content)
        (fault,) = self.verify().faults
        self.assertEqual((fault.file, fault.topic, fault.partition), ("topics.sqlite", "t", 0))
        assert fault.offset is not None
        self.assertEqual(fault.offset % 50, 0)
        self.assertEqual(
            fault.text,
            f"topics.sqlite, topic t, partition 0, offset {fault.offset}: its checksum is wrong: "
            "bytes of it have changed",
        )

    def test_a_torn_page(self) -> None:
        """Q-08: the file is named, and what cannot be read is not passed over."""
        size = self.file.stat().st_size
        with open(self.file, "r+b") as file:
            file.seek(size // 2 // 4096 * 4096)
            file.write(os.urandom(4096))
        found = self.faults()
        self.assertTrue(found)
        self.assertTrue(all(each.startswith("topics.sqlite") for each in found), found)

    def test_a_truncated_file(self) -> None:
        os.truncate(self.file, self.file.stat().st_size // 2)
        found = self.faults()
        self.assertTrue(found)
        self.assertIn("topics.sqlite", found[0])

    def test_no_database(self) -> None:
        self.file.write_bytes(b"no database" * 1000)
        self.assertEqual(
            self.faults("topics"), ["topics.sqlite: it cannot be read: file is not a database"]
        )

    def test_a_file_that_is_not_there(self) -> None:
        self.file.unlink()
        self.assertIn("No such file", self.faults("topics")[0])

    def test_another_version(self) -> None:
        change(self.folder, "topics", "INSERT INTO schema_version (version) VALUES (99)")
        self.assertIn("schema version 99", self.faults("topics")[0])

    def test_batches_of_submissions(self) -> None:
        """They are named by their positions in the log and the spool."""
        change(self.folder, "log", "UPDATE entries SET body = x'00' WHERE position = 2")
        change(self.folder, "spool", "UPDATE spooled SET body = x'7b' WHERE position = 1")
        log, spool = self.verify().faults
        self.assertEqual((log.file, log.position), ("log.sqlite", 2))
        self.assertIn("log.sqlite, position 2: not a batch", log.text)
        self.assertEqual((spool.file, spool.position), ("spool.sqlite", 1))

    def test_a_file_with_a_write_ahead_log(self) -> None:
        """As a kill leaves it: what is there counts, and both files stay as they are."""
        writer = connect(self.file)
        self.addCleanup(writer.close)
        writer.execute("DELETE FROM batches WHERE position = (1 << 43) + 50")
        crashed = self.folder.with_name("crashed")
        shutil.copytree(self.folder, crashed)
        self.folder = crashed
        before = {path.name: path.read_bytes() for path in crashed.glob("topics.sqlite*")}
        self.assertTrue(before["topics.sqlite-wal"])
        self.assertIn("records from 50 to 99 before it are missing", self.faults("topics")[0])
        del before["topics.sqlite-shm"]
        self.assertEqual({n: (crashed / n).read_bytes() for n in before}, before)
        (crashed / "topics.sqlite-wal").unlink()
        self.assertEqual(self.faults("topics"), [])

    def test_text(self) -> None:
        fault = FileFault("f", "bad", "t", 0, 0)
        self.assertEqual(fault.text, "f, topic t, partition 0, offset 0: bad")
