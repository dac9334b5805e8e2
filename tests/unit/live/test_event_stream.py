"""A stream of server-sent events: its ids, its gaps, slow readers and its end."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import GOING_DOWN
from kupool.live.event_stream import (
    EVENT_STREAM,
    EventStreamEncoding,
    EventStreamReader,
    decode_positions,
    encode_positions,
    end_of_stream,
)
from kupool.live.failures import InvalidWish
from kupool.live.publications import StreamPosition
from kupool.live.rules import ChannelKind, ChannelRule, ChannelRules
from kupool.live.wishes import SubscribeWishes
from tests.fakes.live import LiveWorld, new

RULES = (
    ChannelRule(pattern="plain"),
    ChannelRule(pattern="newest", kind=ChannelKind.LATEST),
    ChannelRule(pattern="*", history_size=5),
)

WISHES = SubscribeWishes(positioned=True, recoverable=True, partial=True, in_reply=1)


class IdTests(SynchronousTestCase):
    """W-75: an id holds a position for each channel, whatever its name."""

    def test_there_and_back(self) -> None:
        positions = {
            "pool": StreamPosition(7, "abc"),
            "a:b,c=d%e f": StreamPosition(0, "12.3-4"),
        }
        self.assertEqual(decode_positions(encode_positions(positions)), positions)
        self.assertEqual(decode_positions(""), {})
        self.assertEqual(decode_positions("a:5"), {"a": StreamPosition(5, "")})

    def test_what_is_none(self) -> None:
        for text in ("a", "a:", "a:-1", "a:b", "a:1:x,b", f"a:{'9' * 30}", "a:9999999999999999999"):
            self.assertRaises(InvalidWish, decode_positions, text)


class ReaderTests(SynchronousTestCase):
    """Issue 17, build 4: several channels as one stream."""

    def setUp(self) -> None:
        self.world = LiveWorld(*RULES)

    def read(
        self, *channels: str, positions: dict[str, StreamPosition] | None = None, **wishes: Any
    ) -> Any:
        """Let somebody read channels; returns the connection and its transport."""
        connection, transport = self.world.bench.connect(EVENT_STREAM)
        reader = EventStreamReader(connection, ("alice", "worker"), "c", EventStreamEncoding())
        asked = SubscribeWishes(
            positioned=True, recoverable=True, partial=True, in_reply=1, **wishes
        )
        reader.read(self.world.service, channels, asked, positions or {})
        return connection, transport

    def events(self, transport: Any) -> list[str]:
        """Return the events that arrived since the last call, one text each."""
        return [text for text in transport.taken().decode().split("\n\n") if text]

    def test_each_event_has_all_positions(self) -> None:
        """W-75: so that any of them is enough to come back."""
        _, transport = self.read("a", "b", "plain")
        self.assertEqual(self.events(transport), ["id: a:0:epoch1,b:0:epoch2"])
        self.world.service.publish("b", new("x"))
        self.world.service.publish("plain", new("y"))
        first, second = self.events(transport)
        self.assertIn("id: a:0:epoch1,b:1:epoch2\ndata: {", first)
        self.assertIn("id: a:0:epoch1,b:1:epoch2\ndata: {", second)
        self.assertIn('"data":"y"', second)

    def test_the_newest_value_comes_at_once(self) -> None:
        """W-01: a channel about its newest value begins with that, and without a gap."""
        _, transport = self.read("newest")
        self.assertEqual(len(self.events(transport)), 1)
        self.world.service.publish("newest", new(1))
        _, second = self.read("newest")
        self.assertIn('"data":1', self.events(second)[1])

    def test_what_is_lost_is_told_first(self) -> None:
        """W-19: a gap with its number, then what there is."""
        for number in range(8):
            self.world.service.publish("a", new(number))
        _, transport = self.read("a", positions={"a": StreamPosition(1, "epoch1")})
        self.world.turns()
        found = self.events(transport)
        self.assertIn('event: gap\ndata: {"channel":"a","missed":2,"reason":"history"}', found)
        data = [text.partition('"data":')[2][0] for text in found if '"data":' in text]
        self.assertEqual(data, list("34567"))

    def test_a_reader_that_stalls(self) -> None:
        """W-16, W-20: it delays nobody, keeps little, and gets the rest or the count of it."""
        connection, transport = self.read("a")
        _, other = self.read("a")
        self.events(transport), self.events(other)
        transport.full = True
        connection.pauseProducing()
        for number in range(300):
            self.world.service.publish("a", new(number))
        self.assertEqual(len(self.events(other)), 300)
        self.assertLess(connection.outbound, 100_000)
        transport.drain()
        self.world.turns()
        text = transport.taken().decode()
        self.assertIn('"missed":295', text)
        self.assertIn('"data":299', text)

    def test_a_subscription_that_cannot_begin(self) -> None:
        """Issue 17, bad input: the reader is told, and the stream ends."""
        world = self.world = LiveWorld(*RULES, channels_per_client=1)
        connection, transport = self.read("a", "b")
        self.assertIn("event: error\n", transport.value().decode())
        self.assertTrue(transport.disconnecting)
        connection.context.disconnect()
        self.assertEqual(world.service.channels(), [])

    def test_what_the_service_ends(self) -> None:
        """W-72: the reader is told; the stream goes on with the other channels."""
        _, transport = self.read("a", "plain")
        self.events(transport)
        self.world.service.use_rules(ChannelRules(RULES[:1]))
        self.assertEqual(
            self.events(transport),
            ['event: unsubscribed\ndata: {"channel":"a","reason":"forbidden"}'],
        )
        self.assertFalse(transport.disconnecting)
        self.world.service.use_rules(ChannelRules([ChannelRule(pattern="plain", presence=True)]))
        self.assertTrue(transport.disconnecting, "it has to come again")

    def test_the_close(self) -> None:
        """W-08: with its code and its reason."""
        text = end_of_stream(EVENT_STREAM, GOING_DOWN)
        self.assertEqual(
            text,
            b'event: close\ndata: {"code":4000,"reason":"server going down","reconnect":true}\n\n',
        )
