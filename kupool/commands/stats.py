"""``kupool stats``: show the counts as tables, or rebuild them from the log."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from typing import Any

from kupool.commands.comparing import compared_text, remarks
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.progress import counted, shown_progress
from kupool.commands.settings_flags import add_settings_parser, at_least_one, load_settings
from kupool.commands.stores import Stores, temporary_folder, with_stores
from kupool.commands.times import minute_text
from kupool.printable import printable
from kupool.settings import StorageSettings
from kupool.stats.auditing import Auditor, NotComparable
from kupool.stats.side_by_side import SideBySide
from kupool.stats.snapshot import Superseded

#: The end of time, for ranges without one.
EVER = 2**36


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "stats", "show the counts, or rebuild them from the log", run
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "rebuild"),
        default="show",
        help="rebuild: rebuild the per-minute table from the submission log",
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
        complain(f"nothing was rebuilt: {error}")
        return 1
    except Superseded:
        complain("another rebuild is running; this one stopped, try again")
        return 1
    finally:
        both.close()
    say(compared_text(done.found.compared))
    for line in remarks(done.found._replace(waiting=done.waiting)):
        say(line)
    say(
        "Rebuilt the per-minute table from "
        f"{counted(done.found.compared.batches, 'batch', 'batches')}: "
        f"{counted(done.corrected, 'row')} corrected, "
        f"{counted(done.counted, 'missing batch', 'missing batches')} counted"
    )
    return 0


async def _show(arguments: argparse.Namespace, stats: Any) -> int:
    now = int(time.time()) // 60 * 60
    start, end = now - (arguments.minutes - 1) * 60, now + 60
    if arguments.username:
        return await _show_user(arguments, stats, start, end)
    total = await stats.total(0, EVER)
    rows = await stats.minutes(start, end)
    if not rows:
        say(_nothing("No submission", arguments.minutes, total))
        return 0
    console = make_console()
    columns = ("minute (UTC)", "users", "accepted")
    print_table(console, columns, _minutes(rows), title="Every user", numbers=2)
    top = await stats.top(arguments.top, start, end)
    print_table(console, ("user", "accepted"), top, title="Most accepted", numbers=1)
    say(f"Accepted in all: {total:,}")
    return 0


async def _show_user(arguments: argparse.Namespace, stats: Any, start: int, end: int) -> int:
    name = arguments.username
    user, _, worker = name.rpartition(".")
    user, worker = (user, worker) if user else (name, "")
    total = await stats.total(0, EVER, user)
    known = total and (not worker or worker in dict(await stats.workers(user, 0, EVER)))
    if not known:
        who = f"worker {worker} of user {user}" if worker and total else f"user {user}"
        complain(
            f"no submission of {printable(who)} is counted; "
            "'kupool stats' without --username lists users"
        )
        return 1
    rows = await stats.series(user, start, end, worker)
    if not rows:
        say(_nothing(f"No submission of {printable(name)}", arguments.minutes, total))
        return 0
    console = make_console()
    print_table(console, ("minute (UTC)", "accepted"), _minutes(rows), title=name, numbers=1)
    workers = () if worker else await stats.workers(user, start, end)
    if workers:
        print_table(console, ("worker", "accepted"), workers, title="Workers", numbers=1)
    return 0


def _nothing(what: str, minutes: int, total: int) -> str:
    """Say that a range has no submissions, and how to find a range that may have some."""
    text = f"{what} was accepted in the last {counted(minutes, 'minute')}."
    if not total:
        return f"{text} None is counted at all: no worker has submitted yet."
    return f"{text} {total:,} are counted in all: a larger --minutes shows older ones."


def _minutes(rows: Iterable[tuple[int, ...]]) -> Iterable[tuple[object, ...]]:
    return ((minute_text(row[0]), *row[1:]) for row in rows)
