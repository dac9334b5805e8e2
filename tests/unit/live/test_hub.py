"""Channels of a hub: who has what, in which order, and how much of it in a turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.live import Channel, Hub, IChannel
from kupool.session.connection import Connection
from kupool.session.publication import ForEach, Publication
from kupool.timing.chunks import CHUNK
from kupool.wire.framing import FRAME, INT32, LINE
from tests.fakes.peers import Bench, PeerTransport

DONE = Failure(ConnectionDone())


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(max_connections=0, outbox_limit=20)
        self.hub = Hub(self.bench.clock)
        self.channel = self.hub.channel()

    def join(
        self, number: int, channel: Channel | None = None
    ) -> list[tuple[Connection, PeerTransport]]:
        pairs = [self.bench.connect() for _ in range(number)]
        for connection, _ in pairs:
            (self.channel if channel is None else channel).subscribe(connection)
        return pairs

    def turns(self) -> int:
        """Let all that is on its way arrive; returns in how many turns."""
        clock, turns = self.bench.clock, 0
        while clock.getDelayedCalls():
            clock.turn()
            turns += 1
        return turns


class DeliveryTests(Case):
    """Issue 13: a message reaches the subscribers, each in its framing."""

    def test_byte_for_byte(self) -> None:
        pairs = [self.bench.connect(framing) for framing in (LINE, FRAME, INT32, LINE)]
        for connection, _ in pairs:
            self.channel.subscribe(connection)
        for publication in (
            Publication(b"news"),
            Publication(b"news", "key"),
            Publication(b"news", policy=None),
            Publication(ForEach(lambda connection: b"news")),
            Publication(lambda framing: framing.encode(b"news")),
        ):
            self.successResultOf(self.channel.publish(publication))
            for connection, transport in pairs:
                self.assertEqual(transport.taken(), connection.framing.encode(b"news"))

    def test_who_is_there(self) -> None:
        (one, _), (two, _) = self.join(2)
        self.channel.subscribe(one)
        self.assertEqual((len(self.channel), list(self.channel)), (2, [one, two]))
        self.channel.unsubscribe(one)
        self.assertEqual((one in self.channel, two in self.channel), (False, True))
        one.lost(DONE)
        self.channel.subscribe(one)
        self.assertEqual(list(self.channel), [two])

    def test_a_slow_reader_delays_nobody(self) -> None:
        (slow, behind), (_, other) = self.join(2)
        slow.pauseProducing()
        for n in range(5):
            self.channel.publish(Publication(b"%d" % n * 8))
        self.assertEqual(len(other.value().split()), 5)
        self.assertEqual(self.channel.dropped, 3)
        behind.drain()
        self.assertEqual(behind.value(), b"0" * 8 + b"\n" + b"1" * 8 + b"\n")


class TurnTests(Case):
    """Issue 13: no more than a chunk in a turn, and nothing overtakes."""

    def count(self, pairs: list[tuple[Connection, PeerTransport]]) -> int:
        return sum(bool(transport.value()) for _, transport in pairs)

    def test_few_need_no_turn(self) -> None:
        pairs = self.join(CHUNK)
        self.successResultOf(self.channel.publish(Publication(b"x")))
        self.assertEqual((self.count(pairs), self.turns()), (CHUNK, 0))

    def test_ten_thousand(self) -> None:
        pairs = self.join(10_000)
        done = self.channel.publish(Publication(b"x", "key"))
        sent = self.count(pairs)
        self.assertEqual(sent, CHUNK)
        while self.bench.clock.getDelayedCalls():
            self.assertNoResult(done)
            self.bench.clock.turn()
            now = self.count(pairs)
            self.assertEqual(now - sent, CHUNK)
            sent = now
        self.successResultOf(done)
        self.assertEqual(sent, 10_000)

    def test_who_is_not_subscribed_costs_nothing(self) -> None:
        """W-69: ten thousand clients of another channel are not looked at."""
        self.join(10_000, self.hub.channel())
        pairs = self.join(3)
        self.successResultOf(self.channel.publish(Publication(b"x")))
        self.assertEqual((self.count(pairs), self.turns()), (3, 0))

    def test_channels_share_a_turn(self) -> None:
        channels = [self.hub.channel() for _ in range(4)]
        pairs = [self.join(CHUNK + 250, channel) for channel in channels]
        for channel in channels:
            channel.publish(Publication(b"x"))
        everybody = [pair for some in pairs for pair in some]
        sent = self.count(everybody)
        self.assertEqual(self.turns(), 2)
        self.assertEqual((sent, self.count(everybody)), (4 * CHUNK, 4 * (CHUNK + 250)))

    def test_in_order(self) -> None:
        pairs = self.join(2 * CHUNK)
        done = [self.channel.publish(Publication(b"%d" % n)) for n in range(3)]
        self.turns()
        self.assertEqual({t.value() for _, t in pairs}, {b"0\n1\n2\n"})
        for each in done:
            self.successResultOf(each)

    def test_those_that_come_meanwhile_have_what_comes_after(self) -> None:
        self.join(2 * CHUNK)
        self.channel.publish(Publication(b"before"))
        [(_, late)] = self.join(1)
        self.channel.publish(Publication(b"after"))
        self.turns()
        self.assertEqual(late.value(), b"after\n")

    def test_the_newest_alone(self) -> None:
        pairs = self.join(2 * CHUNK)
        done = [self.channel.publish(Publication(b"%d" % n, "key")) for n in range(9)]
        self.turns()
        for each in done:
            self.successResultOf(each)
        self.assertEqual([t.value() for _, t in pairs], [b"0\n8\n"] * CHUNK + [b"8\n"] * CHUNK)

    def test_whoever_wakes_it_says_how_much(self) -> None:
        woken: list[Channel] = []
        channel = Channel(woken.append)
        pairs = self.join(CHUNK + 30, channel)
        channel.publish(Publication(b"x"))
        self.assertEqual((woken, channel.ready), ([channel], True))
        self.assertEqual([channel.run(20) for _ in range(3)], [20, 10, 0])
        self.assertEqual((channel.ready, self.count(pairs)), (False, CHUNK + 30))


class LeavingTests(Case):
    """W-06, W-73, W-87: a subscriber that leaves on the way gets nothing more."""

    def leave(self, how: Callable[[Connection], object]) -> list[bytes]:
        pairs = self.join(CHUNK + 2)
        self.channel.publish(Publication(b"x"))
        how(pairs[-1][0])
        self.turns()
        self.assertEqual([t.value() for _, t in pairs[:-1]], [b"x\n"] * (CHUNK + 1))
        return [pairs[-1][1].value()]

    def test_between_two_turns(self) -> None:
        for how in (self.channel.unsubscribe, lambda c: c.lost(DONE), lambda c: c.close(None)):
            self.assertEqual(self.leave(how), [b""])
            for connection in self.channel:
                self.channel.unsubscribe(connection)  # type: ignore[arg-type]

    def test_while_another_one_is_sent_to(self) -> None:
        pairs = self.join(3)

        def make(connection: Any) -> bytes:
            self.channel.unsubscribe(pairs[1][0])
            return b"x"

        self.successResultOf(self.channel.publish(Publication(ForEach(make))))
        self.assertEqual([t.value() for _, t in pairs], [b"x\n", b"", b"x\n"])

    def test_while_something_is_published_within_the_sending(self) -> None:
        pairs = self.join(3)

        def make(connection: Any) -> bytes:
            if connection is pairs[0][0]:
                self.channel.unsubscribe(pairs[1][0])
                self.channel.publish(Publication(b"y"))
            return b"x"

        self.channel.publish(Publication(ForEach(make)))
        self.turns()
        self.assertEqual([t.value() for _, t in pairs], [b"x\ny\n", b"", b"x\ny\n"])

    def test_everybody(self) -> None:
        pairs = self.join(2 * CHUNK)
        done = self.channel.publish(Publication(b"x"))
        for connection, _ in pairs:
            self.channel.unsubscribe(connection)
        self.turns()
        self.successResultOf(done)
        self.assertEqual(sum(bool(t.value()) for _, t in pairs), CHUNK)


class FailureTests(Case):
    """Issue 13: what is raised for one costs that one alone."""

    def test_an_encoding(self) -> None:
        for error in (ZeroDivisionError, SystemExit):
            pairs = self.join(3)
            broken = pairs[1][0]

            def make(connection: Any, broken: Any = broken, error: Any = error) -> bytes:
                if connection is broken:
                    raise error
                return b"x"

            self.successResultOf(self.channel.publish(Publication(ForEach(make), "key")))
            self.assertEqual([t.value() for _, t in pairs[-3:]], [b"x\n", b"", b"x\n"])
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_in_a_later_turn(self) -> None:
        """The channel goes on, and so do others."""
        other = self.hub.channel()
        pairs = self.join(2 * CHUNK)
        [(_, heard)] = self.join(CHUNK + 1, other)[-1:]
        last = pairs[-1][0]

        def make(connection: Any) -> bytes:
            if connection is last:
                raise SystemExit
            return b"x"

        done = self.channel.publish(Publication(ForEach(make)))
        other.publish(Publication(b"other"))
        self.turns()
        self.successResultOf(done)
        self.assertEqual((pairs[-2][1].value(), heard.value()), (b"x\n", b"other\n"))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)


class LatestChannelTests(SynchronousTestCase):
    """K-26, K-28: subscribers get what is published, slow ones the newest only."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.channel = Hub(self.bench.clock).latest("jobs")

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IChannel, self.channel))

    def test_subscribers_only(self) -> None:
        one, mine = self.bench.connect(LINE)
        two, frame = self.bench.connect(FRAME)
        _, other = self.bench.connect()
        for connection in (one, two, one):
            self.channel.subscribe(connection)
        self.assertEqual(len(self.channel), 2)
        self.successResultOf(self.channel.publish(b"job"))
        self.assertEqual(mine.value(), b"job\n")
        self.assertEqual(frame.value(), FRAME.encode(b"job"))
        self.assertEqual(other.value(), b"")

    def test_unsubscribe(self) -> None:
        connection, transport = self.bench.connect()
        self.channel.subscribe(connection)
        self.channel.unsubscribe(connection)
        self.channel.unsubscribe(connection)
        self.channel.publish(b"job")
        self.assertEqual((len(self.channel), transport.value()), (0, b""))

    def test_one_that_has_ended_is_not_kept(self) -> None:
        connection, _ = self.bench.connect()
        connection.lost(Failure(ConnectionDone()))
        self.channel.subscribe(connection)
        self.assertEqual(len(self.channel), 0)

    def test_each_a_payload_of_its_own(self) -> None:
        one, mine = self.bench.connect()
        two, other = self.bench.connect()
        self.channel.subscribe(one)
        self.channel.subscribe(two)
        self.successResultOf(self.channel.publish_each(lambda c: b"for %d" % c.id))
        self.assertEqual(mine.value(), b"for %d\n" % one.id)
        self.assertEqual(other.value(), b"for %d\n" % two.id)

    def test_a_slow_reader_skips_to_the_newest(self) -> None:
        connection, transport = self.bench.connect()
        self.channel.subscribe(connection)
        transport.full = True
        self.channel.publish(b"job 0")
        for n in range(1, 5):
            self.channel.publish(b"job %d" % n)
            self.channel.publish_each(lambda c, n=n: b"own job %d" % n)  # type: ignore[misc]
        transport.clear()
        transport.drain()
        self.assertEqual(transport.value(), b"own job 4\n")
        self.assertEqual(self.bench.manager.counters.dropped, 7)
