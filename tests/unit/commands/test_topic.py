"""``kupool topic``: what it asks of the API, and what it prints."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi


class TopicTests(CommandCase):
    def test_list(self) -> None:
        """Q-83: all pages, as a table and as JSON; an older daemon knows no dead letters."""
        pages = [
            {"topics": [{"topic": "a", "partitions": 1, "dead_letters": 7}], "next": "b"},
            {"topics": [{"topic": "b", "partitions": 12}], "next": None},
        ]
        api = FakeApi(topic_list=list(pages))
        self.assertEqual(
            self.rows(self.run_command(api, "topic", "list")),
            [["a", "1", "7"], ["b", "12", "-"]],
        )
        self.assertEqual([params for _, params in api.asked], [{}, {"start": "b"}])
        api = FakeApi(topic_list=list(pages))
        found = json.loads(self.run_command(api, "topic", "list", "--json"))
        self.assertEqual([each["topic"] for each in found["topics"]], ["a", "b"])
        empty = FakeApi(topic_list={"topics": [], "next": None})
        self.assertIn("no topic", self.run_command(empty, "topic", "list"))

    def test_create_and_change(self) -> None:
        """Q-83, Q-26, Q-29: settings are given as durations and sizes; a warning is shown."""
        api = FakeApi(
            topic_create={"topic": "a", "settings": {"partitions": 3}},
            topic_change={"topic": "a", "settings": {}, "warning": "keys move"},
        )
        words = ["--partitions", "3", "--set", "retention_time=24h", "--set", "max-record=64KiB"]
        shown = self.run_command(api, "topic", "create", "a", *words, "--set", "durability=os")
        self.assertEqual(shown, "Created a with 3 partitions.\n")
        settings = {
            "partitions": 3,
            "retention_time": 86400.0,
            "max_record": 65536,
            "durability": "os",
        }
        self.assertEqual(api.asked, [("topic.create", {"topic": "a", "settings": settings})])
        self.run_command(api, "topic", "change", "a", "--partitions", "5")
        self.assertEqual(api.asked[-1][1], {"topic": "a", "settings": {"partitions": 5}})
        self.assertIn("keys move", self.errors.getvalue())

    def test_settings_that_are_wrong(self) -> None:
        """Q-83: they are refused before anything is asked."""
        for word, text in (
            ("x=1", "there is no such setting of a topic"),
            ("retention_time=soon", "is not a duration"),
            ("dedup_window=-1", "is not a whole number"),
            ("max_record", "NAME=VALUE"),
        ):
            api = FakeApi()
            failure = self.failureResultOf(api.run("topic", "create", "a", "--set", word))
            self.assertIn(text, failure.getErrorMessage())
            self.assertEqual(api.asked, [])
        failure = self.failureResultOf(FakeApi().run("topic", "change", "a"), ValueError)
        self.assertIn("nothing to change", failure.getErrorMessage())

    def test_delete_asks(self) -> None:
        """Q-83: without a terminal it needs --yes."""
        api = FakeApi(topic_delete=True)
        self.run_command(api, "topic", "delete", "a", status=1)
        self.assertIn("--yes", self.errors.getvalue())
        self.assertEqual(api.asked, [])
        self.assertEqual(self.run_command(api, "topic", "delete", "a", "--yes"), "Deleted a.\n")
        self.assertEqual(api.asked, [("topic.delete", {"topic": "a"})])

    def test_describe(self) -> None:
        """Q-83, Q-26: the settings, also those with defaults, and each partition."""
        found: dict[str, Any] = {
            "topic": "a",
            "settings": {"partitions": 2, "retention_time": 3600.0},
            "partitions": [
                {"partition": 0, "low": 5, "high": 1234567, "size": 1000},
                {"partition": 1, "low": 0, "high": 0, "size": 0},
            ],
        }
        rows = self.rows(self.run_command(FakeApi(topic_describe=found), "topic", "describe", "a"))
        self.assertIn(["retention_time", "1h"], rows)
        self.assertIn(["durability", "always"], rows)
        self.assertIn(["max_record", "1MiB"], rows)
        self.assertEqual(rows[-2:], [["0", "5", "1234567", "1,000"], ["1", "0", "0", "0"]])
        found["partitions"][0]["leader"] = "rabbit@n1"
        rows = self.rows(self.run_command(FakeApi(topic_describe=found), "topic", "describe", "a"))
        self.assertEqual(rows[-2][:2], ["0", "rabbit@n1"])
        self.assertEqual(rows[-1][:2], ["1", "-"])
