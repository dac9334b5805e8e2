"""What can go wrong with a backup."""

from __future__ import annotations


class BackupError(Exception):
    """A backup cannot be made or restored, or is damaged; says why, and what to do."""


__all__ = ["BackupError"]
