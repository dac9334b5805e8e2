"""Broadcasts to the members of a room, and what is logged of those that fail."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.framing import Framing
from tests.fakes.rooms_hall import Hall


class NobodyTests(SynchronousTestCase):
    """A-45: a room whose members have no connections."""

    def test_nothing_waits(self) -> None:
        hall = Hall()
        room = hall.lobby.create("tea")
        hall.lobby.members.join(room, "bot")
        hall.settle()
        room.broadcast(b"news")
        self.assertEqual(hall.clock.getDelayedCalls(), [], "the room needs no turn for it")


class FailureTests(SynchronousTestCase):
    """A-42: a payload is the application's, and may raise."""

    def test_the_log_names_the_room(self) -> None:
        def payload(framing: Framing) -> bytes:
            raise ZeroDivisionError

        hall = Hall()
        room = hall.lobby.create("tea")
        hall.member("tea", "ann")
        with capturedLogs() as events:
            room.broadcast(payload)
        said = [formatEvent(event) for event in events if "log_failure" in event]
        self.assertEqual(said, ["A message of room tea could not be sent"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
