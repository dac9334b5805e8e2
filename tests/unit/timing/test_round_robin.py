"""Many that share the turns of the reactor."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.chunks import CHUNK
from kupool.timing.round_robin import QUANTUM, RoundRobin
from tests.fakes.peers import TurnClock


class Worker:
    """Something with so many units of work."""

    queued = False

    def __init__(self, units: int) -> None:
        self.units = units
        self.budgets: list[int] = []

    @property
    def ready(self) -> bool:
        return self.units > 0

    def run(self, budget: int) -> int:
        done = min(budget, self.units)
        self.units -= done
        self.budgets.append(done)
        return done


class RoundRobinTests(SynchronousTestCase):
    """Issue 13: a bounded amount of work in a turn, however many have some."""

    def setUp(self) -> None:
        self.clock = TurnClock()
        self.turns = RoundRobin(self.clock)

    def left_by_turn(self, workers: list[Worker]) -> list[int]:
        for worker in workers:
            self.turns.wake(worker)
            self.turns.wake(worker)
        left = []
        while self.clock.getDelayedCalls():
            self.clock.turn()
            left.append(sum(worker.units for worker in workers))
        return left

    def test_a_chunk_in_each_turn_for_all_together(self) -> None:
        workers = [Worker(2 * CHUNK), Worker(2 * CHUNK), Worker(1)]
        total = 4 * CHUNK + 1
        left = self.left_by_turn(workers)
        self.assertEqual(left, [max(0, total - n * CHUNK) for n in range(1, 6)])
        self.assertLessEqual(max(max(worker.budgets) for worker in workers), QUANTUM)
        self.assertEqual([worker.queued for worker in workers], [False] * 3)

    def test_those_with_little_do_not_wait_for_those_with_much(self) -> None:
        much, little = Worker(100 * CHUNK), Worker(1)
        self.turns.wake(much)
        self.turns.wake(little)
        self.clock.turn()
        self.assertEqual((much.units, little.units), (100 * CHUNK - CHUNK + 1, 0))
