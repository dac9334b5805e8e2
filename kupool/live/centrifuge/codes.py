"""The errors, closes and ends of subscriptions of the Centrifuge protocol. Pure.

The numbers are the protocol's; its client libraries decide by them what to do.
"""

from __future__ import annotations

from typing import NamedTuple


class CentrifugeError(NamedTuple):
    """An error in a reply; a client repeats a command whose error is ``temporary``."""

    code: int
    message: str
    temporary: bool = False


INTERNAL = CentrifugeError(100, "internal server error", temporary=True)
UNAUTHORIZED = CentrifugeError(101, "unauthorized")
UNKNOWN_CHANNEL = CentrifugeError(102, "unknown channel")
PERMISSION_DENIED = CentrifugeError(103, "permission denied")
METHOD_NOT_FOUND = CentrifugeError(104, "method not found")
ALREADY_SUBSCRIBED = CentrifugeError(105, "already subscribed")
LIMIT_EXCEEDED = CentrifugeError(106, "limit exceeded")
BAD_REQUEST = CentrifugeError(107, "bad request")
NOT_AVAILABLE = CentrifugeError(108, "not available")
TOKEN_EXPIRED = CentrifugeError(109, "token expired")
EXPIRED = CentrifugeError(110, "expired")
TOO_MANY_REQUESTS = CentrifugeError(111, "too many requests", temporary=True)
UNRECOVERABLE_POSITION = CentrifugeError(112, "unrecoverable position")

CENTRIFUGE_ERRORS = (
    INTERNAL,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    PERMISSION_DENIED,
    METHOD_NOT_FOUND,
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    BAD_REQUEST,
    NOT_AVAILABLE,
    TOKEN_EXPIRED,
    EXPIRED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE_POSITION,
)


class Disconnect(NamedTuple):
    """Why the server ends a connection."""

    code: int
    reason: str

    @property
    def reconnects(self) -> bool:
        """Whether a client reconnects after it."""
        return self.code < 3500 or 4000 <= self.code < 4500


CONNECTION_CLOSED = Disconnect(3000, "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown")
SERVER_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription expired")
SLOW = Disconnect(3008, "slow")
WRITE_ERROR = Disconnect(3009, "write error")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
NO_PONG = Disconnect(3012, "no pong")
CLIENT_TOO_BUSY = Disconnect(3013, "too many requests")
STATE_INVALIDATED = Disconnect(3014, "state invalidated")
INVALID_TOKEN = Disconnect(3500, "invalid token")
CLOSE_BAD_REQUEST = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_DISCONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL = Disconnect(3506, "inappropriate protocol")
CLOSE_PERMISSION_DENIED = Disconnect(3507, "permission denied")
CLOSE_NOT_AVAILABLE = Disconnect(3508, "not available")
CLOSE_TOO_MANY_ERRORS = Disconnect(3509, "too many errors")

DISCONNECTS = (
    CONNECTION_CLOSED,
    SHUTDOWN,
    SERVER_ERROR,
    CONNECTION_EXPIRED,
    SUBSCRIPTION_EXPIRED,
    SLOW,
    WRITE_ERROR,
    INSUFFICIENT_STATE,
    FORCE_RECONNECT,
    NO_PONG,
    CLIENT_TOO_BUSY,
    STATE_INVALIDATED,
    INVALID_TOKEN,
    CLOSE_BAD_REQUEST,
    STALE,
    FORCE_DISCONNECT,
    CONNECTION_LIMIT,
    CHANNEL_LIMIT,
    INAPPROPRIATE_PROTOCOL,
    CLOSE_PERMISSION_DENIED,
    CLOSE_NOT_AVAILABLE,
    CLOSE_TOO_MANY_ERRORS,
)


class SubscriptionEnd(NamedTuple):
    """Why the server ends a subscription."""

    code: int
    reason: str

    @property
    def resubscribes(self) -> bool:
        """Whether a client subscribes again after it."""
        return self.code >= 2500


UNSUBSCRIBED = SubscriptionEnd(2000, "server unsubscribe")
POSITION_LOST = SubscriptionEnd(2500, "insufficient state")
ACCESS_EXPIRED = SubscriptionEnd(2501, "subscription expired")
ACCESS_INVALIDATED = SubscriptionEnd(2502, "state invalidated")

__all__ = [
    "ACCESS_EXPIRED",
    "ACCESS_INVALIDATED",
    "ALREADY_SUBSCRIBED",
    "BAD_REQUEST",
    "CENTRIFUGE_ERRORS",
    "CHANNEL_LIMIT",
    "CLIENT_TOO_BUSY",
    "CLOSE_BAD_REQUEST",
    "CLOSE_NOT_AVAILABLE",
    "CLOSE_PERMISSION_DENIED",
    "CLOSE_TOO_MANY_ERRORS",
    "CONNECTION_CLOSED",
    "CONNECTION_EXPIRED",
    "CONNECTION_LIMIT",
    "DISCONNECTS",
    "EXPIRED",
    "FORCE_DISCONNECT",
    "FORCE_RECONNECT",
    "INAPPROPRIATE_PROTOCOL",
    "INSUFFICIENT_STATE",
    "INTERNAL",
    "INVALID_TOKEN",
    "LIMIT_EXCEEDED",
    "METHOD_NOT_FOUND",
    "NOT_AVAILABLE",
    "NO_PONG",
    "PERMISSION_DENIED",
    "POSITION_LOST",
    "SERVER_ERROR",
    "SHUTDOWN",
    "SLOW",
    "STALE",
    "STATE_INVALIDATED",
    "SUBSCRIPTION_EXPIRED",
    "TOKEN_EXPIRED",
    "TOO_MANY_REQUESTS",
    "UNAUTHORIZED",
    "UNKNOWN_CHANNEL",
    "UNRECOVERABLE_POSITION",
    "UNSUBSCRIBED",
    "WRITE_ERROR",
    "CentrifugeError",
    "Disconnect",
    "SubscriptionEnd",
]
