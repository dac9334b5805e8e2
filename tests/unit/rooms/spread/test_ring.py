"""Which host a code belongs to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.ring import Ring


class OwnerTests(SynchronousTestCase):
    """A-51: every host finds the same owner."""

    def test_how_many_places_a_host_has(self) -> None:
        """128, unless told otherwise: with one more, this code has another owner."""
        owners = [Ring("ab", *points).owner("room 182") for points in ((), (128,), (129,))]
        self.assertEqual(owners, ["b", "b", "a"])

    def test_a_code_that_no_message_can_carry(self) -> None:
        """It has an owner all the same, which refuses it."""
        self.assertEqual(Ring("abc").owner("\ud800"), "a")

    def test_without_some_hosts(self) -> None:
        """The owner is that of a ring which does not have them."""
        ring, codes = Ring("abc"), [f"room {n}" for n in range(100)]
        for without, rest in (("a", "bc"), ("ab", "c")):
            owners = [ring.owner(code, without) for code in codes]
            self.assertEqual(owners, [Ring(rest).owner(code) for code in codes])
        self.assertIsNone(ring.owner("room 1", "abc"))
