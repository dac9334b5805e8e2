"""What a stream is found to hold, and whether it is the one that a store was counted from."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp.channel import BrokerMessage
from kupool.log import Epoch, Extent, Identity, Mark
from kupool.log.rabbit.extent import LOOKS, PAUSE, Found, examine

OURS = Identity("ours", (Epoch("one", 0),))

#: The same pool after its store was restored: a second epoch begins after position 100.
RESTORED = OURS.with_epoch("two", 100)


class Stream:
    """A stream of messages by their offsets; stands for its reader.

    ``shown`` are how many of them a replica shows at each look, and the last for all further.
    """

    def __init__(self, *messages: tuple[int, str, dict[str, Any]]) -> None:
        self._messages = [
            BrokerMessage(0, entry_id, {"x-stream-offset": offset, **headers}, b"", False)
            for offset, entry_id, headers in messages
        ]
        self.shown = [len(messages)]
        #: Offsets that were looked at.
        self.looks: list[int] = []

    @property
    def _there(self) -> list[BrokerMessage]:
        return self._messages[: self.shown[0]]

    @staticmethod
    def _offset(message: BrokerMessage) -> int:
        return int(message.headers["x-stream-offset"])

    async def ends(self) -> tuple[BrokerMessage, list[BrokerMessage]] | None:
        there = self._there
        return (there[0], there[-2:]) if there else None

    async def newest(self) -> int:
        newest = self._offset(self._there[-1]) if self._there else -1
        if len(self.shown) > 1:
            self.shown.pop(0)
        return newest

    async def before(self, offset: int) -> list[BrokerMessage]:
        return [message for message in self._there if self._offset(message) < offset]

    async def at(self, offset: int) -> BrokerMessage | None:
        self.looks.append(offset)
        return next((m for m in self._there if self._offset(m) >= offset), None)


def entries(count: int, pool: str = "ours", first: int = 0) -> Stream:
    """A stream of entries ``e1`` and so on; an empty pool is named by none."""
    headers = {"pool": pool, "epoch": "one"} if pool else {}
    return Stream(*((n, f"e{n + 1}", headers) for n in range(first, first + count)))


class ExtentCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def examine(self, stream: Stream, known: Identity | None, mark: Mark, **options: bool) -> Found:
        """Examine a stream, in however long that takes."""
        examining = Deferred.fromCoroutine(
            examine(self.clock, stream, known, mark, **options)  # type: ignore[arg-type]
        )
        self.clock.pump([PAUSE] * LOOKS)
        return self.successResultOf(examining)


class OfThisStoreTests(ExtentCase):
    """issue 12: the stream that a store was counted from is recognised by the marked entry."""

    def test_at_the_mark_is_the_entry(self) -> None:
        found = self.examine(entries(5), OURS, Mark(3, "e3"))
        self.assertEqual(found, Found(Extent(OURS, 1, 5, True, 5), 0, 5))

    def test_the_newest_entry_is_marked(self) -> None:
        found = self.examine(entries(5), OURS, Mark(5, "e5"))
        self.assertEqual(found, Found(Extent(OURS, 1, 5, True, 5), 0, 5))

    def test_without_entries_that_name_a_pool(self) -> None:
        """The release before wrote none; the marked entry is proof enough."""
        found = self.examine(entries(5, pool=""), OURS, Mark(3, "e3"))
        self.assertEqual(found.extent, Extent(OURS, 1, 5, True, 5))

    def test_what_was_trimmed_below_the_mark(self) -> None:
        found = self.examine(entries(5, first=10), OURS, Mark(13, "e13"))
        self.assertEqual(found, Found(Extent(OURS, 11, 15, True, 15), 0, 15))

    def test_what_was_trimmed_with_the_mark(self) -> None:
        """What lies between is a gap: the stream begins after the mark."""
        found = self.examine(entries(5, first=10), OURS, Mark(3, "e3"))
        self.assertEqual(found, Found(Extent(OURS, 11, 15, True, 15), 0, 15))

    def test_a_mark_without_an_id(self) -> None:
        """The position alone tells then, as after the release before."""
        found = self.examine(entries(5), OURS, Mark(3))
        self.assertEqual(found.extent, Extent(OURS, 1, 5, True, 5))

    def test_a_stream_that_began_with_the_newest_epoch(self) -> None:
        """Its first offset comes after the epoch's beginning."""
        stream = entries(5)
        found = self.examine(stream, RESTORED, Mark(103, "e3"))
        self.assertEqual(found, Found(Extent(RESTORED, 101, 105, True, 105), 100, 5))

    def test_a_stream_that_began_with_an_earlier_epoch(self) -> None:
        """It went on when the store was restored, into the newest epoch."""
        found = self.examine(entries(105), RESTORED, Mark(103, "e103"))
        self.assertEqual(found, Found(Extent(RESTORED, 1, 105, True, 105), 0, 105))

    def test_a_mark_in_an_earlier_epoch(self) -> None:
        """The marked entry tells where the stream began, although no newer one is counted."""
        found = self.examine(entries(60), RESTORED, Mark(40, "e40"))
        self.assertEqual(found, Found(Extent(RESTORED, 1, 60, True, 60), 0, 60))

    def test_an_entry_that_is_certain_before_one_that_is_possible(self) -> None:
        """Of two places where the mark may be, the one with the marked entry is meant."""
        headers = {"pool": "ours", "epoch": "one"}
        stream = Stream(*((n, f"e{n + 1}", headers) for n in range(50, 110)))
        found = self.examine(stream, RESTORED, Mark(103, "e103"))
        self.assertEqual(found.base, 0)

    def test_nothing_of_the_newest_epoch_is_marked(self) -> None:
        """The stream begins with that epoch, as far as anybody knows."""
        stream = entries(5)
        found = self.examine(stream, RESTORED, Mark(100))
        self.assertEqual(found, Found(Extent(RESTORED, 101, 105, True, 105), 100, 5))
        self.assertEqual(stream.looks, [])

    def test_a_replica_that_shows_the_entry_later(self) -> None:
        """It is looked for again, some times and with a pause, before it counts as missing."""
        stream = entries(5)
        stream.shown = [2, 2, 5]
        examining = Deferred.fromCoroutine(
            examine(self.clock, stream, OURS, Mark(4, "e4"))  # type: ignore[arg-type]
        )
        self.assertNoResult(examining)
        self.clock.advance(PAUSE)
        self.assertNoResult(examining)
        self.clock.advance(PAUSE)
        self.assertEqual(self.successResultOf(examining).extent, Extent(OURS, 1, 5, True, 5))

    def test_nothing_is_looked_for_beyond_the_end(self) -> None:
        """Such a look would only find that out slowly."""
        stream = entries(3)
        self.examine(stream, OURS, Mark(4, "e4"))
        self.assertEqual(stream.looks, [])

    def test_how_long_it_is_looked_for(self) -> None:
        """Ten times, with 0.3 seconds between."""
        stream = entries(3)
        examining = Deferred.fromCoroutine(
            examine(self.clock, stream, OURS, Mark(4, "e4"))  # type: ignore[arg-type]
        )
        self.clock.pump([0.3] * 8)
        self.assertNoResult(examining)
        self.clock.advance(0.3)
        self.successResultOf(examining)


class MadeAgainTests(ExtentCase):
    """issue 12: a stream that is not the one that was counted is above the mark as a whole."""

    def test_another_entry_at_the_mark(self) -> None:
        stream = entries(5)
        examining = Deferred.fromCoroutine(
            examine(self.clock, stream, OURS, Mark(3, "other"))  # type: ignore[arg-type]
        )
        # An entry is there, so that no replica is waited for.
        found = self.successResultOf(examining)
        self.assertEqual(found, Found(Extent(None, 4, 8, False, 8), None, 5))

    def test_an_end_before_the_mark(self) -> None:
        found = self.examine(entries(3), OURS, Mark(4, "e4"))
        self.assertEqual(found, Found(Extent(None, 5, 7, False, 7), None, 3))

    def test_a_mark_where_the_newest_epoch_begins(self) -> None:
        """It is of the epoch before: no entry of the newest one is marked."""
        stream = entries(3)
        found = self.examine(stream, RESTORED, Mark(100, "e100"))
        self.assertEqual(found, Found(Extent(None, 101, 103, False, 103), None, 3))

    def test_an_empty_one(self) -> None:
        found = self.examine(entries(0), OURS, Mark(4, "e4"))
        self.assertEqual(found, Found(Extent(None, 5, 4, False, 4), None, 0))

    def test_an_empty_one_after_the_beginning_of_an_epoch(self) -> None:
        """Positions go on above both the mark and the newest epoch's beginning."""
        found = self.examine(entries(0), RESTORED, Mark(40, "e40"))
        self.assertEqual(found, Found(Extent(None, 101, 100, False, 100), None, 0))

    def test_an_empty_one_that_is_known_to_be(self) -> None:
        """Nothing was appended since the epoch began: it is the store's own."""
        found = self.examine(entries(0), RESTORED, Mark(100), new=True)
        self.assertEqual(found, Found(Extent(RESTORED, 101, 100, False, 100), 100, 0))

    def test_one_that_is_new_and_not_empty(self) -> None:
        """What another node appended meanwhile is there."""
        found = self.examine(entries(2), RESTORED, Mark(100), new=True)
        self.assertEqual(found.extent, Extent(RESTORED, 101, 102, True, 102))


class OfOthersTests(ExtentCase):
    """issue 12: a stream of another pool, or of nobody, is not taken for the store's."""

    def test_another_pool(self) -> None:
        """It is named, and where its epoch begins is taken from the stream."""
        found = self.examine(entries(5, "other"), OURS, Mark(3, "x"))
        other = Identity("other", (Epoch("one", 0),))
        self.assertEqual(found, Found(Extent(other, 1, 5, True, 5), 0, 5))

    def test_another_pool_before_anything_is_marked(self) -> None:
        found = self.examine(entries(5, "other"), OURS, Mark(0))
        self.assertEqual(found.extent.identity, Identity("other", (Epoch("one", 0),)))

    def test_no_pool(self) -> None:
        """Entries that name none are the store's where its mark may be among them."""
        found = self.examine(entries(5, ""), OURS, Mark(3))
        self.assertEqual(found.extent.identity, OURS)
        for mark in (Mark(3, "x"), Mark(0)):
            found = self.examine(entries(5, ""), OURS, mark)
            self.assertEqual(found, Found(Extent(None, 1, 5, True, 5), 0, 5))

    def test_a_message_of_ours_among_those_of_others(self) -> None:
        """A stranger's may be anywhere, also as the newest."""
        ours, other = {"pool": "ours", "epoch": "one"}, {"pool": "other", "epoch": "one"}
        for place in range(6):
            stream = Stream(
                *((n, f"e{n}", ours if n == place else other) for n in range(6)),
            )
            found = self.examine(stream, OURS, Mark(0))
            self.assertEqual(found.extent, Extent(OURS, 1, 6, True, 6))

    def test_a_store_that_knows_none(self) -> None:
        """The newest message that names a pool says which, and the newest epoch."""
        messages = [
            (0, "a", {"pool": "first", "epoch": "one"}),
            (1, "b", {"pool": "second", "epoch": "two"}),
            (2, "c", {}),
        ]
        found = self.examine(Stream(*messages), None, Mark(0))
        second = Identity("second", (Epoch("two", 0),))
        self.assertEqual(found, Found(Extent(second, 1, 3, True, 3), 0, 3))

    def test_a_store_and_a_stream_that_know_none(self) -> None:
        found = self.examine(entries(5, ""), None, Mark(0))
        self.assertEqual(found, Found(Extent(None, 1, 5, True, 5), 0, 5))

    def test_a_store_that_knows_none_and_nothing(self) -> None:
        found = self.examine(entries(0), None, Mark(0))
        self.assertEqual(found, Found(Extent(None, 1, 0, False, 0), 0, 0))
