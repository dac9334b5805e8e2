"""Events that are read backwards."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.activity.past import PastPage, PastWanted
from kupool.activity.past_events import MOST_LOOKED_AT, STEP, PastEvents
from kupool.topics.events import EVENTS, SETTINGS, EventWriter
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from tests.fakes.topics import topics_in_memory

NOW = 1_800_000_000.0


class PastEventsTests(SynchronousTestCase):
    """A-54: what happened before, the newest first, in parts."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics = topics_in_memory(self.clock, self.wall, run_in_thread=maybeDeferred)
        self.past = PastEvents(self.topics, self.clock)

    def wall(self) -> float:
        return NOW + self.clock.seconds()

    def make(self) -> EventWriter:
        return EventWriter(self.topics, self.topics.engine, self.clock, self.wall, instance="i")

    def write(self, *numbers: int, kind: str = "a") -> None:
        writer = self.make()
        for number in numbers:
            self.successResultOf(writer.write(kind, {"n": number, "user": f"u{number % 3}"}))

    def write_many(self, count: int, kind: str = "other") -> None:
        self.successResultOf(
            self.topics.produce(
                EVENTS, [NewRecord(b'{"type":"%b","at":1}' % kind.encode())] * count
            )
        )

    def read(self, limit: int = 100, kind: str = "a", **wanted: Any) -> PastPage:
        reading = Deferred.fromCoroutine(self.past.read(PastWanted(kind, **wanted), limit))
        while not reading.called:
            self.clock.advance(0)
        page: PastPage = self.successResultOf(reading)
        return page

    def numbers(self, page: PastPage) -> list[int]:
        return [event["n"] for event in page.events]

    def test_no_events_yet(self) -> None:
        self.assertEqual(self.read(), PastPage([], None))
        self.successResultOf(self.topics.engine.create(EVENTS, SETTINGS))
        self.assertEqual(self.read(), PastPage([], None))

    def test_the_newest_first_in_parts(self) -> None:
        self.write(*range(7))
        self.write(7, kind="b")
        self.write(8)
        found, before = [], None
        while True:
            page = self.read(3, before=before)
            found.append(self.numbers(page))
            before = page.following
            if before is None:
                break
        self.assertEqual([n for part in found for n in part], [8, 6, 5, 4, 3, 2, 1, 0])
        self.assertTrue(all(len(part) <= 3 for part in found))
        self.assertEqual(self.numbers(self.read(kind="b")), [7])

    def test_what_matches(self) -> None:
        self.write(*range(9))
        page = self.read(2, match=lambda event: event["user"] == "u1")
        self.assertEqual(self.numbers(page), [7, 4])
        page = self.read(2, match=lambda event: event["user"] == "u1", before=page.following)
        self.assertEqual((self.numbers(page), page.following), ([1], None))

    def test_a_range_of_time(self) -> None:
        for number in range(5):
            self.write(number)
            self.clock.advance(100.0)
        page = self.read(start=NOW + 100, end=NOW + 300)
        self.assertEqual((self.numbers(page), page.following), ([2, 1], None))

    def test_many_others_between(self) -> None:
        """A-54: one call looks at so many records at most, and says where to go on."""
        self.write(1)
        self.write_many(MOST_LOOKED_AT)
        self.write_many(STEP // 2)
        page = self.read()
        self.assertEqual(page.events, [])
        page = self.read(before=page.following)
        self.assertEqual((self.numbers(page), page.following), ([1], None))

    def test_records_that_are_gone_or_are_no_events(self) -> None:
        self.write(1, 2)
        for value in (b"nonsense", b'{"type":"a"}', b'["type":"a"]', b'{"type":"a","at":"x"}'):
            self.successResultOf(self.topics.produce(EVENTS, [NewRecord(value)]))
        self.write(3)
        self.assertEqual(self.numbers(self.read()), [3, 2, 1])
        self.successResultOf(self.topics.engine.drop_below(Partition(EVENTS, 0), 1))
        page = self.read()
        self.assertEqual((self.numbers(page), page.following), ([3, 2], None))
        self.assertEqual(self.read(before=0), PastPage([], None))

    def test_an_offset_that_is_ahead(self) -> None:
        """A-54: as of a topic that was made anew."""
        self.write(1)
        self.assertEqual(self.numbers(self.read(before=10**12)), [1])
