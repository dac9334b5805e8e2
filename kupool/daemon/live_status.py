"""What operators see of live channels besides the load: broadcasts and duplicates, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest
from typing import Any

from kupool.live.broadcasts import BroadcastFigures
from kupool.live.duplicate_audit import DuplicateAudit
from kupool.live.service import LiveService

#: The most channels whose figures are shown: those that have reached most subscribers.
MOST_CHANNELS = 50


def shown_broadcasts(live: LiveService) -> Mapping[str, Any]:
    """Return the figures of the broadcasts of all channels, and of those with most of them."""
    busiest: list[tuple[str, BroadcastFigures]] = nlargest(
        MOST_CHANNELS, live.figures_of_channels(), key=lambda each: each[1].reached
    )
    return {
        "total": _shown(live.broadcasts),
        "channels": {name: _shown(figures) for name, figures in busiest},
    }


def _shown(figures: BroadcastFigures) -> Mapping[str, float]:
    return {
        "count": figures.count,
        "reached": figures.reached,
        "failed": figures.failed,
        "dropped": figures.dropped,
        "overflowed": figures.overflowed,
        "average_ms": round(figures.average * 1000, 3),
        "longest_ms": round(figures.longest * 1000, 3),
    }


def shown_duplicates(live: LiveService, audit: DuplicateAudit | None) -> Mapping[str, Any]:
    """Return how many events were published again, and what the audits have found."""
    shown: dict[str, Any] = live.duplicates._asdict()
    shown["rate"] = round(shown["rate"], 4)
    if audit is not None:
        shown.update(audits=audit.audits, audited=audit.audited, found=audit.repeated)
    return shown


__all__ = ["MOST_CHANNELS", "shown_broadcasts", "shown_duplicates"]
