"""A backup against what is in the folder that it is put back into. Pure.

=========================================  ================================================
What is in the folder                      What is done
=========================================  ================================================
Nothing                                    The backup is put there.
What the backup holds, or less             It is replaced.
More of the same pool                      Refused without force.
Another pool, or one that it does not say  Refused without force.
Files that cannot be read                  Refused without force.
=========================================  ================================================

What is replaced is kept aside in each case.
"""

from __future__ import annotations

from kupool.backup.contents import Contents
from kupool.log import Identity

#: Job ids that are skipped, because nobody knows how many were used after the backup.
JOB_MARGIN = 1_000_000

#: Clients of the first implementation keep a job id in 32 bits.
LARGEST_JOB = 2**31 - 1

#: 2024-01-01, in seconds since the epoch: a clock with an earlier time is not set.
PLAUSIBLE = 1_704_067_200


def objections(backup: Contents, there: Contents, waiting: int) -> list[str]:
    """Return why the data in the folder should not be replaced; empty if it may be.

    ``waiting`` is how many batches wait in the folder's spool that are not in the backup.
    """
    found = _other_pools(backup, there)
    if not found:
        found = _newer(backup, there)
    if waiting:
        found.append(f"{waiting:,} batches wait in its spool that are not in the backup")
    return found


def _other_pools(backup: Contents, there: Contents) -> list[str]:
    wanted, found = backup.identity, []
    for part, held in (("log", there.log), ("store", there.store)):
        if held is None:
            continue
        if held.identity is None:
            if not _is_empty(held):
                found.append(f"its {part} does not name its pool")
        elif wanted is not None and held.identity.pool_id != wanted.pool_id:
            found.append(
                f"its {part} belongs to pool {held.identity.pool_id}, and the backup to pool "
                f"{wanted.pool_id}"
            )
    spool = there.spool
    if spool is not None and spool.waiting and spool.pool_id not in ("", backup.pool_id):
        found.append(f"its spool belongs to pool {spool.pool_id}")
    return found


def _is_empty(held: object) -> bool:
    return not any(
        getattr(held, name, 0) for name in ("last", "mark", "newest_job", "reserved_until")
    )


def _newer(backup: Contents, there: Contents) -> list[str]:
    found = []
    known = set(backup.identity.epochs) if backup.identity is not None else set()
    for part, held in (("log", there.log), ("store", there.store)):
        if held is not None and held.identity is not None and known:
            more = [epoch for epoch in held.identity.epochs if epoch not in known]
            if more:
                found.append(
                    f"its {part} has an epoch that the backup does not know, which begins after "
                    f"position {more[0].begins_after:,}"
                )
                break
    if there.log is not None and backup.log is not None and there.log.last > backup.log.last:
        found.append(
            f"its log ends at position {there.log.last:,}, that of the backup at "
            f"{backup.log.last:,}: {there.log.last - backup.log.last:,} more"
        )
    # The log says how much newer it is; the store beside it would say the same.
    if there.store is not None and backup.store is not None and not found:
        if there.store.mark > max(backup.store.mark, backup.log.last if backup.log else 0):
            found.append(
                f"its store has counted up to position {there.store.mark:,}, that of the backup "
                f"up to {backup.store.mark:,}"
            )
        elif there.store.newest_job > backup.store.newest_job:
            found.append(
                f"its newest job is {there.store.newest_job:,}, that of the backup "
                f"{backup.store.newest_job:,}: a daemon has worked on it since"
            )
    return found


def highest_position(*sides: Contents) -> int:
    """Return the highest position of a log in several backups or folders."""
    known = [0]
    for side in sides:
        if side.log is not None:
            known += [side.log.last, *_beginnings(side.log.identity)]
        if side.store is not None:
            known += [side.store.mark, *_beginnings(side.store.identity)]
    return max(known)


def _beginnings(identity: Identity | None) -> list[int]:
    return [epoch.begins_after for epoch in identity.epochs] if identity is not None else []


def next_job(made_at: float, now: float, interval: float, *sides: Contents) -> int:
    """Return a job id that was certainly not used, neither before the backup nor after it.

    ``made_at`` is when the backup was made, ``now`` the time, both in seconds since the epoch;
    ``interval`` is the seconds between jobs. Raises :class:`ValueError` if there is none.
    """
    given = max(
        (max(s.store.newest_job, s.store.reserved_until) for s in sides if s.store), default=0
    )
    # Jobs may have been made since the backup, even if nobody has their ids any more.
    meanwhile = int(max(0.0, now - made_at) * max(1.0, 1.0 / interval))
    wanted = given + JOB_MARGIN + meanwhile
    if now >= PLAUSIBLE:
        wanted = max(wanted, int(now) - PLAUSIBLE)
    if wanted <= LARGEST_JOB:
        return wanted
    # Skip fewer ids only if there are no more, or if the clock is wrong.
    if given + JOB_MARGIN <= LARGEST_JOB:
        return given + JOB_MARGIN
    raise ValueError(f"job ids are used up: {given:,} was given out, {LARGEST_JOB:,} is the last")


__all__ = ["JOB_MARGIN", "LARGEST_JOB", "PLAUSIBLE", "highest_position", "next_job", "objections"]
