"""The HTTP API of topics for the commands, without a daemon: a test says the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from kupool.cli import make_parser

#: An answer: a value, an error to raise, or what makes one of the parameters.
Answer = Any


class FakeApi:
    """Answers operations as a test says, and keeps what was asked.

    ``answers`` has for each operation one answer for all calls, or a list of answers, each for one
    call. An answer that is callable gets the parameters; it may return a Deferred.
    """

    def __init__(self, **answers: Answer) -> None:
        self.reactor = Clock()
        self.answers = {name.replace("_", ".", 1): found for name, found in answers.items()}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def read(
        self, operation: str, params: Mapping[str, Any], *, timeout: float = 10.0
    ) -> Any:
        self.asked.append((operation, dict(params)))
        found = self.answers[operation]
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, Exception):
            raise found
        if callable(found):
            found = found(params)
            if isinstance(found, Deferred):
                return await found
        return found

    change = read

    def asked_of(self, operation: str) -> Sequence[Mapping[str, Any]]:
        """Return the parameters of each call of an operation."""
        return [params for name, params in self.asked if name == operation]

    def run(self, *words: str) -> Deferred[int]:
        """Run a command on this API; fires with its exit status."""
        arguments = make_parser(words[0]).parse_args(list(words))
        work: Callable[..., Any] = arguments.work
        return Deferred.fromCoroutine(work(arguments, self))


def record(offset: int, value: str, timestamp: int = 1_000, **more: object) -> dict[str, object]:
    """Return a record as the API has it."""
    return {"offset": offset, "timestamp": timestamp, "value": value, **more}


def fetched(
    records: Sequence[Mapping[str, Any]], *, low: int = 0, high: int | None = None
) -> dict[str, object]:
    """Return an answer of ``log.fetch``."""
    following = records[-1]["offset"] + 1 if records else (high or 0)
    return {
        "records": list(records),
        "next": following,
        "low": low,
        "high": following if high is None else high,
    }


def partition(records: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], object]:
    """Return what answers ``log.fetch`` from one partition with these records."""

    def answer(params: Mapping[str, Any]) -> object:
        start = params.get("offset", 0)
        found = [each for each in records if each["offset"] >= start]
        high = records[-1]["offset"] + 1 if records else 0
        return {
            "records": found,
            "next": max(high, start) if found else start,
            "low": 0,
            "high": high,
        }

    return answer


__all__ = ["FakeApi", "fetched", "partition", "record"]
