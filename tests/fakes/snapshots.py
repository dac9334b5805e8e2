"""What a store shows of itself, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kupool.stats import MinuteCount
from kupool.stats.snapshot import MinuteSpan, Snapshot


class Gathered:
    """A visitor that keeps all it is shown."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def begin(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.all_spans: list[MinuteSpan] = []
        self.batch_ids: list[str] = []
        self.rows: list[MinuteCount] = []

    def spans(self, spans: Sequence[MinuteSpan]) -> None:
        self.all_spans.extend(spans)

    def batches(self, batch_ids: Sequence[str]) -> None:
        self.batch_ids.extend(batch_ids)

    def counts(self, rows: Sequence[MinuteCount]) -> None:
        self.rows.extend(rows)


async def shown(store: Any, start: int = 0, end: int = 2**62) -> Gathered:
    """Return what a store shows of itself now."""
    gathered = Gathered()
    await store.snapshot(gathered, start, end)
    return gathered


async def rows_of(store: Any, start: int = 0, end: int = 2**62) -> list[MinuteCount]:
    """Return the per-minute rows in a range, sorted."""
    return sorted((await shown(store, start, end)).rows)
