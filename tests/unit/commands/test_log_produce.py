"""``kupool log produce``: what it sends, and what it says when that fails."""

from __future__ import annotations

import json
from typing import Any

from kupool.commands.api import ApiAway, ApiRefused
from kupool.commands.log_produce import PATIENCE, ProduceFailed
from tests.fakes.command_case import CommandCase
from tests.fakes.topics_api import FakeApi


def wrote(params: Any) -> dict[str, object]:
    """Answer ``log.produce``: all records are in partition 2."""
    return {"written": [{"partition": 2, "offset": 7 + n} for n in range(len(params["records"]))]}


class ProduceTests(CommandCase):
    def produce(self, *words: str, **answers: object) -> tuple[FakeApi, str]:
        api = FakeApi(**{"log_produce": wrote, **answers})
        return api, self.run_command(api, "log", "produce", *words)

    def failed(self, api: FakeApi, *words: str) -> str:
        running = api.run("log", "produce", *words)
        api.reactor.pump([1.0] * int(PATIENCE + 12))
        return self.failureResultOf(running, ProduceFailed).getErrorMessage()

    def file(self, data: bytes) -> str:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_values(self) -> None:
        """Q-83: one request, with the key, the headers and the partition of all."""
        api, shown = self.produce(
            *["t", "a", "b", "--key", "k", "--header", "h=1=2", "--partition", "2"]
        )
        self.assertEqual(shown, "Wrote 2 records to t.\n  partition 2: 2, offsets 7 to 8\n")
        (params,) = api.asked_of("log.produce")
        more = {"key": "k", "headers": {"h": "1=2"}}
        self.assertEqual(params["records"], [{"value": "a", **more}, {"value": "b", **more}])
        self.assertEqual((params["topic"], params["partition"]), ("t", 2))

    def test_options_between_values(self) -> None:
        """Q-83: values may come before and behind options; after -- they may begin with a dash."""
        for words, values in (
            (["a", "--key", "k", "b"], ["a", "b"]),
            (["--key", "k", "b"], ["b"]),
            (["--key", "k", "--", "-b", "--"], ["-b", "--"]),
            (["a", "--", "-b"], ["a", "-b"]),
        ):
            api, _ = self.produce("t", *words)
            (params,) = api.asked_of("log.produce")
            self.assertEqual([each["value"] for each in params["records"]], values)
        with self.assertRaises(SystemExit):
            FakeApi().run("log", "produce", "t", "a", "--kex", "k", "b")
        self.assertIn("did you mean --key?", self.errors.getvalue())

    def test_batches(self) -> None:
        """Q-83: a request has no more records, and no more bytes, than it may."""
        api, _ = self.produce("t", *"abcde", "--batch", "2")
        self.assertEqual([len(each["records"]) for each in api.asked_of("log.produce")], [2, 2, 1])
        large = "x" * 300_000
        api, _ = self.produce("t", large, large, "y")
        self.assertEqual([len(each["records"]) for each in api.asked_of("log.produce")], [1, 2])

    def test_keys_before_a_separator(self) -> None:
        """Q-83: a line without one ends the command, after the lines before it."""
        api, _ = self.produce("t", "k:v:w", "--key-separator", ":")
        self.assertEqual(api.asked_of("log.produce")[0]["records"], [{"value": "v:w", "key": "k"}])
        api = FakeApi(log_produce=wrote)
        text = self.failed(api, "t", "k:v", "w", "--key-separator", ":")
        self.assertEqual(
            text, "line 2 has no key: the separator is missing; 1 record before are written"
        )

    def test_bytes_that_are_no_text(self) -> None:
        """Q-83: they are written as they are."""
        api, _ = self.produce("t", "k:\udcff\udcfe", "--key-separator", ":")
        (each,) = api.asked_of("log.produce")[0]["records"]
        self.assertEqual(each, {"value": "//4=", "key": "aw==", "base64": True})

    def test_json(self) -> None:
        """Q-83: the place of each record."""
        _, shown = self.produce("t", "a", "--json")
        self.assertEqual(json.loads(shown), {"written": [{"partition": 2, "offset": 7}]})

    def test_a_repeated_request_writes_once(self) -> None:
        """Q-83, Q-24: it has the sequence number of the first; the next batch has another."""
        answers = [ApiAway("no answer"), ApiRefused(503, "away"), wrote, wrote]
        api = FakeApi(log_produce=answers)
        running = api.run("log", "produce", "t", "a", "b", "--batch", "1")
        self.assertNoResult(running)
        api.reactor.pump([1.0] * 12)
        self.assertEqual(self.successResultOf(running), 0)
        asked = api.asked_of("log.produce")
        self.assertEqual([each["sequence"] for each in asked], [0, 0, 0, 1])
        self.assertEqual(len({each["producer"] for each in asked}), 1)
        self.assertEqual(self.errors.getvalue().count("trying again"), 1)
        self.assertIn("answers again", self.errors.getvalue())

    def test_what_is_not_known(self) -> None:
        """Q-56: the error says what is written, and what may be."""
        api = FakeApi(
            log_produce=[wrote, *[ApiAway("no answer") for _ in range(100)]],
        )
        text = self.failed(api, "t", "a", "b", "--batch", "1")
        self.assertEqual(
            text,
            "no answer; whether the next 1 record are is unknown; 1 record before are written",
        )

    def test_an_error_that_stays(self) -> None:
        """Q-83"""
        api = FakeApi(log_produce=ApiRefused(413, "too large"))
        self.assertEqual(self.failed(api, "t", "a"), "too large")
        self.assertEqual(len(api.asked_of("log.produce")), 1)

    def test_flags_that_are_wrong(self) -> None:
        """Q-83"""
        for words in (("a", "--file", "f"), ("a", "--header", "x"), ("a", "--key-separator", "")):
            api = FakeApi()
            self.failureResultOf(api.run("log", "produce", "t", *words), ValueError)
            self.assertEqual(api.asked, [])
        api = FakeApi()
        missing = api.run("log", "produce", "t", "--file", "/nowhere/f")
        self.assertIn("/nowhere/f: No such file", self.failureResultOf(missing).getErrorMessage())
