"""Which node leads a group of consumers: there is one at a time.

A lease has a term, which grows when another node takes it. What a node saves for a group is fenced
by the term, so that a node that was away for too long saves nothing. A node believes in a lease for
its length from before it was asked for, on its own clock; nothing compares the clocks of nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer


class IGroupLeases(Interface):
    """Says whether this node leads a group."""

    def hold(group: str) -> Deferred[None]:
        """Lead a group from now on; fails with :class:`WrongNode` while another node does."""

    def holds(group: str) -> bool:
        """Return whether this node leads a group now."""

    def release(group: str) -> None:
        """Lead a group no more, as it has no members here."""

    def watch(lost: Callable[[str], object]) -> None:
        """Have ``lost`` called with a group that this node led, and does not lead any more."""


@implementer(IGroupLeases)
class OnlyNode:
    """Leads all groups: there are no other nodes."""

    def hold(self, group: str) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)

    def holds(self, group: str) -> bool:
        """Return True."""
        return True

    def release(self, group: str) -> None:
        """Do nothing."""

    def watch(self, lost: Callable[[str], object]) -> None:
        """Do nothing: none is ever lost."""


__all__ = ["IGroupLeases", "OnlyNode"]
