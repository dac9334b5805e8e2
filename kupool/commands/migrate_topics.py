"""The part of ``kupool migrate`` that moves topics, also while the daemon runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kupool.amqp.address import parse_brokers
from kupool.commands.console import make_console, print_table, say
from kupool.daemon.files import (
    TOPICS_FILE,
    topics_dsn,
    topics_kind,
    topics_note_file,
)
from kupool.migration import CannotMove
from kupool.migration.reports import Report
from kupool.migration.topic_move import TopicMove, TopicsCopied, TopicSide
from kupool.migration.topic_progress import Tally, TopicMoveProgress
from kupool.migration.topic_source import SqliteTopicSource, TopicSource
from kupool.settings import Settings
from kupool.storage.database import Database
from kupool.storage.folder import DataFolder, FolderInUse
from kupool.timing.waiting import and_then
from kupool.topics.partition import Partition
from kupool.topics.sqlite import SqliteTopics

if TYPE_CHECKING:
    from kupool.daemon.rabbit_topics import RabbitTopicsParts

#: The engines whose topics outlive the process.
DURABLE = ("sqlite", "rabbit")


class TopicPlace(NamedTuple):
    """Where the settings of a file keep topics. ``store`` says where it is kept which there are."""

    side: TopicSide
    settings: Settings
    store: str


def topic_place(name: str, settings: Settings) -> TopicPlace:
    """Return where the settings of a file keep topics."""
    kind = topics_kind(settings)
    path = Path(settings.storage.data) / (topics_note_file(settings) or TOPICS_FILE)
    shown, store = str(path), str(path.resolve())
    if kind == "rabbit":
        from kupool.daemon.rabbit_topics import stream_prefix  # with the engine

        (broker, *_) = parse_brokers(settings.log.url)
        shown = f"RabbitMQ at {broker}, {broker.vhost} (streams {stream_prefix(settings)}.*)"
        store = topics_dsn(settings) or store
    return TopicPlace(TopicSide(str(Path(name).resolve()), shown, kind, path), settings, store)


def moves_topics(old: TopicPlace, new: TopicPlace) -> bool:
    """Return whether there are topics to move; raises :class:`CannotMove` if they would be lost."""
    if old.side.kind not in DURABLE or not _has_topics(old):
        return False
    if old.store == new.store and old.side.shown == new.side.shown:
        return False
    if new.side.kind not in DURABLE:
        raise CannotMove(
            f"{old.side.shown} has topics, and topics is {new.side.kind!r} in {new.side.name}: "
            "delete them if they are not needed any more"
        )
    if old.side.kind == new.side.kind and old.side.shown == new.side.shown:
        raise CannotMove(
            f"{new.side.name} has the same streams as {old.side.name}, and another place for what "
            "is known of them: set topics_prefix there, so that they are copied"
        )
    return True


def _has_topics(place: TopicPlace) -> bool:
    return place.side.file.exists() or (
        place.side.kind == "rabbit" and bool(topics_dsn(place.settings))
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

    def __init__(self, reactor: Any, old: TopicPlace, new: TopicPlace) -> None:
        self._reactor = reactor
        self._places = (old, new)
        self.old = old.side
        self.new = new.side
        self._progress = TopicMoveProgress(self.new.progress_file)
        self._move = TopicMove(self.old, self.new, self._progress, wall=time.time)

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
        source, target = self._source(), self._target()

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

    def _source(self) -> TopicSource:
        if self.old.kind == "rabbit":
            from kupool.migration.rabbit_topic_source import RabbitTopicSource

            return RabbitTopicSource(*self._in_rabbit(self._places[0]))
        return SqliteTopicSource(self._reactor, self.old.file)

    def _target(self) -> Any:
        if self.new.kind == "rabbit":
            return self._in_rabbit(self._places[1]).engine
        database = Database(self._reactor, self.new.file, "topics")
        return SqliteTopics(database, self._reactor, time.time)

    def _in_rabbit(self, place: TopicPlace) -> RabbitTopicsParts:
        from kupool.daemon.rabbit_topics import make_rabbit_topics

        folder = place.side.file.parent
        return make_rabbit_topics(
            place.settings,
            self._reactor,
            time.time,
            database=lambda file, schema: Database(self._reactor, folder / file, schema),
            required=True,
        )

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


__all__ = [
    "TopicMigration",
    "TopicPlace",
    "is_running",
    "moves_topics",
    "tell_copied",
    "topic_place",
]
