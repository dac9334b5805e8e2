"""The operations on dead letters, on an engine in memory."""

from __future__ import annotations

from typing import Any

from tests.fakes.topic_api import TopicApiCase


class DeadOperationsTests(TopicApiCase):
    """Q-51."""

    rules = (
        "bob log.subscribe shop",
        "bob log.group g",
        "eve log.subscribe shop.dlq",
        "kim log.manage shop",
    )

    def setUp(self) -> None:
        super().setUp()
        self.ask("topic.create", topic="shop", settings={"partitions": 2})
        for value in "abcde":
            self.ask("log.produce", topic="shop", partition=0, value=value, key="k")
        place = self.ask("group.join", group="g", member="m", topics=["shop"])
        self.generation = place["generation"]

    def bury(self, record: int, **changes: Any) -> Any:
        given = {
            "group": "g",
            "member": "m",
            "generation": self.generation,
            "topic": "shop",
            "partition": 0,
            "offset": record,
            "reason": "no such account",
            "attempts": 3,
        }
        return self.ask("log.bury", "bob", "worker", **{**given, **changes})

    def dead(self, **given: Any) -> Any:
        return self.ask("log.dead", topic="shop", **given)

    def offsets(self) -> list[int]:
        return [each["source"]["offset"] for each in self.dead()["dead"]]

    def test_asked_again_it_is_one_letter(self) -> None:
        """As by a member that lost the answer."""
        for record in (2, 2, 4, 2):
            self.assertIs(self.bury(record), True)
        self.assertEqual(self.offsets(), [2, 4])

    def test_a_letter_says_everything(self) -> None:
        self.assertEqual(self.dead(), {"dead": [], "next": None})
        self.assertIs(self.bury(2), True)
        (letter,) = self.dead()["dead"]
        record = letter.pop("record")
        self.assertEqual(
            letter,
            {
                "partition": 0,
                "offset": 0,
                "source": {"topic": "shop", "partition": 0, "offset": 2},
                "group": "g",
                "reason": "no such account",
                "attempts": 3,
            },
        )
        self.assertEqual((record["value"], record["key"]), ("c", "k"))

    def test_what_cannot_be_buried(self) -> None:
        """Q-46, Q-51: by one that does not hold the partition, or a record that is not there."""
        for changes, code in (
            ({"generation": 1}, 39),
            ({"member": "other"}, 35),
            ({"partition": 7}, 41),
            ({"offset": 99}, 35),
        ):
            self.assertEqual(self.bury(0, **changes)[0], code, changes)
        self.assertEqual(self.dead()["dead"], [])

    def test_pages(self) -> None:
        for offset in range(5):
            self.bury(offset)
        page = self.dead(limit=2)
        self.assertEqual([each["offset"] for each in page["dead"]], [0, 1])
        self.assertEqual(page["next"], {"partition": 0, "offset": 2})
        page = self.dead(limit=3, **page["next"])
        self.assertEqual([each["offset"] for each in page["dead"]], [2, 3, 4])
        self.assertIsNone(page["next"])

    def test_one_is_sent_back(self) -> None:
        """Q-51: also in the middle: it is not listed any more, and the others are."""
        for offset in range(4):
            self.bury(offset)
        one = {"topic": "shop", "partition": 0, "offset": 1}
        self.assertEqual(self.ask("log.redrive", **one), {"redriven": 1})
        self.assertEqual(self.ask("log.redrive", **one), {"redriven": 0})
        self.assertEqual(self.offsets(), [0, 2, 3])
        self.assertEqual(self.ask("log.purge", **{**one, "offset": 2}), {"purged": 1})
        self.assertEqual(self.offsets(), [0, 3])
        self.assertEqual(self.ask("log.purge", **{**one, "offset": 0}), {"purged": 1})
        self.assertEqual(self.offsets(), [3])
        # Nothing is left of those that were passed by themselves.
        groups = self.successResultOf(self.world.topics.engine.groups())
        self.assertEqual(groups, ["dlq-passed"])
        self.assertEqual(self.ask("log.redrive", topic="shop"), {"redriven": 1})
        found = self.ask("log.fetch", topic="shop", partition=0, offset=5)["records"]
        self.assertEqual([each["value"] for each in found], ["b", "d"])
        self.assertEqual(self.offsets(), [])

    def test_all_but_those_that_were_passed(self) -> None:
        """Q-51: one that was sent back by itself does not go with all."""
        for offset in range(4):
            self.bury(offset)
        self.ask("log.redrive", topic="shop", partition=0, offset=2)
        self.assertEqual(self.ask("log.redrive", topic="shop"), {"redriven": 3})
        self.bury(0), self.bury(1), self.bury(2)
        self.ask("log.purge", topic="shop", partition=0, offset=5)
        self.assertEqual(self.ask("log.purge", topic="shop"), {"purged": 2})
        self.assertEqual(self.offsets(), [])
        groups = self.successResultOf(self.world.topics.engine.groups())
        self.assertEqual(groups, ["dlq-passed"])

    def test_bad_input(self) -> None:
        self.bury(0)
        for name in ("log.redrive", "log.purge"):
            self.assertEqual(self.ask(name, topic="none")[0], 35)
            self.assertEqual(self.ask(name, topic="shop", partition=0)[0], 32)
            self.assertEqual(self.ask(name, topic="shop", offset=0)[0], 32)
            self.assertEqual(self.ask(name, topic="shop", partition=9, offset=0)[0], 35)
            self.assertEqual(self.ask(name, topic="shop", partition=0, offset=9)[0], 35)
        self.assertEqual(self.ask("log.dead", topic="none")[0], 35)

    def test_who_may_look(self) -> None:
        """Q-51: who may read the topic of the dead letters, or manage the topic."""
        for user, code in (("eve", 0), ("kim", 0), ("bob", 33)):
            found = self.ask("log.dead", user, "worker", topic="shop")
            self.assertEqual(found[0] if isinstance(found, tuple) else 0, code, user)
        for user, code in (("eve", 33), ("kim", 0), ("bob", 33)):
            found = self.ask("log.redrive", user, "worker", topic="shop")
            self.assertEqual(found[0] if isinstance(found, tuple) else 0, code, user)

    def test_the_topic_of_the_letters_may_be_deleted(self) -> None:
        """Q-51: and begins anew; what was passed is forgotten with it."""
        self.bury(0), self.bury(1), self.bury(2)
        self.ask("log.redrive", topic="shop", partition=0, offset=1)
        self.assertIs(self.ask("topic.delete", topic="shop.dlq"), True)
        self.assertEqual(self.offsets(), [])
        self.bury(3), self.bury(4)
        self.assertEqual(self.offsets(), [3, 4])
