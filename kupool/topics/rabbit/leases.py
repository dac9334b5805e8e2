"""The leases of groups in a store that several nodes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from kupool.topics.errors import TopicsUnavailable, WrongNode
from kupool.topics.leases import IGroupLeases
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.statements import Fence, GroupLease


@dataclass(frozen=True)
class NodeName:
    """This node among those that share a store.

    ``name`` is its own, and another one after each start; ``address`` returns where its clients
    reach it, as HOST:PORT, which is asked for when it takes a lease.
    """

    name: str
    address: Callable[[], str]


@dataclass
class _HeldLease:
    term: int
    until: float


@implementer(IGroupLeases)
class StoreLeases:
    """Takes leases of so many ``seconds``, and keeps them while groups are led here."""

    _log = Logger()

    def __init__(
        self, store: Any, clock: IReactorTime, node: NodeName, *, seconds: float = 10.0
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._seconds = seconds
        self._held: dict[str, _HeldLease] = {}
        self._lost: list[Callable[[str], object]] = []
        self._timer: IDelayedCall | None = None
        self._closed = False

    def watch(self, lost: Callable[[str], object]) -> None:
        """Have ``lost`` called with a group that is not led here any more."""
        self._lost.append(lost)

    def holds(self, group: str) -> bool:
        """Return whether this node leads a group now."""
        held = self._held.get(group)
        return held is not None and self._clock.seconds() < held.until

    def hold(self, group: str) -> Deferred[None]:
        """Lead a group; fails with :class:`WrongNode` or :class:`TopicsUnavailable`."""
        return Deferred.fromCoroutine(self._hold(group))

    async def _hold(self, group: str) -> None:
        if self.holds(group):
            return
        asked = self._clock.seconds()
        lease: GroupLease = await self._store.run(
            partial(
                statements.take_lease,
                group=group,
                node=self._node.name,
                address=self._node.address(),
                seconds=self._seconds,
            )
        )
        if lease.node != self._node.name:
            self._lose(group)
            raise WrongNode(group, lease.address)
        known = self._held.get(group)
        if known is not None and known.term != lease.term:
            self._lose(group)  # another node led it in between
        self._held[group] = _HeldLease(lease.term, asked + self._seconds)
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(self._seconds / 3, self._keep)

    def fence(self, group: str) -> Fence:
        """Return what a statement has to check for a group that is led here."""
        held = self._held.get(group)
        return Fence(self._node.name, 0 if held is None else held.term)

    def has_term(self, group: str) -> bool:
        """Return whether this node led a group when it last heard of it."""
        return group in self._held

    def lose(self, group: str) -> None:
        """Another node leads a group, as a statement has found."""
        self._lose(group)

    def release(self, group: str) -> None:
        """Lead a group no more; other nodes may at once."""
        if self._held.pop(group, None) is not None:
            self._drop([group])

    def _drop(self, groups: list[str]) -> Deferred[None]:
        work = partial(statements.drop_leases, node=self._node.name, groups=groups)
        dropped: Deferred[None] = self._store.run(work)
        return dropped.addErrback(
            lambda failure: self._log.info(
                "Leases of groups end by themselves: {reason}", reason=failure.getErrorMessage()
            )
        )

    def _keep(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._keep_all()).addErrback(
            lambda failure: self._log.failure("Keeping the leases of groups failed", failure)
        )

    async def _keep_all(self) -> None:
        asked = self._clock.seconds()
        terms = {group: held.term for group, held in self._held.items()}
        try:
            kept: set[str] = await self._store.run(
                partial(
                    statements.keep_leases,
                    node=self._node.name,
                    terms=terms,
                    seconds=self._seconds,
                )
            )
        except TopicsUnavailable:
            kept = {group for group in terms if self.holds(group)}
        else:
            for group in kept:
                held = self._held.get(group)
                if held is not None and held.term == terms[group]:
                    held.until = asked + self._seconds
        for group in terms:
            if group not in kept:
                self._log.warn("This node does not lead group {group} any more", group=group)
                self._lose(group)
        if self._held and not self._closed and self._timer is None:
            self._timer = self._clock.callLater(self._seconds / 3, self._keep)

    def _lose(self, group: str) -> None:
        if self._held.pop(group, None) is not None:
            for lost in self._lost:
                lost(group)

    async def close(self) -> None:
        """Release all leases."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        groups = list(self._held)
        self._held.clear()
        if groups:
            await self._drop(groups)


__all__ = ["NodeName", "StoreLeases"]
