"""The rooms of a lobby by their codes, and what is logged as they end."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.rooms_hall import Hall


class EndTests(SynchronousTestCase):
    """A-47: what was not handled as a room ended is in the log."""

    def said(self, messages: int) -> list[str | None]:
        """What is logged of a room that ends while so many messages wait."""
        hall = Hall()
        room = hall.lobby.create("tea")
        ann, _ = hall.member("tea", "ann")
        for number in range(messages):
            hall.lobby.deliver(ann, number)
        with capturedLogs() as events:
            room.close(handle_pending=False)
            hall.settle()
        self.assertEqual(len(hall.lobby), 0)
        return [formatEvent(event) for event in events]

    def test_how_many(self) -> None:
        self.assertEqual(self.said(3), ["Room tea ended with 3 messages unhandled"])
        self.assertEqual(self.said(0), [])
