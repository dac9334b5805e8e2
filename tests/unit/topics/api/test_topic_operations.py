"""The operations ``topic.*``, on an engine in memory."""

from __future__ import annotations

import msgspec

from kupool.topics.api.topic_operations import KEYS_MOVE, PAGE
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.records import Record
from kupool.topics.settings import TopicSettings
from tests.fakes.topic_api import TopicApiCase

DEFAULTS = msgspec.structs.asdict(TopicSettings())


class TopicOperationsTests(TopicApiCase):
    """Q-26, Q-27, Q-29."""

    rules = ("bob log.subscribe shop.>", "eve log.manage shop.*")

    def test_a_topic_is_made_described_and_deleted(self) -> None:
        """Q-26: with the settings that were given, and the defaults of the others."""
        made = self.ask("topic.create", topic="shop", settings={"partitions": 2})
        settings = {**DEFAULTS, "partitions": 2}
        self.assertEqual(made, {"topic": "shop", "settings": settings})
        self.ask("log.produce", topic="shop", value="v", partition=1)
        found = self.ask("topic.describe", topic="shop")
        sizes = [each.pop("size") for each in found["partitions"]]
        self.assertEqual(sizes[0], 0)
        self.assertGreater(sizes[1], 0)
        partitions = [
            {"partition": 0, "low": 0, "high": 0},
            {"partition": 1, "low": 0, "high": 1},
        ]
        self.assertEqual(found, {**made, "partitions": partitions, "dead_letters": 0})
        self.assertIs(self.ask("topic.delete", topic="shop"), True)
        for name in ("topic.describe", "topic.delete"):
            code, text = self.ask(name, topic="shop")
            self.assertEqual((code, text[:27]), (35, "not found: there is no topi"))

    def test_names_and_settings_that_are_not_valid(self) -> None:
        """Q-27"""
        for name in ("", "a/b", "..", "\x00", "a b", "ä"):
            code, text = self.ask("topic.create", topic=name)
            self.assertEqual(code, 32, name)
            self.assertIn("is no name of a topic", text)
        for settings, said in (
            ({"partitions": 0}, "partitions: expected 1 to 1000"),
            ({"partitions": "2"}, "Expected `int`"),
            ({"colour": "red"}, "colour: there is no such setting"),
            ({"compression": "zip"}, "compression: expected one of"),
        ):
            code, text = self.ask("topic.create", topic="shop", settings=settings)
            self.assertEqual(code, 32)
            self.assertIn(said, text)
        self.ask("topic.create", topic="shop")
        self.assertEqual(self.ask("topic.create", topic="shop"), (36, "already exists: topic shop"))

    def test_a_change(self) -> None:
        """Q-29: what is not given stays; more partitions are warned of, fewer refused."""
        self.ask("topic.create", topic="shop", settings={"partitions": 2, "max_record": 77})
        changed = self.ask("topic.change", topic="shop", settings={"retention_time": 5})
        wanted = {**DEFAULTS, "partitions": 2, "max_record": 77, "retention_time": 5.0}
        self.assertEqual(changed, {"topic": "shop", "settings": wanted})
        changed = self.ask("topic.change", topic="shop", settings={"partitions": 3})
        self.assertEqual(changed["warning"], KEYS_MOVE)
        self.assertEqual(len(self.ask("topic.describe", topic="shop")["partitions"]), 3)
        code, text = self.ask("topic.change", topic="shop", settings={"partitions": 1})
        self.assertEqual(code, 32)
        self.assertIn("none can be removed", text)
        self.assertEqual(self.ask("topic.change", topic="x", settings={})[0], 35)

    def test_the_limit(self) -> None:
        """Q-14: the refusal is for the log, too."""
        for number in range(1000):
            self.ask("topic.create", topic=f"t{number}")
        self.assertEqual(self.noted, [])
        code, text = self.ask("topic.create", topic="one.more")
        self.assertEqual(code, 34)
        self.assertIn("there are 1000 topics already", text)
        self.assertEqual(self.noted, [("topics, too many", "192.0.2.1", "ann")])

    def test_lists_have_what_one_may_use(self) -> None:
        """Q-26: a page at a time, of those that the caller may read or manage."""
        names = sorted([f"shop.{number}" for number in range(PAGE + 2)] + ["bank", "shop.a.b"])
        for name in names:
            self.ask("topic.create", topic=name)
        first = self.ask("topic.list")
        self.assertEqual([each["topic"] for each in first["topics"]], names[:PAGE])
        bank = {"topic": "bank", "partitions": 1, "dead_letters": 0}
        self.assertEqual(first["topics"][0], bank)
        self.assertEqual(first["next"], names[PAGE])
        rest = self.ask("topic.list", start=first["next"])
        self.assertEqual([each["topic"] for each in rest["topics"]], names[PAGE:])
        self.assertIsNone(rest["next"])
        for user, seen in (("bob", names[1:]), ("eve", [n for n in names[1:] if n != "shop.a.b"])):
            found = self.ask("topic.list", user, "worker")
            self.assertEqual([each["topic"] for each in found["topics"]], seen[:PAGE])
        self.assertEqual(self.ask("topic.list", "joe", "worker"), {"topics": [], "next": None})

    def test_how_many_dead_letters_wait(self) -> None:
        """Q-51: in the list and in the description, until they were sent back or dropped."""
        self.ask("topic.create", topic="shop")
        self.ask("topic.create", topic="bank")
        for offset in range(3):
            self.ask("log.produce", topic="shop", value=str(offset))
            record = Record(offset, 5, None, b"v", {})
            delivery = DeliveredRecord(Partition("shop", 0), record)
            self.successResultOf(self.world.dead.bury("g", delivery, "why"))
        for waiting in (3, 2):
            found = self.ask("topic.list")["topics"]
            counts = {each["topic"]: each["dead_letters"] for each in found}
            self.assertEqual(counts, {"bank": 0, "shop": waiting, "shop.dlq": 0})
            self.assertEqual(self.ask("topic.describe", topic="shop")["dead_letters"], waiting)
            self.ask("log.purge", topic="shop", partition=0, offset=1)
