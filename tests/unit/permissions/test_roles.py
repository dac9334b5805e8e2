"""The order of the roles."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.permissions.roles import ACCOUNT_ROLES, ORDER, includes


class RoleTests(SynchronousTestCase):
    """Issue 15, build 2: each role may do what those before it may."""

    def test_the_order(self) -> None:
        self.assertEqual(ORDER, ("anonymous", "worker", "operator", "admin"))
        self.assertEqual(ACCOUNT_ROLES, ("worker", "operator", "admin"))
        found = [[includes(role, least) for least in ORDER] for role in ORDER]
        self.assertEqual(found, [[least <= role for least in range(4)] for role in range(4)])
        self.assertFalse(includes("boss", "anonymous"))
