"""``kupool stats``: the counts as tables, and made again from the log."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from kupool.commands.comparing import compared_text, counted, remarks, shown_progress
from kupool.commands.settings_flags import add_settings_parser, at_least_one, load_settings
from kupool.commands.stores import Stores, temporary_folder, with_stores
from kupool.commands.times import minute_text
from kupool.settings import StorageSettings
from kupool.stats.auditing import Auditor, NotComparable
from kupool.stats.side_by_side import SideBySide
from kupool.stats.snapshot import Superseded

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

    async def rebuild(stores: Stores) -> int:
        return await _rebuild(loaded.settings.storage, stores)

    async def show(stores: Stores) -> int:
        return await _show(arguments, stores.stats)

    if arguments.action == "rebuild":
        return with_stores(loaded, rebuild, writing=True)
    return with_stores(loaded, show)


async def _rebuild(settings: StorageSettings, stores: Stores) -> int:
    both = SideBySide(temporary_folder(settings))
    try:
        with shown_progress() as progress:
            auditor = Auditor(
                stores.log,
                stores.stats,
                both,
                stores.reactor,
                progress=progress,
                spool=stores.spool,
            )
            done = await auditor.rebuild()
    except NotComparable as error:
        print(f"kupool: nothing was rebuilt: {error}", file=sys.stderr)
        return 1
    except Superseded:
        print("kupool: another rebuild was faster; this one ended, try again", file=sys.stderr)
        return 1
    finally:
        both.close()
    print(compared_text(done.found.compared))
    for line in remarks(done.found._replace(waiting=done.waiting)):
        print(line)
    print(
        "Rebuilt the per-minute table from "
        f"{counted(done.found.compared.batches, 'batch', 'batches')}: "
        f"{counted(done.corrected, 'row')} corrected, "
        f"{counted(done.counted, 'missing batch', 'missing batches')} counted"
    )
    return 0


async def _show(arguments: argparse.Namespace, stats: Any) -> int:
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
