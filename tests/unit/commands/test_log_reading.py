"""``kupool log fetch`` and ``kupool log replay``: what they ask for, and what they print."""

from __future__ import annotations

import json

from kupool.commands.api import ApiRefused
from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi, fetched, partition, record


class FetchTests(CommandCase):
    def test_all_partitions(self) -> None:
        """Q-83, Q-03: one after the other, up to the end that was there at the beginning."""
        late = [record(2, "late")]
        pages = {0: [fetched([record(0, "a"), record(1, "b", key="k")], high=2), fetched(late)]}
        api = FakeApi(
            topic_describe={"partitions": [{"partition": 0}, {"partition": 1}]},
            log_fetch=lambda params: (
                pages[0].pop(0) if params["partition"] == 0 else fetched([record(9, "c")])
            ),
        )
        lines = self.run_command(api, "log", "fetch", "t").splitlines()
        self.assertEqual(
            lines,
            [
                "0/0  1970-01-01T00:00:01.000Z  -  a",
                "0/1  1970-01-01T00:00:01.000Z  k  b",
                "1/9  1970-01-01T00:00:01.000Z  -  c",
            ],
        )
        self.assertEqual(api.asked_of("log.fetch")[0]["at"], "earliest")

    def test_places(self) -> None:
        """Q-83, Q-40: an offset, a time, and where a group reads next."""
        for words, expected in (
            (("--from", "17"), ("offset", 17)),
            (("--from", "latest"), ("at", "latest")),
            (("--from", "2026-11-21T10:05:00Z"), ("at", 1795255500000)),
            (("--group", "g"), ("group", "g")),
        ):
            api = FakeApi(log_fetch=fetched([]))
            self.run_command(api, "log", "fetch", "t", "--partition", "3", *words)
            params = api.asked_of("log.fetch")[0]
            self.assertEqual(params["partition"], 3)
            self.assertEqual(params[expected[0]], expected[1])

    def test_limit_and_forms(self) -> None:
        """Q-83: the number of records, and JSON or values for programs."""
        records = [record(n, f"v{n}", key="k") for n in range(5)]
        api = FakeApi(log_fetch=partition(records))
        words = ("log", "fetch", "t", "--partition", "0", "--limit", "2")
        self.assertEqual(len(self.run_command(api, *words).splitlines()), 2)
        lines = self.run_command(api, *words, "--json").splitlines()
        self.assertEqual(json.loads(lines[1]), {"partition": 0, **records[1]})

    def test_what_a_terminal_would_interpret(self) -> None:
        """Q-83: values and keys are bytes that anybody wrote."""
        hostile = [
            record(0, "a\x1b[2J", key="b\u202e"),
            record(1, "/w==", key="/g==", base64=True),
        ]
        api = FakeApi(log_fetch=partition(hostile))
        shown = self.run_command(api, "log", "fetch", "t", "--partition", "0")
        self.assertIn(r"b\u202e  a\x1b[2J", shown)
        self.assertIn(r"\xfe  \xff", shown)
        lines = self.run_command(api, "log", "fetch", "t", "--partition", "0", "--json")
        self.assertTrue(lines.isprintable() or "\n" in lines)
        self.assertEqual(json.loads(lines.splitlines()[0])["key"], "b\u202e")


class ReplayTests(CommandCase):
    def api(self) -> FakeApi:
        parts = {
            0: partition([record(0, "a", 1_000), record(1, "d", 4_000)]),
            1: partition([record(0, "b", 2_000), record(1, "c", 2_500)]),
        }
        return FakeApi(
            topic_describe={"partitions": [{"partition": 0}, {"partition": 1}]},
            log_fetch=lambda params: parts[params["partition"]](params),
        )

    def values(self) -> str:
        return "".join(line.rsplit("  ", 1)[1] for line in self.out.getvalue().splitlines())

    def test_at_the_speed_of_the_records(self) -> None:
        """Q-83, Q-50: in the order of their times, with the pauses between them."""
        api = self.api()
        running = api.run("log", "replay", "t")
        self.assertEqual(self.values(), "a")
        api.reactor.advance(1.0)
        self.assertEqual(self.values(), "ab")
        api.reactor.advance(0.5)
        self.assertEqual(self.values(), "abc")
        api.reactor.advance(1.4)
        self.assertNoResult(running)
        api.reactor.advance(0.1)
        self.assertEqual(self.values(), "abcd")
        self.assertEqual(self.successResultOf(running), 0)

    def test_faster(self) -> None:
        """Q-83, Q-50: ten times as fast, and without pauses."""
        api = self.api()
        running = api.run("log", "replay", "t", "--speed", "10")
        api.reactor.advance(0.1)
        api.reactor.advance(0.05)
        api.reactor.advance(0.15)
        self.assertEqual(self.values(), "abcd")
        self.successResultOf(running)
        self.run_command(self.api(), "log", "replay", "t", "--speed", "max")

    def test_an_end(self) -> None:
        """Q-83, Q-50"""
        words = ("--speed", "max", "--to", "1970-01-01T00:00:02Z")
        self.run_command(self.api(), "log", "replay", "t", *words)
        self.assertEqual(self.values(), "a")


class UnreadableFetchTests(CommandCase):
    """Q-08, Q-83: ``fetch`` ends at a batch that cannot be read, or says that it leaves it out."""

    def test_with_and_without_the_flag(self) -> None:
        refused = ApiRefused(500, "internal error: it is no batch (offset=0 next=2)", 20)
        words = ("log", "fetch", "t", "--partition", "0")
        failure = self.failureResultOf(FakeApi(log_fetch=[refused]).run(*words), ApiRefused)
        self.assertIn("offset=0", str(failure.value))
        api = FakeApi(log_fetch=[refused, fetched([record(2, "c")], high=3)])
        self.assertIn("0/2", self.run_command(api, *words, "--skip-unreadable"))
        self.assertIn("left out", self.errors.getvalue())
