"""Which pool a log belongs to, and whether a store was counted from it. Pure.

A log and a store carry the id of their pool and the log's epochs. An epoch begins when a log
is new or restored, after every position that either side has known: positions are never
used twice. So two sides that were copied, moved or restored apart from each other can tell
up to where they have the same history.

=======================================  ==================================================
What is found at the start               What happens
=======================================  ==================================================
Neither side has marks                   Both are adopted.
The log is missing or empty              A new epoch; all jobs are retired.
The log is older than the store          A new epoch; all jobs are retired.
The log is newer than the store          What is missing in the store is counted.
The log begins after the store's mark    Counting goes on; the gap is kept and reported.
The store is new                         Everything that the log holds is counted.
The two belong to different pools        Refused.
Only one side has marks, both hold data  Refused.
=======================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Epoch(NamedTuple):
    """An epoch of a log: its entries have positions above ``begins_after``."""

    epoch: str
    begins_after: int


class Identity(NamedTuple):
    """The id of a pool, and the epochs of its log, oldest first."""

    pool_id: str
    epochs: tuple[Epoch, ...]

    @property
    def epoch(self) -> str:
        """The id of the newest epoch; empty if there is none."""
        return self.epochs[-1].epoch if self.epochs else ""

    @property
    def begins_after(self) -> int:
        """The position after which the newest epoch begins."""
        return self.epochs[-1].begins_after if self.epochs else 0

    def with_epoch(self, epoch: str, begins_after: int) -> Identity:
        """Return the identity with one more epoch."""
        return Identity(self.pool_id, (*self.epochs, Epoch(epoch, begins_after)))


class Mark(NamedTuple):
    """A position in the log: everything up to the entry at ``position`` is counted."""

    position: int
    entry_id: str = ""


class Extent(NamedTuple):
    """The extent of a log: the positions of its first and its last entry.

    In an empty log ``first`` is ``last + 1``. ``identity`` is None if the log has no marks.
    ``holds_data`` says whether it has an entry, and ``acknowledged`` up to which position its
    consumer has processed it.
    """

    identity: Identity | None
    first: int
    last: int
    holds_data: bool
    acknowledged: int = 0


class StoreState(NamedTuple):
    """The state of a store: up to which position it has counted.

    ``identity`` is None if the store has no marks. ``holds_data`` says whether it has counts or
    jobs. The ids of batches up to the position ``forgotten`` may have been deleted, so these
    batches must not be counted again.
    """

    identity: Identity | None
    mark: Mark
    forgotten: int
    holds_data: bool


class Gap(NamedTuple):
    """Positions that were lost before they were known to be counted."""

    first: int
    last: int


class Plan(NamedTuple):
    """The plan that makes a log and a store fit together.

    Both get ``identity``. Entries after ``resume`` are counted unless their ids are known. With
    ``adopt``, the store takes over the state of the previous release. Without ``keep_jobs``, the
    nonces used for the jobs in the store cannot be known. Batches that the store counted after
    ``fork`` are not in this log. ``text`` says in one line what was found; it is empty if nothing
    was.
    """

    identity: Identity
    resume: int
    fork: int
    keep_jobs: bool
    adopt: bool = False
    gap: Gap | None = None
    text: str = ""


class IdentityMismatch(Exception):
    """A log and a store do not belong together; the text says why, and what to do."""


def reconcile(log: Extent, store: StoreState, new_id: Callable[[], str]) -> Plan:
    """Return the plan for a log and a store; raises :class:`IdentityMismatch`.

    ``new_id`` returns a new unique id.
    """
    if log.identity is None and store.identity is None:
        return _adopt(log, store, new_id)
    if store.identity is None:
        return _new_store(log, store)
    if log.identity is None:
        return _new_log(log, store, store.identity, new_id)
    if log.identity.pool_id != store.identity.pool_id:
        raise IdentityMismatch(
            f"the log belongs to pool {log.identity.pool_id} and the store to pool "
            f"{store.identity.pool_id}; put back the log and the store of one pool"
        )
    return _compare(log, log.identity, store, store.identity, new_id=new_id)


def _adopt(log: Extent, store: StoreState, new_id: Callable[[], str]) -> Plan:
    identity = Identity(new_id(), (Epoch(new_id(), 0),))
    if store.holds_data and not log.holds_data:
        text = "the log is new: the store was counted from another"
        return Plan(identity, 0, 0, False, text=text)
    if not log.holds_data:
        return Plan(identity, log.last, log.last, True)
    if not store.holds_data:
        gap = Gap(1, log.first - 1) if log.first > 1 else None
        text = "the store is new: everything that the log holds is counted"
        return Plan(identity, log.first - 1, log.first - 1, False, gap=gap, text=text)
    resume = min(log.acknowledged, log.last)
    text = "the log and the store of the release before are taken over"
    return Plan(identity, resume, resume, True, adopt=True, text=text)


def _new_store(log: Extent, store: StoreState) -> Plan:
    assert log.identity is not None
    if store.holds_data:
        raise IdentityMismatch(
            f"the log belongs to pool {log.identity.pool_id}, and the store holds data without "
            "saying of which pool; put back the store that belongs to the log, or begin with an "
            "empty one: it is counted from the log again"
        )
    resume = log.first - 1
    gap = Gap(1, resume) if resume else None
    text = "the store is new: everything that the log holds is counted" if log.holds_data else ""
    return Plan(log.identity, resume, resume, False, gap=gap, text=text)


def _new_log(log: Extent, store: StoreState, known: Identity, new_id: Callable[[], str]) -> Plan:
    if log.holds_data:
        raise IdentityMismatch(
            f"the store belongs to pool {known.pool_id}, and the log holds entries without saying "
            "of which pool; put back the log that belongs to the store, or move this one away"
        )
    position = store.mark.position
    text = "the log is missing: a new one begins" if store.holds_data else ""
    identity = known.with_epoch(new_id(), max(position, known.begins_after))
    return Plan(identity, position, position, not store.holds_data, text=text)


def _compare(
    log: Extent, of_log: Identity, store: StoreState, known: Identity, *, new_id: Callable[[], str]
) -> Plan:
    position = store.mark.position
    shared = _shared(of_log.epochs, known.epochs)
    new_epochs = (*of_log.epochs[shared:], *known.epochs[shared:])
    if not new_epochs and log.last >= position:
        behind = log.last > position
        text = "the store is behind the log: what is missing is counted" if behind else ""
        # Entries that the consumer had not settled are delivered again: one may be a dead letter.
        resume = min(position, max(log.acknowledged, log.first - 1, store.forgotten))
        return _beyond_gap(log, position, Plan(of_log, resume, position, True, text=text))
    # Up to this position both have the same history.
    fork = min(position, log.last, *(epoch.begins_after for epoch in new_epochs))
    resume = max(fork, store.forgotten)
    missing = ", and what is missing in the store is counted" if log.last > fork else ""
    if shared == len(known.epochs) and log.last >= position:
        text = f"the store is older than the log's newest epoch{missing}"
        return _beyond_gap(log, fork, Plan(of_log, resume, fork, False, text=text))
    longest = of_log if shared == len(known.epochs) else known
    begins_after = max(position, log.last, *(epoch.begins_after for epoch in new_epochs))
    identity = longest.with_epoch(new_id(), begins_after)
    text = f"the log is older than the store: a new epoch begins{missing}"
    return Plan(identity, resume, fork, False, text=text)


def _shared(one: Sequence[Epoch], other: Sequence[Epoch]) -> int:
    """Return how many epochs two histories have in common, from the oldest on."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _beyond_gap(log: Extent, counted: int, plan: Plan) -> Plan:
    """Return the plan, with the gap between the counted position and the start of the log, if
    any.
    """
    if log.first <= counted + 1:
        return plan
    text = "the log begins after what the store has counted: what lies between is lost"
    last = log.first - 1
    return plan._replace(resume=max(plan.resume, last), gap=Gap(counted + 1, last), text=text)


__all__ = [
    "Epoch",
    "Extent",
    "Gap",
    "Identity",
    "IdentityMismatch",
    "Mark",
    "Plan",
    "StoreState",
    "reconcile",
]
