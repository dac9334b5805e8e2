"""``kupool log produce``: write records to a topic, from arguments, a file or standard input."""

from __future__ import annotations

import argparse
import os
import secrets
import stat
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kupool.client.failures import ClientError
from kupool.commands.api import ApiAway, ApiClient, ApiRefused
from kupool.commands.api_flags import add_api_parser, say_json
from kupool.commands.console import say
from kupool.commands.progress import counted
from kupool.commands.retrying import Retrying
from kupool.commands.target import positive

#: The most bytes of the records in one request, unless one alone is larger.
BATCH_BYTES = 512 * 1024

#: The longest line.
LONGEST_LINE = 16 * 1024 * 1024

#: Seconds for which a request is repeated.
PATIENCE = 30.0


class ProduceFailed(ClientError):
    """Not all records were written; says how many were."""


def add_produce(actions: Any) -> None:
    """Add the action."""
    parser = add_api_parser(
        actions,
        "produce",
        "write records: values, or the lines of a file or of standard input",
        produce,
    )
    parser.add_argument("topic")
    parser.add_argument("values", nargs="*", metavar="VALUE", help="by default the lines of --file")
    parser.gathers = "values"
    parser.add_argument(
        "--file", metavar="FILE", help="a file whose lines are values; - is standard input [-]"
    )
    add_line_flags(parser)
    parser.add_argument(
        "--batch", type=positive, default=500, metavar="N", help="most records in a request [500]"
    )


def add_line_flags(parser: Any) -> None:
    """Add the flags of :class:`LineRecords`, and the partition."""
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--key", metavar="TEXT", help="the key of all records")
    keys.add_argument(
        "--key-separator", metavar="TEXT", help="each value begins with its key and this text"
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a header of all records; repeatable",
    )
    parser.add_argument(
        "--partition", type=int, metavar="N", help="by default the topic's partitioner chooses"
    )


class LineRecords:
    """Makes records of the API of values, as the flags of a command say; raises
    :class:`ValueError`.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._key = None if arguments.key is None else os.fsencode(arguments.key)
        separator = arguments.key_separator
        self._separator = None if separator is None else os.fsencode(separator)
        if self._separator == b"":
            raise ValueError("--key-separator: an empty text separates nothing")
        self._headers: dict[str, str] = {}
        for text in arguments.header:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise ValueError(f"--header: {text!r} is not NAME=VALUE")
            self._headers[name] = value

    def record(self, line: bytes, number: int) -> dict[str, object]:
        """Return the record of a value; ``number`` is that of the line, from 1 on."""
        key, value = self._key, line
        if self._separator is not None:
            key, found, value = line.partition(self._separator)
            if not found:
                raise ValueError(f"line {number} has no key: the separator is missing")
        record: dict[str, object]
        try:
            record = {"value": value.decode()}
            if key is not None:
                record["key"] = key.decode()
        except UnicodeDecodeError:
            record = {"value": b64encode(value).decode(), "base64": True}
            if key is not None:
                record["key"] = b64encode(key).decode()
        if self._headers:
            record["headers"] = self._headers
        return record


class _Chunk:
    """Some lines, and how many bytes of the input they took."""

    def __init__(self, lines: Sequence[bytes], size: int) -> None:
        self.lines = lines
        self.size = size


async def _chunks(reactor: Any, descriptor: int) -> AsyncIterator[_Chunk]:
    """Yield the lines of a descriptor as they come, so that a pipe's are written at once."""
    rest = b""
    while True:
        # In a thread that the process does not wait for: a terminal may never give a line.
        data = await _in_thread(reactor, lambda: os.read(descriptor, 256 * 1024))
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise ValueError(f"a line is longer than {LONGEST_LINE} bytes")
        yield _Chunk(lines, len(data))
    if rest:
        yield _Chunk([rest], 0)


def _in_thread(reactor: Any, function: Callable[[], bytes]) -> Deferred[bytes]:
    done: Deferred[bytes] = Deferred()

    def tell(result: bytes | Failure) -> None:
        if not done.called:
            done.callback(result)

    def work() -> None:
        try:
            result: bytes | Failure = function()
        except OSError:
            result = Failure()
        reactor.callFromThread(tell, result)

    Thread(target=work, daemon=True).start()
    return done


async def _values(values: Sequence[str]) -> AsyncIterator[_Chunk]:
    yield _Chunk([os.fsencode(text) for text in values], 0)


async def produce(arguments: argparse.Namespace, api: ApiClient) -> int:
    """Write all records; returns the exit status."""
    if arguments.values and arguments.file is not None:
        raise ValueError("give values or --file, not both")
    line_records = LineRecords(arguments)
    writer = RecordWriter(
        api,
        arguments.topic,
        arguments.partition,
        batch=arguments.batch,
        shows_json=arguments.json,
    )
    advance: Callable[[int], object] = _no_bar
    with ExitStack() as stack:
        if arguments.values:
            chunks = _values(arguments.values)
        else:
            descriptor = _opened(arguments.file, stack)
            chunks = _chunks(api.reactor, descriptor)
            advance = _bar(descriptor, stack)
        before = 0
        async for chunk in chunks:
            records = []
            for number, line in enumerate(chunk.lines, before + 1):
                try:
                    records.append(line_records.record(line, number))
                except ValueError as error:
                    await writer.write(records)
                    raise writer.failed(str(error)) from None
            await writer.write(records)
            before += len(chunk.lines)
            advance(chunk.size)
    writer.report()
    return 0


def _opened(name: str | None, stack: ExitStack) -> int:
    if name in (None, "-"):
        return sys.stdin.fileno()
    try:
        return stack.enter_context(open(str(name), "rb", buffering=0)).fileno()
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None


def _no_bar(size: int) -> None:
    """Show nothing."""


def _bar(descriptor: int, stack: ExitStack) -> Callable[[int], object]:
    """Show a progress bar if it is known how much there is to read."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return _no_bar
    from kupool.commands.copying import CopyBar  # which imports much

    bar = stack.enter_context(CopyBar())
    bar.total(status.st_size)
    return bar.stage("Writing")


class RecordWriter:
    """Writes records in batches of ``batch`` at most, and counts them.

    Without a ``partition`` the partitioner of the topic chooses. With ``shows_json`` it prints
    where each batch was written.
    """

    def __init__(
        self,
        api: ApiClient,
        topic: str,
        partition: int | None,
        *,
        batch: int = 500,
        shows_json: bool = False,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._batch = batch
        self._json = shows_json
        self._api = api
        # With a sequence number a repeated request writes nothing twice.
        self._producer = f"kupool-{secrets.token_hex(8)}"
        self._sequence = 0
        self._retrying = Retrying(api.reactor, patience=PATIENCE)
        self._count = 0
        #: By partition: how many records, and the lowest and highest offset.
        self._places: dict[int, list[int]] = {}

    async def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write records; raises :class:`ProduceFailed`."""
        for batch in _batches(records, self._batch):
            params: dict[str, object] = {"topic": self._topic, "records": batch}
            if self._partition is not None:
                params["partition"] = self._partition
            params["producer"], params["sequence"] = self._producer, self._sequence
            self._sequence += 1

            async def ask(params: Mapping[str, object] = params) -> Any:
                return await self._api.change("log.produce", params)

            try:
                found = await self._retrying.call(ask)
            except ApiAway as error:
                next_ones = counted(len(batch), "record")
                raise self.failed(f"{error}; whether the next {next_ones} are is unknown") from None
            except ApiRefused as error:
                raise self.failed(str(error)) from None
            self._note(found["written"])

    def failed(self, reason: str) -> ProduceFailed:
        """Return the error that says how much was written before."""
        if not self._count:
            return ProduceFailed(reason)
        return ProduceFailed(f"{reason}; {counted(self._count, 'record')} before are written")

    def _note(self, written: Iterable[Mapping[str, int]]) -> None:
        places = list(written)
        self._count += len(places)
        if self._json:
            say_json({"written": places})
        for place in places:
            offset = place["offset"]
            found = self._places.setdefault(place["partition"], [0, offset, offset])
            found[0] += 1
            found[1], found[2] = min(found[1], offset), max(found[2], offset)

    def report(self) -> None:
        """Print what was written."""
        if self._json:
            return
        say(f"Wrote {counted(self._count, 'record')} to {self._topic}.")
        for partition, (count, low, high) in sorted(self._places.items()):
            where = f"offset {low}" if low == high else f"offsets {low} to {high}"
            say(f"  partition {partition}: {count:,}, {where}")


def _batches(
    records: Sequence[Mapping[str, object]], most: int
) -> Iterator[list[Mapping[str, object]]]:
    """Yield records in batches of ``most`` at most, and of bytes that one request may have."""
    batch: list[Mapping[str, object]] = []
    size = 0
    for record in records:
        its = len(str(record["value"]).encode()) + len(str(record.get("key", "")).encode())
        if batch and (len(batch) >= most or size + its > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += its
    if batch:
        yield batch


__all__ = [
    "LineRecords",
    "ProduceFailed",
    "RecordWriter",
    "add_line_flags",
    "add_produce",
    "produce",
]
