"""The settings of a topic, and its name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from kupool.topics.compression import CODECS
from kupool.topics.errors import InvalidTopic
from kupool.topics.partitioners import BY_KEY, PARTITIONERS

#: The most partitions of a topic.
MOST_PARTITIONS = 1000

#: When a record counts as written: once it is on disk; at the latest some seconds later; when the
#: system writes it.
DURABILITIES = ("always", "interval", "os")

#: What is kept besides what retention keeps: everything, or of each key the last record.
COMPACTIONS = ("none", "key")

#: Which names are valid.
NAMES = "1 to 249 of the characters A-Z a-z 0-9 . _ - and neither . nor .. alone"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings of a topic; sizes are in bytes, times in seconds.

    ``durability`` is one of :data:`DURABILITIES`. ``retention_time`` and ``retention_bytes`` limit
    the age of records and the size of each partition; 0 keeps everything. Batches of at least
    ``compression_threshold`` bytes are compressed. ``max_record`` is the largest record.

    With a ``dedup_window`` or a ``dedup_time``, a record is not written if one with the same key
    and value was, among so many records of its partition, or so many seconds, before. 0 is no
    limit, and both 0 turn it off.

    With a ``compaction`` by ``key``, a record is dropped when a later one of its partition has its
    key; the last one of each key stays, however old. ``retention_time`` then concerns only the last
    records without a value, which so delete their keys, and records without a key. It is chosen
    when the topic is created.

    ``replicas`` is the number of nodes of RabbitMQ that have each record; 0 is all that the broker
    chooses. Other engines ignore it.
    """

    partitions: int = 1
    durability: str = "always"
    partitioner: str = "fnv1a"
    retention_time: float = 168 * 3600.0
    retention_bytes: int = 0
    compression: str = "none"
    compression_threshold: int = 1024
    max_record: int = 1024 * 1024
    dedup_window: int = 0
    dedup_time: float = 0.0
    replicas: int = 0
    compaction: str = "none"

    @property
    def compacts(self) -> bool:
        """Whether only the last record of each key is kept."""
        return self.compaction != "none"

    @property
    def dedups(self) -> bool:
        """Whether repeated records are not written."""
        return bool(self.dedup_window or self.dedup_time)

    def check(self) -> None:
        """Raise :class:`InvalidTopic` for the first setting that is not valid."""
        _within("partitions", self.partitions, 1, MOST_PARTITIONS)
        _one_of("durability", self.durability, DURABILITIES)
        _one_of("partitioner", self.partitioner, PARTITIONERS)
        _within("retention_time", self.retention_time, 0, 1e10)
        _within("retention_bytes", self.retention_bytes, 0, 2**62)
        _one_of("compression", self.compression, CODECS)
        _within("compression_threshold", self.compression_threshold, 0, 2**31)
        _within("max_record", self.max_record, 1, 16 * 1024 * 1024)
        _within("dedup_window", self.dedup_window, 0, 10_000_000)
        _within("dedup_time", self.dedup_time, 0, 1e10)
        _within("replicas", self.replicas, 0, 99)
        _one_of("compaction", self.compaction, COMPACTIONS)
        if self.compacts:
            self._check_compaction()

    def _check_compaction(self) -> None:
        if self.dedups:
            raise InvalidTopic(
                "compaction: a repeated record may be the last one of its key: "
                "set dedup_window and dedup_time to 0"
            )
        if self.retention_bytes:
            raise InvalidTopic(
                "compaction: the last record of each key is kept, whatever the size: "
                "set retention_bytes to 0"
            )
        if self.partitioner not in BY_KEY:
            raise InvalidTopic(
                "compaction: the records of a key have to go to the same partition: "
                f"set partitioner to one of {', '.join(BY_KEY)}"
            )


def valid_name(name: str) -> bool:
    """Return whether a name of a topic, group or member is valid, as :data:`NAMES` says.

    A name may become a part of a path.
    """
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def check_name(name: str) -> None:
    """Raise :class:`InvalidTopic` unless the name of a topic is valid."""
    if not valid_name(name):
        raise InvalidTopic(f"{name!r:.80} is no name of a topic: use {NAMES}")


def settings_of(values: Mapping[str, object]) -> TopicSettings:
    """Return settings from a mapping, as from JSON; raises :class:`InvalidTopic`."""
    unknown = sorted(set(values) - set(TopicSettings.__struct_fields__))
    if unknown:
        known = ", ".join(TopicSettings.__struct_fields__)
        raise InvalidTopic(f"{unknown[0]:.40}: there is no such setting; there are {known}")
    try:
        settings = msgspec.convert(dict(values), TopicSettings)
    except msgspec.ValidationError as error:
        raise InvalidTopic(f"a setting of the topic is wrong: {error}") from None
    settings.check()
    return settings


def check_change(before: TopicSettings, after: TopicSettings) -> None:
    """Raise :class:`InvalidTopic` if a topic would lose partitions, or change its compaction."""
    if after.partitions < before.partitions:
        raise InvalidTopic(
            f"partitions: the topic has {before.partitions}, none can be removed; "
            "records of a key would be lost"
        )
    if after.compaction != before.compaction:
        raise InvalidTopic(
            f"compaction: the topic has {before.compaction}, which is chosen when it is created; "
            "create another topic"
        )


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # false for NaN, too
        raise InvalidTopic(f"{name}: expected {least:g} to {most:.12g}, not {value!r}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidTopic(f"{name}: expected one of {', '.join(known)}, not {value!r:.40}")


__all__ = [
    "COMPACTIONS",
    "DURABILITIES",
    "MOST_PARTITIONS",
    "NAMES",
    "TopicSettings",
    "check_change",
    "check_name",
    "settings_of",
    "valid_name",
]
