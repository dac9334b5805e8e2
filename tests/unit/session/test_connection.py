"""A connection on a transport in memory and a fake clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kupool.errors import (
    BANNED,
    CLOSE_UNAUTHORIZED,
    FRAME_TOO_LARGE,
    SLOW_READER,
    CloseReason,
)
from kupool.net.routing.router import Router
from kupool.session.connection import LINGER, Connection
from kupool.session.failures import ConnectionClosed
from kupool.session.lifecycle import CLOSED, CLOSING, DRAINING, OPEN
from kupool.session.outbox import EventPolicy
from kupool.wire.codecs import CrcCodec, TlvCodec, framing_of
from kupool.wire.framing import FRAME, INT32, LINE, Control, Discarding, Item, Tlv, encode_frame
from kupool.wire.messages import encode_close, encode_success
from kupool.wire.packets import MessageTooLarge
from kupool.wire.websocket import WEBSOCKET
from tests.fakes.peers import Bench, PeerTransport, Recorder, frames, int32s, lines

PING = b'{"id":%d,"method":"ping"}'


def ping(number: int) -> bytes:
    return PING % number


class IdentityTests(SynchronousTestCase):
    def test_who_it_is(self) -> None:
        bench = Bench()
        connection, _ = bench.connect(host="192.0.2.7")
        self.assertEqual((connection.host, connection.peer), ("192.0.2.7", "192.0.2.7:4000"))
        self.assertTrue(verifyObject(IPushProducer, connection))
        connection.properties["a"] = 1
        self.assertEqual(connection.properties, {"a": 1})
        self.assertIs(connection.router, bench.observer.router)

    def test_counts(self) -> None:
        bench = Bench()
        connection, transport = bench.connect()
        connection.feed(ping(1) + b"\n")
        connection.feed(ping(2) + b"\n" + ping(3) + b"\n" + b'{"id"')
        self.assertEqual(connection.messages_in, 3)
        self.assertEqual(connection.bytes_in, 3 * 25 + 5)
        self.assertEqual(connection.bytes_out, len(transport.value()))


class OrderTests(SynchronousTestCase):
    """K-11, K-51: messages of one connection are handled in the order received."""

    def test_one_read_of_many(self) -> None:
        bench = Bench()
        for framing, take in ((FRAME, frames), (INT32, int32s), (LINE, lines)):
            connection, transport = bench.connect(framing)
            connection.feed(framing.join([ping(n) for n in range(5)]))
            answered: Any = take(transport.value())
            expected: Any = {
                "frame": [(2, encode_success(n)) for n in range(5)],
                "int32": [encode_success(n) for n in range(5)],
                "line": [{"id": n, "result": True} for n in range(5)],
            }[framing.name]
            self.assertEqual(answered, expected)

    def test_replies_may_overtake(self) -> None:
        """K-11: what is answered later does not hold back what is answered now."""
        later: Deferred[bool] = Deferred()
        router = Router()
        router.add("slow", lambda connection, message: later)
        router.add("fast", lambda connection, message: True)
        bench = Bench(router)
        connection, transport = bench.connect()
        connection.feed(b'{"id":1,"method":"slow"}\n{"id":2,"method":"fast"}\n')
        self.assertEqual([reply["id"] for reply in lines(transport.value())], [2])
        later.callback(True)
        self.assertEqual([reply["id"] for reply in lines(transport.value())], [2, 1])

    def test_a_handler_may_set_another_router(self) -> None:
        second = Recorder()

        def switch(connection: Connection, item: Item) -> None:
            connection.router = second

        first = Recorder(switch)
        bench = Bench(first)
        connection, _ = bench.connect()
        connection.feed(b"a\nb\nc\n")
        self.assertEqual((first.items, second.items), ([b"a"], [b"b", b"c"]))


class HoldTests(SynchronousTestCase):
    """K-11: while one message is decided, those behind it wait, and nothing is read."""

    def test_messages_wait_until_release(self) -> None:
        recorder = Recorder(lambda c, item: c.hold() if item == b"hold" else None)
        bench = Bench(recorder)
        connection, transport = bench.connect()
        connection.feed(b"a\nhold\nb\n")
        self.assertFalse(transport.reading)
        connection.feed(b"c\n")  # a wrapped transport may have had it already
        self.assertEqual(recorder.items, [b"a", b"hold"])
        connection.release()
        self.assertEqual(recorder.items, [b"a", b"hold", b"b", b"c"])
        self.assertTrue(transport.reading)
        self.assertEqual(connection.messages_in, 4)

    def test_what_comes_while_it_is_held_waits_behind_what_came_before(self) -> None:
        """A transport may hand over more while reading is being paused."""

        def act(connection: Connection, item: Item) -> None:
            if item == b"hold":
                connection.hold()
                connection.feed(b"c\nd\n")

        recorder = Recorder(act)
        connection, _ = Bench(recorder).connect()
        connection.feed(b"hold\na\nb\n")
        connection.release()
        self.assertEqual(recorder.items, [b"hold", b"a", b"b", b"c", b"d"])

    def test_holding_again_while_released(self) -> None:
        recorder = Recorder(lambda c, item: c.hold() if item == b"hold" else None)
        bench = Bench(recorder)
        connection, transport = bench.connect()
        connection.feed(b"hold\nhold\nx\n")
        connection.release()
        self.assertEqual(recorder.items, [b"hold", b"hold"])
        self.assertFalse(transport.reading)
        connection.release()
        self.assertEqual(recorder.items[-1], b"x")
        self.assertTrue(transport.reading)

    def test_a_hold_that_ends_at_once_keeps_the_order(self) -> None:
        """A raised limit lets in what was too large, but only after what came before."""

        def act(connection: Connection, item: Item) -> None:
            if item == b"first":
                connection.hold()
                connection.max_frame = 100
                connection.release()

        recorder = Recorder(act)
        bench = Bench(recorder, max_frame=5)
        for framing in (FRAME, INT32, LINE):
            recorder.items.clear()
            connection, transport = bench.connect(framing)
            connection.feed(framing.join([b"first", b"then", b"x" * 50, b"last"]))
            self.assertEqual(recorder.items, [b"first", b"then", b"x" * 50, b"last"])
            self.assertTrue(transport.reading)

    def test_what_was_too_large_waits_for_the_release_too(self) -> None:
        recorder = Recorder(lambda c, item: c.hold() if item == b"hold" else None)
        bench = Bench(recorder, max_frame=5)
        connection, transport = bench.connect(FRAME)
        connection.feed(FRAME.join([b"hold", b"x" * 50]))
        connection.feed(FRAME.encode(b"last"))
        self.assertEqual(connection.state, OPEN)
        connection.max_frame = 100
        connection.release()
        self.assertEqual(recorder.items, [b"hold", b"x" * 50, b"last"])
        self.assertEqual(transport.value(), b"")

    def test_too_large_is_refused_at_release_unless_the_limit_was_raised(self) -> None:
        bench = Bench(Recorder(lambda c, item: c.hold()), max_frame=5)
        connection, transport = bench.connect(FRAME)
        connection.feed(FRAME.join([b"hold", b"x" * 50]))
        connection.release()
        self.assertEqual(frames(transport.value()), [(8, b"frame too large")])

    def test_several_that_hold(self) -> None:
        """Each has to let go, in any order; one that lets go twice takes no other's place."""
        recorder = Recorder()
        bench = Bench(recorder)
        connection, transport = bench.connect()
        connection.hold()
        connection.hold()
        connection.feed(b"a\nb\n")
        connection.release()
        self.assertEqual((recorder.items, transport.reading), ([], False))
        connection.hold()
        connection.release()
        self.assertEqual((recorder.items, transport.reading), ([], False))
        connection.release()
        self.assertEqual((recorder.items, transport.reading), ([b"a", b"b"], True))
        connection.release()
        connection.hold()
        connection.feed(b"c\n")
        self.assertEqual(recorder.items, [b"a", b"b"])
        connection.release()
        self.assertEqual(recorder.items, [b"a", b"b", b"c"])

    def test_a_router_that_raises_costs_its_connection_and_not_who_lets_go(self) -> None:
        bench = Bench(Recorder(lambda c, item: 1 / 0))  # type: ignore[arg-type,return-value]
        connection, transport = bench.connect()
        connection.hold()
        connection.feed(b"a\n")
        connection.release()
        self.assertTrue(transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_release_after_the_end_does_nothing(self) -> None:
        recorder = Recorder(lambda c, item: c.hold())
        bench = Bench(recorder)
        connection, _ = bench.connect()
        connection.feed(b"a\nb\n")
        connection.lost(Failure(ConnectionDone()))
        connection.release()
        self.assertEqual(recorder.items, [b"a"])

    def test_peer_that_finishes_meanwhile_is_answered_after_release(self) -> None:
        held: list[Connection] = []
        router = Router()

        def wait(connection: Connection, message: Any) -> bool:
            connection.hold()
            held.append(connection)
            return True

        router.add("wait", wait)
        router.add("ping", lambda connection, message: True)
        bench = Bench(router)
        connection, transport = bench.connect()
        connection.feed(b'{"id":1,"method":"wait"}\n' + ping(2) + b"\n")
        connection.finished()
        self.assertEqual(connection.state, OPEN)
        held[0].release()
        self.assertEqual([reply["id"] for reply in lines(transport.value())], [1, 2])
        self.assertTrue(transport.disconnecting)


class SizeTests(SynchronousTestCase):
    """K-07: too large a message is refused from its header, with a reason."""

    def test_refused_from_the_header_alone(self) -> None:
        bench = Bench(Recorder(), max_frame=1024)
        connection, transport = bench.connect(FRAME)
        connection.feed(b"\x02" + (1025).to_bytes(4, "little"))
        self.assertEqual(frames(transport.value()), [(8, b"frame too large")])
        self.assertTrue(transport.disconnecting)
        self.assertEqual(bench.manager.counters.closes, {"frame too large": 1})

    def test_refused_in_the_other_framings(self) -> None:
        bench = Bench(Recorder(), max_frame=8)
        connection, transport = bench.connect(INT32)
        connection.feed((0xFFFFFFF0).to_bytes(4, "big"))
        (body,) = int32s(transport.value())
        self.assertEqual(lines(body + b"\n")[0]["params"]["code"], 4501)
        connection, transport = bench.connect(LINE)
        connection.feed(b"x" * 10)
        (message,) = lines(transport.value())
        self.assertEqual(message["params"]["reason"], "frame too large")
        self.assertEqual(message["params"]["reconnect"], False)

    def test_what_came_before_is_answered_first(self) -> None:
        bench = Bench(max_frame=30)
        connection, transport = bench.connect(FRAME)
        connection.feed(FRAME.encode(ping(1)) + FRAME.encode(b"x" * 31) + FRAME.encode(ping(2)))
        self.assertEqual(
            frames(transport.value()), [(2, encode_success(1)), (8, b"frame too large")]
        )

    def test_limit_raised_by_the_message_before_it(self) -> None:
        """K-07: 1 KiB before authorize, 64 KiB after, in one read or in two."""

        def authorize(connection: Connection, item: Item) -> bytes:
            connection.max_frame = 65536
            return b"%d" % len(item)

        for cut in (0, 7, 1036, 1037, 1042):
            bench = Bench(Recorder(authorize), max_frame=1024)
            connection, transport = bench.connect(FRAME)
            data = FRAME.join([b"a" * 1024, b"b" * 65536, b"c"])
            connection.feed(data[:cut]) if cut else None
            connection.feed(data[cut:])
            sizes = [payload for _, payload in frames(transport.value())]
            self.assertEqual(sizes, [b"1024", b"65536", b"1"], cut)

    def test_raised_limit_has_its_own_end(self) -> None:
        def authorize(connection: Connection, item: Item) -> None:
            connection.max_frame = 2048

        bench = Bench(Recorder(authorize), max_frame=1024)
        connection, transport = bench.connect(FRAME)
        connection.feed(FRAME.join([b"a", b"b" * 2049]))
        self.assertEqual(frames(transport.value()), [(8, b"frame too large")])


class MalformedTests(SynchronousTestCase):
    """K-10: malformed messages are answered, counted, and too many end the connection."""

    def test_closed_after_the_limit(self) -> None:
        bench = Bench(max_errors=3)
        connection, transport = bench.connect()
        connection.feed(b"x\ny\n")
        self.assertEqual((connection.malformed, connection.state), (2, OPEN))
        connection.feed(b"z\nmore\n")
        messages = lines(transport.value())
        self.assertEqual([m.get("code") for m in messages[:3]], [30, 30, 30])
        self.assertEqual(messages[3]["params"]["reason"], "too many errors")
        self.assertEqual((len(messages), connection.malformed), (4, 3))
        self.assertEqual(bench.manager.counters.malformed, 3)
        self.assertTrue(transport.disconnecting)

    def test_no_limit(self) -> None:
        bench = Bench(max_errors=0)
        connection, _ = bench.connect()
        connection.feed(b"x\n" * 1000)
        bench.turns()
        self.assertEqual((connection.state, connection.malformed), (OPEN, 1000))

    def test_empty_payloads_are_no_messages(self) -> None:
        for framing in (FRAME, INT32):
            bench = Bench(max_errors=3)
            connection, transport = bench.connect(framing)
            connection.feed(framing.encode(b"") * 5)
            self.assertEqual((connection.state, connection.messages_in), (OPEN, 0))
            self.assertEqual(transport.value(), b"")


class SlowReaderTests(SynchronousTestCase):
    """K-27, K-28: a peer that does not read."""

    def full(self, **settings: Any) -> tuple[Bench, Connection, Any]:
        bench = Bench(**{"outbox_limit": 100, "write_timeout": 10.0, **settings})
        connection, transport = bench.connect()
        transport.full = True
        connection.send(b"fills the transport")
        transport.clear()
        return bench, connection, transport

    def test_only_the_newest_of_a_key_is_sent(self) -> None:
        bench, connection, transport = self.full()
        for n in range(10):
            connection.send_latest("jobs", b"job %d\n" % n)
        self.assertEqual((transport.value(), connection.outbound), (b"", 6))
        transport.drain()
        self.assertEqual(transport.value(), b"job 9\n")
        self.assertEqual((bench.manager.counters.dropped, connection.outbound), (9, 0))

    def test_replies_are_never_dropped(self) -> None:
        _, connection, transport = self.full()
        for n in range(100):
            connection.send(b"%d" % n)
        connection.send_latest("jobs", b"job\n")
        transport.drain()
        self.assertEqual(transport.value(), b"".join(b"%d\n" % n for n in range(100)) + b"job\n")

    def test_order_is_kept_after_the_outbox_is_gone(self) -> None:
        _, connection, transport = self.full()
        connection.send(b"1")
        transport.drain()
        connection.send(b"2")
        self.assertEqual(transport.value(), b"1\n2\n")

    def test_full_again_while_draining(self) -> None:
        _, connection, transport = self.full()
        connection.send_latest("a", b"a\n")
        connection.send_latest("b", b"b\n")
        transport.full = True
        transport.producer.resumeProducing()
        self.assertEqual(transport.taken(), b"a\n")
        connection.send(b"reply")
        transport.drain()
        self.assertEqual(transport.value(), b"reply\nb\n")

    def test_reading_pauses_over_the_limit_and_resumes_at_half_of_it(self) -> None:
        _, connection, transport = self.full()
        connection.send(b"x" * 99)
        self.assertTrue(transport.reading)
        connection.send(b"y")
        self.assertFalse(transport.reading)
        transport.drain()
        self.assertTrue(transport.reading)

    def test_closed_4100_after_the_write_timeout(self) -> None:
        bench, connection, transport = self.full()
        connection.send(b"x" * 200)
        connection.send_latest("jobs", b"job\n")
        bench.sweep_after(9.9)
        self.assertEqual(connection.state, OPEN)
        bench.sweep_after(0.2)
        (message,) = lines(transport.value())
        self.assertEqual(message["params"]["code"], SLOW_READER.code)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(bench.manager.counters.closes, {"slow reader": 1})

    def test_a_reader_that_catches_up_is_not_closed(self) -> None:
        bench, connection, transport = self.full()
        connection.send(b"x" * 200)
        bench.sweep_after(9.0)
        transport.drain()
        bench.sweep_after(9.0)
        self.assertEqual(connection.state, OPEN)

    def test_latest_alone_never_closes(self) -> None:
        bench, connection, _ = self.full(idle_timeout=0)
        for _ in range(100):
            connection.send_latest("jobs", b"x" * 90 + b"\n")
            bench.sweep_after(1.0)
        self.assertEqual(connection.state, OPEN)

    def test_others_are_unaffected(self) -> None:
        bench, connection, transport = self.full()
        connection.send(b"x" * 200)
        other, fine = bench.connect()
        bench.manager.broadcast(b"job", key="jobs")
        other.feed(ping(1) + b"\n")
        self.assertEqual(fine.value(), b"job\n" + encode_success(1) + b"\n")
        self.assertEqual(transport.value(), b"")

    def test_events_are_dropped_by_policy_and_counted(self) -> None:
        bench, connection, transport = self.full()
        kept = [connection.send_event(b"x" * 49 + b"\n") for _ in range(3)]
        self.assertEqual(kept, [True, True, False])
        self.assertTrue(connection.send_event(b"new\n", EventPolicy.DROP_OLDEST))
        transport.drain()
        self.assertEqual(transport.value(), b"x" * 49 + b"\nnew\n")
        self.assertEqual(bench.manager.counters.dropped, 2)

    def test_drops_are_counted_when_the_connection_is_lost(self) -> None:
        bench, connection, _ = self.full()
        for _ in range(4):
            connection.send_latest("jobs", b"job\n")
        connection.lost(Failure(ConnectionDone()))
        self.assertEqual(bench.manager.counters.dropped, 3)

    def test_close_sends_the_replies_that_wait_before_the_reason(self) -> None:
        _, connection, transport = self.full()
        connection.send(encode_success(1))
        connection.close(BANNED, retry_after=5.0)
        first, second = lines(transport.value())
        self.assertEqual(first, {"id": 1, "result": True})
        self.assertEqual(second["params"]["retry_after"], 5.0)

    def test_memory_is_bounded_whatever_is_pushed(self) -> None:
        """K-27: latest and events of a reader that never reads stay within the limit."""
        _, connection, _ = self.full()
        for n in range(10_000):
            connection.send_latest("jobs", b"job %05d\n" % n)
            connection.send_event(b"event\n")
        self.assertLessEqual(connection.outbound, 100 + 10)


class TimeoutTests(SynchronousTestCase):
    """K-08, K-15: the timeouts, on a fake clock."""

    def test_idle_after_180_seconds(self) -> None:
        bench = Bench()
        connection, transport = bench.connect()
        bench.sweep_after(179.9)
        self.assertEqual(connection.state, OPEN)
        connection.feed(ping(1) + b"\n")
        transport.clear()
        bench.sweep_after(179.9)
        self.assertEqual(connection.state, OPEN)
        bench.sweep_after(0.2)
        (message,) = lines(transport.value())
        self.assertEqual(message["params"]["reason"], "idle timeout")
        self.assertEqual(message["params"]["code"], 4101)

    def test_a_ping_opcode_keeps_it_open(self) -> None:
        bench = Bench()
        connection, transport = bench.connect(FRAME)
        for _ in range(10):
            bench.sweep_after(55.0)
            connection.feed(encode_frame(b"beat", 0x9))
        self.assertEqual(connection.state, OPEN)
        self.assertEqual(frames(transport.value()), [(0xA, b"beat")] * 10)

    def test_bytes_without_a_message_do_not(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        for _ in range(180):
            connection.feed(b"x")
            bench.sweep_after(1.0)
        self.assertNotEqual(connection.state, OPEN)

    def test_zero_turns_it_off(self) -> None:
        bench = Bench(idle_timeout=0)
        connection, _ = bench.connect()
        bench.sweep_after(1000.0)
        self.assertEqual(connection.state, OPEN)

    def test_slow_loris_does_not_extend_the_deadline(self) -> None:
        """K-15: a byte a second, or whole messages, leave the deadline where it is."""
        for piece in (b"x", b"{}\n"):
            bench = Bench(Recorder())
            connection, transport = bench.connect()
            connection.expect_within(10.0, CLOSE_UNAUTHORIZED)
            for _ in range(9):
                connection.feed(piece)
                bench.sweep_after(1.0)
            self.assertEqual(connection.state, OPEN)
            connection.feed(piece)
            bench.sweep_after(1.0)
            self.assertEqual(lines(transport.value())[-1]["params"]["reason"], "unauthorized")

    def test_deadline_may_be_cleared(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        connection.expect_within(10.0, CLOSE_UNAUTHORIZED)
        connection.deadline = None
        bench.sweep_after(11.0)
        self.assertEqual(connection.state, OPEN)

    def test_write_timeout_of_a_close_that_is_not_taken(self) -> None:
        """K-08: 10 s after a close the connection is cut off."""
        bench = Bench()
        connection, transport = bench.connect()
        connection.close(BANNED)
        bench.sweep_after(9.9)
        self.assertFalse(transport.aborted)
        bench.sweep_after(0.2)
        self.assertTrue(transport.aborted)


class EndTests(SynchronousTestCase):
    def test_close_tells_the_reason_once(self) -> None:
        bench = Bench()
        connection, transport = bench.connect(FRAME)
        connection.close(FRAME_TOO_LARGE)
        connection.close(BANNED)
        self.assertEqual(frames(transport.value()), [(8, b"frame too large")])
        self.assertEqual(connection.state, CLOSING)
        self.assertEqual(bench.manager.counters.closes, {"frame too large": 1})

    def test_nothing_is_sent_or_handled_after_a_close(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder)
        connection, transport = bench.connect()
        connection.close(None)
        connection.send(b"x")
        connection.send_many([b"x", b"y"])
        connection.send_latest("k", b"x\n")
        self.assertFalse(connection.send_event(b"x\n"))
        connection.reply(1, True)
        connection.feed(b"a\n")
        self.assertEqual((transport.value(), recorder.items), (b"", []))

    def test_messages_after_a_close_in_the_same_read_are_dropped(self) -> None:
        recorder = Recorder(lambda c, item: c.close(None) if item == b"b" else None)
        bench = Bench(recorder)
        connection, _ = bench.connect()
        connection.feed(b"a\nb\nc\n")
        self.assertEqual(recorder.items, [b"a", b"b"])

    def test_nothing_is_kept_after_a_close(self) -> None:
        """Neither the rest of a large read nor what follows it."""
        connection, _ = Bench(Recorder(lambda c, item: c.close(None))).connect()
        for _ in range(3):
            connection.feed(b"x\n" * 20_000)
            self.assertEqual(connection._later, b"")

    def test_lost_is_told_once(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        reason = Failure(ConnectionDone())
        connection.lost(reason)
        connection.lost(reason)
        self.assertEqual(bench.observer.ended, [(connection, reason)])
        self.assertEqual((connection.state, len(bench.manager)), (CLOSED, 0))
        connection.abort()
        connection.close(BANNED)
        self.assertEqual(connection.state, CLOSED)

    def test_abort(self) -> None:
        bench = Bench()
        connection, transport = bench.connect()
        connection.abort()
        self.assertTrue(transport.aborted)
        connection.send(b"x")
        self.assertEqual(transport.value(), b"")

    def test_end_with_bytes_of_no_framing(self) -> None:
        bench = Bench()
        connection, transport = bench.connect()
        connection.end_with(b"HTTP/1.1 400\r\n\r\n")
        self.assertEqual(transport.value(), b"HTTP/1.1 400\r\n\r\n")
        self.assertTrue(transport.disconnecting)

    def test_notifications_are_not_replied_to(self) -> None:
        """K-04: no reply to an id of null."""
        bench = Bench()
        connection, transport = bench.connect()
        connection.reply(None, True)
        connection.feed(b'{"id":null,"method":"ping"}\n{"method":"ping"}\n')
        self.assertEqual(transport.value(), b"")
        connection.reply(3, "x")
        self.assertEqual(lines(transport.value()), [{"id": 3, "result": "x"}])

    def test_send_many_is_one_write(self) -> None:
        bench = Bench()
        connection, transport = bench.connect(FRAME)
        connection.send_many([b"a", b"b"])
        connection.send_many([b"c"])
        self.assertEqual(frames(transport.value()), [(2, b"a"), (2, b"b"), (2, b"c")])


@implementer(ITCPTransport)
class HalfClosing(PeerTransport):
    """A transport whose two sides end one by one."""

    write_ended = False

    def loseWriteConnection(self) -> None:
        self.write_ended = True


class LingerTests(SynchronousTestCase):
    """K-28: the reason of a close is not lost because of bytes that nobody read."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.transport = HalfClosing()
        self.connection = self.bench.manager.admit(self.transport, "192.0.2.1", LINE)

    def test_this_side_ends_first_and_reading_goes_on(self) -> None:
        self.connection.hold()
        self.assertFalse(self.transport.reading)
        self.connection.close(BANNED)
        self.assertTrue(self.transport.write_ended)
        self.assertTrue(self.transport.reading)
        self.assertFalse(self.transport.disconnecting)

    def test_bytes_of_no_framing_are_not_lost_either(self) -> None:
        self.connection.end_with(b"HTTP/1.1 400\r\n\r\n")
        self.assertEqual((self.transport.write_ended, self.transport.disconnecting), (True, False))

    def test_what_still_comes_is_dropped(self) -> None:
        self.connection.close(BANNED)
        self.transport.clear()
        for _ in range(100):
            self.connection.feed(b"x" * 65536)
        self.connection.feed(b"\n" + ping(1) + b"\n")
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.bench.manager.counters.closes, {"banned": 1})

    def test_ends_when_the_peer_does(self) -> None:
        self.connection.close(BANNED)
        self.connection.finished()
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.bench.observer.finished, [])

    def test_ends_soon_after_all_is_sent(self) -> None:
        self.connection.close(BANNED)
        self.bench.sweep_after(5.0)
        self.connection.flushed()
        self.bench.sweep_after(LINGER - 0.1)
        self.assertFalse(self.transport.disconnecting)
        self.bench.sweep_after(0.2)
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.aborted)

    def test_is_cut_off_when_it_is_not_taken(self) -> None:
        self.connection.close(BANNED)
        self.bench.sweep_after(10.0)
        self.assertTrue(self.transport.aborted)

    def test_a_peer_that_said_goodbye_is_not_waited_for(self) -> None:
        self.connection.close(None)
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.write_ended)

    def test_nothing_is_flushed_while_it_is_open(self) -> None:
        self.connection.flushed()
        self.bench.sweep_after(LINGER)
        self.assertEqual(self.connection.state, OPEN)


class FinishedTests(SynchronousTestCase):
    """K-03: a peer that says goodbye still gets the answers that are on their way."""

    def test_close_opcode_ends_the_connection(self) -> None:
        recorder = Bench().observer.router
        bench = Bench(recorder)
        connection, transport = bench.connect(FRAME)
        connection.feed(FRAME.encode(ping(1)) + encode_frame(b"bye", 0x8) + FRAME.encode(ping(2)))
        self.assertEqual(frames(transport.value()), [(2, encode_success(1))])
        self.assertTrue(transport.disconnecting)

    def test_waits_for_the_observer_to_settle(self) -> None:
        bench = Bench()
        bench.observer.settling = Deferred()
        connection, transport = bench.connect()
        connection.finished()
        self.assertIs(connection.state, DRAINING)
        self.assertFalse(transport.disconnecting)
        self.assertFalse(transport.reading)
        connection.send(b"late answer")
        connection.answer(b"another")
        connection.send_latest("job", b"latest\n")
        self.assertTrue(connection.send_event(b"event\n"))
        bench.observer.settling.callback(None)
        self.assertEqual(transport.value(), b"late answer\nanother\nlatest\nevent\n")
        self.assertTrue(transport.disconnecting)

    def test_a_failure_to_settle_ends_it_all_the_same(self) -> None:
        bench = Bench()
        bench.observer.settling = Deferred()
        connection, transport = bench.connect()
        connection.finished()
        bench.observer.settling.errback(RuntimeError("no answer"))
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_control_items_are_handed_to_the_router(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder)
        connection, _ = bench.connect(FRAME)
        connection.feed(encode_frame(b"p", 0x9))
        self.assertEqual(recorder.items, [Control(0x9, b"p")])


class ReasonTests(SynchronousTestCase):
    def test_a_detail_goes_before_the_close_of_websocket(self) -> None:
        """K-14: that close has no place for it."""
        connection, transport = Bench().connect(WEBSOCKET)
        reason = CLOSE_UNAUTHORIZED.about("too late")
        connection.close(reason)
        notice = WEBSOCKET.encode(encode_close(reason))
        self.assertEqual(transport.value(), notice + b"\x88\x0e\x11\x94unauthorized")

    def test_reasons_are_counted_by_name(self) -> None:
        bench = Bench()
        for _ in range(3):
            connection, _ = bench.connect()
            connection.close(CloseReason(4999, "tired", True))
        self.assertEqual(bench.manager.counters.closes, {"tired": 3})


class PeerTests(SynchronousTestCase):
    def test_of_a_unix_socket(self) -> None:
        """The path, whatever bytes it has; empty for a socket without one."""
        for name, shown in ((b"/run/pool.sock", "/run/pool.sock"), (b"\xff", "\udcff"), (None, "")):
            connection, transport = Bench().connect()
            transport.peerAddr = UNIXAddress(name)
            self.assertEqual(connection.peer, shown)

    def test_half_close_is_asked_for(self) -> None:
        """A transport whose side cannot end alone is ended as a whole."""
        bench = Bench()
        transport = HalfClosing()
        connection = Connection(7, bench.connect()[0].around, transport, LINE)
        self.assertEqual(connection.host, "")
        connection.close(BANNED)
        self.assertEqual((transport.write_ended, transport.disconnecting), (False, True))


class FramingTests(SynchronousTestCase):
    """Protocol section 1: the first byte of a peer decides about its framing."""

    def test_the_limit_of_the_peer_is_kept(self) -> None:
        connection, _ = Bench(Recorder()).connect(LINE)
        connection.max_frame = 77
        connection.use_framing(FRAME)
        self.assertEqual(connection.max_frame, 77)

    def test_both_ways_are_of_the_new_framing(self) -> None:
        connection, transport = Bench().connect(LINE)
        connection.use_framing(FRAME)
        connection.feed(FRAME.encode(ping(1)))
        self.assertEqual(frames(transport.taken()), [(2, encode_success(1))])
        connection.send(b"x")
        self.assertEqual(frames(transport.taken()), [(2, b"x")])

    def test_large_reads_are_cut_where_messages_may_come_in_pieces(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder)
        connection, _ = bench.connect(LINE)
        connection.use_framing(WEBSOCKET)
        connection.feed(b"x" * 20_000)
        self.assertEqual(recorder.items, [b"x" * 20_000])
        recorder.items.clear()
        connection, _ = bench.connect(WEBSOCKET)
        connection.use_framing(LINE)
        connection.feed(b"x\n" * 20_000)
        self.assertEqual(len(recorder.items), 64)
        bench.turns()
        self.assertEqual(len(recorder.items), 20_000)

    def test_lines_end_as_those_of_the_peer(self) -> None:
        for end in (b"\n", b"\r\n"):
            connection, transport = Bench().connect(LINE)
            connection.feed(ping(1) + end)
            connection.send(b"x")
            connection.send_many([b"y", b"z"])
            expected = [encode_success(1), b"x", b"y", b"z", b""]
            self.assertEqual(transport.value(), end.join(expected))

    def test_invalid_bytes_end_it_as_malformed(self) -> None:
        """K-10: counted, and the close says what it was."""
        codec = CrcCodec(TlvCodec())
        bench = Bench(Recorder())
        connection, transport = bench.connect(framing_of(codec))
        connection.feed(codec.pack(b"good") + bytes(8) + codec.pack(b"late"))
        self.assertEqual((connection.messages_in, connection.malformed), (1, 1))
        self.assertEqual(bench.manager.counters.malformed, 1)
        self.assertEqual(bench.manager.counters.closes, {"malformed message": 1})
        self.assertTrue(transport.disconnecting)


class PackTests(SynchronousTestCase):
    """P-38: what cannot be sent raises, and nothing of it is sent."""

    def test_in_each_kind_of_framing(self) -> None:
        for framing in (LINE, FRAME, INT32, framing_of(TlvCodec())):
            connection, _ = Bench(max_frame=5).connect(framing)
            self.assertEqual(connection.pack(b"12345"), framing.encode(b"12345"))
            with self.assertRaises(MessageTooLarge) as caught:
                connection.pack(b"123456")
            self.assertEqual((caught.exception.size, caught.exception.limit), (6, 5))

    def test_numbers(self) -> None:
        connection, transport = Bench(max_frame=5).connect(framing_of(TlvCodec()))
        connection.send_message(7, b"12345")
        self.assertEqual(transport.taken(), TlvCodec().pack(Tlv(7, b"12345")))
        self.assertRaises(MessageTooLarge, connection.send_message, 7, b"123456")
        plain, written = Bench().connect(INT32)
        self.assertRaises(ValueError, plain.send_message, 7, b"1")
        self.assertEqual((transport.value(), written.value()), (b"", b""))

    def test_after_the_end(self) -> None:
        connection, transport = Bench().connect(framing_of(TlvCodec()))
        connection.finished()
        transport.clear()
        with self.assertRaises(ConnectionClosed) as caught:
            connection.send_message(7, b"x")
        self.assertEqual(caught.exception.connection_id, connection.id)
        self.assertEqual(str(caught.exception), f"connection closed: {connection.id}")
        self.assertEqual(transport.value(), b"")


class CountTests(SynchronousTestCase):
    """P-27: what is sent is counted once, whether it is written or waits."""

    sends = (
        lambda c: c.send(b"12"),
        lambda c: c.send_many([b"1"]),
        lambda c: c.send_many([b"1", b"2"]),
        lambda c: c.send_encoded(b"123\n", 4),
        lambda c: c.send_latest("k", b"12\n"),
        lambda c: c.send_event(b"12\n"),
    )

    def test_written_and_waiting(self) -> None:
        for waits in (False, True):
            for send, messages in zip(self.sends, (1, 1, 2, 4, 1, 1), strict=True):
                connection, transport = Bench().connect()
                if waits:
                    connection.pauseProducing()
                send(connection)
                self.assertEqual(connection.messages_out, messages)
                self.assertEqual(connection.outbound > 0, waits)
                self.assertEqual(connection.bytes_out, len(transport.value()))
                transport.drain()
                self.assertEqual(connection.messages_out, messages)
                self.assertEqual((connection.bytes_out, connection.outbound),
                                 (len(transport.value()), 0))  # fmt: skip

    def test_nothing_after_the_end(self) -> None:
        for send in self.sends:
            connection, transport = Bench().connect()
            connection.close(None)
            send(connection)
            self.assertEqual((connection.messages_out, connection.bytes_out), (0, 0))
            self.assertEqual(transport.value(), b"")

    def test_what_was_handled_when_a_handler_raises(self) -> None:
        """The messages before it are answered all the same."""

        def act(connection: Connection, item: Item) -> bytes:
            return item[:1] if len(item) == 1 else bytes(1 // 0)

        connection, transport = Bench(Recorder(act)).connect()
        self.assertRaises(ZeroDivisionError, connection.feed, b"a\nb\nfail\nc\n")
        self.assertEqual(transport.value(), b"a\nb\n")

    def test_replies_go_before_what_a_handler_sends(self) -> None:
        """K-11: in the order in which they were made, whichever way they are sent."""
        others = (
            lambda c: c.send(b"x"),
            lambda c: c.send_encoded(b"x\n"),
            lambda c: c.send_latest("k", b"x\n"),
            lambda c: c.send_event(b"x\n"),
        )
        for other in others:
            recorder = Recorder(lambda c, item, o=other: item if item != b"b" else o(c) and None)
            connection, transport = Bench(recorder).connect()
            connection.feed(b"a\nb\nc\n")
            self.assertEqual(transport.value(), b"a\nx\nc\n")
        closing = Recorder(lambda c, item: item if item != b"b" else c.close(BANNED))
        connection, transport = Bench(closing).connect()
        connection.feed(b"a\nb\nc\n")
        self.assertTrue(transport.value().startswith(b'a\n{"id":null,"method":"close"'))


class UnsendableTests(SynchronousTestCase):
    """P-38: a reply that a framing cannot encode costs itself alone."""

    # What marks it must not occur in the reference of an error, which is hexadecimal.
    good, bad = b'{"id":1,"result":true}', b'{"id":2,"result":"wrong"}'

    def setUp(self) -> None:
        def encode(payload: bytes) -> bytes:
            if b"wrong" in payload:
                raise ValueError("cannot be encoded")
            return payload + b"\n"

        def join(payloads: Any) -> bytes:
            return b"".join(map(encode, payloads))

        self.framing = LINE._replace(encode=encode, join=join, crlf=None)

    def answered(self, transport: PeerTransport) -> list[tuple[Any, Any]]:
        found = [(reply["id"], reply["result"]) for reply in lines(transport.value())]
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        return found

    def test_alone(self) -> None:
        connection, transport = Bench(Recorder(lambda c, item: self.bad)).connect(self.framing)
        connection.feed(b"x\n")
        self.assertEqual(self.answered(transport), [(2, False)])

    def test_among_others(self) -> None:
        replies = [self.good, self.bad, self.good]
        connection, transport = Bench(Recorder(lambda c, item: replies.pop())).connect(self.framing)
        connection.feed(b"x\ny\nz\n")
        self.assertEqual(self.answered(transport), [(1, True), (2, False), (1, True)])
        self.assertEqual(connection.messages_out, 3)

    def test_late(self) -> None:
        connection, transport = Bench().connect(self.framing)
        connection.answer(self.good)
        connection.answer(self.bad)
        self.assertEqual(self.answered(transport), [(1, True), (2, False)])

    def test_late_after_the_end(self) -> None:
        connection, transport = Bench().connect(self.framing)
        connection.close(None)
        connection.answer(self.bad)
        self.assertEqual((transport.value(), self.flushLoggedErrors()), (b"", []))

    def test_nobody_waits_for_it(self) -> None:
        for reply in (b'{"id":null,"result":"wrong"}', b"wrong"):
            connection, transport = Bench().connect(self.framing)
            connection.answer(reply)
            self.assertEqual(self.answered(transport), [])

    def test_an_error_that_cannot_be_sent_either(self) -> None:
        connection, transport = Bench(max_errors=2).connect(self.framing)
        connection.complain(b"")
        connection.complain(b"wrong")
        (close,) = lines(transport.value())
        self.assertEqual(close["params"]["reason"], "too many errors")
        self.assertEqual(connection.malformed, 2)


class LateTests(SynchronousTestCase):
    """K-08, K-15: the rest of a message has its time, and each timeout its exact end."""

    def test_the_rest_of_a_message(self) -> None:
        bench = Bench(message_timeout=10.0)
        connection, _ = bench.connect()
        connection.feed(b'{"id"')
        bench.sweep_after(10.0)
        self.assertIs(connection.state, OPEN)
        bench.sweep_after(1.0)
        self.assertEqual(bench.manager.counters.closes, {"idle timeout": 1})

    def test_each_message_has_its_own_time(self) -> None:
        """The start of the next one may be there with the end of the last."""
        bench = Bench(message_timeout=10.0)
        connection, _ = bench.connect()
        connection.feed(b'{"id"')
        for _ in range(3):
            bench.sweep_after(9.0)
            connection.feed(b":1}\n" + b'{"id"')
        bench.sweep_after(9.0)
        self.assertIs(connection.state, OPEN)

    def test_a_message_that_arrived_is_not_late(self) -> None:
        bench = Bench(message_timeout=10.0)
        connection, _ = bench.connect()
        connection.feed(b'{"id"')
        bench.sweep_after(9.0)
        connection.feed(b":1}\n")
        bench.sweep_after(5.0)
        connection.feed(b'{"id"')
        bench.sweep_after(9.0)
        self.assertIs(connection.state, OPEN)

    def test_a_splitter_that_does_not_say_what_it_holds(self) -> None:
        """Of its messages none is late."""
        framing = LINE._replace(splitter=Discarding, crlf=None)
        bench = Bench(Recorder(), message_timeout=10.0)
        connection, _ = bench.connect(framing)
        connection.feed(b"x")
        bench.sweep_after(30.0)
        self.assertIs(connection.state, OPEN)

    def test_time_in_which_nothing_is_read_does_not_count(self) -> None:
        bench = Bench(Recorder(), message_timeout=10.0)
        connection, _ = bench.connect()
        connection.feed(b'{"id"')
        bench.sweep_after(9.0)
        connection.hold()
        bench.sweep_after(9.0)
        connection.release()
        bench.sweep_after(10.0)
        self.assertIs(connection.state, OPEN)
        bench.sweep_after(1.0)
        self.assertIsNot(connection.state, OPEN)

    def late(self) -> dict[str, tuple[Connection, float]]:
        """A connection for each timeout, and the clock's time at which it is due."""
        found = {}
        bench = Bench(idle_timeout=40.0)
        found["idle timeout"] = (bench.connect()[0], 40.0)
        deadline, _ = Bench().connect()
        deadline.expect_within(40.0, CLOSE_UNAUTHORIZED)
        found["unauthorized"] = (deadline, 40.0)
        slow, _ = Bench(outbox_limit=1, write_timeout=40.0).connect()
        slow.pauseProducing()
        slow.send(b"12345")
        found["slow reader"] = (slow, 40.0)
        part, _ = Bench(message_timeout=40.0).connect()
        part.feed(b"x")
        part.sweep(0.0)
        found["part"] = (part, 40.0)
        return found

    def test_due_exactly_then(self) -> None:
        for name, (connection, due) in self.late().items():
            connection.sweep(due - 0.25)
            self.assertIs(connection.state, OPEN, name)
            connection.sweep(due)
            self.assertIsNot(connection.state, OPEN, name)

    def test_the_time_in_which_the_process_ran_is_what_counts(self) -> None:
        for name, (connection, due) in self.late().items():
            connection.sweep(due, lambda since: 39.75)
            self.assertIs(connection.state, OPEN, name)
            connection.sweep(due, lambda since: 40.0)
            self.assertIsNot(connection.state, OPEN, name)

    def test_no_deadline(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        connection.expect_within(0, CLOSE_UNAUTHORIZED)
        bench.sweep_after(1.0)
        self.assertIs(connection.state, OPEN)


class BacklogTests(SynchronousTestCase):
    """K-27: reading pauses over the limit of the replies, and goes on at half of it."""

    def test_reading_resumes_at_half_the_limit(self) -> None:
        size = 70_000
        for limit, resumes_after in ((2 * size, 2), (2 * size - 1, 3)):
            connection, transport = Bench(outbox_limit=limit).connect()
            connection.pauseProducing()
            for _ in range(3):
                connection.send_encoded(bytes(size))
            self.assertFalse(transport.reading)
            taken = 0
            while not transport.reading:
                transport.full = True
                connection.resumeProducing()
                taken += 1
            self.assertEqual(taken, resumes_after)

    def test_each_reason_to_pause_reading_has_to_end(self) -> None:
        connection, transport = Bench(Recorder(), outbox_limit=5).connect()
        connection.pauseProducing()
        connection.send(b"123456")
        connection.hold()
        connection.release()
        self.assertFalse(transport.reading)
        transport.drain()
        self.assertTrue(transport.reading)

    def test_what_waits_is_dropped_with_the_connection(self) -> None:
        connection, transport = Bench().connect()
        connection.pauseProducing()
        connection.send(b"x")
        connection.lost(Failure(ConnectionDone()))
        self.assertEqual((transport.value(), connection.outbound), (b"", 0))

    def test_the_limit_of_one_event(self) -> None:
        connection, _ = Bench(outbox_limit=5).connect()
        connection.pauseProducing()
        self.assertTrue(connection.send_event(b"12345"))
        self.assertFalse(connection.send_event(b"1"))
        self.assertFalse(connection.send_event(b"1", limit=5))
        self.assertTrue(connection.send_event(b"1", limit=6))


class LastMessageTests(SynchronousTestCase):
    """P-66: the owner's last message goes before the reason of a close."""

    def setUp(self) -> None:
        self.bench = Bench(outbox_limit=4)
        self.connection, self.transport = self.bench.connect(FRAME)
        self.done: list[Any] = []
        self.patch(self.bench.manager, "parting", self.parting)

    def parting(self, connection: Connection, reason: Any, done: Any) -> bool:
        self.done.append(done)
        return True

    def test_waited_for(self) -> None:
        self.connection.close(BANNED)
        self.assertFalse(self.transport.disconnecting)
        self.connection.feed(FRAME.encode(ping(1)))
        self.connection.send(b"last")
        self.done[0]()
        self.assertEqual(frames(self.transport.value()), [(2, b"last"), (8, b"banned")])
        self.assertTrue(self.transport.disconnecting)

    def test_asked_for_once(self) -> None:
        self.connection.close(BANNED)
        self.connection.close(BANNED)
        self.assertEqual(len(self.done), 1)

    def test_not_waited_for_where_nothing_is_read(self) -> None:
        self.connection.close(SLOW_READER)
        self.assertTrue(self.transport.disconnecting)

    def test_lost_meanwhile(self) -> None:
        self.connection.close(BANNED)
        self.connection.lost(Failure(ConnectionDone()))
        self.done[0]()
        self.assertEqual((self.transport.value(), self.transport.disconnecting), (b"", False))
        self.assertEqual(self.bench.manager.counters.closes, {})

    def test_ended_by_the_owner(self) -> None:
        self.patch(self.bench.manager, "parting", lambda c, reason, done: c.abort())
        self.connection.close(BANNED)
        self.assertEqual((self.connection.state, self.transport.value()), (CLOSING, b""))

    def test_bytes_of_no_framing_after_the_end(self) -> None:
        self.connection.close(BANNED)
        self.done[0]()
        self.transport.clear()
        self.connection.end_with(b"HTTP/1.1 400\r\n\r\n")
        self.assertEqual(self.transport.value(), b"")


class CloseTimeTests(SynchronousTestCase):
    """K-28: after a close each step has its time, and the transport is ended once."""

    def test_a_second_for_the_peer_to_end_its_side(self) -> None:
        bench, transport = Bench(), HalfClosing()
        connection = bench.manager.admit(transport, "192.0.2.1", LINE)
        connection.close(BANNED)
        connection.flushed()
        connection.sweep(0.75)
        self.assertFalse(transport.disconnecting)
        connection.sweep(1.0)
        self.assertTrue(transport.disconnecting)

    def test_ended_once(self) -> None:
        bench, transport = Bench(write_timeout=10.0), HalfClosing()
        ends: list[str] = []
        for name in ("loseConnection", "abortConnection"):
            self.patch(transport, name, lambda name=name: ends.append(name))
        connection = bench.manager.admit(transport, "192.0.2.1", LINE)
        connection.close(BANNED)
        for now in (9.75, 10.0, 11.0, 30.0):
            connection.sweep(now)
        self.assertEqual(ends, ["abortConnection"])

    def test_the_producer_is_no_longer_asked(self) -> None:
        connection, transport = Bench().connect()
        connection.close(None)
        self.assertIsNone(transport.producer)
