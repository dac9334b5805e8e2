"""Backups of the data folder: made while the daemon runs, checked, and restored.

A backup is a folder with a copy of each file, and a manifest that is written last. The parts are
named after their schemas: ``log``, ``store`` and ``spool``.

Everything here blocks: it is for commands, not for the reactor.
"""

from __future__ import annotations

from kupool.backup.bars import Bar, NoBar
from kupool.backup.failures import BackupError
from kupool.backup.parts import file_name

__all__ = ["BackupError", "Bar", "NoBar", "file_name"]
