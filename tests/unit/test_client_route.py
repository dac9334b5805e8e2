"""Where a client connects next, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.client.answers import Closing, close_by_text
from kupool.client.route import Route
from kupool.client.settings import ClientSettings

SETTINGS = ClientSettings(backoff_first=0.5, backoff_most=30.0, steady_after=10.0)
DOWN = close_by_text(b"server going down")
RESTARTING = close_by_text(b"server restarting")


class RouteTests(SynchronousTestCase):
    """K-62: exponential backoff with jitter, and a failover list."""

    def test_backoff_doubles_up_to_the_most(self) -> None:
        """K-62: the ceiling of the wait doubles with each failure, up to the bound."""
        route = Route(1, SETTINGS, lambda: 1.0)
        waits = [route.after(None, 0.0, 0.0) for _ in range(9)]
        self.assertEqual(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])

    def test_full_jitter(self) -> None:
        """K-62: the wait is a random part of the ceiling, from nothing on."""
        for part in (0.0, 0.25, 0.999):
            route = Route(1, SETTINGS, lambda part=part: part)
            route.after(None, 0.0, 0.0)
            self.assertEqual(route.after(None, 0.0, 0.0), part * 1.0)

    def test_next_server_on_each_failure(self) -> None:
        """K-62: each failure leads to the next server, and a round doubles the wait."""
        route = Route(3, SETTINGS, lambda: 1.0)
        seen = []
        for _ in range(7):
            seen.append((route.index, route.after(None, 0.0, 0.0)))
        self.assertEqual(
            seen, [(0, 0.5), (1, 0.5), (2, 0.5), (0, 1.0), (1, 1.0), (2, 1.0), (0, 2.0)]
        )

    def test_a_steady_session_starts_over(self) -> None:
        route = Route(1, SETTINGS, lambda: 1.0)
        for _ in range(5):
            route.after(None, 0.0, 0.0)
        self.assertEqual(route.after(None, 9.9, 0.0), 16.0)
        self.assertEqual(route.after(None, 10.0, 0.0), 0.5)

    def test_going_down_leads_elsewhere_at_once(self) -> None:
        route = Route(2, SETTINGS, lambda: 1.0)
        self.assertEqual(route.after(DOWN, 60.0, 100.0), 0.0)
        self.assertEqual(route.index, 1)

    def test_restarting_comes_back_to_the_same_at_once(self) -> None:
        route = Route(2, SETTINGS, lambda: 1.0)
        self.assertEqual(route.after(RESTARTING, 60.0, 100.0), 0.0)
        self.assertEqual(route.index, 0)

    def test_no_hot_loop(self) -> None:
        """A server that ends every session at once is met with backoff, not a storm."""
        route = Route(1, SETTINGS, lambda: 1.0)
        now, attempts = 0.0, 0
        while now < 60.0:
            now += route.after(RESTARTING, 0.0, now)
            attempts += 1
        self.assertLess(attempts, 15)

    def test_retry_after_is_waited_for(self) -> None:
        """The time that the server names passes first, the jitter comes on top."""
        route = Route(1, SETTINGS, lambda: 0.5)
        banned = Closing("banned", 4503, False, retry_after=60.0)
        self.assertEqual(route.after(banned, 0.0, 0.0), 60.25)

    @given(
        st.integers(1, 5),
        st.lists(
            st.tuples(
                st.sampled_from([None, DOWN, RESTARTING, close_by_text(b"slow reader")]),
                st.floats(0, 100),
                st.floats(0, 1, exclude_max=True),
            ),
            max_size=60,
        ),
    )
    def test_always_within_bounds(
        self, count: int, visits: list[tuple[Closing | None, float, float]]
    ) -> None:
        """K-62: whatever happens, the wait is from 0 to the most, the server on the list."""
        parts = iter([part for _, _, part in visits])
        route = Route(count, SETTINGS, lambda: next(parts))
        now = 0.0
        for closing, stood, _ in visits:
            now += stood
            wait = route.after(closing, stood, now)
            self.assertTrue(0.0 <= wait <= SETTINGS.backoff_most)
            self.assertIn(route.index, range(count))
            now += wait
