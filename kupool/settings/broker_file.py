"""Reads the settings file of a Go-Queue broker as settings of ours. Pure.

Such a file has a key that only it can have, such as ``data_dir``. Its keys become settings where
there is one that means the same; for the others a sentence says why they have no meaning here.
Settings of ours may be in the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: The address of a broker that names none.
ADDRESS = "127.0.0.1:9092"

#: The settings that keys stand for, where the value stays as it is.
SAME = {
    "data_dir": "data",
    "client_addr": "addr",
    "max_topic_partitions": "topics_max_partitions",
    "retention_time": "topics_retention_time",
    "max_storage_size": "topics_retention_bytes",
    "flush_interval": "topics_flush_interval",
    "cleanup_interval": "topics_cleanup_interval",
    "max_message_size": "topics_max_record",
    "compression_threshold": "topics_compression_threshold",
}

#: Why other keys have no meaning here. A key of a group is ``GROUP.KEY``.
MEANINGLESS = {
    "segment_size": "SQLite keeps no segments",
    "broker_id": "a daemon has no number; several share their work through RabbitMQ",
    "raft_addr": "there is no Raft; RabbitMQ replicates, with --mq rabbit",
    "cluster": "there is no Raft; RabbitMQ replicates, with --mq rabbit",
    "enable_follower_read": "RabbitMQ decides which replica answers a read",
    "deduplication_config.hash_type": "content is compared by BLAKE2b",
    "server.log_file": "twistd --logfile names the log file",
}

#: Keys that need more than a new name.
_OTHERS = (
    "compression_enabled",
    "compression_type",
    "deduplication_enabled",
    "deduplication_config",
    "server",
)

#: The compressions by their numbers in such a file.
_COMPRESSIONS = ("none", "gzip", "zlib", "snappy", "zstd")

#: The window of deduplication where the file only turns it on.
_ENTRIES, _TTL = 100_000, "24h"


class BrokerFile(NamedTuple):
    """What a file says.

    ``settings`` has the values by names of ours, ``keys`` the key that each comes from, and
    ``remarks`` a sentence for each key without meaning.
    """

    settings: dict[str, object]
    keys: dict[str, str]
    remarks: tuple[str, ...]


def keys_of_brokers() -> tuple[str, ...]:
    """Return the keys of the file that are not in a group."""
    alone = [key for key in MEANINGLESS if "." not in key]
    return (*SAME, *alone, *_OTHERS)


def is_of_broker(found: Mapping[str, object], own: Mapping[str, Any]) -> bool:
    """Return whether a file has a key of a broker's that is no setting of ours."""
    return any(key in found and key not in own for key in keys_of_brokers())


def meaningless(key: str) -> str:
    """Return the sentence about a key that has no meaning here."""
    return f"{key} has no meaning here: {MEANINGLESS[key]}"


def read_broker(found: Mapping[str, object]) -> BrokerFile:
    """Return what the keys of a broker mean; other keys are left out.

    Raises :class:`ValueError`, whose text begins with the key, for a value that is wrong.
    """
    return _BrokerReader(found).read()


class _BrokerReader:
    """Collects what one file says."""

    def __init__(self, found: Mapping[str, object]) -> None:
        self._found = found
        self._settings: dict[str, object] = {}
        self._keys: dict[str, str] = {}
        self._remarks: list[str] = []

    def read(self) -> BrokerFile:
        """Return all of it."""
        for key, name in SAME.items():
            if key in self._found:
                self._put(name, self._found[key], key)
        for key in MEANINGLESS:
            if key in self._found:
                self._remarks.append(meaningless(key))
        self._read_server()
        self._read_compression()
        self._read_deduplication()
        return BrokerFile(self._settings, self._keys, tuple(self._remarks))

    def _put(self, name: str, value: object, key: str) -> None:
        self._settings[name], self._keys[name] = value, key

    def _read_server(self) -> None:
        server = self._group("server", ("port", "log_file"))
        if "addr" not in self._settings:
            port = server.get("port")
            key = "server.port" if port else "the default of client_addr"
            self._put("addr", f":{port}" if port else ADDRESS, key)
        self._settings["addr"] = [self._settings["addr"]]

    def _read_compression(self) -> None:
        codec = self._found.get("compression_type")
        key = "compression_type"
        if isinstance(codec, int) and not isinstance(codec, bool):
            if not 0 <= codec < len(_COMPRESSIONS):
                raise ValueError(f"{key}: {codec} is not a number from 0 to 4")
            codec = _COMPRESSIONS[codec]
        if codec == "zlib":
            codec = "gzip"
            self._remarks.append("compression_type zlib is gzip here: the same algorithm")
        if not self._flag("compression_enabled", default=True):
            codec, key = "none", "compression_enabled"
        if codec is not None:
            self._put("topics_compression", codec, key)

    def _read_deduplication(self) -> None:
        names = ("hash_type", "max_entries", "ttl", "enabled")
        config = self._group("deduplication_config", names)
        on = self._flag("deduplication_enabled", default=bool(config))
        if on and config.get("enabled", True) is True:
            key = "deduplication_config" if config else "deduplication_enabled"
            self._put("topics_dedup_window", config.get("max_entries", _ENTRIES), key)
            self._put("topics_dedup_time", config.get("ttl", _TTL), key)

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self._found.get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{key}: expected true or false")
        return value

    def _group(self, key: str, names: tuple[str, ...]) -> Mapping[str, object]:
        group = self._found.get(key)
        if group is None:
            return {}
        if not isinstance(group, dict):
            raise ValueError(f"{key}: expected a mapping")
        for name in group:
            if name not in names:
                raise ValueError(f"{key}.{name}: no such setting; there are {', '.join(names)}")
            if f"{key}.{name}" in MEANINGLESS:
                self._remarks.append(meaningless(f"{key}.{name}"))
        return group


__all__ = [
    "ADDRESS",
    "MEANINGLESS",
    "SAME",
    "BrokerFile",
    "is_of_broker",
    "keys_of_brokers",
    "meaningless",
    "read_broker",
]
