"""The parts of a backup, and their files."""

from __future__ import annotations


def file_name(part: str) -> str:
    """Return the name of a part's file."""
    return f"{part}.sqlite"


__all__ = ["file_name"]
