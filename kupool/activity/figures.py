"""The figures of sessions and users, as they are shown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class SessionFigures(NamedTuple):
    """A session: who it is, and what it did. Times are in seconds since the epoch, None if there
    is none; ``user`` and ``worker`` are the parts of ``username``.
    """

    session: str
    username: str
    user: str
    worker: str
    peer: str
    framing: str
    since: float | None
    last_submission: float | None
    accepted: int
    rejected: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int


class UserTotals:
    """What all sessions of a user did; ``last_seen`` is in seconds since the epoch.

    ``names`` are the usernames of those sessions that are connected.
    """

    __slots__ = (
        "accepted",
        "bytes_in",
        "bytes_out",
        "last_seen",
        "messages_in",
        "messages_out",
        "names",
        "rejected",
        "sessions",
    )

    def __init__(self) -> None:
        self.sessions = self.accepted = self.rejected = 0
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self.last_seen = 0.0
        self.names: set[str] | None = None

    def add(self, other: UserTotals) -> None:
        """Add what other sessions of the user did."""
        self.accepted += other.accepted
        self.rejected += other.rejected
        self.messages_in += other.messages_in
        self.messages_out += other.messages_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.last_seen = max(self.last_seen, other.last_seen)


#: What sessions can be sorted by; the function gets a connection of a session.
SESSION_ORDERS: Mapping[str, Callable[[Any], Any]] = {
    "since": lambda connection: connection.context.since,
    "accepted": lambda connection: connection.context.accepted,
    "rejected": lambda connection: connection.context.rejected,
    "bytes": lambda connection: connection.bytes_in + connection.bytes_out,
    "username": lambda connection: connection.context.username,
}

#: What users can be sorted by; the function gets the name and the totals.
USER_ORDERS: Mapping[str, Callable[[str, UserTotals], Any]] = {
    "sessions": lambda user, totals: totals.sessions,
    "accepted": lambda user, totals: totals.accepted,
    "rejected": lambda user, totals: totals.rejected,
    "bytes": lambda user, totals: totals.bytes_in + totals.bytes_out,
    "user": lambda user, totals: user,
}

__all__ = ["SESSION_ORDERS", "USER_ORDERS", "SessionFigures", "UserTotals"]
