"""Work that is done a part in each turn of the reactor."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.chunks import CHUNK, SHARE, STEP, Breaks, Chunks, in_chunks
from tests.fakes.peers import TurnClock


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = TurnClock()

    def idle(self) -> bool:
        return not self.clock.getDelayedCalls()


class ChunksTests(Case):
    """issue 12: one loop for work that would be too much for one turn."""

    def setUp(self) -> None:
        Case.setUp(self)
        self.left = 0
        self.parts = 0
        self.chunks = Chunks(self.clock, self.work)

    def work(self) -> bool:
        self.parts += 1
        self.left -= 1
        return self.left > 0

    def test_as_long_as_some_is_left(self) -> None:
        self.left = 3
        self.chunks.wake()
        self.chunks.wake()
        self.assertEqual(self.parts, 0)
        for parts in (1, 2, 3, 3):
            self.clock.turn()
            self.assertEqual(self.parts, parts)
        self.assertTrue(self.idle())

    def test_at_once(self) -> None:
        self.left = 2
        self.chunks.begin()
        self.assertEqual(self.parts, 1)
        self.clock.turn()
        self.assertEqual(self.parts, 2)
        self.assertTrue(self.idle())

    def test_more_while_it_works(self) -> None:
        def work() -> bool:
            self.parts += 1
            if self.parts == 1:
                self.chunks.wake()
            return False

        self.chunks = Chunks(self.clock, work)
        self.chunks.begin()
        self.clock.turn()
        self.assertEqual(self.parts, 2)
        self.assertTrue(self.idle())

    def test_an_exception_does_not_disable_it(self) -> None:
        def work() -> bool:
            self.parts += 1
            raise ValueError("on purpose")

        self.chunks = Chunks(self.clock, work)
        for parts in (1, 2):
            self.chunks.wake()
            self.assertRaises(ValueError, self.clock.turn)
            self.assertEqual(self.parts, parts)


class BreaksTests(Case):
    """Issue 17, build 3: a coroutine with many steps leaves time for other work."""

    def test_a_turn_has_its_share(self) -> None:
        breaks, done = Breaks(self.clock), []

        async def work() -> None:
            for number in range(6):
                await breaks.take()
                done.append(number)
                self.clock.advance(SHARE / 2)

        work_done = Deferred.fromCoroutine(work())
        for steps in (2, 4, 6):
            self.assertEqual(len(done), steps)
            self.clock.turn()
        self.successResultOf(work_done)
        self.assertTrue(self.idle())


class InChunksTests(Case):
    """issue 12: many things, some of them in each turn."""

    def test_sizes(self) -> None:
        done: list[int] = []
        things = list(range(2 * CHUNK + 1))
        ended = in_chunks(self.clock, things, done.append)
        things.clear()  # it is about those of the moment of the call
        for count in (CHUNK, 2 * CHUNK):
            self.assertEqual(len(done), count)
            self.assertNoResult(ended)
            self.clock.turn()
        self.assertEqual(done, list(range(2 * CHUNK + 1)))
        self.assertIs(self.successResultOf(ended), None)
        self.assertTrue(self.idle())

    def test_few_need_no_turn(self) -> None:
        done: list[int] = []
        self.successResultOf(in_chunks(self.clock, range(CHUNK - 1), done.append))
        self.assertEqual((len(done), self.idle()), (CHUNK - 1, True))
        self.successResultOf(in_chunks(self.clock, (), done.append))

    def test_a_size_of_its_own(self) -> None:
        done: list[int] = []
        in_chunks(self.clock, range(5), done.append, size=2)
        counts = [len(done)]
        while not self.idle():
            self.clock.turn()
            counts.append(len(done))
        self.assertEqual(counts, [2, 4, 5])

    def test_what_takes_long_has_more_turns(self) -> None:
        """Issue 15, acceptance 2: a turn has a limit of time, looked at after some items."""
        done: list[int] = []

        def call(number: int) -> None:
            done.append(number)
            self.clock.rightNow += 1.01 * SHARE / STEP

        in_chunks(self.clock, range(3 * STEP + 1), call)
        for turn in range(1, 4):
            self.assertEqual(len(done), turn * STEP)
            self.clock.turn()
        self.assertEqual(len(done), 3 * STEP + 1)

    def test_a_failure_stops_nothing(self) -> None:
        done: list[int] = []

        def call(n: int) -> None:
            done.append(10 // n)

        self.successResultOf(in_chunks(self.clock, (1, 0, 2), call))
        self.assertEqual(done, [10, 5])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        failed: list[int] = []
        self.successResultOf(in_chunks(self.clock, (0, 5), call, failed=failed.append))
        self.assertEqual((done, failed), ([10, 5, 2], [0]))
