"""A peer that sends much has its share of each turn, and no more."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Item, LineSplitter
from kupool.wire.websocket import WEBSOCKET, WEBSOCKET_BINARY
from tests.fakes.peers import Bench, Recorder

#: Messages of a peer in one turn, and bytes of a read that are split at once.
BUDGET = 64
SLICE = 8192


class BudgetTests(SynchronousTestCase):
    """Issue 12, point 8: one connection has a budget of messages per reactor turn."""

    def flood(self, framing: Framing, number: int) -> bytes:
        return b"".join(framing.encode(b'{"n":%d}' % n) for n in range(number))

    def expected(self, number: int) -> list[Item]:
        return [b'{"n":%d}' % n for n in range(number)]

    def test_all_of_it_is_handled_in_order(self) -> None:
        for framing in (FRAME, INT32, LINE):
            for size in (100, SLICE - 1, SLICE, SLICE + 1, 65536, 200_000):
                recorder = Recorder()
                bench = Bench(recorder)
                connection, transport = bench.connect(framing)
                data = self.flood(framing, 5000)
                for start in range(0, len(data), size):
                    connection.feed(data[start : start + size])
                self.assertLessEqual(len(recorder.items), BUDGET * (len(data) // size + 1))
                self.assertIs(transport.reading, size == 100)
                bench.turns()
                self.assertEqual(recorder.items, self.expected(5000))
                self.assertEqual(connection.messages_in, 5000)
                self.assertEqual((connection.state, transport.reading), (OPEN, True))

    def test_its_share(self) -> None:
        recorder = Recorder()
        connection, _ = Bench(recorder).connect()
        connection.feed(self.flood(LINE, BUDGET))
        self.assertEqual(len(recorder.items), BUDGET)
        connection.feed(self.flood(LINE, BUDGET + 1))
        self.assertEqual(len(recorder.items), 2 * BUDGET)

    def test_its_share_of_a_large_read(self) -> None:
        """It is taken apart piece by piece, and no piece alone is over the share."""
        recorder = Recorder()
        bench = Bench(recorder)
        connection, transport = bench.connect()
        line = LINE.encode(b"x" * 255)  # 32 of them are a piece
        connection.feed(line * 256)
        self.assertEqual((len(recorder.items), transport.reading), (64, False))
        bench.turns()
        self.assertEqual((len(recorder.items), transport.reading), (256, True))
        connection.feed(line * 64)
        self.assertEqual((len(recorder.items), transport.reading), (320, True))

    def test_a_large_read_is_split_in_pieces(self) -> None:
        fed: list[int] = []

        class Splitter(LineSplitter):
            def feed(self, data: bytes) -> list[Item]:
                fed.append(len(data))
                return super().feed(data)

        for size, pieces in ((8192, [8192]), (8193, [8192, 1]), (20_000, [8192, 8192, 3616])):
            connection, _ = Bench(Recorder()).connect(LINE._replace(splitter=Splitter, crlf=None))
            connection.feed(b"x" * size)
            self.assertEqual(fed, pieces)
            fed.clear()

    def test_what_comes_after_a_large_read_waits_behind_it(self) -> None:
        """Whether it is a single byte or much."""
        recorder = Recorder()
        bench = Bench(recorder)
        connection, _ = bench.connect()
        data = self.flood(LINE, 3000)
        cut = len(data) - SLICE
        connection.feed(data[:cut])
        for start in (cut, cut + 1, cut + 3):
            connection.feed(data[start : start + (2 if start > cut else 1)])
        connection.feed(data[cut + 5 :])
        bench.turns()
        self.assertEqual(recorder.items, self.expected(3000))

    def test_another_one_is_handled_first(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder)
        flooding, _ = bench.connect()
        polite, _ = bench.connect()
        flooding.feed(self.flood(LINE, 8 * BUDGET))
        polite.feed(b"polite\n")
        self.assertEqual(recorder.items.index(b"polite"), BUDGET)

    def test_they_take_turns(self) -> None:
        turns: list[Connection] = []
        bench = Bench(Recorder(lambda connection, item: turns.append(connection)))
        one, other = bench.connect()[0], bench.connect()[0]
        for connection in (one, other):
            connection.feed(self.flood(LINE, 3 * BUDGET))
        bench.turns()
        self.assertEqual(turns[::BUDGET], [one, other] * 3)

    def test_held_meanwhile(self) -> None:
        """A hold within the share, and a release before or after its next turn."""
        for turns_first in (False, True):
            recorder = Recorder()
            bench = Bench(recorder)
            connection, transport = bench.connect()
            connection.feed(self.flood(LINE, 3 * BUDGET))
            connection.hold()
            if turns_first:
                bench.turns()
                self.assertEqual(len(recorder.items), BUDGET)
            connection.release()
            bench.turns()
            self.assertEqual(recorder.items, self.expected(3 * BUDGET))
            self.assertTrue(transport.reading)

    def test_a_handler_holds(self) -> None:
        recorder = Recorder(lambda connection, item: connection.hold())
        bench = Bench(recorder)
        connection, _ = bench.connect()
        connection.feed(self.flood(LINE, 2000))
        for number in range(2000):
            self.assertEqual(len(recorder.items), number + 1)
            connection.release()
        bench.turns()
        self.assertEqual(recorder.items, self.expected(2000))

    def test_ended_meanwhile(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder)
        connection, _ = bench.connect()
        connection.feed(self.flood(LINE, 1000))
        connection.abort()
        bench.turns()
        self.assertEqual(len(recorder.items), BUDGET)

    def test_the_peer_has_finished(self) -> None:
        """What it sent before it finished is handled first."""
        recorder = Recorder()
        bench = Bench(recorder)
        connection, transport = bench.connect()
        connection.feed(self.flood(LINE, 1000))
        connection.finished()
        self.assertFalse(transport.disconnecting)
        bench.turns()
        self.assertEqual(len(recorder.items), 1000)
        self.assertTrue(transport.disconnecting)

    def test_too_large_behind_the_share(self) -> None:
        recorder = Recorder()
        bench = Bench(recorder, max_frame=100)
        connection, transport = bench.connect(INT32)
        connection.feed(self.flood(INT32, 1000) + b"\x00\x00\xff\xff" + b"x" * 70_000)
        bench.turns()
        self.assertEqual(len(recorder.items), 1000)
        self.assertIn(b"frame too large", transport.value())

    def test_messages_that_come_whole(self) -> None:
        """A WebSocket message larger than a slice is one message all the same."""
        for framing in (WEBSOCKET, WEBSOCKET_BINARY):
            recorder = Recorder()
            connection, _ = Bench(recorder).connect(framing)
            connection.feed(b"x" * (3 * SLICE))
            self.assertEqual(recorder.items, [b"x" * (3 * SLICE)])
