"""What a connection is given to live in: limits, a clock, counters, and its owner.

A connection knows no server, no client and no framework for networks. Whoever makes it
hands it one :class:`Surroundings`, which all connections of a server or client share. Pure.
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
    """The limits of a connection. Sizes are in bytes, times in seconds; 0 turns one off,
    except for ``outbox_limit`` and ``write_timeout``.
    """

    @property
    def max_frame(self) -> int:
        """The largest message of the peer, and to it."""

    @property
    def too_large(self) -> CloseReason:
        """What a peer is told whose message is larger."""

    @property
    def max_errors(self) -> int:
        """Malformed messages after which the connection is closed."""

    @property
    def outbox_limit(self) -> int:
        """Bytes of replies that may wait before nothing more is read."""

    @property
    def idle_timeout(self) -> float:
        """The time without a message after which the connection is closed."""

    @property
    def message_timeout(self) -> float:
        """The time that the rest of a message may take."""

    @property
    def write_timeout(self) -> float:
        """The time in which the peer has to take what it is sent."""


@dataclass(slots=True)
class Counters:
    """What is counted over all connections of a server or a client."""

    malformed: int = 0
    #: Messages that were dropped because their peer read too slowly.
    dropped: int = 0
    #: Connections closed from this side, by the text of the reason.
    closes: Counter[str] = field(default_factory=Counter)


class ScheduledCall(Protocol):
    """A call that is to come."""

    def cancel(self) -> object:
        """Do not make the call."""


class Owner(Protocol):
    """Who made a connection, and is told what becomes of it.

    ``connection`` is the connection that tells.
    """

    def parting(
        self, connection: Any, reason: CloseReason | None, done: Callable[[], None]
    ) -> bool:
        """Say a last word before a close; ``reason`` is None where the peer has finished.

        Returns whether the close has to wait until ``done`` is called.
        """

    def settling(self, connection: Any, done: Callable[[], None]) -> bool:
        """Say whether answers are on their way to a peer that has finished.

        Returns whether the end has to wait until ``done`` is called.
        """

    def ended(self, connection: Any, reason: Any) -> None:
        """The transport of a connection has ended, for what it says."""

    def unsendable(self, connection: Any, reply: bytes) -> ErrorText:
        """Log why a reply could not be sent, which is the current exception.

        Returns what the peer is told.
        """

    def ban(self, host: str, seconds: float, why: str) -> None:
        """Let nobody in from an address for some time; ``why`` is for the log."""

    def failed(self, connection: Any) -> None:
        """Log the current exception: handling a message failed."""

    def go_on_later(self, connection: Any) -> None:
        """Call ``go_on`` in a turn to come, when others have had theirs."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the connections of one server or client have in common.

    ``now`` returns seconds of a clock that is never set. ``after_turn`` calls something once
    all that was read in this turn is handled; ``call_later`` takes seconds and what to call.
    ``limits`` returns the limits of this moment. ``last_word`` makes the bytes that tell a
    peer why its connection ends, and when it may come back. ``index`` finds connections by
    their properties.
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
