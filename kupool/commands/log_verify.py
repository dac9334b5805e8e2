"""``kupool log verify``: check the files of the data folder, batch by batch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kupool.backup import file_name
from kupool.backup.verifying import VERIFIED, VerifiedFolder, verify_folder
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.copying import CopyBar
from kupool.commands.data_files import not_a_folder
from kupool.commands.progress import counted
from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.printable import printable_json


def add_verify_parser(subparsers: Any) -> None:
    """Add the subcommand of ``kupool log``."""
    parser = add_settings_parser(
        subparsers,
        "verify",
        "check the topics, the log and the spool of the data folder, page by page and batch by "
        "batch, also while the daemon runs",
        run,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check the files that are there; the status is 1 if anything is wrong."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1
    folder = Path(loaded.settings.storage.data)
    problem = not_a_folder(folder, "--data")
    if problem:
        complain(problem)
        return 1
    parts = [part for part in VERIFIED if (folder / file_name(part)).exists()]
    if not parts:
        names = ", ".join(file_name(part) for part in VERIFIED)
        complain(f"{folder}: there is nothing to check: it has none of {names}")
        return 1
    with CopyBar() as bar:
        found = verify_folder(folder, parts, bar)
    if arguments.json:
        say(printable_json(json.dumps(_as_json(found))))
    else:
        _print(found)
        for fault in found.faults:
            complain(fault.text)
        say(counted(len(found.faults), "fault"))
    return 1 if found.faults else 0


def _as_json(found: VerifiedFolder) -> dict[str, Any]:
    return {
        "files": [
            {
                "file": file.file,
                "size": file.size,
                "batches": file.batches,
                "partitions": [
                    {
                        "topic": each.partition.topic,
                        "partition": each.partition.number,
                        "low": each.low,
                        "high": each.high,
                        "batches": each.batches,
                        "records": each.records,
                        "size": each.size,
                    }
                    for each in file.partitions
                ],
            }
            for file in found.files
        ],
        "faults": [
            {name: value for name, value in fault._asdict().items() if value not in ("", None)}
            for fault in found.faults
        ],
    }


def _print(found: VerifiedFolder) -> None:
    rows = [
        (*each.partition, each.low, each.high, each.batches, each.records, each.size)
        for file in found.files
        for each in file.partitions
    ]
    if rows:
        columns = ("topic", "partition", "low", "high", "batches", "records", "bytes")
        print_table(make_console(), columns, rows, numbers=6)
    for file in found.files:
        batches = counted(file.batches, "batch", "batches")
        say(f"{file.file}: {file.size / 1e6:,.1f} MB, {batches}")


__all__ = ["add_verify_parser", "run"]
