"""Moves a pool from one pair of engines to another: the counts, the jobs and the log.

The daemon is stopped meanwhile. After a kill, the command can be run again: the target shows what
has been written. The source is not changed, except for a note that says where its data went.
"""

from __future__ import annotations

from kupool.migration.failures import CannotMove

__all__ = ["CannotMove"]
