"""``kupool group``: what it asks of the API, and what it prints."""

from __future__ import annotations

import json

from kupool.commands.api import ApiRefused
from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi

GROUP = {
    "group": "g",
    "generation": 7,
    "members": [
        {
            "member": "m1",
            "topics": ["a"],
            "assigned": [{"topic": "a", "partition": 0}],
            "revoked": [{"topic": "a", "partition": 1}],
            "session_timeout_ms": 10000,
            "last_seen_ms": 1500,
        }
    ],
    "positions": [
        {"topic": "a", "partition": 0, "committed": 5, "lag": 2, "lag_ms": 1500, "owner": "m1"},
        {"topic": "a", "partition": 1, "committed": None, "lag": 40, "owner": None},
        {"topic": "b", "partition": 0, "committed": 1, "lag": 0, "lag_ms": 0, "owner": None},
    ],
}


class GroupTests(CommandCase):
    def test_list_and_describe(self) -> None:
        """Q-83, Q-41: members, what they hold, and how far each partition is."""
        api = FakeApi(group_list={"groups": ["g", "h"]}, group_describe=GROUP)
        self.assertEqual(self.rows(self.run_command(api, "group", "list")), [["g"], ["h"]])
        rows = self.rows(self.run_command(api, "group", "describe", "g"))
        self.assertEqual(rows[0], ["m1", "a/0, a/1 (to give back)", "1.5 s ago", "10 s"])
        self.assertEqual(
            rows[1:3], [["a", "0", "m1", "5", "2", "1.5 s"], ["a", "1", "-", "-", "40", "-"]]
        )

    def test_lag(self) -> None:
        """Q-83, Q-48: of one group, or of all; a group that is gone meanwhile is left out."""
        api = FakeApi(group_describe=GROUP)
        rows = self.rows(self.run_command(api, "group", "lag", "g"))
        self.assertEqual(rows, [["g", "a", "2", "42", "1.5 s"], ["g", "b", "1", "0", "0 s"]])
        api = FakeApi(
            group_list={"groups": ["x", "g"]},
            group_describe=[ApiRefused(404, "not found", 35), GROUP],
        )
        found = json.loads(self.run_command(api, "group", "lag", "--json"))
        self.assertEqual([each["lag"] for each in found["lags"]], [42, 0])
        refused = FakeApi(group_describe=ApiRefused(404, "not found", 35))
        self.failureResultOf(refused.run("group", "lag", "x"), ApiRefused)

    def test_reset(self) -> None:
        """Q-83, Q-41: to a place or a time, or to an offset of one partition; a dry run says so."""
        answer = {"offsets": [{"partition": 0, "before": None, "after": 9}]}
        api = FakeApi(group_reset=answer)
        shown = self.run_command(api, "group", "reset", "g", "a", "--to", "latest", "--dry-run")
        self.assertEqual(self.rows(shown), [["0", "-", "9"]])
        self.assertIn("Nothing was changed", shown)
        self.assertEqual(
            api.asked[-1][1], {"group": "g", "topic": "a", "at": "latest", "dry_run": True}
        )
        time = "2026-11-21T10:05:00Z"
        self.assertIn(
            "Set 1 offset", self.run_command(api, "group", "reset", "g", "a", "--to", time)
        )
        self.assertEqual(api.asked[-1][1]["at"], 1795255500000)
        self.run_command(api, "group", "reset", "g", "a", "--to", "9", "--partition", "0")
        self.assertEqual(
            api.asked[-1][1],
            {"group": "g", "topic": "a", "offset": 9, "partition": 0, "dry_run": False},
        )
        wrong = FakeApi().run("group", "reset", "g", "a", "--to", "9")
        self.assertIn("--partition", self.failureResultOf(wrong, ValueError).getErrorMessage())

    def test_delete(self) -> None:
        """Q-83, Q-41"""
        api = FakeApi(group_delete=True)
        self.run_command(api, "group", "delete", "g", status=1)
        self.run_command(api, "group", "delete", "g", "--yes")
        self.assertEqual(api.asked, [("group.delete", {"group": "g"})])
