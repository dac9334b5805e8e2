"""``kupool log tail``: what it asks for, and what it prints."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from kupool.commands.api import ApiAway, ApiRefused
from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi, fetched, partition, record

ENGINE = {"engine": "sqlite", "dense": True}


class TailCase(CommandCase):
    def api(self, fetch: Any, *, high: tuple[int, ...] = (3, 1)) -> FakeApi:
        return FakeApi(
            topic_describe={"partitions": [{"partition": n} for n in range(len(high))]},
            log_offsets=lambda params: {
                "offsets": list(high) if params["at"] == "latest" else [0] * len(high)
            },
            log_capabilities=ENGINE,
            log_fetch=fetch,
        )

    def values(self) -> str:
        return "".join(line.rsplit("  ", 1)[1] for line in self.out.getvalue().splitlines())

    def next_of(self, answers: list[Any]) -> Any:
        if not answers:
            return Deferred()
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


class TailTests(TailCase):
    def test_the_last_ones(self) -> None:
        """Q-83: of all partitions together, in the order of their times."""
        parts = {
            0: partition([record(0, "a", 1), record(1, "b", 2), record(2, "d", 5)]),
            1: partition([record(0, "c", 3)]),
        }
        api = self.api(lambda params: parts[params["partition"]](params))
        self.run_command(api, "log", "tail", "t", "-n", "3")
        self.assertEqual(self.values(), "bcd")
        self.assertEqual(api.asked_of("log.fetch")[0]["offset"], 0)
        self.run_command(api, "log", "tail", "t", "-n", "1")
        self.assertEqual(self.values(), "bcdd")
        self.run_command(api, "log", "tail", "t", "-n", "0")
        self.assertEqual(self.values(), "bcdd")

    def test_offsets_with_gaps(self) -> None:
        """Q-83, Q-38: enough batches are read to have the last records."""
        api = self.api(partition([record(5 * 65536, "x")]), high=(6 * 65536,))
        api.answers["log.capabilities"] = {"engine": "rabbit", "stride": 65536}
        self.run_command(api, "log", "tail", "t", "-n", "2")
        self.assertEqual(api.asked_of("log.fetch")[0]["offset"], 4 * 65536)

    def test_follow(self) -> None:
        """Q-83: each partition has a request that waits, and the next begins where it ended."""
        waiting: dict[int, Deferred[Any]] = {}

        def fetch(params: Any) -> Any:
            waiting[params["partition"]] = Deferred()
            return waiting[params["partition"]]

        api = self.api(fetch)
        running = api.run("log", "tail", "t", "-f", "-n", "0")
        self.assertEqual(
            [(each["offset"], each["wait_ms"] > 0) for each in api.asked_of("log.fetch")],
            [(3, True), (1, True)],
        )
        waiting[1].callback(fetched([record(1, "x"), record(2, "y")]))
        self.assertEqual(self.values(), "xy")
        self.assertEqual(api.asked_of("log.fetch")[-1]["offset"], 3)
        self.assertNoResult(running)
        running.cancel()
        self.failureResultOf(running, CancelledError)

    def test_follow_when_the_daemon_restarts(self) -> None:
        """Q-83, Q-39: it goes on where it was, and says once that it lost the daemon."""
        answers: list[Any] = [
            fetched([record(3, "x")]),
            ApiAway("connection refused"),
            ApiAway("connection refused"),
            fetched([record(4, "y")]),
        ]
        api = self.api(lambda params: self.next_of(answers))
        running = api.run("log", "tail", "t", "-f", "-n", "0", "--partition", "0")
        api.reactor.pump([1.0] * 20)
        self.assertEqual(self.values(), "xy")
        self.assertEqual([each["offset"] for each in api.asked_of("log.fetch")], [3, 4, 4, 4, 5])
        self.assertEqual(self.errors.getvalue().count("connection refused"), 1)
        running.cancel()
        self.failureResultOf(running, CancelledError)

    def test_follow_beyond_what_was_dropped(self) -> None:
        """Q-83, Q-04: it goes on at the oldest record, and says so."""
        answers: list[Any] = [
            ApiRefused(416, "offset out of range: low=90 high=95", 40),
            fetched([record(90, "x")]),
        ]
        api = self.api(lambda params: self.next_of(answers))
        running = api.run("log", "tail", "t", "-f", "-n", "0", "--partition", "0")
        self.assertEqual(self.values(), "x")
        self.assertIn("before offset 90 were dropped", self.errors.getvalue())
        running.cancel()
        self.failureResultOf(running, CancelledError)

    def test_an_error_that_stays_ends_it(self) -> None:
        """Q-83: a topic that is deleted, for example."""
        api = self.api(lambda params: self.next_of([ApiRefused(404, "not found: t", 35)]))
        self.failureResultOf(api.run("log", "tail", "t", "-f", "-n", "0"), ApiRefused)

    def test_many_partitions_share_few_requests(self) -> None:
        """Q-92, Q-83: all are read, none by more than one request at a time."""
        asked: list[int] = []

        def fetch(params: Any) -> Any:
            asked.append(params["partition"])
            later: Deferred[Any] = Deferred()
            api.reactor.callLater(0.5, later.callback, fetched([], high=0))
            return later

        api = self.api(fetch, high=(0,) * 40)
        running = api.run("log", "tail", "t", "-f", "-n", "0")
        self.assertEqual(asked, list(range(16)))
        api.reactor.pump([0.5] * 2)
        self.assertEqual(sorted(set(asked)), list(range(40)))
        self.assertEqual({each["wait_ms"] for each in api.asked_of("log.fetch")}, {500})
        running.cancel()
        self.failureResultOf(running, CancelledError)


#: What a daemon says of a batch that cannot be read.
UNREADABLE = ApiRefused(
    500,
    "internal error: partition 0 of topic t, batch at offset 3: its checksum is wrong; "
    "read on from 5 (offset=3 next=5)",
    20,
)


class UnreadableTests(TailCase):
    """Q-08, Q-83: a batch that cannot be read is named, and left out only with a flag."""

    def test_others_go_on(self) -> None:
        first: list[Any] = [UNREADABLE]
        second: list[Any] = [fetched([record(1, "x")]), fetched([record(2, "y")])]
        api = self.api(lambda params: self.next_of([first, second][params["partition"]]))
        running = api.run("log", "tail", "t", "-f", "-n", "0")
        self.assertEqual(self.values(), "xy")
        self.assertEqual(self.errors.getvalue().count("batch at offset 3"), 1)
        self.assertIn("--skip-unreadable", self.errors.getvalue())
        self.assertNoResult(running)
        running.cancel()
        self.failureResultOf(running, CancelledError)

    def test_nothing_is_left_to_read(self) -> None:
        api = self.api(lambda params: self.next_of([UNREADABLE]))
        running = api.run("log", "tail", "t", "-f", "-n", "0", "--partition", "0")
        self.assertEqual(self.successResultOf(running), 1)

    def test_left_out(self) -> None:
        answers: list[Any] = [UNREADABLE, fetched([record(5, "x")])]
        api = self.api(lambda params: self.next_of(answers))
        words = ("-f", "-n", "0", "--partition", "0", "--skip-unreadable")
        running = api.run("log", "tail", "t", *words)
        self.assertEqual(self.values(), "x")
        self.assertEqual([each["offset"] for each in api.asked_of("log.fetch")], [3, 5, 6])
        self.assertIn("batch at offset 3", self.errors.getvalue())
        self.assertIn("left out", self.errors.getvalue())
        running.cancel()
        self.failureResultOf(running, CancelledError)
