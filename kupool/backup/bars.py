"""How a command shows how far it is."""

from __future__ import annotations

from typing import Protocol

from kupool.storage.copies import Progress


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


__all__ = ["Bar", "NoBar"]
