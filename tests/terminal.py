"""A terminal for a test, where this machine has any."""

from __future__ import annotations

import pty
from unittest import SkipTest


def terminal() -> tuple[int, int]:
    """Return the two ends of a new terminal: ours, and that of the program.

    Raises :class:`unittest.SkipTest` where there is none, as in a bare folder without
    ``/dev/pts``.
    """
    try:
        return pty.openpty()
    except OSError as error:
        raise SkipTest(f"no terminal can be made: {error}") from None


__all__ = ["terminal"]
