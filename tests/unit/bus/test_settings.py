"""The limits of a bus."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import ChannelSettings
from kupool.bus.settings import BusSettings, PeerLimits
from tests.docs.limits import defaults, documented


class LimitsTests(SynchronousTestCase):
    """A-13: every limit is a setting, and documented with its default."""

    def test_defaults(self) -> None:
        for kind in (BusSettings, PeerLimits, ChannelSettings):
            self.assertEqual(documented("docs/bus.md", kind), defaults(kind))

    def test_a_share_of_the_time(self) -> None:
        """A-20: all of it is a share, none is not."""
        self.assertEqual(BusSettings(share=1).share, 1)
        for share in (0, -1, 1.01):
            with self.assertRaises(ValueError):
                BusSettings(share=share)

    def test_the_largest_message(self) -> None:
        """A-13: 64 KiB, or what the largest data needs as base64 beside topic and headers."""
        for max_data, largest in ((1, 65536), (45_000, 65536), (45_001, 65540), (90_000, 125_536)):
            self.assertEqual(BusSettings(max_data=max_data).max_message, largest)
