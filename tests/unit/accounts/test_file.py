"""The account file on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.entries import BrokenAccounts, Secret
from kupool.accounts.file import AccountFile


class ReplaceTests(SynchronousTestCase):
    """K-17: a change keeps what it is not about, and is whole or not at all."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "accounts"
        self.file = AccountFile(self.path)

    def add(self, *secrets: Secret) -> int:
        return self.file.replace(lambda secret: False, secrets)

    def test_a_new_file_is_for_its_owner_alone(self) -> None:
        self.assertEqual(self.add(Secret("alice", "one")), 0)
        self.assertEqual(self.path.read_text("utf-8"), "alice:one\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertFalse(self.file.open_to_others)

    def test_comments_and_other_lines_stay(self) -> None:
        self.path.write_bytes(b"\xef\xbb\xbf# all\r\nalice:one\r\nbad \xff line\nbob:two")
        os.chmod(self.path, 0o644)
        gone = self.file.replace(lambda s: s.name == "alice", (Secret("alice", "three"),))
        self.assertEqual(gone, 1)
        self.assertEqual(self.path.read_bytes(), b"# all\nalice:three\nbad \xff line\nbob:two\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertTrue(self.file.open_to_others)
        self.assertEqual(os.listdir(self.folder), ["accounts"])

    def test_a_link_stays_a_link(self) -> None:
        self.add(Secret("alice", "one"))
        link = self.folder / "link"
        link.symlink_to(self.path)
        AccountFile(link).replace(lambda s: True, (Secret("bob", "two"),))
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.read_text("utf-8"), "bob:two\n")

    def test_commands_at_the_same_time(self) -> None:
        """K-17: none of them undoes what another one did."""
        threads = [
            Thread(target=self.add, args=(Secret(f"user{number}", "secret"),))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(self.file.read().passwords), 20)

    def test_what_cannot_be_read(self) -> None:
        self.assertRaises(FileNotFoundError, self.file.read)
        self.assertRaises(FileNotFoundError, self.file.fingerprint)
        self.assertEqual(self.file.read_if_any().names, [])
        self.path.mkdir()
        self.assertRaises(BrokenAccounts, self.file.fingerprint)
        self.assertRaises(IsADirectoryError, self.file.read)

    def test_each_change_is_seen(self) -> None:
        self.add(Secret("alice", "one"))
        before = self.file.fingerprint()
        self.file.replace(lambda s: True, (Secret("alice", "two"),))
        self.assertNotEqual(self.file.fingerprint(), before)
