"""Tune Python's garbage collector for a process with many long-lived objects."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Exclude the existing objects from collections, and collect less often from now on.

    Call it once a server has started. Connections and their objects live long, and most
    other objects are freed by reference counting. With Python's defaults, a message costs a
    tenth more on a server with a thousand connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


__all__ = ["collect_rarely"]
