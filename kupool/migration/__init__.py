"""Moving a pool from one pair of engines to another: the counts, the jobs and the log.

The daemon is stopped meanwhile. Everything can be done again after a kill: what has been
written is known by what the target holds. Nothing of the source is changed but a note that
says where its data went.
"""

from __future__ import annotations

from kupool.migration.failures import CannotMove

__all__ = ["CannotMove"]
