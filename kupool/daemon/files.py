"""Which files are in the data folder, as the settings say. Pure."""

from __future__ import annotations

from kupool.settings import Settings

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"
SPOOL_FILE = "spool.sqlite"


def uses_files(settings: Settings) -> bool:
    """Say whether anything is kept in the data folder."""
    return "sqlite" in (settings.storage.kind, settings.log.kind) or has_spool(settings)


def has_spool(settings: Settings) -> bool:
    """Say whether batches are kept here while the log is away."""
    return settings.log.kind == "rabbit" and settings.log.spool == "on"
