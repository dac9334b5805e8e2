"""``kupool dlq``: what it asks of the API, and what it prints."""

from __future__ import annotations

from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi, record


def letter(offset: int, **more: object) -> dict[str, object]:
    return {
        "partition": 1,
        "offset": offset,
        "source": {"topic": "a", "partition": 1, "offset": offset + 100},
        "group": "g",
        "reason": "ValueError: no number",
        "attempts": 5,
        "record": record(offset, "x", 1795255500123, key="k", **more),
    }


class DeadLetterTests(CommandCase):
    def test_list(self) -> None:
        """Q-83, Q-51: page by page, up to the limit."""
        pages = [
            {"dead": [letter(n) for n in range(100)], "next": {"partition": 1, "offset": 100}},
            {"dead": [letter(100)], "next": {"partition": 1, "offset": 101}},
        ]
        api = FakeApi(log_dead=pages)
        rows = self.rows(self.run_command(api, "dlq", "list", "a", "--limit", "101"))
        self.assertEqual(len(rows), 101)
        self.assertEqual(rows[100], ["1/100", "1/200", "g", "5", "ValueError: no number", "k", "x"])
        asked = api.asked_of("log.dead")
        self.assertEqual(asked[0], {"topic": "a", "limit": 100})
        self.assertEqual(asked[1], {"topic": "a", "partition": 1, "offset": 100, "limit": 1})

    def test_inspect(self) -> None:
        """Q-83, Q-51: everything about one; one that is gone is an error."""
        page = {"dead": [letter(7, headers={"trace": "t"})], "next": None}
        api = FakeApi(log_dead=page)
        lines = self.run_command(api, "dlq", "inspect", "a", "1/7").splitlines()
        found = dict(line.split("  ", 1) for line in lines)
        self.assertEqual(found["source"].strip(), "a, partition 1, offset 107")
        self.assertEqual(found["header trace"].strip(), "t")
        self.assertIn("2026-11-21T10:05:00.123Z", found["time"])
        self.run_command(api, "dlq", "inspect", "a", "1/8", status=1)
        self.assertIn("has no dead letter 1/8", self.errors.getvalue())

    def test_redrive_and_purge(self) -> None:
        """Q-83, Q-51: all or one; a purge asks first."""
        api = FakeApi(log_redrive={"redriven": 2}, log_purge={"purged": 1})
        self.assertEqual(
            self.run_command(api, "dlq", "redrive", "a"), "Sent 2 dead letters back to a.\n"
        )
        self.run_command(api, "dlq", "purge", "a", status=1)
        self.run_command(api, "dlq", "purge", "a", "0/9", "--yes")
        self.assertEqual(
            api.asked,
            [
                ("log.redrive", {"topic": "a"}),
                ("log.purge", {"topic": "a", "partition": 0, "offset": 9}),
            ],
        )
