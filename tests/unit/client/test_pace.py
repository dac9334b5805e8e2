"""When a worker may submit, and when it should: K-56 to K-58."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.client.pace import LONGEST, Pace, PaceSettings


class PaceTests(SynchronousTestCase):
    """K-57, K-58: at most one a second, at least one a minute, by the answers."""

    def test_default(self) -> None:
        """K-58: a second and a margin after the answer, not after the sending."""
        pace = Pace(PaceSettings())
        self.assertLess(pace.earliest(), 0)
        pace.sent(10.0)
        self.assertEqual(pace.earliest(), 11.0)
        pace.accepted(10.4)
        self.assertAlmostEqual(pace.earliest(), 11.45)
        self.assertAlmostEqual(pace.due(), 11.45)

    def test_interval(self) -> None:
        """K-56, K-57: a new job does not wait for the interval."""
        pace = Pace(PaceSettings(interval=20.0))
        pace.sent(0.0)
        pace.accepted(0.1)
        self.assertAlmostEqual(pace.earliest(), 1.15)
        self.assertEqual(pace.due(), 20.0)

    def test_limits(self) -> None:
        """K-57: less than one submission a minute is refused, in words."""
        for interval in (0.0, -1.0, 60.001, float("nan"), float("inf")):
            error = self.assertRaises(ValueError, PaceSettings, interval)
            self.assertIn("at least one submission a minute", str(error))
        for gap, margin in ((-1.0, 0.0), (1.0, -0.1), (59.0, 2.0)):
            self.assertRaises(ValueError, PaceSettings, 1.0, gap, margin)
        PaceSettings(LONGEST)

    def test_too_frequent_makes_it_slower(self) -> None:
        """A server with a longer gap is met with longer waits, but at least one a minute."""
        pace = Pace(PaceSettings())
        waits = []
        for _ in range(12):
            pace.sent(0.0)
            pace.too_frequent(0.0)
            waits.append(pace.due())
        self.assertEqual(waits[:3], [1.05, 2.1, 4.2])
        self.assertEqual(max(waits), 59.0)
        pace.accepted(0.0)
        self.assertAlmostEqual(pace.due(), 1.05)

    def test_no_limit_on_the_server(self) -> None:
        pace = Pace(PaceSettings(interval=0.2, gap=0.0))
        pace.sent(5.0)
        pace.accepted(5.01)
        self.assertEqual(pace.due(), 5.2)

    @given(
        st.floats(0.1, LONGEST),
        st.lists(st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)), min_size=2, max_size=50),
    )
    def test_never_too_frequent_whatever_the_network_does(
        self, interval: float, delays: list[tuple[float, float]]
    ) -> None:
        """K-58: with any delay on the way there and back, the server always sees 1 s."""
        pace = Pace(PaceSettings(interval))
        judged: list[float] = []
        sent: list[float] = []
        now = 0.0
        for there, back in delays:
            sent.append(now)
            pace.sent(now)
            judged.append(now + there)
            answered = now + there + back
            pace.accepted(answered)
            now = max(answered, pace.due())
        self.assertTrue(all(b - a >= 1.0 - 1e-9 for a, b in pairwise(judged)))
        self.assertTrue(all(1.0 - 1e-9 <= b - a <= LONGEST for a, b in pairwise(sent)))
