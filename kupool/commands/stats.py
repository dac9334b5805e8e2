"""``kupool stats``: the counts as tables, and made again from the log."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from kupool.commands.settings_flags import add_settings_parser, at_least_one, load_settings
from kupool.commands.stores import Reading, with_stores
from kupool.commands.times import minute_text
from kupool.stats.replay import RebuildGaveUp, rebuild

#: The end of time, for ranges without one.
EVER = 2**36


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "stats", "show the counts, or make them again from the log", run
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "rebuild"),
        default="show",
        help="rebuild: make the per-minute table again from the submission log",
    )
    parser.add_argument("--username", help="one user, or one worker as user.worker")
    parser.add_argument("--minutes", type=at_least_one, default=15, help="how many minutes back")
    parser.add_argument("--top", type=at_least_one, default=10, help="how many users")


def run(arguments: argparse.Namespace) -> int:
    """Show the counts, or rebuild them."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1
    work = _rebuild if arguments.action == "rebuild" else _show

    async def with_arguments(log: Any, stats: Any) -> int:
        return await work(arguments, log, stats)

    return with_stores(loaded, with_arguments)


async def _rebuild(arguments: argparse.Namespace, log: Any, stats: Any) -> int:
    try:
        with Reading("Reading the log") as progress:
            batches = await rebuild(log, stats, progress)
    except RebuildGaveUp as error:
        print(f"kupool: {error}", file=sys.stderr)
        return 1
    print(f"Rebuilt the per-minute table from {batches} batches")
    return 0


async def _show(arguments: argparse.Namespace, log: Any, stats: Any) -> int:
    console = Console()
    now = int(time.time()) // 60 * 60
    start, end = now - (arguments.minutes - 1) * 60, now + 60
    name = arguments.username
    if name:
        user, _, worker = name.rpartition(".")
        user, worker = (user, worker) if user else (name, "")
        rows = await stats.series(user, start, end, worker)
        _print(console, name, ("minute (UTC)", "accepted"), _minutes(rows))
        if not worker:
            found = await stats.workers(name, start, end)
            _print(console, "Workers", ("worker", "accepted"), found)
        return 0
    rows = await stats.minutes(start, end)
    _print(console, "Every user", ("minute (UTC)", "users", "accepted"), _minutes(rows))
    _print(
        console,
        "Most accepted",
        ("user", "accepted"),
        await stats.top(arguments.top, start, end),
    )
    console.print(f"Accepted in all: {await stats.total(0, EVER):,}")
    return 0


def _minutes(rows: Iterable[tuple[int, ...]]) -> Iterable[tuple[object, ...]]:
    return ((minute_text(row[0]), *row[1:]) for row in rows)


def _print(
    console: Console, title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]
) -> None:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row))
    console.print(table)
