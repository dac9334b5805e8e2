"""One number in a file, written in place."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.in_place import InPlaceNumber


class InPlaceNumberTests(SynchronousTestCase):
    """K-35: what is kept where nothing else can be."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "number"
        self.number = InPlaceNumber(self.path)

    def test_it_is_read_back(self) -> None:
        self.assertEqual(self.number.read(), 0)
        self.number.prepare()
        self.assertEqual(self.number.read(), 0)
        for value in (1, 2**31, 10**19 - 1, 0):
            self.number.write(value)
            self.assertEqual(InPlaceNumber(self.path).read(), value)
        self.number.write(5)
        self.number.prepare()
        self.assertEqual(self.number.read(), 5)

    def test_its_room_is_taken_from_the_beginning(self) -> None:
        self.number.prepare()
        before = self.path.stat()
        self.number.write(10**19 - 1)
        after = self.path.stat()
        self.assertEqual((before.st_size, before.st_blocks), (after.st_size, after.st_blocks))
        self.assertEqual(after.st_mode & 0o777, 0o600)

    def test_what_is_no_number(self) -> None:
        self.number.prepare()
        good = self.path.read_bytes()
        for damaged in (b"", b"\0" * 4096, good[:10], b"1" + good[1:], b"-" + good[1:]):
            self.path.write_bytes(damaged)
            self.assertIsNone(self.number.read())

    def test_links_are_not_followed(self) -> None:
        other = self.path.with_name("other")
        other.write_bytes(b"precious")
        os.symlink(other, self.path)
        self.number.prepare()
        self.assertRaises(OSError, self.number.write, 1)
        self.assertRaises(OSError, self.number.read)
        self.assertEqual(other.read_bytes(), b"precious")

    def test_no_file(self) -> None:
        self.assertRaises(FileNotFoundError, self.number.write, 1)
