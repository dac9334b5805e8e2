"""The limits of rooms that are spread over hosts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.settings import SpreadSettings
from tests.docs.limits import defaults, documented


class LimitsTests(SynchronousTestCase):
    """A-51: every limit is documented with its default."""

    def test_defaults(self) -> None:
        self.assertEqual(documented("docs/rooms.md", SpreadSettings), defaults(SpreadSettings))

    def test_limits_that_let_nothing_through_are_refused(self) -> None:
        names = ("points", "max_hosts", "chunk", "max_entry", "max_outbound", "sender_limit")
        for name in names:
            self.assertEqual(getattr(SpreadSettings(**{name: 1}), name), 1)
            with self.assertRaises(ValueError):
                SpreadSettings(**{name: 0})
