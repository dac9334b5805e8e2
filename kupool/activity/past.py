"""What is asked of the past, and what is answered. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: An event, as JSON has it.
PastEvent = Mapping[str, Any]


class PastWanted(NamedTuple):
    """Which events to read: those of a ``kind``, from ``start`` on and before ``end``, in seconds
    since the epoch, that ``match``.

    Only those of records before the offset ``before`` are read, where there is one.
    """

    kind: str
    match: Callable[[PastEvent], bool] = lambda event: True
    start: float = 0.0
    end: float | None = None
    before: int | None = None


class PastPage(NamedTuple):
    """Some events, the newest first. ``following`` is the ``before`` with which reading goes on;
    None if there are no more.
    """

    events: list[PastEvent]
    following: int | None


class PastUnavailable(Exception):
    """The events cannot be read now; says why."""


__all__ = ["PastEvent", "PastPage", "PastUnavailable", "PastWanted"]
