"""What the headers of a message say, of whoever wrote it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Epoch, Identity
from kupool.log.rabbit.headers import (
    appended_at,
    identity_of,
    is_earlier,
    is_foreign,
    marks,
    pool_of,
)

OURS = Identity("ours", (Epoch("one", 0), Epoch("two", 7)))


class HeaderTests(SynchronousTestCase):
    """issue 12: what a message says of its pool and its epoch."""

    def test_what_is_written_is_read(self) -> None:
        self.assertEqual(marks(OURS), {"pool": "ours", "epoch": "two"})
        self.assertEqual(identity_of(marks(OURS)), Identity("ours", (Epoch("two", 0),)))
        self.assertEqual(marks(None), {})

    def test_what_says_nothing_of_its_pool(self) -> None:
        """The release before wrote no pool, and strangers write anything."""
        for headers in ({}, {"epoch": "one"}, {"pool": ""}, {"pool": 7}, {"pool": None}):
            self.assertIsNone(identity_of(headers))

    def test_a_pool_without_an_epoch(self) -> None:
        self.assertEqual(identity_of({"pool": "ours"}), Identity("ours", (Epoch("", 0),)))

    def test_another_pool(self) -> None:
        self.assertTrue(is_foreign({"pool": "other"}, "ours"))
        self.assertFalse(is_foreign({"pool": "ours"}, "ours"))
        self.assertFalse(is_foreign({}, "ours"))
        # Nothing is foreign to who does not know their pool yet.
        self.assertFalse(is_foreign({"pool": "other"}, ""))
        self.assertFalse(is_foreign({}, ""))

    def test_another_epoch(self) -> None:
        self.assertTrue(is_earlier({"epoch": "one"}, OURS))
        self.assertFalse(is_earlier({"epoch": "two"}, OURS))
        self.assertFalse(is_earlier({}, OURS))
        self.assertFalse(is_earlier({"epoch": "one"}, None))

    def test_when_it_was_appended(self) -> None:
        """Milliseconds become seconds; what is no number says nothing."""
        self.assertEqual(appended_at({"appended_at": 1500}), 1.5)
        self.assertEqual(appended_at({"appended_at": 1500.5}), 1.5005)
        self.assertEqual(appended_at({}), 0.0)
        self.assertEqual(appended_at({"appended_at": "now"}), 0.0)

    def test_a_pool_that_is_unknown(self) -> None:
        """It has no id, so that nothing is taken for another pool's."""
        self.assertEqual(pool_of(None), "")
        self.assertEqual(pool_of(Identity("mine", ())), "mine")
