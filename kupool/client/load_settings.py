"""The settings of a load."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadSettings:
    """``sessions`` sessions, each with ``in_flight`` unanswered submissions; times in seconds."""

    sessions: int = 100
    in_flight: int = 16
    framing: str = "frame"
    connect_timeout: float = 10.0
    close_timeout: float = 1.0
