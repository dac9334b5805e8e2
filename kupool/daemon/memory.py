"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import sysconfig
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

#: Nonces of retired jobs after which their memory is worth giving back.
WORTH_RETURNING = 100_000

#: Seconds after that until it is done: at first most of it, then what timeouts and buffers
#: of that time still kept.
DELAYS = (2.0, 60.0)


class Memory:
    """Gives memory back after much of it was freed; to be asked every second.

    ``retired`` returns how many nonces have been retired since the start.
    """

    def __init__(
        self, clock: IReactorTime, retired: Callable[[], int], give_back: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._retired = retired
        self._give_back = give_back
        self._seen = 0
        self._due: tuple[float, ...] = ()

    def look(self) -> None:
        """Give memory back where it is time for that."""
        now, retired = self._clock.seconds(), self._retired()
        if retired - self._seen >= WORTH_RETURNING:
            self._seen = retired
            self._due = tuple(now + delay for delay in DELAYS)
        if self._due and now >= self._due[0]:
            self._due = tuple(due for due in self._due if due > now)
            self._give_back()


#: Domains of Python's memory; see PyMemAllocatorDomain in the C API.
_RAW, _MEM, _OBJ = range(3)


class _Allocator(ctypes.Structure):
    """PyMemAllocatorEx of the C API."""

    _fields_ = [
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    ]


def use_malloc() -> bool:
    """Have new objects allocated by the C library; returns whether that can be done.

    Python's own allocator keeps each megabyte in which a single object is left, so that
    little of what retired jobs took would go back. It goes on freeing what it allocated,
    and hands on to the C library what it did not, as it does with all that is larger than
    512 bytes; so both may be in use at once. Not done for a Python with another allocator
    than that, such as one with debug hooks.
    """
    if (
        platform.python_implementation() != "CPython"
        or sysconfig.get_config_var("Py_GIL_DISABLED")
        or sysconfig.get_config_var("Py_DEBUG")
        or sys.flags.dev_mode
        or os.environ.get("PYTHONMALLOC", "default") not in ("", "default", "pymalloc")
    ):
        return False
    get, put = ctypes.pythonapi.PyMem_GetAllocator, ctypes.pythonapi.PyMem_SetAllocator
    get.argtypes = put.argtypes = [ctypes.c_int, ctypes.POINTER(_Allocator)]
    get.restype = put.restype = None
    raw, memory, objects = _Allocator(), _Allocator(), _Allocator()
    for domain, allocator in ((_RAW, raw), (_MEM, memory), (_OBJ, objects)):
        get(domain, allocator)
    if not raw.context == memory.context == objects.context:
        return False
    for domain, allocator in ((_MEM, memory), (_OBJ, objects)):
        allocator.malloc, allocator.calloc = raw.malloc, raw.calloc
        put(domain, allocator)
    return True


def make_give_back() -> Callable[[], object]:
    """Return what gives freed memory back to the system, as far as that can be done.

    Garbage goes first: a few objects are enough to keep a megabyte each. glibc keeps
    what is freed below its highest block for itself; see malloc_trim(3). Both take some
    milliseconds, so they are for after much has been freed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return gc.collect
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int

    def give_back() -> None:
        gc.collect()
        trim(0)

    return give_back
