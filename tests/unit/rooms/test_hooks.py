"""What the default hooks do."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.hooks import RoomHooks
from tests.fakes.rooms_hall import Hall


class DefaultsTests(SynchronousTestCase):
    """A-42: an application that overrides nothing."""

    def test_failures_are_logged(self) -> None:
        """With the room, if there is one, and what failed."""
        room = Hall().lobby.create("tea")
        with capturedLogs() as events:
            for where in (room, None):
                RoomHooks().on_error(where, Failure(ValueError("no")), "hello")
        said = [formatEvent(event) for event in events]
        self.assertEqual(
            said, ["A hook of room tea failed: 'hello'", "A hook of room None failed: 'hello'"]
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
