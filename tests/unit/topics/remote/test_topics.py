"""Topics of a server: what is asked, and what of its answers is believed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from kupool.topics.errors import OffsetOutOfRange, UnknownPartition, UnknownTopic
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record, Stamp
from kupool.topics.remote.failures import BadAnswer, RefusedByServer
from kupool.topics.service import Written
from kupool.topics.settings import TopicSettings
from tests.fakes.remote_topics import RemoteCase

P0, P1 = Partition("t", 0), Partition("t", 1)


class ReadAndWriteTests(RemoteCase):
    def test_written_and_read(self) -> None:
        """Q-02, Q-03: value, key, headers and timestamp come back, whatever their bytes are."""
        topics = self.topics()
        records = [
            NewRecord(b"hello", b"key", {"name": "text"}, 77),
            NewRecord(b"\xff\x00", b"\xfe"),
            NewRecord("né".encode(), b""),
        ]
        written = self.result(topics.produce("t", records, partition=1))
        self.assertEqual(written, [Written(1, 0), Written(1, 1), Written(1, 2)])
        fetched = self.result(topics.fetch(P1, 0))
        self.assertEqual(
            fetched.records,
            [
                Record(0, 77, b"key", b"hello", {"name": "text"}),
                Record(1, 0, b"\xfe", b"\xff\x00", {}),
                Record(2, 0, b"", "né".encode(), {}),
            ],
        )
        self.assertEqual(fetched.next_offset, 3)
        self.assertEqual(self.result(topics.fetch(P1, 1)).records[0].offset, 1)

    def test_a_stamp_writes_once(self) -> None:
        """Q-24: asked twice, the places are those of the first time."""
        topics = self.topics()
        for _ in range(2):
            written = self.result(topics.produce("t", [NewRecord(b"x")], stamp=Stamp("p", 0)))
            self.assertEqual(written, [Written(0, 0)])
        self.assertEqual(self.stored(), [b"x"])

    def test_a_long_poll(self) -> None:
        """Q-04: at the end it waits, longer than any other request, and others do not wait."""
        topics = self.topics(timeout=1.0)
        waiting = topics.fetch(P0, 0, wait=30.0)
        self.network.advance(20.0)
        self.assertNoResult(waiting)
        self.result(topics.produce("t", [NewRecord(b"new")], partition=0))
        self.assertEqual(self.result(waiting).records[0].value, b"new")
        self.assertEqual(self.result(topics.fetch(P0, 1, wait=2.0), 3.0).records, [])

    def test_many_at_once_over_one_connection(self) -> None:
        """Q-60, Q-92: the answers are those of the requests, in whatever order they come."""
        topics = self.topics()
        late: list[Deferred[Any]] = []

        def slowly(params: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            answer.addCallback(lambda _: {"offsets": [params["at"]]})
            late.append(answer)
            return answer

        self.server.answers["log.offsets"] = slowly
        asked = [topics.offsets("t", at) for at in range(100)]
        self.network.settle()
        self.assertEqual(len(late), 100)
        for answer in reversed(late):
            answer.callback(None)
        self.assertEqual(self.result(gatherResults(asked)), [[at] for at in range(100)])
        assert self.server.server is not None
        self.assertEqual(len(self.server.server.manager), 1)
        self.assertEqual(topics.nodes.connections, 1)

    def test_many_fetches_at_once(self) -> None:
        """Q-62: together they ask for less than a session may have, and the last for something."""
        self.result(self.server.topics.create("many", TopicSettings(partitions=900)))
        topics = self.topics()
        waiting = [topics.fetch(Partition("many", number), 0, wait=5.0) for number in range(900)]
        self.network.settle()
        for each in waiting:
            self.assertNoResult(each)
        sizes = [params.get("max_bytes", 1 << 20) for _, params in self.server.asked]
        self.assertLess(sum(sizes), 64 << 20)
        self.assertGreater(min(sizes), 4096)
        self.assertEqual(len(self.result(gatherResults(waiting), 6.0)), 900)
        self.result(topics.fetch(P0, 0))  # alone it asks for as much as is its default
        self.assertNotIn("max_bytes", self.server.asked[-1][1])

    def test_places_by_time(self) -> None:
        """Q-17, Q-40."""
        topics = self.topics()
        self.write(b"a", b"b")
        self.network.advance(5.0)
        self.write(b"c")
        self.assertEqual(self.result(topics.earliest(P0)), 0)
        self.assertEqual(self.result(topics.latest(P0)), 3)
        self.assertEqual(self.result(topics.at_time(P0, 4.0)), 2)
        self.assertEqual(self.result(topics.offsets("t")), [3, 0])
        with self.assertRaises(UnknownPartition):
            self.result(topics.latest(Partition("t", 2)))


class RefusalTests(RemoteCase):
    """What the server refuses is the exception of topics of this process."""

    def test_unknown(self) -> None:
        """Q-27."""
        topics = self.topics()
        nowhere = Partition("no", 0)
        for asked in (
            topics.produce("no", [NewRecord(b"x")]),
            topics.fetch(nowhere, 0),
            topics.offsets("no"),
            topics.facts("no"),
        ):
            with self.assertRaisesRegex(UnknownTopic, "there is no topic no"):
                self.result(asked)
        with self.assertRaisesRegex(RefusedByServer, "has no partition 7") as caught:
            self.result(topics.fetch(Partition("t", 7), 0))
        self.assertEqual(caught.exception.code, 35)

    def test_out_of_range(self) -> None:
        """Q-04: with the range that is valid."""
        topics = self.topics()
        self.write(b"a")
        self.write(b"b")
        self.result(self.server.topics.engine.drop_below(P0, 1))
        with self.assertRaises(OffsetOutOfRange) as caught:
            self.result(topics.fetch(P0, 0))
        self.assertEqual((caught.exception.low, caught.exception.high), (1, 2))


class FactsTests(RemoteCase):
    """Q-61: what is known of a topic."""

    def test_remembered_for_a_while(self) -> None:
        topics = self.topics(metadata_age=60.0)
        for _ in range(3):
            self.assertEqual(self.result(topics.facts("t")).settings.partitions, 2)
        self.assertEqual(self.server.times("topic.describe"), 1)
        self.result(self.server.topics.change("t", TopicSettings(partitions=3)))
        self.network.advance(60.0)
        self.assertEqual(self.result(topics.facts("t")).settings.partitions, 3)

    def test_refreshed_after_an_error(self) -> None:
        topics = self.topics()
        self.result(topics.facts("t"))
        self.result(self.server.topics.delete("t"))
        with self.assertRaises(UnknownTopic):
            self.result(topics.produce("t", [NewRecord(b"x")]))
        self.result(self.server.topics.create("t", TopicSettings(partitions=5)))
        self.assertEqual(self.result(topics.facts("t")).settings.partitions, 5)
        self.result(self.server.topics.delete("t"))
        with self.assertRaises(UnknownTopic):
            self.result(topics.fetch(P0, 0))
        with self.assertRaises(UnknownTopic):
            self.result(topics.facts("t"))

    def test_capabilities_are_asked_once(self) -> None:
        """Q-38, Q-59."""
        topics = self.topics()
        for _ in range(2):
            self.assertIs(self.result(topics.capabilities())["dense"], True)
        self.assertEqual(self.server.times("log.capabilities"), 1)


class BadAnswerTests(RemoteCase):
    """Q-62: counts and lengths in an answer are checked before anything is made of them."""

    def refused(self, method: str, answer: Any, asked: Any, says: str) -> None:
        self.server.answers[method] = lambda params: answer
        with self.assertRaisesRegex(BadAnswer, says):
            self.result(asked())

    def test_of_produce(self) -> None:
        topics = self.topics()
        two = [NewRecord(b"a"), NewRecord(b"b")]
        place = {"partition": 0, "offset": 5}
        for written, says in (
            ([place], "1 places for 2 records"),
            ([place] * 3, "3 places for 2 records"),
            ([place, {"partition": -1, "offset": 0}], "cannot be read.*partition"),
            ([place, {"partition": 0, "offset": 1 << 63}], "cannot be read.*offset"),
            ("no", "cannot be read"),
        ):
            answer = {"written": written}
            self.refused("log.produce", answer, lambda: topics.produce("t", two), says)

    def test_of_fetch(self) -> None:
        topics = self.topics()
        good = {"records": [], "next": 4, "low": 0, "high": 9}
        one = {"offset": 4, "timestamp": 1, "value": "x"}
        for change, says in (
            ({"next": 3}, "next=3"),
            ({"low": 10}, "low=10"),
            ({"next": -1}, "cannot be read"),
            ({"records": [one]}, "offset 4, expected 4 to 3"),
            ({"records": [{**one, "offset": 3}], "next": 9}, "offset 3, expected 4 to 8"),
            ({"records": [one, one], "next": 9}, "offset 4, expected 5 to 8"),
            ({"records": [{**one, "base64": True, "value": "?"}], "next": 5}, "log.fetch"),
            ({"records": {}}, "cannot be read"),
        ):
            answer = {**good, **change}
            self.refused("log.fetch", answer, lambda: topics.fetch(P0, 4), says)
        self.server.answers["log.fetch"] = lambda params: good
        self.assertEqual(self.result(topics.fetch(P0, 4)).next_offset, 4)

    def test_of_offsets(self) -> None:
        topics = self.topics()
        for offsets in ([], [-1], ["x"], [0] * 1001, None):
            answer = {"offsets": offsets}
            self.refused("log.offsets", answer, lambda: topics.offsets("t"), "cannot be read")

    def test_of_describe(self) -> None:
        topics = self.topics()
        entry = {"partition": 0, "low": 0, "high": 0, "size": 0}
        for partitions, settings, says in (
            ([], {}, "cannot be read"),
            ([entry] * 2, {}, "2 partitions of t, expected 1"),
            ([entry], {"partitions": 0}, "partitions: expected 1"),
            ([entry], {"partitions": "x"}, "the settings of topic t"),
        ):
            answer = {"topic": "t", "partitions": partitions, "settings": settings}
            self.refused("topic.describe", answer, lambda: topics.facts("t"), says)
        newer = {"topic": "t", "partitions": [entry], "settings": {"of-a-later-version": 1}}
        self.server.answers["topic.describe"] = lambda params: newer
        self.assertEqual(self.result(topics.facts("t")).settings, TopicSettings())
