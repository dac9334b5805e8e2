"""Remove the files that a dead process left of a Unix socket that it listened on.

Twisted keeps a symbolic link beside the socket; its target is the process id. That id may
belong to another process by now, or to this one, as for the first process of each
container. So a connection attempt decides whether a process still listens.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress

#: Seconds that another process gets between taking the lock and listening.
MOMENT = 0.05


def remove_leftovers(path: bytes) -> str:
    """Remove the lock and the socket at ``path`` if no process uses them; may block briefly.

    Returns an error text if a process listens there, else an empty text. A file that is not
    a socket is kept.
    """
    lock = path + b".lock"
    holder = _holder(lock)
    if _is_listening(path):
        return f"in use by another process (pid {holder or 'unknown'})"
    if holder and holder != os.getpid() and _is_alive(holder):
        time.sleep(MOMENT)  # it may have just started
        if _is_listening(path):
            return f"in use by another process (pid {holder})"
    with suppress(OSError):  # then listening fails, and its error says why
        if holder and _holder(lock) == holder:
            os.unlink(lock)
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    return ""


def _holder(lock: bytes) -> int:
    """Return the process id in a lock; 0 if it contains none."""
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
        pass  # another user's process
    return True


def _is_listening(path: bytes) -> bool:
    """Return whether a process listens on a socket, as far as that can be determined."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog means that a process listens
        try:
            probe.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:
            pass
    return True


__all__ = ["remove_leftovers"]
