"""``kupool log``: write and read records of topics, and check the files of the log."""

from __future__ import annotations

import argparse
import os
from typing import Any

from kupool.commands.api import ApiClient
from kupool.commands.api_flags import add_actions, add_api_parser, say_json
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.log_produce import LineRecords, add_line_flags, add_produce
from kupool.commands.log_reading import add_reading
from kupool.commands.log_tail import add_tail
from kupool.commands.log_verify import add_verify_parser
from kupool.commands.places import PLACES, milliseconds, milliseconds_of_duration, place, time_text


def add_parser(subparsers: Any) -> None:
    """Add the command, with a subcommand for each action."""
    actions = add_actions(subparsers, "log", "write and read records of topics")
    add_produce(actions)
    add_reading(actions)
    add_tail(actions)
    offsets = add_api_parser(
        actions, "offsets", "show the offset of each partition at a place", _offsets
    )
    offsets.add_argument("topic")
    offsets.add_argument(
        "--at", type=place, default={"at": "latest"}, metavar="PLACE", help=f"{PLACES} [latest]"
    )
    delay = add_api_parser(actions, "delay", "write records at a later time", _delay)
    delay.add_argument("topic")
    delay.add_argument("values", nargs="+", metavar="VALUE")
    delay.gathers = "values"
    due = delay.add_mutually_exclusive_group(required=True)
    due.add_argument(
        "--after", type=milliseconds_of_duration, metavar="DURATION", help="as 90s or 24h"
    )
    due.add_argument("--at", type=milliseconds, metavar="TIME", help="as 2026-11-21T10:05:00Z")
    add_line_flags(delay)
    delayed = add_api_parser(actions, "delayed", "list what is not written yet", _delayed)
    delayed.add_argument("topic")
    cancel = add_api_parser(actions, "cancel", "do not write delayed records", _cancel)
    cancel.add_argument("topic")
    cancel.add_argument("id", type=int, help="the first column of 'kupool log delayed'")
    add_verify_parser(actions)


async def _offsets(arguments: argparse.Namespace, api: ApiClient) -> int:
    if "offset" in arguments.at:
        raise ValueError("--at: an offset is no time; use earliest, latest or a time")
    found = await api.read("log.offsets", {"topic": arguments.topic, **arguments.at})
    if arguments.json:
        say_json(found)
    else:
        rows = ((str(number), str(offset)) for number, offset in enumerate(found["offsets"]))
        print_table(make_console(), ("partition", "offset"), rows, numbers=1)
    return 0


async def _delay(arguments: argparse.Namespace, api: ApiClient) -> int:
    lines = LineRecords(arguments)
    records = [lines.record(os.fsencode(text), n) for n, text in enumerate(arguments.values, 1)]
    params: dict[str, object] = {"topic": arguments.topic, "records": records}
    if arguments.after is not None:
        params["after_ms"] = arguments.after
    else:
        params["at_ms"] = arguments.at
    if arguments.partition is not None:
        params["partition"] = arguments.partition
    found = await api.change("log.delay", params)
    if arguments.json:
        say_json(found)
    else:
        say(f"Delayed: id {', '.join(map(str, found['ids']))}.")
    return 0


async def _delayed(arguments: argparse.Namespace, api: ApiClient) -> int:
    found: dict[str, Any] = {"batches": []}
    place: dict[str, object] | None = {}
    while place is not None:
        page = await api.read("log.delayed", {"topic": arguments.topic, **place})
        found["batches"] += page["batches"]
        place = page.get("next")
    if arguments.json:
        say_json(found)
    elif found["batches"]:
        rows = (
            (str(each["id"]), time_text(each["due"]), str(each["partition"]), each["records"])
            for each in found["batches"]
        )
        print_table(make_console(), ("id", "due", "partition", "records"), rows, numbers=1)
    else:
        say(f"Topic {arguments.topic} has no delayed records.")
    return 0


async def _cancel(arguments: argparse.Namespace, api: ApiClient) -> int:
    params = {"topic": arguments.topic, "id": arguments.id}
    found = await api.change("log.cancel", params)
    if arguments.json:
        say_json(found)
    if found["cancelled"]:
        if not arguments.json:
            say(f"Cancelled {arguments.id}.")
        return 0
    complain(
        f"topic {arguments.topic} has no delayed records {arguments.id}: they are written, "
        "or never were"
    )
    return 1


__all__ = ["add_parser"]
