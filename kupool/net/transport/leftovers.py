"""What a process that is gone leaves of a Unix socket that it listened on.

Twisted keeps a symbolic link beside the socket whose target is the process's number. That
number may be another process's by now, or the own one, as it is for the first process of
each container. So what decides is whether anybody listens.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress

#: Seconds that another process has between taking the lock and listening.
MOMENT = 0.05


def remove_leftovers(path: bytes) -> str:
    """Remove the lock and the socket at ``path`` that nobody uses any more; may block shortly.

    Returns who listens there, for whom somebody does; empty otherwise. What is no socket
    stays.
    """
    lock = path + b".lock"
    holder = _holder(lock)
    if _is_listening(path):
        return f"in use by another process (pid {holder or 'unknown'})"
    if holder and holder != os.getpid() and _is_alive(holder):
        time.sleep(MOMENT)  # it may have begun just now
        if _is_listening(path):
            return f"in use by another process (pid {holder})"
    with suppress(OSError):  # then listening fails, and says why
        if holder and _holder(lock) == holder:
            os.unlink(lock)
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    return ""


def _holder(lock: bytes) -> int:
    """Return the process that a lock names; 0 where it names none."""
    try:
        return int(os.readlink(lock))
    except (OSError, ValueError):
        return 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def _is_listening(path: bytes) -> bool:
    """Say whether somebody listens on a socket, as far as that can be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue of connections is an answer, too
        try:
            probe.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:
            pass
    return True


__all__ = ["remove_leftovers"]
