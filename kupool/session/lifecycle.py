"""The life of a conversation with a peer, as a table.

===========  ==========================================================================
connecting   the transport does not stand yet
open         messages are handled and answered
draining     the peer has finished; its last answers are on their way
parting      this side is about to close; the application says its last word
closing      the last word is written, and this side has ended
lingering    all of it has left; the peer has a moment to end its side
closed       the transport has ended
===========  ==========================================================================

Messages of the peer are handled while it is *open*. Messages to the peer are sent while it
is *open*, *draining* or *parting*. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum


class State(StrEnum):
    """Where a conversation is in its life."""

    CONNECTING = "connecting"
    OPEN = "open"
    DRAINING = "draining"
    PARTING = "parting"
    CLOSING = "closing"
    LINGERING = "lingering"
    CLOSED = "closed"


class Event(Enum):
    """What moves a conversation from one state to another."""

    #: The transport stands.
    CONNECTED = "connected"
    #: The peer sends no more, and all that it sent is handled.
    PEER_FINISHED = "peer finished"
    #: This side wants to end.
    CLOSE = "close"
    #: The last word is written: this side sends no more.
    END = "end"
    #: All that was written has left.
    FLUSHED = "flushed"
    #: This side cuts the connection off.
    ABORT = "abort"
    #: The transport has ended.
    LOST = "lost"


CONNECTING, OPEN, DRAINING, PARTING = State.CONNECTING, State.OPEN, State.DRAINING, State.PARTING
CLOSING, LINGERING, CLOSED = State.CLOSING, State.LINGERING, State.CLOSED

#: What each event does in each state; an event that is not there changes nothing.
TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    CONNECTING: {
        Event.CONNECTED: OPEN,
        Event.ABORT: CLOSING,
        Event.LOST: CLOSED,
    },
    OPEN: {
        Event.PEER_FINISHED: DRAINING,
        Event.CLOSE: PARTING,
        Event.END: CLOSING,
        Event.ABORT: CLOSING,
        Event.LOST: CLOSED,
    },
    DRAINING: {
        Event.CLOSE: PARTING,
        Event.END: CLOSING,
        Event.ABORT: CLOSING,
        Event.LOST: CLOSED,
    },
    PARTING: {
        Event.END: CLOSING,
        Event.ABORT: CLOSING,
        Event.LOST: CLOSED,
    },
    CLOSING: {
        Event.FLUSHED: LINGERING,
        Event.ABORT: CLOSING,
        Event.LOST: CLOSED,
    },
    LINGERING: {
        Event.ABORT: CLOSING,
        Event.LOST: CLOSED,
    },
    CLOSED: {},
}

#: Where messages to the peer are sent.
SENDING = frozenset((OPEN, DRAINING, PARTING))


def after(state: State, event: Event) -> State | None:
    """Return the state that follows; None where the event changes nothing."""
    return TRANSITIONS[state].get(event)


__all__ = [
    "CLOSED",
    "CLOSING",
    "CONNECTING",
    "DRAINING",
    "LINGERING",
    "OPEN",
    "PARTING",
    "SENDING",
    "TRANSITIONS",
    "Event",
    "State",
    "after",
]
