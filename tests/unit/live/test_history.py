"""The history in memory: how long it is, and how old."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.history import MemoryHistory
from kupool.live.publications import StreamPosition
from tests.fakes.live import new, offsets


class LimitTests(SynchronousTestCase):
    """W-75: what a history no longer has is counted."""

    def setUp(self) -> None:
        self.clock = Clock()

    def make(self, size: int, seconds: float = 0.0, offset: int = 0) -> MemoryHistory:
        return MemoryHistory(
            StreamPosition(offset, "e"),
            self.clock.seconds,
            lambda: 7.0,
            size=size,
            seconds=seconds,
        )

    def test_size(self) -> None:
        history = self.make(3)
        for each in range(10):
            history.append(new(each))
        part = self.successResultOf(history.after(4, 2))
        self.assertEqual((offsets(part.publications), part.missed, part.more), ([8, 9], 3, True))
        self.assertFalse(history.expire())

    def test_age(self) -> None:
        history = self.make(10, seconds=5)
        history.append(new(1))
        self.clock.advance(3)
        history.append(new(2))
        self.clock.advance(2)
        part = self.successResultOf(history.after(0, 10))
        self.assertEqual((offsets(part.publications), part.missed), ([2], 1))
        self.assertFalse(history.expire())
        self.clock.advance(3)
        part = self.successResultOf(history.after(0, 10))
        self.assertEqual((list(part.publications), part.missed), ([], 2))
        self.assertTrue(history.expire())
        self.assertEqual(history.ended_at, StreamPosition(2, "e"))

    def test_a_stream_goes_on(self) -> None:
        history = self.make(3, offset=40)
        self.assertEqual(self.successResultOf(history.append(new(1))).offset, 41)
        part = self.successResultOf(history.after(38, 10))
        self.assertEqual((offsets(part.publications), part.missed), ([41], 2))
