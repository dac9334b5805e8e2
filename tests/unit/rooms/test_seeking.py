"""Players who wait for a match, by their connections."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.matchmaking import MatchOutcome, MatchRequest
from kupool.rooms.quotas import RoomQuotas
from kupool.rooms.seeking import Seeking
from kupool.rooms.settings import RoomSettings
from kupool.rooms.timers import LobbyTimers
from tests.fakes.rooms_hall import Hall


class EndTests(SynchronousTestCase):
    """A-47: nothing is left of those who waited."""

    def test_who_waited_may_wait_again(self) -> None:
        """They have a place of their address again, too."""
        clock, settings = Clock(), RoomSettings(address_waiting=1)
        quotas = RoomQuotas(clock, settings)
        outcomes: list[MatchOutcome] = []
        failures: list[Failure] = []
        seeking = Seeking(
            clock,
            LobbyTimers(clock),
            settings,
            quotas,
            call=outcomes.append,
            failed=lambda failure, outcome: failures.append(failure),
        )
        ann, _ = Hall().connect()
        request = MatchRequest("ann", "duel", 2, 10.0)
        for _ in range(2):
            seeking.start(ann, request)
            self.assertEqual((len(seeking.matchmaker), len(quotas)), (1, 1))
            seeking.stop()
            self.assertEqual((len(seeking.matchmaker), len(quotas)), (0, 0))
        clock.advance(20)
        self.assertEqual((outcomes, failures), ([], []))
