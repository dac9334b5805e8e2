"""The states of a session and its transitions, as a table.

===========  ==========================================================================
connecting   the transport is not connected yet
open         messages are handled and answered
draining     the peer has finished sending; its last answers are being sent
parting      this side is about to close; the application sends its last message
closing      the close message is written, and this side has ended
lingering    all data has been sent; the peer has a few seconds to end its side
closed       the transport has ended
===========  ==========================================================================

Messages of the peer are handled in state *open*. Messages to the peer are sent in the states
*open*, *draining* and *parting*. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum


class State(StrEnum):
    """The state of a session."""

    CONNECTING = "connecting"
    OPEN = "open"
    DRAINING = "draining"
    PARTING = "parting"
    CLOSING = "closing"
    LINGERING = "lingering"
    CLOSED = "closed"


class Event(Enum):
    """An event that moves a session from one state to another."""

    #: The transport is connected.
    CONNECTED = "connected"
    #: The peer has finished sending, and all its messages are handled.
    PEER_FINISHED = "peer finished"
    #: This side closes.
    CLOSE = "close"
    #: The close message is written: this side sends no more.
    END = "end"
    #: All written data has been sent.
    FLUSHED = "flushed"
    #: This side aborts the connection.
    ABORT = "abort"
    #: The transport has ended.
    LOST = "lost"


CONNECTING, OPEN, DRAINING, PARTING = State.CONNECTING, State.OPEN, State.DRAINING, State.PARTING
CLOSING, LINGERING, CLOSED = State.CLOSING, State.LINGERING, State.CLOSED

#: The next state by event and state; an event without an entry changes nothing.
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

#: The states in which messages to the peer are sent.
SENDING = frozenset((OPEN, DRAINING, PARTING))


def after(state: State, event: Event) -> State | None:
    """Return the next state, or None if the event changes nothing."""
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
