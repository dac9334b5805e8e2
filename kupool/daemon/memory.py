"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable


def make_trimmer() -> Callable[[], object]:
    """Return what gives freed memory back to the system, as far as that can be done.

    Garbage goes first: a few objects are enough to keep a megabyte each. glibc keeps
    what is freed below its highest block for itself; see malloc_trim(3). Both take some
    milliseconds, so they are for after much has been freed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return gc.collect
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int

    def collect_and_trim() -> None:
        gc.collect()
        trim(0)

    return collect_and_trim
