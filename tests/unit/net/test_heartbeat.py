"""Peers that are silent are asked, and given up."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.heartbeat import Heartbeat
from kupool.session.connection import Connection
from kupool.session.lifecycle import CLOSING, OPEN
from kupool.wire.framing import FRAME, INT32, LINE, OP_PONG, encode_frame
from tests.fakes.peers import Bench, frames, lines


class HeartbeatTests(SynchronousTestCase):
    """P-15: interval, missed limit, a ping and an end of one's own."""

    def beats(self, bench: Bench, count: int, seconds: float = 10.0) -> None:
        for _ in range(count):
            bench.clock.advance(seconds)

    def heartbeat(self, bench: Bench, **options: Any) -> Heartbeat:
        heartbeat = Heartbeat(bench.manager, 10.0, **options)
        heartbeat.start()
        heartbeat.start()
        self.addCleanup(heartbeat.stop)
        return heartbeat

    def test_silent_peers_are_asked_and_closed(self) -> None:
        bench = Bench(idle_timeout=0)
        self.heartbeat(bench, missed=3)
        connection, transport = bench.connect(FRAME)
        self.beats(bench, 3)
        self.assertEqual(frames(transport.taken()), [(9, b"")] * 3)
        self.assertEqual(connection.state, OPEN)
        self.beats(bench, 1)
        self.assertEqual(connection.state, CLOSING)
        self.assertEqual(frames(transport.taken()), [(8, b"idle timeout")])

    def test_any_message_is_a_sign_of_life(self) -> None:
        bench = Bench()
        self.heartbeat(bench, missed=2)
        connection, transport = bench.connect(FRAME)
        for _ in range(20):
            self.beats(bench, 2)
            self.assertEqual(frames(transport.taken()), [(9, b"")] * 2)
            connection.feed(encode_frame(b"", OP_PONG))
            self.beats(bench, 1)
            self.assertEqual(transport.taken(), b"")
        self.assertEqual(connection.state, OPEN)

    def test_half_a_message_is_none(self) -> None:
        bench = Bench(idle_timeout=0)
        self.heartbeat(bench, missed=1)
        connection, _ = bench.connect(FRAME)
        for _ in range(2):
            connection.feed(encode_frame(b"")[:1])
            self.beats(bench, 1)
        self.assertEqual(connection.state, CLOSING)

    def test_busy_peers_are_not_asked(self) -> None:
        bench = Bench()
        self.heartbeat(bench)
        connection, transport = bench.connect(LINE)
        for _ in range(10):
            self.beats(bench, 1, 5.0)
            connection.feed(b'{"id":1,"method":"ping"}\n')
        self.assertEqual({m.get("method") for m in lines(transport.value())}, {None})

    def test_default_of_the_other_framings(self) -> None:
        bench = Bench()
        self.heartbeat(bench)
        _, transport = bench.connect(LINE)
        self.beats(bench, 1)
        self.assertEqual(lines(transport.value()), [{"id": None, "method": "ping"}])

    def test_those_that_cannot_answer_are_not_expected_to(self) -> None:
        """Case f07: a notification must not be answered, and a peer that only listens lives."""
        bench = Bench(idle_timeout=0)
        self.heartbeat(bench, missed=2)
        for framing in (LINE, INT32):
            connection, transport = bench.connect(framing)
            self.beats(bench, 20)
            self.assertEqual(connection.state, OPEN)
            self.assertEqual(transport.value().count(b"ping"), 20)

    def test_always(self) -> None:
        """Issue 12: pings for peers that are not silent, as clients of zinx expect them."""
        for always, expected in ((False, 0), (True, 5)):
            bench = Bench()
            self.heartbeat(bench, always=always)
            connection, transport = bench.connect(FRAME)
            for _ in range(5):
                connection.feed(encode_frame(b"", OP_PONG))
                self.beats(bench, 1, 9.0)
                connection.feed(encode_frame(b"", OP_PONG))
                self.beats(bench, 1, 1.0)
            self.assertEqual(frames(transport.value()), [(9, b"")] * expected)
            self.assertEqual(connection.state, OPEN)

    def test_a_pause_of_this_process(self) -> None:
        """Case 16: the answers of before the pause have not been read; nobody is silent."""
        bench = Bench(idle_timeout=0)
        self.heartbeat(bench, missed=1)
        connection, transport = bench.connect(FRAME)
        self.beats(bench, 1)
        bench.clock.advance(3600.0)
        self.assertEqual((connection.state, frames(transport.taken())), (OPEN, [(9, b"")]))
        connection.feed(encode_frame(b"", OP_PONG))
        self.beats(bench, 2)
        self.assertEqual(connection.state, OPEN)
        self.beats(bench, 1)
        self.assertEqual(connection.state, CLOSING)

    def test_a_peer_that_was_heard_before_a_pause(self) -> None:
        """The pause is not its silence: it is not asked before an interval has passed."""
        bench = Bench(idle_timeout=0)
        self.heartbeat(bench)
        connection, transport = bench.connect(FRAME)
        for _ in range(2):
            bench.clock.advance(9.0)
            connection.feed(encode_frame(b"", OP_PONG))
            bench.clock.advance(1.0 if bench.clock.seconds() < 10.0 else 0.9)
        bench.clock.advance(53.1)  # in one step, until shortly before the next beat
        bench.clock.advance(7.5)
        self.assertEqual(transport.taken(), b"")
        bench.clock.advance(10.0)
        self.assertEqual(frames(transport.taken()), [(9, b"")])

    def test_a_ping_and_an_end_of_ones_own(self) -> None:
        bench = Bench(idle_timeout=0)
        dead: list[Connection] = []
        self.heartbeat(
            bench,
            missed=2,
            ping=lambda c: None if c.context == "quiet" else b"are you there, %d?\n" % c.id,
            dead=dead.append,
        )
        connection, transport = bench.connect()
        quiet, unasked = bench.connect()
        quiet.context = "quiet"
        self.beats(bench, 2)
        self.assertEqual(transport.value(), b"are you there, %d?\n" % connection.id * 2)
        self.assertEqual((unasked.value(), dead), (b"", []))
        self.beats(bench, 5)
        # told once, and nothing else is done to it
        self.assertEqual(dead, [connection, quiet])
        self.assertEqual(connection.state, OPEN)

    def test_those_that_end_are_forgotten(self) -> None:
        bench = Bench(idle_timeout=0)
        heartbeat = self.heartbeat(bench)
        connection, transport = bench.connect()
        self.beats(bench, 1)
        connection.lost(Failure(ConnectionDone()))
        transport.clear()
        self.beats(bench, 5)
        self.assertEqual(transport.value(), b"")
        heartbeat.stop()
        heartbeat.stop()
        self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_a_ping_that_fails_stops_nobody_else(self) -> None:
        bench = Bench(idle_timeout=0)

        def ping(connection: Connection) -> bytes:
            if connection.id == 1:
                raise ZeroDivisionError
            return b"ping\n"

        self.heartbeat(bench, ping=ping)
        bench.connect()
        _, transport = bench.connect()
        self.beats(bench, 2)
        self.assertEqual(transport.value(), b"ping\nping\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_values_that_make_no_sense(self) -> None:
        for interval, missed in ((0, 1), (-1, 1), (1, 0)):
            with self.assertRaises(ValueError):
                Heartbeat(Bench().manager, interval, missed)
