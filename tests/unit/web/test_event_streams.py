"""The route of live channels: when a stream begins, its times, its limits, and what it frees."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.rules import ChannelRule
from kupool.live.wishes import SubscribeWishes
from kupool.net.manager import ServerSettings
from kupool.web.answers import ApiError
from kupool.web.event_streams import EventStreams, StreamRequest, filter_of, moment
from tests.fakes.live import LiveWorld, new
from tests.fakes.peers import PeerTransport

NOW = 1795255530.0  # 2026-11-21T10:05:30Z


class MomentTests(SynchronousTestCase):
    """Issue 17, build 4: ``from=`` may be a time, or how long ago."""

    def test_times(self) -> None:
        for text, seconds in (
            ("1h ago", NOW - 3600),
            (" 90s  ago ", NOW - 90),
            ("2026-11-21T10:05:00Z", NOW - 30),
            ("2026-11-21T11:05:00+01:00", NOW - 30),
            ("2026-11-21T11:05:00 01:00", NOW - 30),
            ("999999h ago", 0.0),
        ):
            self.assertAlmostEqual(moment(text, NOW), seconds, msg=text)

    def test_what_is_none(self) -> None:
        for text in ("yesterday", "ago", "-1h ago", "2026-11-21T10:05:00", "2026-13-01T00:00:00Z"):
            with self.assertRaises(ApiError) as caught:
                moment(text, NOW)
            self.assertEqual(caught.exception.code, 400)


class FilterTests(SynchronousTestCase):
    """W-66: what is wrong with a filter is said, and which one it is."""

    def test_tags_that_are_no_json(self) -> None:
        for text in ("{x", "[" * 100_000):
            with self.assertRaises(ApiError) as caught:
                filter_of(text)
            self.assertEqual(caught.exception.code, 400)
            self.assertIn("tags: must be a filter as JSON", str(caught.exception))


class StreamTests(SynchronousTestCase):
    """W-12, W-14: streams are limited, quiet ones show that they are there, and all of it ends."""

    def setUp(self) -> None:
        self.world = LiveWorld(ChannelRule(pattern="*", history_size=5))
        self.streams = EventStreams(
            self.world.service,
            self.world.clock,
            lambda: NOW,
            lambda: "id",
            heartbeat=10.0,
            limits=ServerSettings(max_connections=2, idle_timeout=0.0),
            lifetime=3600.0,
        )
        self.streams.start()

    def open(self) -> tuple[Any, PeerTransport]:
        asked = StreamRequest("", "anonymous", ["a"], SubscribeWishes(), {})
        protocol, transport = self.streams.protocol(asked, "192.0.2.1"), PeerTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_comments(self) -> None:
        _, transport = self.open()
        transport.clear()
        self.world.clock.pump([10.0, 10.0])
        self.assertEqual(transport.taken(), b":\n\n" * 2)
        transport.full = True
        self.world.service.publish("a", new(1))
        transport.clear()
        self.world.clock.pump([10.0])
        self.assertEqual(transport.taken(), b"", "one that reads slowly gets none")

    def test_nobody_stays_for_ever(self) -> None:
        """W-13: a reader is told to come back after the longest time."""
        _, transport = self.open()
        self.world.clock.pump([1.0] * 3590)
        transport.clear()
        self.world.clock.pump([1.0] * 15)
        self.assertIn(b'"code":4103', transport.taken())

    def test_the_first_bytes(self) -> None:
        """W-77: enough that a proxy passes them on, and how soon to come back."""
        _, transport = self.open()
        self.assertGreater(len(transport.value()), 2048)
        self.assertTrue(transport.value().startswith(b"retry: 2000\n:"))

    def test_limits(self) -> None:
        for _ in range(2):
            self.open()
        _, third = self.open()
        self.assertIn(b"event: close\n", third.value())
        self.assertEqual(len(self.streams), 2)

    def test_everything_is_freed(self) -> None:
        """W-12: with the reader's end, and with ours."""
        for _ in range(50):
            protocol, transport = self.open()
            self.assertEqual(self.world.service.clients, 1)
            protocol.connectionLost()
            self.assertEqual((self.world.service.clients, len(self.streams)), (0, 0))
        _, transport = self.open()
        self.streams.stop()
        self.world.turns()
        self.assertIn(b"event: close\n", transport.value())
        self.assertEqual((self.world.service.clients, self.world.service.channels()), (0, []))
