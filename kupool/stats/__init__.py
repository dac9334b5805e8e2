"""Statistics: folds of the log, committed so that every batch counts exactly once."""

from __future__ import annotations

from kupool.stats.interfaces import Applied, BatchCounts, IStatsStore, MinuteCount
from kupool.wire.batches import Rejection

__all__ = ["Applied", "BatchCounts", "IStatsStore", "MinuteCount", "Rejection"]
