"""Compares a log with a store, and gives both the resulting identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kupool.log import Extent, Gap, ILog, Mark, Plan, StoreState, reconcile
from kupool.stats import IStatsStore


class Comparison(NamedTuple):
    """The result of a comparison. ``changed`` says whether the log or the store has new marks."""

    extent: Extent
    state: StoreState
    plan: Plan
    changed: bool


async def compare(log: ILog, store: IStatsStore, new_id: Callable[[], str]) -> Comparison:
    """Compare a log with a store, at a start and while they are used.

    Raises :class:`kupool.log.IdentityMismatch` where the two do not belong together, and
    :class:`kupool.log.LogUnavailable` where the log cannot be reached.
    """
    source: Any = log
    target: Any = store
    state: StoreState = await target.state()
    extent: Extent = await source.extent(state.identity, state.mark)
    lost = None
    if state.identity is not None and extent.identity is None and not extent.holds_data:
        # Positions that were given to jobs are not used again, marked or not.
        appended = source.status().appended
        if appended > state.mark.position:
            lost = Gap(state.mark.position + 1, appended)
            state = state._replace(mark=Mark(appended, state.mark.entry_id))
    plan = reconcile(extent, state, new_id)
    if lost is not None:
        plan = plan._replace(gap=lost)
    told = plan.resume == state.mark.position and plan.gap is None
    changed = not (told and plan.identity == state.identity)
    if changed:
        # The store first: if the log does not get its marks, the plan is made again.
        await target.identify(plan)
    await source.identify(plan.identity)
    return Comparison(extent, state, plan, changed)


__all__ = ["Comparison", "compare"]
