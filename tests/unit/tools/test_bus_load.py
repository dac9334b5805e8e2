"""How much lateness of its own a run of calls over a bus knows of."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tools.bus_load import Lateness


class LatenessTests(SynchronousTestCase):
    """Issue 13, acceptance 3: a call is late only by time in which the publisher ran."""

    def setUp(self) -> None:
        self.waited = 5.0
        self.lateness = Lateness(lambda: self.waited)

    def test_stalls(self) -> None:
        self.lateness.note(1.0, 0.5)
        self.lateness.note(2.0, 0.04)
        self.lateness.note(3.0, 0.02)
        self.assertAlmostEqual(self.lateness.since(2.0), 0.06)

    def test_many_short_waits_for_a_processor(self) -> None:
        """Each is over before the next look is due: no look is late."""
        for look in range(10):
            self.waited += 0.01
            self.lateness.note(look, 0.0)
        self.assertAlmostEqual(self.lateness.since(6.5), 0.03)
        self.assertAlmostEqual(self.lateness.waited, 0.1)
        self.waited += 0.01
        self.assertAlmostEqual(self.lateness.since(9.5), 0.01, msg="since the last look")
