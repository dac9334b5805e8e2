"""What the default hooks do for rooms on several hosts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.hooks import SpreadHooks
from tests.fakes.peers import lines
from tests.fakes.rooms_hall import Hall


class DefaultsTests(SynchronousTestCase):
    """A-51: an application that overrides nothing."""

    def test_a_member_is_told_of_a_room_that_is_lost(self) -> None:
        ann, transport = Hall().connect()
        SpreadHooks().on_room_lost(ann, "tea", "ann", "host lost")
        params = {"room": "tea", "event": "lost", "user": "ann", "data": "host lost"}
        expected = [{"id": None, "method": "room", "params": params}]
        self.assertEqual(lines(transport.value()), expected)

    def test_a_room_moves_without_a_state(self) -> None:
        room = Hall().lobby.create("tea")
        self.assertIsNone(SpreadHooks().on_hand_over(room))
