"""What the commands that copy files show, and which files the settings are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from kupool.backup import file_name
from kupool.backup.contents import OPTIONAL
from kupool.commands.console import make_console
from kupool.daemon.files import has_spool, topics_file
from kupool.settings import LogSettings, Settings, StorageSettings
from kupool.storage.copies import Progress as Told

#: The page about data that is in no file.
PAGE = "docs/backup.md"


class CopyBar:
    """A progress bar over bytes with an estimate, on a terminal."""

    def __init__(self) -> None:
        console = make_console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("Looking at the files", total=None)

    def __enter__(self) -> CopyBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def total(self, size: int) -> None:
        """Set the number of bytes of all steps."""
        self._progress.update(self._task, total=size)

    def stage(self, text: str) -> Told:
        """Begin the next step; returns a function to call with the number of bytes done."""
        self._progress.update(self._task, description=text)
        return lambda count: self._progress.advance(self._task, count)


def parts_of(storage: StorageSettings, log: LogSettings) -> Sequence[str]:
    """Return the parts that are files of the data folder with these settings."""
    found = []
    if log.kind == "sqlite":
        found.append("log")
    if storage.kind == "sqlite":
        found.append("store")
    if has_spool(log):
        found.append("spool")
    return found


def parts_in(folder: Path, settings: Settings) -> Sequence[str]:
    """Return these parts, and those of topics that are in a folder.

    If these settings keep nothing in files, what is there is left from others, and does not count.
    """
    always = parts_of(settings.storage, settings.log)
    if not always and not topics_file(settings):
        return []
    optional = (part for part in sorted(OPTIONAL) if (folder / file_name(part)).exists())
    return [*always, *optional]


def elsewhere(storage: StorageSettings, log: LogSettings) -> Sequence[str]:
    """Return the data that these settings keep outside the data folder."""
    found = []
    if log.kind == "rabbit":
        found.append("the queue and the stream in RabbitMQ")
    if storage.kind == "pg":
        found.append("the counts and the jobs in PostgreSQL")
    for kind, what in ((log.kind, "the log"), (storage.kind, "the counts")):
        if kind == "memory":
            found.append(f"{what} in memory")
    return found
