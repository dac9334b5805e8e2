"""Times in a SQLite store: text, to the second, in UTC."""

from __future__ import annotations

import time

from kupool.stats.fold import END_OF_TIME


def stamp(seconds: int) -> str:
    """Return seconds since the epoch as the stored TIMESTAMP, in UTC.

    Times before the epoch or after the year 9999 become the nearest valid time.
    """
    within = min(max(seconds, 0), END_OF_TIME // 1000 - 1)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(within))
