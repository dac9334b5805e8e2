"""Time in which a process ran, and time in which it did not."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import IDLE_TIMEOUT
from kupool.session.lifecycle import OPEN
from kupool.session.running import MOST_PAUSES, RunningTime
from tests.fakes.peers import Bench


class RunningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.running = RunningTime(self.clock.seconds, 1.0)

    def beats(self, *steps: float) -> list[float]:
        found = []
        for step in steps:
            self.clock.advance(step)
            found.append(self.running.beat())
        return found

    def test_without_a_pause(self) -> None:
        self.assertEqual(self.beats(1.0, 1.5, 1.9, 0.5), [0, 0, 0, 0])
        self.assertAlmostEqual(self.running.elapsed(1.0), 3.9)

    def test_a_pause_does_not_count(self) -> None:
        """Case 16: a host that was suspended for an hour."""
        self.assertEqual(self.beats(1.0, 3600.0, 1.0), [0, 3599.0, 0])
        self.assertAlmostEqual(self.running.elapsed(0.0), 3.0)
        self.assertAlmostEqual(self.running.elapsed(1.0), 2.0)

    def test_what_began_in_the_pause(self) -> None:
        self.beats(1.0, 100.0, 1.0)
        self.assertAlmostEqual(self.running.elapsed(50.0), 1.0)
        self.assertAlmostEqual(self.running.elapsed(101.5), 0.5)

    def test_several_pauses(self) -> None:
        self.beats(10.0, 1.0, 10.0)
        self.assertAlmostEqual(self.running.elapsed(0.0), 3.0)
        self.assertAlmostEqual(self.running.elapsed(10.5), 1.5)

    def test_few_are_remembered(self) -> None:
        self.beats(*[10.0] * (MOST_PAUSES + 5))
        self.assertAlmostEqual(self.running.elapsed(0.0), MOST_PAUSES + 50.0)

    def test_how_many_are_remembered(self) -> None:
        self.beats(*[10.0] * 101)
        self.assertAlmostEqual(self.running.elapsed(0.0), 100 * 1.0 + 10.0)

    def test_a_beat_may_be_an_interval_late(self) -> None:
        """Not more; what is more is a pause from the time at which the beat was due."""
        self.assertEqual(self.beats(2.0, 2.25), [0, 1.25])

    def test_the_slack_is_in_intervals(self) -> None:
        self.running = RunningTime(self.clock.seconds, 4.0, slack=1.5)
        self.assertEqual(self.beats(6.0, 6.25), [0, 2.25])
        self.assertAlmostEqual(self.running.elapsed(0.0), 10.0)

    def test_another_timer_that_fires_late(self) -> None:
        self.clock.advance(10.0)
        self.assertEqual(self.running.fired(9.0), 0)
        self.assertEqual(self.running.fired(8.75), 1.25)
        self.assertAlmostEqual(self.running.elapsed(0.0), 8.75)

    def test_starting_again_is_no_pause(self) -> None:
        self.clock.advance(100.0)
        self.running.start()
        self.assertEqual(self.beats(1.0), [0])


class SweepTests(SynchronousTestCase):
    """K-14, issue 12: after a pause of the server's own nobody is silent or late for it."""

    def test_a_peer_that_wrote_during_the_pause(self) -> None:
        bench = Bench()
        connection, transport = bench.connect()
        bench.sweep_after(100)
        bench.clock.advance(3600)  # in one step: nothing was swept, and nothing read
        bench.manager.sweep()
        self.assertEqual((connection.state, transport.value()), (OPEN, b""))
        connection.feed(b'{"id":1,"method":"ping"}\n')
        bench.sweep_after(179)
        self.assertIs(connection.state, OPEN)
        bench.sweep_after(2)
        self.assertEqual(bench.manager.counters.closes, {IDLE_TIMEOUT.reason: 1})

    def test_a_peer_that_stays_silent(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        bench.sweep_after(100)
        bench.clock.advance(3600)
        bench.manager.sweep()
        bench.sweep_after(78)
        self.assertIs(connection.state, OPEN)
        bench.sweep_after(3)
        self.assertEqual(bench.manager.counters.closes, {IDLE_TIMEOUT.reason: 1})

    def test_one_whose_time_is_over_at_the_end_of_the_pause(self) -> None:
        """What it wrote meanwhile is read before it is judged."""
        bench = Bench()
        connection, _ = bench.connect()
        bench.sweep_after(179)
        bench.clock.advance(3600)
        bench.manager.sweep()
        connection.feed(b'{"id":1,"method":"ping"}\n')
        bench.sweep_after(1)
        self.assertIs(connection.state, OPEN)

    def test_the_rest_of_a_message(self) -> None:
        bench = Bench(message_timeout=10.0)
        connection, _ = bench.connect()
        connection.feed(b'{"id":1,')
        bench.sweep_after(5)
        bench.clock.advance(3600)
        bench.manager.sweep()
        bench.sweep_after(3)
        self.assertIs(connection.state, OPEN)
        bench.sweep_after(4)
        self.assertEqual(bench.manager.counters.closes, {IDLE_TIMEOUT.reason: 1})

    def test_what_is_sent_last(self) -> None:
        """A peer has its time to take what a close leaves to be sent."""
        bench = Bench(write_timeout=10.0)
        connection, transport = bench.connect()
        connection.close(IDLE_TIMEOUT)
        bench.sweep_after(5)
        bench.clock.advance(3600)
        bench.manager.sweep()
        bench.sweep_after(3)
        self.assertFalse(transport.aborted)
        bench.sweep_after(4)
        self.assertTrue(transport.aborted)

    def test_each_deadline(self) -> None:
        """A greeting that is due, and an outbox that is not taken, go by the same time."""
        bench = Bench(outbox_limit=10, write_timeout=10.0)
        greeting, _ = bench.connect()
        greeting.expect_within(10, IDLE_TIMEOUT)
        slow, transport = bench.connect()
        transport.full = True
        slow.send(b"x" * 20)
        slow.send(b"x" * 20)
        bench.sweep_after(5)
        bench.clock.advance(60)
        bench.manager.sweep()
        bench.sweep_after(3)
        self.assertEqual((greeting.state, slow.state), (OPEN, OPEN))
        bench.sweep_after(3)
        self.assertEqual(bench.manager.counters.closes, {IDLE_TIMEOUT.reason: 1, "slow reader": 1})
