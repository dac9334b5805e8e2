"""Returns freed memory to the system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

#: The number of retired nonces after which it pays to return their memory.
WORTH_RETURNING = 100_000

#: Seconds after that until it is done: at first most of it, then what timeouts and buffers
#: of that time still kept.
DELAYS = (2.0, 60.0)


class Memory:
    """Returns memory after much of it was freed; to be called every second.

    ``retired`` returns the number of nonces retired since the start.
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
        """Return memory to the system if it is time."""
        now, retired = self._clock.seconds(), self._retired()
        if retired - self._seen >= WORTH_RETURNING:
            self._seen = retired
            self._due = tuple(now + delay for delay in DELAYS)
        if self._due and now >= self._due[0]:
            self._due = tuple(due for due in self._due if due > now)
            self._give_back()


def make_give_back() -> Callable[[], object]:
    """Return what gives freed memory back to the system, as far as that can be done.

    Garbage goes first: one object is enough to keep a megabyte. The C library, which has all
    that is larger than 512 bytes, keeps what is freed below its highest block for itself; see
    malloc_trim(3). Both take some milliseconds, so they are for after much has been freed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return gc.collect
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int

    def give_back() -> None:
        gc.collect()
        trim(0)

    return give_back
