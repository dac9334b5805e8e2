"""What carries messages from node to node, as the rest of the bus sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

#: The address of all nodes, this one among them.
EVERYBODY = ""


class Listener(Protocol):
    """Is told what happens on a carrier."""

    def up(self, address: str) -> None:
        """There is a connection: this node can be reached at an address."""

    def down(self, why: str) -> None:
        """There is none any more, or still none."""

    def received(self, sender: str, address: str, body: bytes) -> None:
        """A message came from a node that can be reached at an address."""

    def unreadable(self, why: str) -> None:
        """Something came that is no message of a bus."""

    def returned(self, address: str) -> None:
        """Nobody is at an address any more."""

    def resumed(self) -> None:
        """The carrier takes messages again."""


class ICarrier(Interface):
    """Carries messages between nodes, each in order, as long as there is a connection."""

    writable = Attribute("Whether what is sent now leaves soon.")

    def connect(node: str, listener: Listener) -> Deferred[None]:
        """Connect, and come back for ever; fails with :class:`~kupool.bus.BusError` if the
        first attempt does, and then nothing is tried again.
        """

    def send(address: str, body: bytes, seconds: float) -> None:
        """Send a message to an address; it is of no use after so many seconds."""

    def count() -> Deferred[int]:
        """Return how many nodes there are, this one among them; may never fire or fail."""

    def drop(why: str) -> None:
        """Give up the connection, and make another."""

    def close() -> Deferred[None]:
        """End it; fires when that has happened. Never fails."""


__all__ = ["EVERYBODY", "ICarrier", "Listener"]
