"""Hooks for the start and the end of a connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.errors import GOING_DOWN, IDLE_TIMEOUT, SLOW_READER, CloseReason
from kupool.net.hooks import HookedObserver
from kupool.net.interfaces import IClosingObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.transport.protocols import TLV, LineFactory
from kupool.net.workers.pool import WorkerPool, WorkerSettings
from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed
from kupool.session.lifecycle import OPEN, PARTING
from kupool.wire.framing import LINE, Framing, encode_tlv
from tests.fakes.peers import Bench, PeerTransport, Recorder

LOST = Failure(ConnectionLost())
DONE = Failure(ConnectionDone())


class HookBench(Bench):
    """A manager whose observer has hooks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.recorder = Recorder()
        self.hooks = HookedObserver(self.recorder)
        self.manager = ConnectionManager(self.clock, self.hooks, ServerSettings(**settings))
        self.stops: list[Any] = []
        self.hooks.set_on_conn_stop(lambda connection, reason: self.stops.append(reason))


class StartTests(SynchronousTestCase):
    """P-56: the start hook finishes before the first message is handled."""

    def test_a_plain_function(self) -> None:
        bench = HookBench()
        self.assertTrue(verifyObject(IClosingObserver, bench.hooks))
        bench.hooks.set_on_conn_start(lambda c: c.send_message(301, b"welcome"))
        connection, transport = bench.connect(TLV)
        self.assertEqual(transport.taken(), encode_tlv(b"welcome", 301))
        connection.feed(encode_tlv(b"x", 1))
        self.assertEqual(len(bench.recorder.items), 1)

    def test_a_coroutine_that_takes_its_time(self) -> None:
        bench = HookBench()
        ready: Deferred[None] = Deferred()
        steps: list[str] = []

        async def start(connection: Connection) -> None:
            steps.append("begun")
            await ready
            connection.context = "known"
            steps.append("ready")

        bench.hooks.set_on_conn_start(start)
        connection, transport = bench.connect()
        self.assertFalse(transport.reading)
        connection.feed(b"first\nsecond\n")
        self.assertEqual((steps, bench.recorder.items), (["begun"], []))
        ready.callback(None)
        self.assertEqual((steps, connection.context), (["begun", "ready"], "known"))
        self.assertEqual(bench.recorder.items, [b"first", b"second"])
        self.assertTrue(transport.reading)

    def test_in_the_protocol_of_a_factory(self) -> None:
        bench = HookBench()
        ready: Deferred[None] = Deferred()
        bench.hooks.set_on_conn_start(lambda connection: ready)
        protocol = LineFactory(bench.manager).buildProtocol(None)
        protocol.makeConnection(PeerTransport())
        protocol.dataReceived(b"early\n")
        self.assertEqual(bench.recorder.items, [])
        ready.callback(None)
        self.assertEqual(bench.recorder.items, [b"early"])

    def test_one_that_fails_cuts_the_connection_off(self) -> None:
        bench = HookBench()
        ready: Deferred[None] = Deferred()
        bench.hooks.set_on_conn_start(lambda connection: ready)
        connection, transport = bench.connect()
        connection.feed(b"never\n")
        ready.errback(ZeroDivisionError())
        self.assertTrue(transport.aborted)
        bench.hooks.set_on_conn_start(lambda connection: 1 / 0)
        second, other = bench.connect()
        self.assertTrue(other.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        connection.lost(LOST)
        second.lost(LOST)
        self.assertEqual((bench.recorder.items, bench.stops, len(bench.manager)), ([], [], 0))

    def test_a_connection_that_ends_first(self) -> None:
        bench = HookBench()
        starts: list[Deferred[None]] = []
        bench.hooks.set_on_conn_start(lambda connection: starts.append(Deferred()) or starts[-1])  # type: ignore[func-returns-value]
        connection, _ = bench.connect()
        connection.lost(LOST)
        self.assertEqual(bench.stops, [LOST])
        self.assertTrue(starts[0].called)
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_without_hooks(self) -> None:
        bench = HookBench()
        bench.hooks.set_on_conn_stop(None)
        connection, _ = bench.connect()
        connection.feed(b"x\n")
        connection.close(GOING_DOWN)
        connection.lost(DONE)
        self.assertEqual((bench.recorder.items, len(bench.manager)), ([b"x"], 0))


class StopTests(SynchronousTestCase):
    """P-56, P-57: the stop hook runs once, with the reason, while something can be sent."""

    def ended(self, bench: HookBench) -> Any:
        (reason,) = bench.stops
        return reason if isinstance(reason, CloseReason) else reason.type

    def test_farewell_before_the_close(self) -> None:
        """P-56: message 302 goes out before the reason, and before the end."""
        bench = HookBench()
        states: list[str] = []

        def farewell(connection: Connection, reason: Any) -> None:
            states.append(connection.state)
            connection.send_message(302, b"farewell")

        bench.hooks.set_on_conn_stop(farewell)
        connection, transport = bench.connect(TLV)
        self.assertFalse(transport.disconnecting)
        connection.close(GOING_DOWN)
        expected = encode_tlv(b"farewell", 302)
        self.assertEqual(transport.value()[: len(expected)], expected)
        self.assertIn(b"server going down", transport.value()[len(expected) :])
        self.assertTrue(transport.disconnecting)
        connection.close(GOING_DOWN)
        connection.lost(DONE)
        self.assertEqual(states, [OPEN])
        with self.assertRaises(ConnectionClosed):
            connection.send_message(302, b"again")

    def test_behind_what_a_slow_peer_has_yet_to_read(self) -> None:
        bench = HookBench()
        bench.hooks.set_on_conn_stop(lambda c, reason: c.send(b"farewell"))
        connection, transport = bench.connect()
        connection.pauseProducing()
        connection.send(b"waits")
        connection.close(GOING_DOWN)
        self.assertEqual(transport.value().split(b"\n")[:2], [b"waits", b"farewell"])

    def test_closed_by_the_server(self) -> None:
        bench = HookBench()
        connection, _ = bench.connect()
        connection.close(GOING_DOWN)
        connection.lost(DONE)
        self.assertEqual(self.ended(bench), GOING_DOWN)

    def test_closed_by_a_timeout(self) -> None:
        bench = HookBench(idle_timeout=5)
        connection, _ = bench.connect()
        bench.sweep_after(6)
        connection.lost(DONE)
        self.assertEqual(self.ended(bench), IDLE_TIMEOUT)

    def test_the_peer_has_finished(self) -> None:
        """P-12: the end of the peer reaches both halves; it may still read the farewell."""
        bench = HookBench()
        sent: list[bytes] = []
        bench.hooks.set_on_conn_stop(
            lambda c, reason: (bench.stops.append(reason), c.send(b"bye"), sent.append(b"bye"))
        )
        for framing in (LINE,):
            connection, transport = bench.connect(framing)
            connection.finished()
            self.assertEqual(transport.value(), b"bye\n")
            self.assertFalse(transport.reading)
            self.assertTrue(transport.disconnecting)
            connection.lost(DONE)
        self.assertEqual((self.ended(bench), sent), (ConnectionDone, [b"bye"]))

    def test_lost_without_a_word(self) -> None:
        bench = HookBench()
        connection, _ = bench.connect()
        connection.lost(LOST)
        self.assertEqual(self.ended(bench), ConnectionLost)

    def test_cut_off(self) -> None:
        bench = HookBench()
        connection, _ = bench.connect()
        connection.abort()
        connection.lost(LOST)
        self.assertEqual(self.ended(bench), ConnectionLost)

    def test_a_hook_that_closes_is_not_called_again(self) -> None:
        bench = HookBench()
        calls: list[Any] = []

        def stop(connection: Connection, reason: Any) -> None:
            calls.append(reason)
            connection.close(IDLE_TIMEOUT)

        bench.hooks.set_on_conn_stop(stop)
        connection, transport = bench.connect()
        connection.close(GOING_DOWN)
        connection.lost(DONE)
        self.assertEqual(calls, [GOING_DOWN])
        self.assertEqual(transport.value().count(b"close"), 1)
        self.assertEqual(bench.manager.counters.closes, {"idle timeout": 1})

    def test_one_that_fails_is_logged_and_the_close_goes_on(self) -> None:
        bench = HookBench()

        async def later(connection: Connection, reason: Any) -> None:
            raise ZeroDivisionError

        for hook in (later, lambda connection, reason: 1 / 0):
            bench.hooks.set_on_conn_stop(hook)
            connection, transport = bench.connect()
            connection.close(GOING_DOWN)
            self.assertTrue(transport.disconnecting)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_another_observer_that_fails(self) -> None:
        bench = HookBench()
        self.patch(bench.hooks, "call_on_conn_stop", lambda *arguments: 1 / 0)
        bench.manager = ConnectionManager(bench.clock, bench.hooks, ServerSettings())
        connection, transport = bench.connect()
        connection.close(GOING_DOWN)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SlowStopTests(SynchronousTestCase):
    """P-56: a stop hook that takes its time can still send; the close waits for it."""

    def setUp(self) -> None:
        self.gate: Deferred[None] = Deferred()
        self.bench = HookBench(write_timeout=5.0, max_frame=100)
        self.bench.hooks.set_on_conn_stop(self.farewell)
        self.reasons: list[Any] = []
        self.connection, self.transport = self.bench.connect()

    async def farewell(self, connection: Connection, reason: Any) -> None:
        self.reasons.append(reason)
        await self.gate
        connection.send(b"farewell")

    def test_what_it_sends_comes_before_the_close(self) -> None:
        self.connection.close(GOING_DOWN)
        self.assertEqual((self.connection.state, self.transport.value()), (PARTING, b""))
        self.connection.send(b"answer")
        self.connection.close(IDLE_TIMEOUT)  # it is closed already
        self.gate.callback(None)
        answer, farewell, close = self.transport.value().splitlines()
        self.assertEqual((answer, farewell), (b"answer", b"farewell"))
        self.assertIn(b"server going down", close)
        self.assertTrue(self.transport.disconnecting)
        self.connection.lost(DONE)
        self.assertEqual(self.reasons, [GOING_DOWN])
        self.assertEqual(self.bench.manager.counters.closes, {"server going down": 1})
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_nothing_more_of_the_peer_is_handled(self) -> None:
        self.connection.close(GOING_DOWN)
        self.connection.feed(b"late\nlater\n")
        self.connection.feed(b"x" * 1000)  # nor refused
        self.connection.hold()
        self.connection.release()
        self.connection.feed(b"\nlast\n")
        self.connection.finished()
        self.assertEqual((self.bench.recorder.items, self.transport.value()), ([], b""))
        self.gate.callback(None)
        self.assertEqual(self.transport.value().count(b"\n"), 2)

    def test_not_for_longer_than_the_write_timeout(self) -> None:
        self.connection.close(GOING_DOWN)
        self.bench.clock.advance(4.9)
        self.assertFalse(self.transport.disconnecting)
        self.bench.clock.advance(0.1)
        self.assertTrue(self.transport.disconnecting)
        self.assertIn(b"server going down", self.transport.value())
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)

    def test_not_for_a_slow_reader(self) -> None:
        self.connection.close(SLOW_READER)
        self.assertTrue(self.transport.disconnecting)

    def test_lost_meanwhile(self) -> None:
        self.connection.close(GOING_DOWN)
        self.connection.lost(LOST)
        self.assertEqual(len(self.bench.manager), 0)
        self.gate.callback(None)
        self.assertEqual((self.transport.value(), self.reasons), (b"", [GOING_DOWN]))
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_the_peer_has_finished(self) -> None:
        self.connection.finished()
        self.assertFalse(self.transport.disconnecting)
        self.gate.callback(None)
        self.assertEqual(self.transport.value(), b"farewell\n")
        self.assertTrue(self.transport.disconnecting)

    def test_after_too_large_a_message(self) -> None:
        self.connection.feed(b"x" * 1000)
        self.connection.feed(b"x" * 1000)
        self.assertEqual(self.transport.value(), b"")
        self.gate.callback(None)
        self.assertIn(b"frame too large", self.transport.value())


class HeldTests(SynchronousTestCase):
    """P-47, P-56: a start hook and a full queue hold the same connection."""

    def test_neither_lets_go_for_the_other(self) -> None:
        bench = HookBench()
        ready: Deferred[None] = Deferred()
        work: list[Deferred[None]] = []

        def wait(connection: Connection) -> Deferred[None]:
            work.append(Deferred())
            return work[-1]

        pool = WorkerPool(bench.clock, WorkerSettings(size=1, queue=1, wait=60.0))
        asked: list[object] = []

        def start(connection: Connection) -> Deferred[None]:
            # What a service begins for a new connection goes through the pool, too.
            asked.extend(pool.submit(wait, connection) for _ in range(3))
            return ready

        bench.hooks.set_on_conn_start(start)
        connection, _ = bench.connect()
        connection.feed(b"first\n")
        work[0].callback(None)  # the third has a place in the queue now
        self.assertEqual((bench.recorder.items, pool.loads), ([], [2]))
        ready.callback(None)
        self.assertEqual(bench.recorder.items, [b"first"])


class BothTests(SynchronousTestCase):
    """P-57: one stop for each start, whatever happens."""

    def test_a_thousand_ends(self) -> None:
        bench = HookBench(max_connections=0)
        started: list[int] = []
        stopped: list[int] = []
        bench.hooks.set_on_conn_start(lambda c: started.append(c.id))
        bench.hooks.set_on_conn_stop(lambda c, reason: stopped.append(c.id))
        framings: list[Framing] = [LINE, TLV]
        for n in range(1000):
            connection, _ = bench.connect(framings[n % 2])
            for end in range(n % 5):
                (connection.finished, connection.abort, lambda: connection.close(None))[  # noqa: B023
                    (n + end) % 3
                ]()
            connection.lost(DONE)
            connection.lost(DONE)
        self.assertEqual(len(started), 1000)
        self.assertEqual(stopped, started)
