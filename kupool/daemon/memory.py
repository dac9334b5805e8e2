"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def make_trimmer() -> Callable[[], object]:
    """Return what gives freed memory back; it does nothing where the C library cannot.

    glibc keeps what is freed below its highest block for itself; see malloc_trim(3).
    That takes some milliseconds, so it is for after much has been freed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return lambda: None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: trim(0)
