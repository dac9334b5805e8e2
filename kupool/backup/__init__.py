"""Backups of the data folder: made while the daemon runs, checked, and put back.

A backup is a folder with a copy of each file, and a manifest that is written last. The parts
are named after their schemas: ``log``, ``store`` and ``spool``.

Everything here blocks: it is for commands, not for the reactor.
"""

from __future__ import annotations

from typing import Protocol

from kupool.storage.copies import Progress


class BackupError(Exception):
    """A backup cannot be made or put back, or is not good; says why, and what to do."""


class Bar(Protocol):
    """Shows how far a command is."""

    def total(self, size: int) -> None:
        """Say how many bytes are to be handled in all."""

    def stage(self, text: str) -> Progress:
        """Say what is done next; returns what is told of each byte."""


class NoBar:
    """Shows nothing."""

    def total(self, size: int) -> None:
        """Show nothing."""

    def stage(self, text: str) -> Progress:
        """Show nothing."""
        return lambda _: None


def file_name(part: str) -> str:
    """Return the name of the file that a part is kept in."""
    return f"{part}.sqlite"


__all__ = ["BackupError", "Bar", "NoBar", "file_name"]
