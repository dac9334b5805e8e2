"""How a command shows its progress."""

from __future__ import annotations

from typing import Protocol

from kupool.storage.copies import Progress


class Bar(Protocol):
    """Shows the progress of a command."""

    def total(self, size: int) -> None:
        """Set the number of bytes of all steps."""

    def stage(self, text: str) -> Progress:
        """Begin the next step; returns a function to call with the number of bytes done."""


class NoBar:
    """Shows nothing."""

    def total(self, size: int) -> None:
        """Show nothing."""

    def stage(self, text: str) -> Progress:
        """Show nothing."""
        return lambda _: None


__all__ = ["Bar", "NoBar"]
