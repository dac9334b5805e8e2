"""Which files are in the data folder, as the settings say. Pure."""

from __future__ import annotations

from kupool.settings import LogSettings, StorageSettings

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"
SPOOL_FILE = "spool.sqlite"


def uses_files(storage: StorageSettings, log: LogSettings) -> bool:
    """Say whether anything is kept in the data folder."""
    return "sqlite" in (storage.kind, log.kind) or has_spool(log)


def has_spool(settings: LogSettings) -> bool:
    """Say whether batches are kept here while the log is away."""
    return settings.kind == "rabbit" and settings.spool == "on"
