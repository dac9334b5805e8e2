"""The part of ``kupool migrate`` that moves topics, also while the daemon runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kupool.commands.console import make_console, print_table, say
from kupool.daemon.files import TOPIC_MOVE_FILE, TOPICS_FILE, topics_kind
from kupool.migration import CannotMove
from kupool.migration.reports import Report
from kupool.migration.topic_move import TopicMove, TopicsCopied, TopicSide
from kupool.migration.topic_progress import Tally, TopicMoveProgress
from kupool.migration.topic_source import SqliteTopicSource
from kupool.settings import Settings
from kupool.storage.database import Database
from kupool.storage.folder import DataFolder, FolderInUse
from kupool.timing.waiting import and_then
from kupool.topics.partition import Partition
from kupool.topics.sqlite import SqliteTopics


def topic_side(name: str, settings: Settings) -> TopicSide:
    """Return where the settings of a file keep topics."""
    path = Path(settings.storage.data) / TOPICS_FILE
    return TopicSide(str(Path(name).resolve()), str(path), topics_kind(settings), path)


def moves_topics(old: TopicSide, new: TopicSide) -> bool:
    """Return whether there are topics to move; raises :class:`CannotMove` if they would be lost."""
    if old.kind != "sqlite" or not old.file.exists():
        return False
    if new.kind == "sqlite":
        return old.file.resolve() != new.file.resolve()
    raise CannotMove(
        f"{old.file} has topics, and topics is {new.kind!r} in {new.name}: move the file away if "
        "they are not needed any more"
    )


def is_running(settings: Settings) -> bool:
    """Return whether a daemon uses the data folder of settings."""
    folder = DataFolder(settings.storage.data)
    try:
        folder.open()
    except FolderInUse:
        return True
    folder.close()
    return False


class TopicMigration:
    """Moves the topics of ``old`` to ``new``, whose data folder this process has locked."""

    def __init__(self, reactor: Any, old: TopicSide, new: TopicSide) -> None:
        self._reactor = reactor
        self.old = old
        self.new = new
        self._progress = TopicMoveProgress(new.file.with_name(TOPIC_MOVE_FILE))
        self._move = TopicMove(old, new, self._progress, wall=time.time)

    def begin(self) -> bool:
        """Let no daemon start on the new side; returns whether the move is complete already.

        Raises :class:`CannotMove`.
        """
        return self._move.begin()

    async def copy(
        self, report: Report, *, running: bool, log_position: Callable[[int], int]
    ) -> TopicsCopied | None:
        """Copy and compare; returns nothing if the move was complete before.

        ``log_position`` returns where an entry of the submission log is now, by its old position.
        Raises :class:`CannotMove`.
        """
        complete = self.begin()
        if complete:
            return None
        source = SqliteTopicSource(self._reactor, self.old.file)
        database = Database(self._reactor, self.new.file, "topics")
        target = SqliteTopics(database, self._reactor, time.time)

        async def move() -> TopicsCopied:
            await source.open()
            await target.open()
            return await self._move.copy(
                source,
                target,
                report,
                running=running,
                log_position=log_position,
            )

        async def close() -> None:
            await source.close()
            await target.close()

        return await and_then(move(), close)

    def finish(self) -> None:
        """Let daemons start on the new side, and not on the old one."""
        self._move.finish()

    def undo(self) -> None:
        """Let daemons start on the old side again."""
        if self._progress.note() is None:
            raise CannotMove(f"no topics of {self.old.shown} were moved to {self.new.shown}")
        self._move.undo()

    def close(self) -> None:
        """Close the file of the move."""
        self._progress.close()


def tell_copied(found: TopicsCopied | None, old: TopicSide, new: TopicSide) -> None:
    """Print what is equal on both sides."""
    if found is None:
        say(f"The topics were moved to {new.shown} before")
        return
    rows = [_row(partition, tally) for partition, tally in found.compared.items()]
    if rows:
        columns = ("topic", "partition", "batches", "records", "bytes", "sha256")
        print_table(make_console(), columns, rows)
    total = sum(tally.records for tally in found.compared.values())
    say(f"{total:,} records of {old.shown} are in {new.shown}, equal")


def _row(partition: Partition, tally: Tally) -> tuple[object, ...]:
    return (
        partition.topic,
        partition.number,
        tally.batches,
        tally.records,
        tally.size,
        tally.checksum.hex()[:16],
    )


__all__ = ["TopicMigration", "is_running", "moves_topics", "tell_copied", "topic_side"]
