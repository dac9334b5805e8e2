"""Times in a SQLite store: text, to the second, in UTC."""

from __future__ import annotations

import time
from functools import lru_cache

from kupool.stats.fold import END_OF_TIME


@lru_cache(maxsize=256)  # the rows of a commit are of a few minutes
def stamp(seconds: int) -> str:
    """Return seconds since the epoch as the stored TIMESTAMP, in UTC.

    Times before the epoch or after the year 9999 become the nearest valid time.
    """
    within = min(max(seconds, 0), END_OF_TIME // 1000 - 1)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(within))
