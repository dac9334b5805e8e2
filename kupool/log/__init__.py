"""The durable log: entries in the order they were appended, and the positions of its consumers.

An entry is opaque bytes with a unique id; only those who append and read know its content. The log
is the source of truth: all counts can be made again from it.
"""

from __future__ import annotations

from kupool.log.identity import (
    Epoch,
    Extent,
    Gap,
    Identity,
    IdentityMismatch,
    Mark,
    Plan,
    StoreState,
    reconcile,
)
from kupool.log.interfaces import (
    DeliveredEntry,
    Entry,
    IConsumer,
    ILog,
    ILogReader,
    ISpool,
    ISubscription,
    LogBounds,
    LogStatus,
    LogUnavailable,
)

__all__ = [
    "DeliveredEntry",
    "Entry",
    "Epoch",
    "Extent",
    "Gap",
    "IConsumer",
    "ILog",
    "ILogReader",
    "ISpool",
    "ISubscription",
    "Identity",
    "IdentityMismatch",
    "LogBounds",
    "LogStatus",
    "LogUnavailable",
    "Mark",
    "Plan",
    "StoreState",
    "reconcile",
]
