"""The operations that write and read records, on an engine in memory."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Any

from twisted.internet.defer import fail

from kupool.topics.api.table import TopicApi
from kupool.topics.errors import CorruptBatch, TopicsUnavailable
from kupool.topics.partition import Partition
from tests.fakes.topic_api import NOW, TopicApiCase


class RecordCase(TopicApiCase):
    rules = ("bob log.publish shop", "bob log.subscribe shop", "eve log.publish shop")

    def setUp(self) -> None:
        super().setUp()
        self.ask("topic.create", topic="shop", settings={"partitions": 2, "max_record": 1000})

    def produce(self, *values: str, **more: Any) -> Any:
        records = [{"value": value} for value in values]
        return self.ask("log.produce", topic="shop", partition=0, records=records, **more)

    def fetch(self, **given: Any) -> Any:
        return self.ask("log.fetch", **{"topic": "shop", "partition": 0, **given})

    def values(self, **given: Any) -> list[str]:
        return [each["value"] for each in self.fetch(**given)["records"]]


class ProduceTests(RecordCase):
    """Q-02, Q-13, Q-24, Q-62, Q-66."""

    def test_one_and_many(self) -> None:
        """Q-02: each record has its place, in the order in which they were given."""
        written = self.produce("a", "b")
        self.assertEqual(
            written, {"written": [{"partition": 0, "offset": 0}, {"partition": 0, "offset": 1}]}
        )
        one = self.ask("log.produce", topic="shop", partition=1, value="c")
        self.assertEqual(one, {"written": [{"partition": 1, "offset": 0}]})
        # Without a partition the key decides, always in the same way.
        first, again = (self.ask("log.produce", topic="shop", value="d", key="k") for _ in "12")
        self.assertEqual(first["written"][0]["partition"], again["written"][0]["partition"])

    def test_what_a_record_may_have(self) -> None:
        """Q-03: key, headers, time, and bytes that are no text; what is empty is left out."""
        self.ask(
            "log.produce",
            topic="shop",
            partition=0,
            records=[
                {"value": "", "key": "", "headers": {"a": "ä"}, "timestamp": 7},
                {"value": b64encode(b"\xff\x00").decode(), "key": "aw==", "base64": True},
                {"value": b64encode(b"text").decode(), "base64": True},
            ],
        )
        now = int(NOW * 1000)
        self.assertEqual(
            self.fetch(offset=0)["records"],
            [
                {"offset": 0, "timestamp": 7, "value": "", "key": "", "headers": {"a": "ä"}},
                {"offset": 1, "timestamp": now, "value": "/wA=", "key": "aw==", "base64": True},
                {"offset": 2, "timestamp": now, "value": "text"},
            ],
        )

    def test_a_producer_that_repeats(self) -> None:
        """Q-24: it gets the offset of the first time. Another user's numbers are others."""
        stamp = {"producer": "p", "sequence": 1}
        self.assertEqual(self.produce("a", **stamp), self.produce("a", **stamp))
        other = self.produce("b", user="bob", role="worker", **stamp)
        self.assertEqual(other["written"][0]["offset"], 1)
        self.assertEqual(self.values(offset=0), ["a", "b"])
        self.produce("d", user="bob/x", role="admin", producer="y", sequence=1)
        self.produce("e", user="bob", role="admin", producer="x/y", sequence=1)
        self.assertEqual(self.values(offset=2), ["d", "e"])
        for sequence in range(2, 8):
            self.produce("c", producer="p", sequence=sequence)
        code, text = self.produce("a", **stamp)
        self.assertEqual((code, text[:14]), (36, "already exists"))

    def test_bad_input(self) -> None:
        """Q-13, Q-62: nothing is written, and the error says what is wrong."""
        many = [{"value": "a"}]
        for given, code, said in (
            ({}, 32, "records or value: expected one of them"),
            ({"records": many, "value": "b"}, 32, "records or value: expected one of them"),
            ({"records": []}, 32, "records: expected at least one"),
            ({"records": many * 10_001}, 32, "records: expected 10000 at most, not 10001"),
            ({"value": "?", "base64": True}, 32, "record 0: "),
            ({"value": "ä", "base64": True}, 32, "record 0: "),
            ({"value": "a", "producer": "p"}, 32, "producer and sequence: expected both or none"),
            ({"value": "a", "sequence": 1}, 32, "producer and sequence: expected both or none"),
            ({"value": "a", "partition": 2}, 35, "has no partition 2"),
            ({"value": "x" * 1001}, 43, "too large: a record of 1001 bytes"),
            (
                {"value": "a", "transaction": "t", "producer": "p", "sequence": 1},
                32,
                "cannot be used together with transaction",
            ),
            ({"value": "a", "transaction": "1-0"}, 35, "not found: transaction 1-0"),
        ):
            found = self.ask("log.produce", topic="shop", **given)
            self.assertEqual(found[0], code, given)
            self.assertIn(said, found[1])
        self.assertEqual(self.ask("log.produce", topic="none", value="a")[0], 35)
        self.assertEqual(self.ask("log.offsets", topic="shop"), {"offsets": [0, 0]})

    def test_an_engine_that_takes_nothing(self) -> None:
        """Q-15: the answer does not name files."""
        engine = self.world.topics.engine
        gone = TopicsUnavailable("/var/lib/topics.sqlite: disk full")
        self.patch(engine, "append", lambda appends: fail(gone))
        self.assertEqual(self.produce("a"), (27, "Temporarily unavailable"))


class FetchTests(RecordCase):
    """Q-03, Q-04, Q-17, Q-39, Q-40."""

    def test_where_it_begins(self) -> None:
        """Q-40: at an offset, a time, an end, or where a group is."""
        self.produce("a")
        self.clock.advance(10)
        self.produce("b", "c")
        answer = self.fetch(offset=1)
        self.assertEqual({**answer, "records": 2}, {"records": 2, "next": 3, "low": 0, "high": 3})
        later = round((NOW + 5) * 1000)
        for start, found in (
            ({"offset": 2}, ["c"]),
            ({"at": "earliest"}, ["a", "b", "c"]),
            ({"at": "latest"}, []),
            ({"at": later}, ["b", "c"]),
            ({"at": str(later)}, ["b", "c"]),  # as a query string has it
            ({"group": "g"}, ["a", "b", "c"]),
        ):
            self.assertEqual(self.values(**start), found, start)
        self.ask("group.reset", group="g", topic="shop", at="latest")
        self.assertEqual(self.values(group="g"), [])
        self.assertEqual(self.fetch(offset=9), {"records": [], "next": 9, "low": 0, "high": 3})

    def test_bad_input(self) -> None:
        """Q-04"""
        for given, code, said in (
            ({}, 32, "offset, at or group: expected one of them"),
            ({"offset": 1, "at": "latest"}, 32, "offset, at or group: expected one of them"),
            ({"at": "newest"}, 32, "at: expected earliest, latest or milliseconds"),
            ({"partition": 2, "offset": 0}, 35, "has no partition 2"),
            ({"topic": "none", "offset": 0}, 35, "there is no topic none"),
        ):
            found = self.fetch(**given)
            self.assertEqual(found[0], code, given)
            self.assertIn(said, found[1])

    def test_below_the_oldest(self) -> None:
        """Q-04: the error has the range, for programs."""
        self.produce("a")
        self.produce("b")
        self.successResultOf(self.world.topics.engine.drop_below(Partition("shop", 0), 1))
        self.assertEqual(self.fetch(offset=0), (40, "offset out of range: low=1 high=2"))

    def test_a_batch_that_cannot_be_read(self) -> None:
        """Q-08: what is wrong is said, and where reading goes on."""
        self.produce("a")
        self.patch(self.world.topics, "fetch", lambda *_, **__: fail(CorruptBatch("no batch")))
        self.assertEqual(self.fetch(offset=0), (20, "internal error: no batch"))

    def test_one_waits_for_records(self) -> None:
        """Q-04: up to its time, and not when there are some."""
        waiting = self.start("log.fetch", topic="shop", partition=0, offset=0, wait_ms=5000)
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.produce("a")
        self.assertEqual(self.successResultOf(waiting)["next"], 1)
        waiting = self.start("log.fetch", topic="shop", partition=0, offset=1, wait_ms=5000)
        self.clock.advance(5.1)
        found = {"records": [], "next": 1, "low": 0, "high": 1}
        self.assertEqual(self.successResultOf(waiting), found)

    def test_the_most_that_is_returned(self) -> None:
        """Q-03: the first batch at least, and no more than the server returns."""
        for _ in range(5):
            self.produce("x" * 900)
        self.assertEqual(len(self.values(offset=0, max_bytes=1)), 1)
        self.assertEqual(len(self.values(offset=0)), 5)
        self.api = TopicApi(replace(self.world, fetch_bytes=2000), lambda *_: None)
        self.assertEqual(len(self.values(offset=0)), 2)

    def test_offsets(self) -> None:
        """Q-17"""
        self.produce("a", "b")
        for at, found in (("earliest", [0, 0]), ("latest", [2, 0]), (0, [0, 0])):
            self.assertEqual(self.ask("log.offsets", topic="shop", at=at), {"offsets": found})
        self.assertEqual(self.ask("log.offsets", topic="shop"), {"offsets": [2, 0]})
        self.assertEqual(self.ask("log.offsets", topic="none")[0], 35)
        self.assertEqual(self.ask("log.offsets", topic="shop", at="x")[0], 32)

    def test_capabilities(self) -> None:
        """Q-38: also for those who may do nothing."""
        self.assertEqual(
            self.ask("log.capabilities", "joe", "anonymous"),
            {
                "engine": "memory",
                "dense": True,
                "atomic": True,
                "persistent": False,
                "compacts": True,
                "stride": 1,
                "shared": False,
                "trims": True,
                "sizes": True,
            },
        )


class DelayTests(RecordCase):
    """Q-52."""

    def test_delayed_records(self) -> None:
        self.world.delays.start()
        at = round((NOW + 10) * 1000)
        (first,) = self.ask("log.delay", topic="shop", partition=0, value="a", at_ms=at)["ids"]
        (second,) = self.ask("log.delay", topic="shop", partition=1, value="b", after_ms=5)["ids"]
        (third,) = self.ask("log.delay", topic="shop", partition=0, value="c", after_ms=9000)["ids"]
        self.clock.pump([0.01, 1])
        self.assertEqual(
            self.ask("log.delayed", topic="shop")["batches"],
            [
                {"id": third, "due": at - 1000, "partition": 0, "records": 1},
                {"id": first, "due": at, "partition": 0, "records": 1},
            ],
        )
        for delay_id, cancelled in ((third, True), (third, False), (second, False)):
            found = self.ask("log.cancel", topic="shop", id=delay_id)
            self.assertEqual(found, {"cancelled": cancelled})
        self.clock.pump([1] * 10)
        self.assertEqual(self.values(offset=0), ["a"])
        self.assertEqual(self.values(offset=0, partition=1), ["b"])

    def test_a_page_of_those_that_are_delayed(self) -> None:
        """Q-52, Q-62: however many there are, an answer has so many."""
        for after in (5000, 4000, 4000, 3000, 6000):
            self.ask("log.delay", topic="shop", value="a", after_ms=after)
        seen: list[int] = []
        place: dict[str, int] | None = {}
        while place is not None:
            page = self.ask("log.delayed", topic="shop", limit=2, **place)
            self.assertLessEqual(len(page["batches"]), 2)
            seen += [each["id"] for each in page["batches"]]
            place = page["next"]
        self.assertEqual(seen, [4, 2, 3, 1, 5])

    def test_one_of_another_topic_is_not_cancelled(self) -> None:
        """Q-52: who may write to one topic cannot undo what others wrote to another."""
        self.ask("topic.create", topic="bank")
        (found,) = self.ask("log.delay", topic="bank", value="a", after_ms=5000)["ids"]
        self.assertEqual(
            self.ask("log.cancel", "bob", "worker", topic="shop", id=found), {"cancelled": False}
        )
        self.assertEqual(len(self.ask("log.delayed", topic="bank")["batches"]), 1)

    def test_bad_input(self) -> None:
        for given, code in (
            ({"value": "a"}, 32),
            ({"value": "a", "at_ms": 1, "after_ms": 1}, 32),
            ({"after_ms": 1}, 32),
            ({"value": "a", "after_ms": 1, "partition": 5}, 35),
        ):
            self.assertEqual(self.ask("log.delay", topic="shop", **given)[0], code, given)
        for name in ("log.delay", "log.delayed", "log.cancel"):
            more = {"log.delay": {"value": "a", "after_ms": 1}, "log.cancel": {"id": 1}}
            self.assertEqual(self.ask(name, topic="none", **more.get(name, {}))[0], 35)


class TransactionTests(RecordCase):
    """Q-53."""

    def begin(self, user: str = "ann", role: str = "admin") -> str:
        found = self.ask("log.begin", user, role)
        self.assertEqual(found["timeout_ms"], 60_000)
        transaction: str = found["transaction"]
        return transaction

    def test_all_or_none(self) -> None:
        transaction = self.begin()
        added = {"transaction": transaction}
        self.assertEqual(self.produce("a", "b", **added), {"added": 2})
        self.ask("log.produce", topic="shop", partition=1, value="c", **added)
        self.assertEqual(self.values(offset=0), [])
        self.assertEqual(
            self.ask("log.commit", **added),
            {
                "written": [
                    [{"partition": 0, "offset": 0}, {"partition": 0, "offset": 1}],
                    [{"partition": 1, "offset": 0}],
                ]
            },
        )
        self.assertEqual(self.values(offset=0), ["a", "b"])
        self.assertEqual(self.ask("log.commit", **added)[0], 35)
        transaction = self.begin()
        self.produce("d", transaction=transaction)
        self.assertIs(self.ask("log.abort", transaction=transaction), True)
        self.assertEqual(self.values(offset=2), [])

    def test_one_belongs_to_its_user(self) -> None:
        """Q-53: nobody else can write to it, or end it, even who has seen its id."""
        transaction = self.begin("bob", "worker")
        for name in ("log.commit", "log.abort"):
            for user, role in (("eve", "worker"), ("ann", "admin")):
                self.assertEqual(self.ask(name, user, role, transaction=transaction)[0], 35)
        found = self.produce("a", user="eve", role="worker", transaction=transaction)
        self.assertEqual(found[0], 35)
        for guess in ("1", "1-" + "0" * 32, "", "x" * 100, "-1-1", "9" * 90):
            if guess:
                found = self.ask("log.abort", "bob", "worker", transaction=guess)
                self.assertEqual(found[0], 35, guess)
        self.assertIs(self.ask("log.abort", "bob", "worker", transaction=transaction), True)

    def test_the_limits(self) -> None:
        """Q-53: of one user, so that others have some; and who may write nothing has none."""
        self.begin("bob", "worker"), self.begin("bob", "worker")
        code, text = self.ask("log.begin", "bob", "worker")
        self.assertEqual(code, 34)
        self.assertIn("2 transactions are under way", text)
        self.begin("eve", "worker")
        self.assertEqual(self.ask("log.begin", "ann", "admin")[0], 34)
        self.assertEqual(self.ask("log.begin", "joe", "worker")[0], 33)
        self.clock.advance(60)
        self.begin("bob", "worker")

    def test_an_engine_without_transactions(self) -> None:
        """Q-53: it says so."""
        engine = self.world.topics.engine
        self.patch(engine, "capabilities", engine.capabilities._replace(atomic=False))
        code, text = self.ask("log.begin")
        self.assertEqual((code, text[:37]), (32, "bad params: this engine has no transa"))
