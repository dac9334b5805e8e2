"""Limits, lookup, bans, broadcast and the sweep of a server's connections."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.errors import BANNED, GOING_DOWN, TOO_MANY_CONNECTIONS
from kupool.net.admission import MAX_BANS
from kupool.net.fan_out import LIMIT
from kupool.net.interfaces import IConnectionObserver
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.timing.chunks import CHUNK
from kupool.wire.framing import FRAME, INT32, LINE
from tests.fakes.peers import Bench, PeerTransport

DONE = Failure(ConnectionDone())


class LookupTests(SynchronousTestCase):
    def test_by_id(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        self.assertIs(bench.manager.get(connection.id), connection)
        with self.assertRaises(KeyError) as caught:
            bench.manager.get(99)
        self.assertIn("connection not found: 99", str(caught.exception))

    def test_ids_are_never_used_again(self) -> None:
        bench = Bench()
        ids = []
        for _ in range(3):
            connection, _ = bench.connect()
            ids.append(connection.id)
            connection.lost(DONE)
        self.assertEqual(len(set(ids)), 3)
        self.assertEqual((len(bench.manager), bench.manager.accepted), (0, 3))

    def test_iterating_while_they_go(self) -> None:
        bench = Bench()
        for _ in range(5):
            bench.connect()
        for connection in bench.manager:
            connection.lost(DONE)
        self.assertEqual(len(bench.manager), 0)


class ObserverTests(SynchronousTestCase):
    """K-21: the observer hears of every connection once, and of its end once."""

    def test_opened_and_closed(self) -> None:
        bench = Bench()
        self.assertTrue(verifyObject(IConnectionObserver, bench.observer))
        connection, _ = bench.connect()
        self.assertEqual(bench.observer.connections, [connection])
        connection.lost(DONE)
        self.assertEqual(bench.observer.ended, [(connection, DONE)])

    def test_one_that_cannot_be_opened_is_cut_off(self) -> None:
        bench = Bench()

        def fail(connection: Connection) -> None:
            raise ZeroDivisionError

        bench.observer.on_open = fail
        connection, transport = bench.connect()
        self.assertTrue(transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        connection.feed(b"{}\n")
        connection.lost(DONE)
        self.assertEqual(len(bench.manager), 0)

    def test_an_end_that_fails_is_logged_and_forgotten(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        empty = bench.manager.when_empty()
        self.assertNoResult(empty)
        self.patch(bench.observer, "closed", lambda connection, reason: 1 / 0)
        connection.lost(DONE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.successResultOf(empty)
        self.successResultOf(bench.manager.when_empty())


class LimitTests(SynchronousTestCase):
    """Protocol section 4: so many connections, so many from one address, no banned ones."""

    def test_all_together(self) -> None:
        bench = Bench(max_connections=2)
        first, _ = bench.connect()
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))
        bench.connect()
        self.assertEqual(bench.manager.refusal("192.0.2.9"), (TOO_MANY_CONNECTIONS, None))
        first.lost(DONE)
        self.assertIsNone(bench.manager.refusal("192.0.2.9"))

    def test_of_one_address(self) -> None:
        """W-15: one address does not take the places of others."""
        bench = Bench(max_connections_per_ip=2)
        first, _ = bench.connect(host="192.0.2.1")
        bench.connect(host="192.0.2.1")
        self.assertEqual(bench.manager.refusal("192.0.2.1"), (TOO_MANY_CONNECTIONS, None))
        self.assertIsNone(bench.manager.refusal("192.0.2.2"))
        self.assertIsNone(bench.manager.refusal(""))
        first.lost(DONE)
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))

    def test_unix_sockets_have_no_address_to_count(self) -> None:
        bench = Bench(max_connections_per_ip=1)
        bench.connect(host="")
        self.assertIsNone(bench.manager.refusal(""))

    def test_zero_turns_limits_off(self) -> None:
        bench = Bench(max_connections=0)
        for _ in range(50):
            bench.connect()
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))

    def test_ban_and_its_end(self) -> None:
        bench = Bench()
        bench.manager.ban("192.0.2.1", 60.0)
        bench.clock.advance(20)
        self.assertEqual(bench.manager.refusal("192.0.2.1"), (BANNED, 40.0))
        self.assertIsNone(bench.manager.refusal("192.0.2.2"))
        bench.clock.advance(40)
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))

    def test_a_ban_of_many_sessions_is_one(self) -> None:
        """Issue 15: each of them may bring it; it is counted and logged once, and extended."""
        bench = Bench()
        with capturedLogs() as events:
            for _ in range(5):
                bench.manager.ban("192.0.2.1", 60.0, "too many")
                bench.clock.advance(10.0)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(lines, ["Banned 192.0.2.1 for 60 s: too many"])
        self.assertEqual((bench.manager.banned, bench.manager.bans), (1, {"192.0.2.1": 50.0}))

    def test_bans_are_bounded(self) -> None:
        bench = Bench()
        for n in range(MAX_BANS + 5):
            bench.manager.ban(f"host {n}", 60.0)
        self.assertIsNone(bench.manager.refusal("host 4"))
        self.assertIsNotNone(bench.manager.refusal("host 5"))

    def test_a_ban_of_nobody(self) -> None:
        bench = Bench()
        bench.manager.ban("", 60.0)
        bench.manager.ban("192.0.2.1", 0)
        self.assertIsNone(bench.manager.refusal(""))
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))


class GraceTests(SynchronousTestCase):
    """A refused peer has a moment to show its framing, and so many have it at once."""

    def test_cut_off_at_its_end(self) -> None:
        bench = Bench()
        transport = PeerTransport()
        self.assertTrue(bench.manager.grant_grace(transport, 2.0, 1))
        self.assertFalse(bench.manager.grant_grace(PeerTransport(), 2.0, 1))
        bench.clock.advance(1.9)
        self.assertFalse(transport.aborted)
        bench.clock.advance(0.2)
        self.assertTrue(transport.aborted)
        self.assertTrue(bench.manager.grant_grace(PeerTransport(), 2.0, 1))

    def test_one_that_goes_leaves_its_place(self) -> None:
        bench = Bench()
        transport = PeerTransport()
        bench.manager.grant_grace(transport, 2.0, 1)
        bench.manager.end_grace(transport)
        bench.manager.end_grace(transport)
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        self.assertTrue(bench.manager.grant_grace(PeerTransport(), 2.0, 1))

    def test_stop_cuts_them_off(self) -> None:
        bench = Bench()
        transport = PeerTransport()
        bench.manager.start()
        bench.manager.grant_grace(transport, 2.0, 1)
        bench.manager.stop()
        self.assertTrue(transport.aborted)
        self.assertEqual(bench.clock.getDelayedCalls(), [])


class EachTests(SynchronousTestCase):
    """Work on all connections leaves the reactor its turns."""

    def test_in_chunks(self) -> None:
        bench = Bench(max_connections=0)
        for _ in range(2 * CHUNK + 1):
            bench.connect()
        seen: list[Connection] = []
        turns: list[Callable[[], None]] = []
        self.patch(bench.clock, "callLater", lambda seconds, turn: turns.append(turn))
        done = bench.manager.each(seen.append)
        self.assertEqual(len(seen), CHUNK)
        self.assertNoResult(done)
        turns.pop()()
        self.assertEqual(len(seen), 2 * CHUNK)
        self.assertNoResult(done)
        turns.pop()()
        self.assertEqual(len(set(seen)), 2 * CHUNK + 1)
        self.successResultOf(done)

    def test_exactly_one_chunk(self) -> None:
        bench = Bench(max_connections=0)
        for _ in range(CHUNK):
            bench.connect()
        done = bench.manager.each(lambda connection: None)
        bench.clock.advance(0)
        self.successResultOf(done)

    def test_of_nobody(self) -> None:
        self.successResultOf(Bench().manager.each(lambda connection: None))

    def test_an_exception_stops_nobody_else(self) -> None:
        bench = Bench()
        connections = [bench.connect()[0] for _ in range(3)]
        seen: list[Connection] = []

        def call(connection: Connection) -> None:
            seen.append(connection)
            raise ZeroDivisionError

        self.successResultOf(bench.manager.each(call))
        self.assertEqual(seen, connections)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)


class BroadcastTests(SynchronousTestCase):
    """K-26, K-27: one message to all, encoded once for each framing."""

    def test_each_in_its_framing(self) -> None:
        bench = Bench()
        transports = [(f, bench.connect(f)[1]) for f in (FRAME, INT32, LINE, LINE)]
        self.successResultOf(bench.manager.broadcast(b'{"id":null}', key="jobs"))
        for framing, transport in transports:
            self.assertEqual(transport.value(), framing.encode(b'{"id":null}'))

    def test_to_some(self) -> None:
        bench = Bench()
        one, mine = bench.connect()
        _, other = bench.connect()
        bench.manager.broadcast(b"x", key="k", connections=[one])
        self.assertEqual((mine.value(), other.value()), (b"x\n", b""))

    def test_those_that_end_meanwhile_are_passed_over(self) -> None:
        bench = Bench(max_connections=0)
        pairs = [bench.connect() for _ in range(CHUNK + 1)]
        done = bench.manager.broadcast(b"x", key="k")
        connection, transport = pairs[-1]
        connection.lost(DONE)
        bench.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(transport.value(), b"")

    def test_in_order_and_a_chunk_in_each_turn(self) -> None:
        """Issue 13: a small audience does not overtake a large one, nor add to its turn."""
        bench = Bench(max_connections=0)
        pairs = [bench.connect() for _ in range(3 * CHUNK)]
        last, heard = pairs[-1]
        done = [
            bench.manager.broadcast(b"a", key="k"),
            bench.manager.send_many(b"b", [last]),
            bench.manager.broadcast(b"c", key="k", connections=[last]),
        ]
        self.assertEqual(heard.value(), b"")
        sent = [sum(bool(t.value()) for _, t in pairs)]
        while bench.clock.getDelayedCalls():
            bench.clock.turn()
            sent.append(sum(bool(t.value()) for _, t in pairs))
        self.assertEqual(sent, [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK])
        self.assertEqual(heard.value(), b"a\nb\nc\n")
        for each in done:
            self.successResultOf(each)

    def test_so_many_wait(self) -> None:
        """Issue 13: what is over the limit is dropped and counted, but for replies."""
        bench = Bench(max_connections=0)
        pairs = [bench.connect() for _ in range(CHUNK + 1)]
        for _ in range(LIMIT + 2):
            bench.manager.broadcast(b"x", key="k", connections=[c for c, _ in pairs])
        self.assertEqual(bench.manager.counters.dropped, 2 * len(pairs))
        bench.manager.send_many(b"y")
        bench.turns()
        self.assertTrue(pairs[-1][1].value().endswith(b"x\ny\n"))


class SweepTests(SynchronousTestCase):
    """K-08: once a second the timeouts are applied."""

    def test_every_second(self) -> None:
        bench = Bench(idle_timeout=5.0)
        connection, transport = bench.connect()
        bench.manager.start()
        bench.manager.start()
        for _ in range(4):
            bench.clock.advance(1)
        self.assertEqual(connection.state, OPEN)
        bench.clock.advance(1)
        self.assertTrue(transport.disconnecting)
        bench.manager.stop()
        bench.manager.stop()
        self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_close_all(self) -> None:
        bench = Bench()
        pairs = [bench.connect() for _ in range(3)]
        pairs[0][0].close(None)
        self.successResultOf(bench.manager.close_all(GOING_DOWN))
        self.assertEqual(bench.manager.counters.closes, {"server going down": 2})
        self.assertTrue(all(transport.disconnecting for _, transport in pairs))
