"""``kupool backup``: copy the data folder while the daemon runs, and check copies."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kupool.backup import BackupError, file_name
from kupool.backup.checking import check_backup
from kupool.backup.making import Source, make_backup
from kupool.backup.manifest import Manifest
from kupool.backup.switching import check_finished
from kupool.commands.console import complain, say
from kupool.commands.copying import PAGE, CopyBar, elsewhere, parts_in
from kupool.commands.data_files import missing_file, not_a_folder
from kupool.commands.progress import counted
from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.settings import Settings

#: How much the command lowers its priority for the daemon.
NICENESS = 10


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "backup", "copy the data folder while the daemon runs, or check a copy", run
    )
    parser.add_argument("target", metavar="TARGET", type=Path, help="a new or empty folder")
    parser.add_argument(
        "--check", action="store_true", help="check the backup in TARGET instead of making one"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make a backup, or check one; the status is 1 if that failed."""
    target = Path(os.path.abspath(arguments.target))
    try:
        if arguments.check:
            with CopyBar() as bar:
                manifest, _ = check_backup(target, bar)
            say(f"{target} is good: {summary(manifest)}")
            return 0
        loaded = load_settings(arguments)
        if loaded is None:
            return 1
        return _make(loaded.settings, target)
    except BackupError as error:
        complain(str(error))
        return 1


def _make(settings: Settings, target: Path) -> int:
    storage, log = settings.storage, settings.log
    folder = Path(storage.data)
    parts, missing = parts_in(folder, settings), elsewhere(storage, log)
    if not parts:
        complain(
            f"there is no file to back up: {' and '.join(missing)} are not in the data folder; "
            f"{PAGE} says what to do"
        )
        return 1
    problem = not_a_folder(folder, "--data")
    if problem:
        raise BackupError(problem)
    check_finished(folder)
    for part in parts:
        problem = missing_file(folder / file_name(part), "--data")
        if problem:
            raise BackupError(problem)
    with suppress(OSError):
        os.nice(NICENESS)
    began = time.monotonic()
    with CopyBar() as bar:
        source = Source(folder, parts, log.kind, storage.kind)
        manifest = make_backup(source, target, bar, time.time)
    took = time.monotonic() - began
    say(f"Made {target} in {took:.1f} s: {summary(manifest)}")
    if "topics_rabbit" in manifest.parts:
        say("Not in it: the records of topics in RabbitMQ, which stay there")
    if missing:
        say(f"Not in it: {' and '.join(missing)}; {PAGE} says what to do")
    return 0


def summary(manifest: Manifest) -> str:
    """Return the contents of a backup in one line."""
    found = [f"{', '.join(sorted(manifest.files))}, {manifest.size / 1e6:,.1f} MB"]
    found.append(f"as of {manifest.made_at}, pool {manifest.pool_id or 'not known'}")
    if "log" in manifest.parts:
        found.append(f"log positions {manifest.log_first:,} to {manifest.log_last:,}")
    if "store" in manifest.parts:
        found.append(f"counted up to position {manifest.counted_to:,}")
    if manifest.spooled:
        found.append(f"{counted(manifest.spooled, 'batch', 'batches')} in the spool")
    if manifest.dead_letters:
        found.append(counted(manifest.dead_letters, "dead letter"))
    if "topics" in manifest.parts:
        names = {each.topic for each in manifest.topics}
        records = sum(each.records for each in manifest.topics)
        found.append(f"{counted(records, 'record')} in {counted(len(names), 'topic')}")
    if "topics_rabbit" in manifest.parts:
        found.append("the positions of groups in RabbitMQ")
    return "; ".join(found)
