"""The files of the data folder, according to the settings. Pure."""

from __future__ import annotations

from kupool.settings import LogSettings, Settings

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"
SPOOL_FILE = "spool.sqlite"
TOPICS_FILE = "topics.sqlite"

#: The file of the secret with which commands on this machine use the HTTP API.
SECRET_FILE = "http-secret"  # noqa: S105 - the name of a file

#: How far a move of topics into this folder is.
TOPIC_MOVE_FILE = "topic-move.sqlite"


def uses_files(settings: Settings) -> bool:
    """Return whether any data is kept in the data folder."""
    return _pool_uses_files(settings) or topics_kind(settings) == "sqlite"


def topics_kind(settings: Settings) -> str:
    """Return where topics are kept: ``off``, or the name of an engine."""
    kind = settings.topics.kind
    if kind != "auto":
        return kind
    return "sqlite" if _pool_uses_files(settings) else "memory"


def _pool_uses_files(settings: Settings) -> bool:
    return "sqlite" in (settings.storage.kind, settings.log.kind) or has_spool(settings.log)


def has_spool(settings: LogSettings) -> bool:
    """Return whether batches are saved here while the log is unavailable."""
    return settings.kind == "rabbit" and settings.spool == "on"
