"""What waits for a slow reader's space: in order, up to a number, each with an end."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import BANNED
from kupool.session.waiting import WaitingRoom, WaitingSend
from tests.fakes.peers import Bench


class WaitingTests(SynchronousTestCase):
    """P-16: a message waits for space, for its time, or for the end of the connection."""

    def setUp(self) -> None:
        self.bench = Bench(outbox_limit=1000)
        self.connection, self.transport = self.bench.connect()
        self.connection.pauseProducing()
        self.room = self.connection.waiting = WaitingRoom(self.connection)
        self.told: list[tuple[str, bool]] = []

    def add(self, name: str, low: int = 0, timeout: float = 10.0) -> WaitingSend:
        waiting = self.room.add(
            name.encode(), low, timeout, lambda sent: self.told.append((name, sent))
        )
        assert waiting is not None
        return waiting

    @property
    def timers(self) -> int:
        return len(self.bench.clock.getDelayedCalls())

    @property
    def dropped(self) -> int:
        return self.bench.manager.counters.dropped

    def test_sent_as_soon_as_there_is_space(self) -> None:
        self.connection.send_encoded(b"12345")
        self.add("a", low=5)
        self.add("b", low=5)
        self.room.changed()
        self.assertEqual((self.told, len(self.room)), ([("a", True)], 1))
        self.transport.drain()
        self.assertEqual(self.told, [("a", True), ("b", True)])
        self.assertEqual(self.transport.value(), b"12345ab")
        self.assertEqual((self.timers, self.dropped, self.connection.waiting), (0, 0, None))

    def test_the_first_is_waited_for(self) -> None:
        """A later one that would fit does not overtake it."""
        self.connection.send_encoded(b"12345")
        self.add("a", low=4)
        self.add("b", low=100)
        self.room.changed()
        self.assertEqual((self.told, len(self.room)), ([], 2))
        self.assertIs(self.connection.waiting, self.room)

    def test_too_many(self) -> None:
        for n in range(1000):
            self.add(str(n))
        for dropped in (1, 2):
            self.assertIsNone(self.room.add(b"x", 0, 10.0, self.fail))
            self.assertEqual((self.dropped, len(self.room), self.timers), (dropped, 1000, 1000))

    def test_too_late(self) -> None:
        self.add("a", timeout=5.0)
        self.add("b", timeout=2.0)
        self.bench.clock.advance(2.0)
        self.assertEqual((self.told, self.dropped, len(self.room)), ([("b", False)], 1, 1))
        self.assertIs(self.connection.waiting, self.room)
        self.bench.clock.advance(3.0)
        self.assertEqual((self.told[1:], self.dropped, len(self.room)), ([("a", False)], 2, 0))
        self.assertIsNone(self.connection.waiting)
        self.transport.drain()
        self.assertEqual(self.transport.value(), b"")

    def test_the_connection_ends(self) -> None:
        self.add("a")
        self.add("b")
        self.connection.lost(Failure(ConnectionDone()))
        self.assertEqual(self.told, [("a", False), ("b", False)])
        self.assertEqual((self.timers, self.dropped, self.connection.waiting), (0, 2, None))

    def test_the_connection_is_closed(self) -> None:
        """It is told at once, and not only when the transport has ended."""
        self.add("a")
        self.connection.close(BANNED)
        self.assertEqual((self.told, self.timers), ([("a", False)], 0))

    def test_cancelled(self) -> None:
        first, second = self.add("a"), self.add("b")
        self.room.forget(first)
        self.assertEqual((len(self.room), self.timers), (1, 1))
        self.assertIs(self.connection.waiting, self.room)
        self.room.forget(first)
        self.assertEqual(len(self.room), 1)
        self.room.forget(second)
        self.assertEqual((len(self.room), self.timers, self.connection.waiting), (0, 0, None))
        self.assertEqual((self.told, self.dropped), ([], 0))

    def test_a_room_that_is_no_longer_in_use_does_not_put_out_the_one_that_is(self) -> None:
        """One is empty, and told so, after another has taken its place."""
        other = WaitingRoom(self.connection)
        for empty in ("cancelled", "sent"):
            waiting = self.add("a", low=10)
            self.connection.waiting = other
            self.room.forget(waiting) if empty == "cancelled" else self.room.changed()
            self.assertEqual(len(self.room), 0)
            self.assertIs(self.connection.waiting, other)


class SpaceTests(SynchronousTestCase):
    """W-16: several may wait for space on one connection."""

    def test_each_is_told_until_it_stops(self) -> None:
        connection, _ = Bench().connect()
        told: list[str] = []

        class Waiter:
            def __init__(self, name: str) -> None:
                self.name = name

            def changed(self) -> None:
                told.append(self.name)

        first, second = Waiter("first"), Waiter("second")
        for waiter in (first, second, first):
            connection.wait_for_space(waiter)
        self.assertFalse(connection.congested)
        connection.pauseProducing()
        self.assertTrue(connection.congested)
        connection.resumeProducing()
        self.assertEqual((told, connection.congested), (["first", "second"], False))
        connection.stop_waiting(first)
        connection.stop_waiting(first)
        connection.abort()
        connection.lost(Failure(ConnectionDone()))
        self.assertEqual(told, ["first", "second", "second"])
