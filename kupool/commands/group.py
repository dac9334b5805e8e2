"""``kupool group``: the consumer groups of a daemon, and how far they are."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kupool.commands.api import ApiClient, ApiRefused
from kupool.commands.api_flags import add_actions, add_api_parser, say_json
from kupool.commands.console import make_console, print_table, say
from kupool.commands.places import PLACES, place, span_text
from kupool.commands.progress import counted
from kupool.commands.topic import add_yes, confirmed

#: The status of an answer about what is not there.
_NOT_FOUND = 404


def add_parser(subparsers: Any) -> None:
    """Add the command, with a subcommand for each action."""
    actions = add_actions(subparsers, "group", "look at consumer groups, and set their offsets")
    add_api_parser(actions, "list", "list the groups that you may use", _list)
    describe = add_api_parser(
        actions, "describe", "show the members of a group, and how far it is", _describe
    )
    describe.add_argument("group")
    lag = add_api_parser(actions, "lag", "show how far groups are behind", _lag)
    lag.add_argument("group", nargs="?", help="by default all groups that you may use")
    reset = add_api_parser(
        actions, "reset", "set the offsets of a group without members in a topic", _reset
    )
    reset.add_argument("group")
    reset.add_argument("topic")
    reset.add_argument(
        "--to",
        type=place,
        required=True,
        metavar="PLACE",
        help=f"{PLACES}; an offset needs --partition",
    )
    reset.add_argument("--partition", type=int, metavar="N", help="only this one [all]")
    reset.add_argument("--dry-run", action="store_true", help="only show what would change")
    delete = add_api_parser(actions, "delete", "forget the offsets of a group", _delete)
    delete.add_argument("group")
    add_yes(delete)


async def _list(arguments: argparse.Namespace, api: ApiClient) -> int:
    found = await api.read("group.list", {})
    if arguments.json:
        say_json(found)
    elif found["groups"]:
        print_table(make_console(), ("group",), ((name,) for name in found["groups"]))
    else:
        say("There is no group that you may use.")
    return 0


async def _describe(arguments: argparse.Namespace, api: ApiClient) -> int:
    found = await api.read("group.describe", {"group": arguments.group})
    if arguments.json:
        say_json(found)
        return 0
    console = make_console()
    members = found["members"]
    if members:
        title = f"Group {found['group']}, generation {found['generation']}"
        columns = ("member", "partitions", "last seen", "session timeout")
        print_table(console, columns, map(_member_cells, members), title=title)
    else:
        say(f"Group {found['group']} has no members.")
    if found["positions"]:
        names = ("topic", "partition", "owner", "committed", "lag", "behind")
        print_table(console, names, map(_position_cells, found["positions"]), numbers=3)
    return 0


def _member_cells(member: Mapping[str, Any]) -> tuple[str, ...]:
    partitions = [_partition_text(each) for each in member["assigned"]]
    partitions += [f"{_partition_text(each)} (to give back)" for each in member["revoked"]]
    return (
        member["member"],
        ", ".join(partitions) or "-",
        f"{span_text(member['last_seen_ms'])} ago",
        span_text(member["session_timeout_ms"]),
    )


def _partition_text(partition: Mapping[str, Any]) -> str:
    return f"{partition['topic']}/{partition['partition']}"


def _position_cells(position: Mapping[str, Any]) -> tuple[object, ...]:
    committed, late = position.get("committed"), position.get("lag_ms")
    return (
        position["topic"],
        str(position["partition"]),
        position.get("owner") or "-",
        "-" if committed is None else str(committed),
        position["lag"],
        "-" if late is None else span_text(late),
    )


async def _lag(arguments: argparse.Namespace, api: ApiClient) -> int:
    if arguments.group is not None:
        names: Sequence[str] = [arguments.group]
    else:
        names = (await api.read("group.list", {}))["groups"]
    found = []
    for name in names:
        try:
            found.append(await api.read("group.describe", {"group": name}))
        except ApiRefused as error:
            if arguments.group is not None or error.status != _NOT_FOUND:
                raise  # else it was deleted meanwhile
    rows = list(_lags(found))
    if arguments.json:
        keys = ("group", "topic", "partitions", "lag", "lag_ms")
        say_json({"lags": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif rows:
        columns = ("group", "topic", "partitions", "lag", "behind")
        cells = ((*row[:4], "-" if row[4] is None else span_text(row[4])) for row in rows)
        print_table(make_console(), columns, cells, numbers=3)
    else:
        say("No group has saved an offset, or has members.")
    return 0


def _lags(groups: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str, int, int, int | None]]:
    """Yield group, topic, number of partitions, records behind, and the longest time behind in
    milliseconds.
    """
    for group in groups:
        topics: dict[str, list[Mapping[str, Any]]] = {}
        for position in group["positions"]:
            topics.setdefault(position["topic"], []).append(position)
        for topic, positions in topics.items():
            late = [each["lag_ms"] for each in positions if each.get("lag_ms") is not None]
            behind = sum(each["lag"] for each in positions)
            yield group["group"], topic, len(positions), behind, max(late, default=None)


async def _reset(arguments: argparse.Namespace, api: ApiClient) -> int:
    params = {
        "group": arguments.group,
        "topic": arguments.topic,
        **arguments.to,
        "dry_run": arguments.dry_run,
    }
    if "offset" in arguments.to and arguments.partition is None:
        raise ValueError("--to with an offset needs --partition")
    if arguments.partition is not None:
        params["partition"] = arguments.partition
    found = await api.change("group.reset", params)
    if arguments.json:
        say_json(found)
        return 0
    rows = (
        (str(each["partition"]), _offset_text(each.get("before")), str(each["after"]))
        for each in found["offsets"]
    )
    print_table(make_console(), ("partition", "before", "after"), rows, numbers=2)
    if arguments.dry_run:
        say("Nothing was changed: this was a dry run.")
    else:
        say(f"Set {counted(len(found['offsets']), 'offset')} of {arguments.group}.")
    return 0


def _offset_text(offset: int | None) -> str:
    return "-" if offset is None else str(offset)


async def _delete(arguments: argparse.Namespace, api: ApiClient) -> int:
    question = f"This forgets all offsets of group {arguments.group}."
    if not confirmed(arguments, question):
        return 1
    await api.change("group.delete", {"group": arguments.group})
    if arguments.json:
        say_json(True)
    else:
        say(f"Deleted {arguments.group}.")
    return 0


__all__ = ["add_parser"]
