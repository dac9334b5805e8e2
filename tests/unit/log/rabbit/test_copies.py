"""Copies of entries in a stream."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.copies import FirstCopies


class FirstCopiesTests(SynchronousTestCase):
    """Issue 16, build 3: the first copy of an entry is read, however often, and no later one."""

    def test_the_first_copy(self) -> None:
        copies = FirstCopies()
        found = [copies.is_first("a", position) for position in (5, 7, 5, 7, 6)]
        self.assertEqual(found, [True, False, True, False, False])
        self.assertTrue(copies.is_first("b", 7))

    def test_an_earlier_copy_that_is_seen_later(self) -> None:
        """As by a reader that begins before another one."""
        copies = FirstCopies()
        self.assertTrue(copies.is_first("a", 9))
        self.assertTrue(copies.is_first("a", 5))
        self.assertFalse(copies.is_first("a", 9))

    def test_it_is_bounded(self) -> None:
        """The oldest is forgotten first."""
        copies = FirstCopies(2)
        for position, name in enumerate("abc"):
            copies.is_first(name, position)
        self.assertFalse(copies.is_first("c", 8))
        self.assertFalse(copies.is_first("b", 8))
        self.assertTrue(copies.is_first("a", 8))
