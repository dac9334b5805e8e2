"""``kupool audit``: compare the counts with the log."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from kupool.commands.comparing import (
    as_json,
    compared_text,
    difference_cells,
    difference_text,
    remarks,
)
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.progress import counted, shown_progress
from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.commands.stores import Stores, temporary_folder, with_stores
from kupool.commands.times import parse_time
from kupool.settings import StorageSettings
from kupool.stats.auditing import Audit, Auditor, NotComparable
from kupool.stats.side_by_side import SideBySide

#: The most differences that are printed.
SHOWN = 100

#: Exit statuses besides 0.
DIFFERENT = 1
WRONG = 2
NOTHING = 3
OUT_OF_REACH = 4

#: The end of time, for ranges without one.
EVER = 2**40


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "audit", "compare the per-minute counts with the submission log", run
    )
    parser.add_argument("--from", dest="start", type=parse_time, default=0, metavar="TIME")
    parser.add_argument("--to", dest="end", type=parse_time, default=EVER, metavar="TIME")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--accept-gaps",
        action="store_true",
        help="accept the lost parts of the log, so that they are no longer reported, and do "
        "nothing else",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was compared and what was found; the exit status says the result."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1
    if arguments.start > arguments.end:
        complain("--from has to be before --to")
        return WRONG
    if arguments.accept_gaps:
        return with_stores(loaded, _accept_gaps, writing=True)

    async def work(stores: Stores) -> int:
        return await _audit(arguments, loaded.settings.storage, stores)

    return with_stores(loaded, work)


async def _accept_gaps(stores: Stores) -> int:
    count = await stores.stats.forget_gaps()
    say(f"{counted(count, 'gap')} of the log accepted")
    return 0


async def _audit(arguments: argparse.Namespace, settings: StorageSettings, stores: Stores) -> int:
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
            found = await auditor.audit(arguments.start, arguments.end)
        if arguments.json:
            rows = [row._asdict() for row in both.difference_rows(SHOWN)]
            say(json.dumps({**as_json(found), "rows": rows}))
        else:
            _print(found, both)
        return _status(found)
    except NotComparable as error:
        complain(f"nothing to compare: {error}")
        return OUT_OF_REACH
    finally:
        both.close()


def _print(found: Audit, both: SideBySide) -> None:
    say(compared_text(found.compared))
    for line in remarks(found):
        say(line)
    rows = list(both.difference_rows(SHOWN))
    if rows and sys.stdout.isatty():
        columns = ("minute (UTC)", "user or worker", "in the log", "counted")
        print_table(make_console(), columns, map(difference_cells, rows), numbers=2)
    else:
        for row in rows:
            say(difference_text(row))
    say(counted(found.differences, "difference"))


def _status(found: Audit) -> int:
    if found.differences or found.waiting.batches:
        return DIFFERENT
    if found.lost or found.beyond:
        return OUT_OF_REACH
    return 0 if found.compared.minutes else NOTHING
