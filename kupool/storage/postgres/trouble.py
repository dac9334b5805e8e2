"""What can go wrong with a connection, and how we report it."""

from __future__ import annotations

import psycopg2
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed
from txpostgres.reconnection import ConnectionDead
from txpostgres.txpostgres import UnexpectedPollResult

from kupool.storage.postgres.owner import NotOwner


class NoAnswer(Exception):
    """The server has not answered in time."""


class ConnectFailed(Exception):
    """No connection could be made; says why, and whether a server refused us."""

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


#: Faults of a connection, and not of the work that is done on it.
TROUBLE = (
    psycopg2.Error,
    ConnectionClosed,
    ConnectionDead,
    ConnectFailed,
    NoAnswer,
    UnexpectedPollResult,
    CancelledError,
    NotOwner,
)


def explain(error: BaseException) -> str:
    """Return the fault in one line, in the server's words if it said something."""
    diagnosis = getattr(error, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or str(error)
    if isinstance(error, CancelledError):
        text = "the server cancelled the query"
    elif isinstance(error, ConnectionClosed):
        text = "the connection was closed"
    # connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  no such database
    before, failed, after = text.strip().partition("\n")[0].partition(" failed: ")
    text = (
        after if failed and before.startswith("connection to server") else before + failed + after
    )
    return text.removeprefix("FATAL:").removeprefix("ERROR:").strip() or type(error).__name__


#: Answers of a server that accepts us soon: it starts, stops, or recovers.
_PASSING = ("starting up", "shutting down", "recovery mode", "administrator command")


def is_refusal(error: BaseException) -> bool:
    """Whether a server answered that it refuses us, so that somebody has to fix the cause."""
    if isinstance(error, NotOwner):
        return True
    text = str(error)
    return "FATAL:" in text and not any(words in text for words in _PASSING)


__all__ = ["TROUBLE", "ConnectFailed", "ConnectionDead", "NoAnswer", "explain", "is_refusal"]
