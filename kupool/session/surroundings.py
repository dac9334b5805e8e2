"""The environment of a connection: limits, a clock, counters and its owner.

A connection does not depend on a server, a client or a network framework. All connections
of a server or client share one :class:`Surroundings`. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kupool.errors import CloseReason, ErrorText
from kupool.session.properties import PropertyIndex
from kupool.wire.framing import Framing


class Limits(Protocol):
    """The limits of a connection. Sizes are in bytes, times in seconds; 0 turns a limit off.

    0 is not allowed for ``outbox_limit`` and ``write_timeout``.
    """

    @property
    def max_frame(self) -> int:
        """The largest message in either direction."""

    @property
    def too_large(self) -> CloseReason:
        """The close reason for a larger message."""

    @property
    def max_errors(self) -> int:
        """Number of malformed messages after which the connection is closed."""

    @property
    def outbox_limit(self) -> int:
        """Most bytes of waiting replies; beyond it nothing more is read."""

    @property
    def idle_timeout(self) -> float:
        """Time without a message after which the connection is closed."""

    @property
    def message_timeout(self) -> float:
        """Longest time that the rest of a message may take."""

    @property
    def write_timeout(self) -> float:
        """Longest time in which the peer must read what it was sent."""


@dataclass(slots=True)
class Counters:
    """The counters of all connections of a server or a client."""

    malformed: int = 0
    #: Number of messages that were dropped because their peer read too slowly.
    dropped: int = 0
    #: Number of connections closed from this side, by the text of the reason.
    closes: Counter[str] = field(default_factory=Counter)


class ScheduledCall(Protocol):
    """A scheduled call."""

    def cancel(self) -> object:
        """Cancel the call."""


class Owner(Protocol):
    """The owner of connections, which is notified of their events.

    ``connection`` is the connection of the event.
    """

    def parting(
        self, connection: Any, reason: CloseReason | None, done: Callable[[], None]
    ) -> bool:
        """Send a last message before a close; ``reason`` is None if the peer has finished sending.

        Returns whether the close has to wait until ``done`` is called.
        """

    def settling(self, connection: Any, done: Callable[[], None]) -> bool:
        """Return whether answers are pending for a peer that has finished sending.

        If so, the end has to wait until ``done`` is called.
        """

    def ended(self, connection: Any, reason: Any) -> None:
        """The transport of a connection has ended, with its reason."""

    def unsendable(self, connection: Any, reply: bytes) -> ErrorText:
        """Log why a reply could not be sent, which is the current exception.

        Returns the error for the peer.
        """

    def ban(self, host: str, seconds: float, why: str) -> None:
        """Refuse connections from an address for some seconds; ``why`` is for the log."""

    def welcome(self, connection: Any) -> None:
        """Count a connection as authorized from now on."""

    def note_refusal(self, reason: str, host: str, user: str) -> None:
        """Count and log that something of a peer was refused; ``reason`` is one of a few texts."""

    def turned_away(self, host: str) -> None:
        """Count that a peer of an address was refused before it could do anything."""

    def failed(self, connection: Any) -> None:
        """Log the current exception: handling a message failed."""

    def go_on_later(self, connection: Any) -> None:
        """Call ``go_on`` in a later turn, after the turns of others."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment that the connections of one server or client share.

    - ``now`` returns seconds of a monotonic clock.
    - ``after_turn`` calls a function once all data read in this turn has been handled.
    - ``call_later`` takes seconds and a function.
    - ``limits`` returns the current limits.
    - ``last_word`` encodes the close message, with the reason and when the peer may return.
    - ``index`` finds connections by their properties.
    """

    now: Callable[[], float]
    after_turn: Callable[[Callable[[], object]], object]
    call_later: Callable[[float, Callable[[], object]], ScheduledCall]
    limits: Callable[[], Limits]
    last_word: Callable[[Framing, CloseReason, float | None], bytes]
    owner: Owner
    index: PropertyIndex
    counters: Counters = field(default_factory=Counters)


__all__ = ["Counters", "Limits", "Owner", "ScheduledCall", "Surroundings"]
