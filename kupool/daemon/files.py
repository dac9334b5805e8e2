"""The files of the data folder, according to the settings. Pure."""

from __future__ import annotations

from kupool.settings import LogSettings, StorageSettings

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"
SPOOL_FILE = "spool.sqlite"


def uses_files(storage: StorageSettings, log: LogSettings) -> bool:
    """Return whether any data is kept in the data folder."""
    return "sqlite" in (storage.kind, log.kind) or has_spool(log)


def has_spool(settings: LogSettings) -> bool:
    """Return whether batches are saved here while the log is unavailable."""
    return settings.kind == "rabbit" and settings.spool == "on"
