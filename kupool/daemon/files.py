"""The files of the data folder, according to the settings. Pure."""

from __future__ import annotations

from kupool.settings import LogSettings, Settings

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"
SPOOL_FILE = "spool.sqlite"
TOPICS_FILE = "topics.sqlite"

#: What is known of topics in RabbitMQ: which there are, and the positions of their groups.
RABBIT_TOPICS_FILE = "topics_rabbit.sqlite"

#: The note that topics in RabbitMQ, of which PostgreSQL knows, were moved away.
SHARED_TOPICS_FILE = "topics_shared.sqlite"

#: What clients asked by minute. Nothing else depends on it, so no backup has it.
ACTIVITY_FILE = "activity.sqlite"

#: The file of the secret with which commands on this machine use the HTTP API.
SECRET_FILE = "http-secret"  # noqa: S105 - the name of a file

#: The file of the key with which applications use the server API of live channels.
API_KEY_FILE = "live-api-key"


def uses_files(settings: Settings) -> bool:
    """Return whether any data is kept in the data folder."""
    return _pool_uses_files(settings) or bool(topics_file(settings))


def topics_kind(settings: Settings) -> str:
    """Return where topics are kept: ``off``, or the name of an engine."""
    kind = settings.topics.kind
    if kind != "auto":
        return kind
    if settings.log.kind == "rabbit" and (topics_dsn(settings) or _pool_uses_files(settings)):
        return "rabbit"
    return "sqlite" if _pool_uses_files(settings) else "memory"


def topics_file(settings: Settings) -> str:
    """Return the name of the file of topics, or of what is known of them; empty for none."""
    name = topics_note_file(settings)
    return "" if name == SHARED_TOPICS_FILE else name


def topics_note_file(settings: Settings) -> str:
    """Return the name of the file with the note that topics were moved away; empty if none can
    be.
    """
    kind = topics_kind(settings)
    if kind == "rabbit":
        return SHARED_TOPICS_FILE if topics_dsn(settings) else RABBIT_TOPICS_FILE
    return TOPICS_FILE if kind == "sqlite" else ""


def topics_setting(settings: Settings) -> str:
    """Return the setting of where :func:`topics_file`, or what takes its place, is."""
    if topics_kind(settings) == "rabbit" and topics_dsn(settings):
        return "topics_pg_dsn" if settings.topics.pg_dsn.strip() else "pg_dsn"
    return "data"


def topics_dsn(settings: Settings) -> str:
    """Return the PostgreSQL in which it is kept what is known of topics in RabbitMQ; empty if it is
    in a file.
    """
    shared = settings.storage.pg_dsn if settings.storage.kind == "pg" else ""
    return settings.topics.pg_dsn.strip() or shared


def _pool_uses_files(settings: Settings) -> bool:
    return "sqlite" in (settings.storage.kind, settings.log.kind) or has_spool(settings.log)


def has_spool(settings: LogSettings) -> bool:
    """Return whether batches are saved here while the log is unavailable."""
    return settings.kind == "rabbit" and settings.spool == "on"
