"""``kupool log``: offsets and delays."""

from __future__ import annotations

from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi


class OffsetAndDelayTests(CommandCase):
    def test_offsets(self) -> None:
        """Q-83, Q-17"""
        api = FakeApi(log_offsets={"offsets": [5, 1234567]})
        rows = self.rows(self.run_command(api, "log", "offsets", "t"))
        self.assertEqual(rows, [["0", "5"], ["1", "1234567"]])
        self.run_command(api, "log", "offsets", "t", "--at", "2026-11-21T10:05:00Z")
        self.assertEqual(
            [params["at"] for params in api.asked_of("log.offsets")], ["latest", 1795255500000]
        )

    def test_delays(self) -> None:
        """Q-83, Q-52: write later, list, cancel."""
        batches = [{"id": 4, "due": 1795255500123, "partition": 0, "records": 2}]
        api = FakeApi(
            log_delay={"ids": [4]},
            log_delayed={"batches": batches},
            log_cancel=[{"cancelled": True}, {"cancelled": False}],
        )
        shown = self.run_command(api, "log", "delay", "t", "a", "b", "--after", "90s")
        self.assertEqual(shown, "Delayed: id 4.\n")
        params = api.asked[-1][1]
        self.assertEqual(params["after_ms"], 90_000)
        self.assertEqual(params["records"], [{"value": "a"}, {"value": "b"}])
        time = "2026-11-21T10:05:00Z"
        self.run_command(api, "log", "delay", "t", "a", "--at", time, "--partition", "1")
        self.assertEqual(
            (api.asked[-1][1]["at_ms"], api.asked[-1][1]["partition"]), (1795255500000, 1)
        )
        rows = self.rows(self.run_command(api, "log", "delayed", "t"))
        self.assertEqual(rows, [["4", "2026-11-21T10:05:00.123Z", "0", "2"]])
        self.assertEqual(self.run_command(api, "log", "cancel", "t", "4"), "Cancelled 4.\n")
        self.run_command(api, "log", "cancel", "t", "4", status=1)
