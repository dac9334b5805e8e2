"""Make room for file descriptors before there are connections.

Linux doubles a process's table of descriptors when it is full. In a process with threads that stops
the calling thread until every processor has passed a quiet point: 8 to 18 ms, each time, and while
connections come quickly.
"""

from __future__ import annotations

import fcntl
import os
import resource
from contextlib import suppress

#: The most descriptors that room is made for: 8 bytes each.
MOST = 65_536

#: Descriptors beside the connections, such as those of HTTP.
OTHERS = 4096


def make_room(connections: int) -> None:
    """Let the table hold so many connections, 0 for any number; it never shrinks again."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = min(connections + OTHERS if connections else MOST, MOST)
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    with suppress(OSError):  # the process has no descriptor left, or the system no memory
        some = os.open(os.devnull, os.O_RDONLY)
        try:
            # The lowest free descriptor from there on, so that none in use is replaced.
            os.close(fcntl.fcntl(some, fcntl.F_DUPFD_CLOEXEC, wanted - 1))
        finally:
            os.close(some)


__all__ = ["MOST", "OTHERS", "make_room"]
