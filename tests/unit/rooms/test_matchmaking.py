"""Matchmaking by mode, needed number and deadline."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.rooms.matchmaking import MatchCounts, Matchmaker, MatchOutcome, MatchRequest
from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.timers import LobbyTimers
from tests.fakes.raising import ENDINGS

TICK = 0.25


class Game:
    def __init__(self, limit: int = 0, max_modes: int = 1000) -> None:
        self.clock = Clock()
        self.timers = LobbyTimers(self.clock, TICK)
        self.outcomes: list[MatchOutcome] = []
        self.maker = Matchmaker(
            self.clock, self.timers, self.outcomes.append, limit=limit, max_modes=max_modes
        )

    def join(self, player: str, mode: str = "duel", needed: int = 2, timeout: float = 10) -> None:
        self.maker.join(MatchRequest(player, mode, needed, timeout))

    def told(self) -> list[tuple[str, bool, list[str]]]:
        told = [(o.mode, o.matched, [p.player for p in o.players]) for o in self.outcomes]
        self.outcomes.clear()
        return told


class MatchmakerTests(SynchronousTestCase):
    """A-50: callbacks with the matched players, or with those whose time was up."""

    def setUp(self) -> None:
        self.game = Game()

    def test_first_come_first_served_by_mode_and_number(self) -> None:
        self.game.join("ann")
        self.game.join("bob", "team", 3)
        self.game.join("cid", "duel", 3)
        self.assertEqual(self.game.told(), [])
        self.game.join("dan")
        self.assertEqual(self.game.told(), [("duel", True, ["ann", "dan"])])
        self.game.join("eve", "team", 3)
        self.game.join("fay", "team", 3)
        self.assertEqual(self.game.told(), [("team", True, ["bob", "eve", "fay"])])
        self.assertEqual(len(self.game.maker), 1)
        self.game.join("gus", "solo", 1)
        self.assertEqual(self.game.told(), [("solo", True, ["gus"])])

    def test_an_outcome_that_cannot_be_told(self) -> None:
        """Issue 12: whatever is raised, the one who joins and the other outcomes are spared."""
        for error in ENDINGS:
            told: list[str] = []

            def done(outcome: MatchOutcome, error: Any = error, told: Any = told) -> None:
                told.append(outcome.mode)
                raise error

            clock = Clock()
            maker = Matchmaker(clock, LobbyTimers(clock, TICK), done)
            for mode, needed in (("solo", 1), ("a", 2), ("b", 2)):
                maker.join(MatchRequest(mode, mode, needed, 1.0))
            clock.pump([TICK] * 8)
            self.assertEqual(sorted(told), ["a", "b", "solo"])
            self.assertEqual(len(self.flushLoggedErrors(error)), 3)

    def test_time_is_up(self) -> None:
        self.game.join("ann", "team", 4, timeout=5)
        self.game.join("bob", "team", 4, timeout=5)
        self.game.join("cid", "team", 4, timeout=9)
        self.game.clock.advance(4.9)
        self.assertEqual(self.game.told(), [])
        self.game.clock.advance(0.1)
        self.assertEqual(self.game.told(), [("team", False, ["ann", "bob"])])
        self.game.clock.advance(4)
        self.assertEqual(self.game.told(), [("team", False, ["cid"])])
        self.assertEqual((len(self.game.maker), len(self.game.timers)), (0, 0))

    def test_cancel_and_come_again(self) -> None:
        self.game.join("ann")
        self.assertRaises(RequestError, self.game.join, "ann", "other")
        self.assertTrue(self.game.maker.cancel("ann"))
        self.assertFalse(self.game.maker.cancel("ann"))
        self.game.join("bob")
        self.assertEqual(self.game.told(), [])
        self.game.join("ann")
        self.assertEqual(self.game.told(), [("duel", True, ["bob", "ann"])])

    def test_refusals(self) -> None:
        game = Game(limit=1)
        for needed, timeout in ((0, 1), (-1, 1), (2, 0), (2, -1), (2, float("nan")), (2, 1e300)):
            self.assertRaises(RequestError, game.join, "ann", "duel", needed, timeout)
        self.assertEqual((len(game.maker), len(game.timers)), (0, 0))
        game.join("ann")
        self.assertRaises(RequestError, game.join, "bob")
        self.assertEqual([r.player for r in game.maker.stop()], ["ann"])
        self.assertEqual(len(game.timers), 0)

    def test_a_callback_may_fail_or_join_again(self) -> None:
        def done(outcome: MatchOutcome) -> None:
            self.game.outcomes.append(outcome)
            if len(self.game.outcomes) == 1:
                self.game.join("ann")
            raise ZeroDivisionError

        self.game.maker = Matchmaker(self.game.clock, self.game.timers, done)
        for player in ("ann", "bob", "cid"):
            self.game.join(player)
        self.assertEqual(
            self.game.told(), [("duel", True, ["ann", "bob"]), ("duel", True, ["ann", "cid"])]
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    @given(
        st.lists(
            st.one_of(
                st.tuples(
                    st.integers(0, 30), st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 9)
                ),
                st.integers(0, 30),
                st.floats(0.25, 5),
            ),
            max_size=80,
        )
    )
    def test_every_player_has_one_end(self, steps: list[object]) -> None:
        """A-50, A-57: matched, timed out or cancelled, and the statistics agree."""
        game, joined, ended = Game(), Counter[str](), Counter[str]()
        for step in steps:
            match step:
                case (player, mode, needed, timeout):
                    if str(player) not in game.maker:
                        joined[str(player)] += 1
                        game.join(str(player), mode, needed, timeout)
                case int(player):
                    ended[str(player)] += game.maker.cancel(str(player))
                case float(seconds):
                    game.clock.advance(seconds)
        game.clock.advance(10)
        for outcome in game.outcomes:
            ended.update(request.player for request in outcome.players)
            if outcome.matched:
                self.assertEqual({len(outcome.players)}, {r.needed for r in outcome.players})
            self.assertEqual({outcome.mode}, {r.mode for r in outcome.players})
        self.assertEqual(+joined, +ended)
        self.assertEqual((len(game.maker), len(game.timers)), (0, 0))
        for counts in game.maker.statistics().values():
            self.assertEqual(counts.waiting, 0)
            self.assertEqual(counts.joined, counts.matched + counts.timed_out + counts.cancelled)


class MatchStatisticsTests(SynchronousTestCase):
    """A-57: waiting, matched, timed out, wait time."""

    def test_counts(self) -> None:
        game = Game()
        game.join("ann")
        game.clock.advance(3)
        game.join("bob")
        game.join("cid", timeout=2)
        game.join("dan", "team", 5)
        game.clock.advance(2)
        game.join("eve")
        game.maker.cancel("dan")
        duel, team = (game.maker.statistics()[mode] for mode in ("duel", "team"))
        self.assertEqual((duel.waiting, duel.joined, duel.matches), (1, 4, 1))
        self.assertEqual((duel.matched, duel.timed_out, duel.cancelled), (2, 1, 0))
        self.assertEqual((duel.wait_total, duel.wait_max), (3.0, 3.0))
        self.assertEqual(team, MatchCounts(0, 1, 0, 0, 0, 1, 0.0, 0.0))

    def test_a_short_wait(self) -> None:
        game = Game()
        game.join("ann")
        game.clock.advance(0.5)
        game.join("bob")
        duel = game.maker.statistics()["duel"]
        self.assertEqual((duel.wait_total, duel.wait_max), (0.5, 0.5))

    def test_modes_are_bounded(self) -> None:
        game = Game(max_modes=2)
        for n in range(5):
            game.join(str(n), f"mode {n}")
        counts = game.maker.statistics()
        self.assertEqual(
            {m: c.waiting for m, c in counts.items()}, {"mode 0": 1, "mode 1": 1, "other": 3}
        )
        game.maker.stop()
        self.assertEqual(game.maker.statistics()["other"].cancelled, 3)

    def test_how_many_modes_are_kept(self) -> None:
        """K-44: a thousand, unless told otherwise."""
        clock = Clock()
        maker = Matchmaker(clock, LobbyTimers(clock, TICK), lambda outcome: None)
        for n in range(1001):
            maker.join(MatchRequest(str(n), f"mode {n}", 2, 10))
        counts = maker.statistics()
        self.assertEqual((len(counts), counts["mode 999"].waiting), (1001, 1))
        self.assertEqual(counts["other"].waiting, 1)

    def test_the_name_under_which_timers_are_counted(self) -> None:
        """A-56: whoever the player is."""
        clock = Clock()
        tasks = TaskStatistics(clock.seconds)
        maker = Matchmaker(clock, LobbyTimers(clock, TICK, tasks=tasks), lambda outcome: None)
        maker.join(MatchRequest("ann", "duel", 2, 1))
        clock.advance(1)
        self.assertEqual({n: c.runs for n, c in tasks.snapshot().items()}, {"match timeout": 1})
