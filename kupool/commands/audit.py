"""``kupool audit``: compare the counts with the log they were made from."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.commands.stores import Reading, with_stores
from kupool.commands.times import minute_text, parse_time
from kupool.stats.replay import audit

#: Differences printed at the most.
SHOWN = 100


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "audit", "compare the per-minute counts with the submission log", run
    )
    parser.add_argument("--from", dest="start", type=parse_time, default=0, metavar="TIME")
    parser.add_argument("--to", dest="end", type=parse_time, default=2**36, metavar="TIME")


def run(arguments: argparse.Namespace) -> int:
    """Print ``0 differences``, or each one; the status is 1 when there are any."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1

    async def work(log: Any, stats: Any) -> int:
        with Reading("Reading the log") as progress:
            differences, start, end = await audit(
                log, stats, arguments.start, arguments.end, progress
            )
        if start >= end:
            print("nothing to compare in this range", file=sys.stderr)
        for found in differences[:SHOWN]:
            name = f"{found.username}.{found.worker}" if found.worker else found.username
            print(
                f"{minute_text(found.minute)} {name}: "
                f"{found.logged} in the log, {found.counted} counted"
            )
        print(f"{len(differences)} difference{'' if len(differences) == 1 else 's'}")
        return 1 if differences else 0

    return with_stores(loaded, work)
