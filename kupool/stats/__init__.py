"""Statistics: counts made from the log, where every batch counts exactly once."""

from __future__ import annotations

from kupool.stats.counts import Applied, BatchCounts, MinuteCount
from kupool.stats.interfaces import IStatsStore
from kupool.wire.batches import Rejection

__all__ = ["Applied", "BatchCounts", "IStatsStore", "MinuteCount", "Rejection"]
