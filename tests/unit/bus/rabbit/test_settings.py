"""The limits of a bus across nodes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.rabbit.settings import MeshSettings
from tests.docs.limits import defaults, documented


class LimitsTests(SynchronousTestCase):
    """A-13: every limit is a setting, and documented with its default."""

    def test_defaults(self) -> None:
        self.assertEqual(documented("docs/bus.md", MeshSettings), defaults(MeshSettings))

    def test_times_in_proportion(self) -> None:
        """A node counts itself as not heard after three quarters of the silence."""
        self.assertEqual(MeshSettings().step_down, 3)
        self.assertEqual(MeshSettings(silence=8).step_down, 6)

    def test_a_beat_that_is_no_sign_of_life(self) -> None:
        MeshSettings(beat=0.5, silence=0.6)
        for beat in (0, -1, 4, 5):
            with self.assertRaises(ValueError):
                MeshSettings(beat=beat)
