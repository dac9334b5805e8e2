"""The interface of a carrier, which transports messages between nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

#: The address of all nodes, including this one.
EVERYBODY = ""


class Listener(Protocol):
    """Told about the events of a carrier."""

    def up(self, address: str) -> None:
        """There is a connection: this node can be reached at this address."""

    def down(self, why: str) -> None:
        """The connection is lost, or an attempt to connect failed."""

    def received(self, sender: str, address: str, body: bytes) -> None:
        """A message arrived from a node that can be reached at this address."""

    def unreadable(self, why: str) -> None:
        """Something arrived that is not a message of the bus."""

    def returned(self, address: str) -> None:
        """There is no node at this address any more."""

    def resumed(self) -> None:
        """The carrier accepts messages again."""


class ICarrier(Interface):
    """Carries messages between nodes, in order for each node, while there is a connection."""

    writable = Attribute("Whether what is sent now leaves soon.")

    def connect(node: str, listener: Listener) -> Deferred[None]:
        """Connect, and reconnect without end.

        Fails with :class:`~kupool.bus.BusError` if the first attempt fails; then there is no other
        attempt.
        """

    def send(address: str, body: bytes, seconds: float) -> None:
        """Send a message to an address; it expires after this many seconds."""

    def count() -> Deferred[int]:
        """Return the number of nodes, including this one; may fail, or never fire."""

    def drop(why: str) -> None:
        """Close the connection, and make another one."""

    def close() -> Deferred[None]:
        """Close the connection for good; fires when it is closed. Never fails."""


__all__ = ["EVERYBODY", "ICarrier", "Listener"]
