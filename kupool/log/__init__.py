"""The durable log: entries in the order they were appended, and who has read how far.

An entry is opaque bytes under a unique id; what is in it is known to those who append
and those who read. The log is the truth: everything that is counted can be made again
from it.
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
    ISpool,
    ISubscription,
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
    "ISpool",
    "ISubscription",
    "Identity",
    "IdentityMismatch",
    "LogStatus",
    "LogUnavailable",
    "Mark",
    "Plan",
    "StoreState",
    "reconcile",
]
