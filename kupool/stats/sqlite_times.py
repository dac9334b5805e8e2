"""Times as a store in SQLite keeps them: text, to the second, in UTC."""

from __future__ import annotations

import time

from kupool.stats.fold import END_OF_TIME


def stamp(seconds: int) -> str:
    """Return seconds since the epoch as the TIMESTAMP that is stored, in UTC.

    Times before the epoch, or after the year 9999, become the nearest there is.
    """
    within = min(max(seconds, 0), END_OF_TIME // 1000 - 1)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(within))
