"""``kupool restore``: restore a backup into the data folder, as a new epoch."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kupool.backup import BackupError, file_name
from kupool.backup.contents import OPTIONAL
from kupool.backup.restoring import Into, Refused, Restored, restore_backup
from kupool.backup.switching import Switch, finish, unfinished
from kupool.commands.console import complain, say
from kupool.commands.copying import PAGE, CopyBar, elsewhere, parts_in
from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.settings import Settings
from kupool.storage.folder import DataFolder, FolderError


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "restore", "restore a backup into the data folder of a stopped daemon", run
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="a folder of 'kupool backup'")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace newer data, or data of another pool; the old data is moved aside",
    )


def run(arguments: argparse.Namespace) -> int:
    """Restore a backup; the status is 1 if that failed, and then nothing has changed."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1
    settings = loaded.settings
    source = Path(os.path.abspath(arguments.source))
    parts = parts_in(source, settings)
    if not parts:
        missing = elsewhere(settings.storage, settings.log)
        complain(f"{' and '.join(missing)} are not in the data folder; {PAGE} says what to do")
        return 1
    folder = DataFolder(settings.storage.data)
    try:
        folder.open()
        return _restore(settings, parts, source, force=arguments.force)
    except Refused as error:
        complain(f"{error}; --force replaces it, and moves it aside")
    except (BackupError, FolderError) as error:
        complain(str(error))
    finally:
        folder.close()
    return 1


def _restore(settings: Settings, parts: Sequence[str], source: Path, *, force: bool) -> int:
    folder = Path(os.path.abspath(settings.storage.data))
    begun = unfinished(folder)
    if begun is not None:
        return _finish(folder, begun, source)
    into = Into(folder, parts, settings.jobs.interval)
    with CopyBar() as bar:
        done = restore_backup(source, into, bar, time.time, force=force)
    say(*_lines(folder, done))
    for part in sorted(OPTIONAL):
        if part not in done.manifest.parts and (folder / file_name(part)).exists():
            say(f"{file_name(part)} is not in the backup, and stays as it is")
    missing = elsewhere(settings.storage, settings.log)
    if missing:
        say(f"Not restored: {' and '.join(missing)}; {PAGE} says what to do")
    return 0


def _finish(folder: Path, begun: Switch, source: Path) -> int:
    finish(folder, begun)
    say(f"Finished the interrupted restore of {begun.source} into {folder}")
    if (folder / begun.replaced).is_dir():
        say(f"What was there before is in {folder / begun.replaced}")
    if begun.source == os.fspath(source):
        return 0
    complain(f"{source} is not restored; run the command again to restore it")
    return 1


def _lines(folder: Path, done: Restored) -> Iterator[str]:
    manifest, there = done.manifest, done.there
    pool = manifest.pool_id or "not known"
    yield f"Restored the backup of {manifest.made_at} (pool {pool}) into {folder}"
    for reason in done.forced:
        yield f"Replaced, although {reason}"
    if "log" in manifest.parts:
        yield (
            f"The log ends at position {manifest.log_last:,}; a new epoch begins after "
            f"{done.begins_after:,}"
        )
        if there.log is not None and there.log.last > manifest.log_last:
            yield (
                f"Positions {manifest.log_last + 1:,} to {there.log.last:,} of the old log "
                "are not in the backup: their submissions are not counted"
            )
        elif there.log is None:
            yield (
                f"Submissions accepted after position {manifest.log_last:,} are not in the backup. "
                "They are lost unless you still have the old files"
            )
    if "store" in manifest.parts:
        yield f"All jobs are retired, and ids go on after {done.next_job - 1:,}"
    if "topics" in manifest.parts:
        yield "New records of topics get offsets above all that may have been used"
    if "topics_rabbit" in manifest.parts:
        yield "Groups in RabbitMQ read on from where they were at the time of the backup"
    if done.replaced is not None:
        yield f"What was there before is in {done.replaced}"
