"""``kupool dlq``: the dead letters of topics, which are records that a group could not process."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Mapping
from typing import Any

from kupool.commands.api import LONG, ApiClient
from kupool.commands.api_flags import add_actions, add_api_parser, say_json
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.places import time_text
from kupool.commands.progress import counted
from kupool.commands.record_lines import key_of, text_of, value_of
from kupool.commands.target import positive
from kupool.commands.topic import add_yes, confirmed

#: The most dead letters in one answer.
_PAGE = 100


def add_parser(subparsers: Any) -> None:
    """Add the command, with a subcommand for each action."""
    actions = add_actions(
        subparsers, "dlq", "look at dead letters, send them back to their topic, or drop them"
    )
    listed = add_api_parser(actions, "list", "list the dead letters of a topic", _list)
    listed.add_argument("topic", help="the topic that the records were in, without .dlq")
    listed.add_argument(
        "--limit", type=positive, default=100, metavar="N", help="how many at most [100]"
    )
    inspect = add_api_parser(actions, "inspect", "show all of one dead letter", _inspect)
    _add_letter(inspect, required=True)
    redrive = add_api_parser(
        actions, "redrive", "send dead letters back to the partitions they come from", _redrive
    )
    _add_letter(redrive, required=False)
    purge = add_api_parser(actions, "purge", "drop dead letters", _purge)
    _add_letter(purge, required=False)
    add_yes(purge)


def _add_letter(parser: Any, *, required: bool) -> None:
    parser.add_argument("topic", help="the topic that the records were in, without .dlq")
    parser.add_argument(
        "letter",
        nargs=None if required else "?",
        metavar="LETTER",
        type=letter_place,
        help="one dead letter: PARTITION/OFFSET, the first column of 'kupool dlq list'"
        + ("" if required else "; by default all"),
    )


def letter_place(text: str) -> tuple[int, int]:
    """Return partition and offset of a dead letter, from ``PARTITION/OFFSET``.

    Raises :class:`argparse.ArgumentTypeError`.
    """
    partition, _, offset = text.partition("/")
    if not (partition.isdecimal() and offset.isdecimal() and text.isascii() and len(text) < 30):
        raise argparse.ArgumentTypeError(f"{text!r} is not PARTITION/OFFSET, as 0/17")
    return int(partition), int(offset)


async def _letters(
    api: ApiClient, topic: str, start: Mapping[str, object], limit: int
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the dead letters of a topic, ``limit`` at most."""
    place = dict(start)
    while limit > 0:
        params = {"topic": topic, **place, "limit": min(limit, _PAGE)}
        page = await api.read("log.dead", params)
        for letter in page["dead"]:
            yield letter
        limit -= len(page["dead"])
        if not page.get("next"):
            return
        place = page["next"]


async def _list(arguments: argparse.Namespace, api: ApiClient) -> int:
    found = [each async for each in _letters(api, arguments.topic, {}, arguments.limit)]
    if arguments.json:
        say_json({"dead": found})
    elif found:
        columns = ("letter", "source", "group", "attempts", "reason", "key", "value")
        print_table(make_console(), columns, map(_cells, found))
    else:
        say(f"Topic {arguments.topic} has no dead letters.")
    return 0


def _cells(letter: Mapping[str, Any]) -> tuple[str, ...]:
    record, source = letter["record"], letter["source"]
    key = key_of(record)
    value = text_of(value_of(record))
    return (
        f"{letter['partition']}/{letter['offset']}",
        f"{source['partition']}/{source['offset']}",
        letter["group"],
        str(letter["attempts"]),
        letter["reason"],
        "-" if key is None else text_of(key),
        value if len(value) <= 60 else f"{value[:59]}…",
    )


async def _inspect(arguments: argparse.Namespace, api: ApiClient) -> int:
    partition, offset = arguments.letter
    start = {"partition": partition, "offset": offset}
    async for letter in _letters(api, arguments.topic, start, 1):
        if (letter["partition"], letter["offset"]) == arguments.letter:
            if arguments.json:
                say_json(letter)
            else:
                say(*_lines(letter))
            return 0
    complain(
        f"topic {arguments.topic} has no dead letter {partition}/{offset}: it never was one, or "
        "was sent back or dropped"
    )
    return 1


def _lines(letter: Mapping[str, Any]) -> list[str]:
    record, source = letter["record"], letter["source"]
    key = key_of(record)
    facts = [
        (
            "source",
            f"{source['topic']}, partition {source['partition']}, offset {source['offset']}",
        ),
        ("group", letter["group"]),
        ("attempts", str(letter["attempts"])),
        ("reason", letter["reason"]),
        ("time", time_text(record["timestamp"])),
        ("key", "-" if key is None else text_of(key)),
        *((f"header {name}", text) for name, text in record.get("headers", {}).items()),
        ("value", text_of(value_of(record))),
    ]
    width = max(len(name) for name, _ in facts)
    return [f"{name:<{width}}  {text}" for name, text in facts]


def _params(arguments: argparse.Namespace) -> dict[str, object]:
    params: dict[str, object] = {"topic": arguments.topic}
    if arguments.letter is not None:
        params["partition"], params["offset"] = arguments.letter
    return params


async def _redrive(arguments: argparse.Namespace, api: ApiClient) -> int:
    found = await api.change("log.redrive", _params(arguments), timeout=LONG)
    if arguments.json:
        say_json(found)
    else:
        say(f"Sent {counted(found['redriven'], 'dead letter')} back to {arguments.topic}.")
    return 0


async def _purge(arguments: argparse.Namespace, api: ApiClient) -> int:
    which = "all dead letters" if arguments.letter is None else "the dead letter"
    if not confirmed(arguments, f"This drops {which} of topic {arguments.topic}."):
        return 1
    found = await api.change("log.purge", _params(arguments), timeout=LONG)
    if arguments.json:
        say_json(found)
    else:
        say(f"Dropped {counted(found['purged'], 'dead letter')} of {arguments.topic}.")
    return 0


__all__ = ["add_parser", "letter_place"]
