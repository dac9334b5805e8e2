"""The parts of a backup, and the files that they are in."""

from __future__ import annotations


def file_name(part: str) -> str:
    """Return the name of the file that a part is kept in."""
    return f"{part}.sqlite"


__all__ = ["file_name"]
