"""What users and addresses have of a bus, over all of their connections."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.remote.shares import Shares
from kupool.bus.settings import PeerLimits


class SharesTests(SynchronousTestCase):
    """A-13: one user, or one address, has so much, however many connections that is."""

    def setUp(self) -> None:
        self.shares = Shares()

    def test_who_is_part_of_what(self) -> None:
        first, second = self.shares.join("ann", "192.0.2.1"), self.shares.join("bob", "192.0.2.1")
        self.assertEqual(
            [(s.is_user, s.name) for s in first], [(True, "ann"), (False, "192.0.2.1")]
        )
        self.assertIs(first[1], second[1])
        self.assertIsNot(first[0], second[0])
        self.assertIs(self.shares.join("ann", "192.0.2.2")[0], first[0])

    def test_a_user_with_the_name_of_an_address(self) -> None:
        user, address = self.shares.join("192.0.2.1", "192.0.2.1")
        self.assertIsNot(user, address)
        self.assertNotEqual(user.owner, address.owner)

    def test_nobody(self) -> None:
        self.assertEqual(self.shares.join("", ""), ())
        (address,) = self.shares.join("", "192.0.2.1")
        self.assertFalse(address.is_user)

    def test_nothing_is_left(self) -> None:
        """It lasts as long as one of the connections does."""
        first, second = self.shares.join("ann", "192.0.2.1"), self.shares.join("ann", "192.0.2.1")
        self.shares.leave(first)
        self.assertIs(self.shares.join("ann", "")[0], second[0])
        self.shares.leave(second[:1])
        self.assertEqual(len(self.shares), 2)
        self.shares.leave(second)
        self.assertEqual(len(self.shares), 0)

    def test_topics(self) -> None:
        """The reason names whose they are; without a limit there is none."""
        limits = PeerLimits(user_topics=2, address_topics=3)
        user, address = self.shares.join("ann", "192.0.2.1")
        for share, most, reason in ((user, 2, "user"), (address, 3, "address")):
            self.assertEqual(share.refuses_topics(limits, most), "")
            self.assertEqual(share.refuses_topics(limits, most + 1), f"topics of one {reason}")
            share.topics = 1
            self.assertEqual(share.refuses_topics(limits, most - 1), "")
            self.assertEqual(share.refuses_topics(limits, most), f"topics of one {reason}")
            none = PeerLimits(user_topics=0, address_topics=0)
            self.assertEqual(share.refuses_topics(none, 1000), "")
