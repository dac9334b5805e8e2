"""``kupool topic``: the topics of a daemon."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from kupool.commands.api import LONG, ApiClient
from kupool.commands.api_flags import add_actions, add_api_parser, say_json
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.places import setting_text, topic_settings
from kupool.commands.progress import counted
from kupool.commands.target import positive
from kupool.topics.settings import TopicSettings


def add_parser(subparsers: Any) -> None:
    """Add the command, with a subcommand for each action."""
    actions = add_actions(subparsers, "topic", "list, create, change and delete topics")
    add_api_parser(actions, "list", "list the topics that you may read or manage", _list)
    names = ", ".join(name for name in TopicSettings.__struct_fields__ if name != "partitions")
    create = add_api_parser(actions, "create", "create a topic", _create)
    create.add_argument("topic")
    create.add_argument("--partitions", type=positive, metavar="N", help="number of partitions [1]")
    _add_settings(create, names)
    change = add_api_parser(
        actions, "change", "change settings of a topic; those not given stay as they are", _change
    )
    change.add_argument("topic")
    change.add_argument(
        "--partitions",
        type=positive,
        metavar="N",
        help="a larger number; records of a key then go to another partition than before",
    )
    _add_settings(change, names)
    delete = add_api_parser(actions, "delete", "delete a topic with all its records", _delete)
    delete.add_argument("topic")
    add_yes(delete)
    describe = add_api_parser(
        actions, "describe", "show the settings of a topic, and what its partitions hold", _describe
    )
    describe.add_argument("topic")


def _add_settings(parser: Any, names: str) -> None:
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a setting: {names}; times are durations such as 24h; repeatable",
    )


def add_yes(parser: Any) -> None:
    """Add the flag that answers the question of :func:`confirmed`."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def confirmed(arguments: argparse.Namespace, question: str) -> bool:
    """Return whether to do what cannot be undone; asks on a terminal, complains if not."""
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        complain(f"{question} Repeat the command with --yes.")
        return False
    say(f"{question} Type yes:")
    if sys.stdin.readline().strip() == "yes":
        return True
    complain("nothing was changed")
    return False


async def all_topics(api: ApiClient) -> list[dict[str, Any]]:
    """Return the topics that the user may read or manage, with their partitions."""
    found: list[dict[str, Any]] = []
    params: dict[str, object] = {}
    while True:
        page = await api.read("topic.list", params)
        found += page["topics"]
        if not page.get("next"):
            return found
        params = {"start": page["next"]}


async def _list(arguments: argparse.Namespace, api: ApiClient) -> int:
    topics = await all_topics(api)
    if arguments.json:
        say_json({"topics": topics})
    elif topics:
        columns = ("topic", "partitions", "dead letters")
        rows = ((each["topic"], each["partitions"], _dead_letters(each)) for each in topics)
        print_table(make_console(), columns, rows, numbers=2)
    else:
        say("There is no topic that you may read or manage.")
    return 0


def _dead_letters(topic: Mapping[str, Any]) -> int | str:
    """Return how many wait; a daemon of an older release does not say it."""
    found: int | str = topic.get("dead_letters", "-")
    return found


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    settings = topic_settings(arguments.settings)
    if arguments.partitions is not None:
        settings["partitions"] = arguments.partitions
    return settings


async def _create(arguments: argparse.Namespace, api: ApiClient) -> int:
    params = {"topic": arguments.topic, "settings": _settings(arguments)}
    made = await api.change("topic.create", params)
    if arguments.json:
        say_json(made)
    else:
        partitions = made["settings"].get("partitions", 1)
        say(f"Created {made['topic']} with {counted(partitions, 'partition')}.")
    return 0


async def _change(arguments: argparse.Namespace, api: ApiClient) -> int:
    settings = _settings(arguments)
    if not settings:
        raise ValueError("there is nothing to change: give --partitions or --set NAME=VALUE")
    changed = await api.change("topic.change", {"topic": arguments.topic, "settings": settings})
    if arguments.json:
        say_json(changed)
        return 0
    say(f"Changed {changed['topic']}.")
    if changed.get("warning"):
        complain(changed["warning"])
    return 0


async def _delete(arguments: argparse.Namespace, api: ApiClient) -> int:
    question = f"This deletes topic {arguments.topic} with all its records."
    if not confirmed(arguments, question):
        return 1
    await api.change("topic.delete", {"topic": arguments.topic}, timeout=LONG)
    if arguments.json:
        say_json(True)
    else:
        say(f"Deleted {arguments.topic}.")
    return 0


async def _describe(arguments: argparse.Namespace, api: ApiClient) -> int:
    found = await api.read("topic.describe", {"topic": arguments.topic})
    if arguments.json:
        say_json(found)
        return 0
    console = make_console()
    rows = _setting_rows(found["settings"])
    print_table(console, ("setting", "value"), rows, title=found["topic"])
    led = any("leader" in each for each in found["partitions"])
    columns = ("partition", *(("leader",) if led else ()), "low", "high", "bytes")
    cells = (
        (
            str(each["partition"]),
            *((each.get("leader") or "-",) if led else ()),
            str(each["low"]),
            str(each["high"]),
            each["size"],
        )
        for each in found["partitions"]
    )
    print_table(console, columns, cells, numbers=3)
    waiting = found.get("dead_letters")
    if waiting:
        say(f"It has {counted(waiting, 'dead letter')}: see 'kupool dlq list {found['topic']}'.")
    return 0


def _setting_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every setting with its value, those with their defaults too."""
    defaults = TopicSettings()
    names = [*TopicSettings.__struct_fields__, *sorted(settings)]
    return [
        (name, setting_text(name, settings.get(name, getattr(defaults, name, ""))))
        for name in dict.fromkeys(names)
    ]


__all__ = ["add_parser", "add_yes", "all_topics", "confirmed"]
