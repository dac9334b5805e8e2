"""What the table of permissions lists is what the program has."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.parts import build
from kupool.permissions.offered import METHODS, OFFERED, ROUTES, route_name, route_path
from kupool.settings import Settings, with_values


class OfferedTests(SynchronousTestCase):
    """Issue 15, acceptance 4: no method is without a row in the table, and no row is stale.

    Of routes tests/integration/test_permissions.py says so.
    """

    def test_methods(self) -> None:
        settings = with_values(Settings(), {"store": "memory", "mq": "memory", "rooms": "on"})
        parts = build(settings, Clock(), lambda: 1.8e9)
        offered = {route.key for route in parts.handlers.router.routes}
        self.assertEqual(offered, {method.name for method in METHODS})

    def test_each_once(self) -> None:
        self.assertEqual(len(OFFERED), len(METHODS) + len(ROUTES))
        for route in ROUTES:
            self.assertNotIn(".", route.name)
            self.assertEqual(route_path(route_name(route.name)), route.name)
            self.assertEqual(route.levels, route_name(route.name))
        for method in METHODS:
            self.assertEqual(method.levels, method.name)
