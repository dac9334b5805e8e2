"""What clients of the Centrifuge protocol are told when something fails. Pure."""

from __future__ import annotations

from kupool.live.centrifuge.codes import (
    ALREADY_SUBSCRIBED,
    BAD_REQUEST,
    CLOSE_BAD_REQUEST,
    INTERNAL,
    INVALID_TOKEN,
    LIMIT_EXCEEDED,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    UNKNOWN_CHANNEL,
    UNRECOVERABLE_POSITION,
    CentrifugeError,
    Disconnect,
)
from kupool.live.centrifuge.tokens import ExpiredTokenError, ForeignTokenError, InvalidTokenError
from kupool.live.failures import LiveError

#: The errors by the names of those of live channels.
_ERRORS = {
    "invalid_channel": BAD_REQUEST,
    "invalid_publication": BAD_REQUEST,
    "invalid_request": BAD_REQUEST,
    "unknown_channel": UNKNOWN_CHANNEL,
    "permission_denied": PERMISSION_DENIED,
    "already_subscribed": ALREADY_SUBSCRIBED,
    "limit_exceeded": LIMIT_EXCEEDED,
    "not_available": NOT_AVAILABLE,
    "unrecoverable_position": UNRECOVERABLE_POSITION,
    "history_unavailable": INTERNAL,
    "sink_unavailable": INTERNAL._replace(message="temporarily unavailable"),
}


class CommandRefused(Exception):
    """A command has an error as its reply."""

    def __init__(self, error: CentrifugeError) -> None:
        super().__init__(error.message)
        self.error = error


class ClientDisconnected(Exception):
    """A command ends the connection."""

    def __init__(self, disconnect: Disconnect) -> None:
        super().__init__(disconnect.reason)
        self.disconnect = disconnect


def no_channel() -> ClientDisconnected:
    """Return the refusal of a command that names no channel."""
    return ClientDisconnected(CLOSE_BAD_REQUEST)


def error_of(error: LiveError) -> CentrifugeError:
    """Return the error of the protocol for one of live channels; the text says more."""
    row = _ERRORS.get(error.name, INTERNAL)
    return row if row is INTERNAL else row._replace(message=f"{row.message}: {error}")


def refused_connection(error: Exception) -> Exception:
    """Return what becomes of a connection whose token was refused."""
    if isinstance(error, ExpiredTokenError):
        return CommandRefused(TOKEN_EXPIRED)
    return ClientDisconnected(INVALID_TOKEN)


def refused_subscription(error: InvalidTokenError | ExpiredTokenError) -> Exception:
    """Return what becomes of a subscription whose token was refused."""
    if isinstance(error, ForeignTokenError):
        return ClientDisconnected(INVALID_TOKEN)
    if isinstance(error, ExpiredTokenError):
        return CommandRefused(TOKEN_EXPIRED)
    return CommandRefused(PERMISSION_DENIED)


__all__ = [
    "ClientDisconnected",
    "CommandRefused",
    "error_of",
    "no_channel",
    "refused_connection",
    "refused_subscription",
]
