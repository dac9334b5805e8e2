"""The client: one session on a pool that outlives its connections, and what works on it.

:class:`~kupool.client.pool.PoolClient` connects, authorizes, comes back when the
connection is lost and submits again what was not answered.
:class:`~kupool.client.worker.Worker` submits for every job at the permitted pace.
Nothing here imports the reactor: it is passed in.
"""

from __future__ import annotations

from kupool.client.answers import Answer, Outcome
from kupool.client.failures import (
    AlreadyConnected,
    ClientClosed,
    ClientError,
    NotAuthorized,
    NotConnected,
    SessionRefused,
    TooManyUnanswered,
    Unreachable,
)
from kupool.client.pool import PoolClient
from kupool.client.servers import Server, parse_server
from kupool.client.settings import ClientSettings
from kupool.client.worker import Worker

__all__ = [
    "AlreadyConnected",
    "Answer",
    "ClientClosed",
    "ClientError",
    "ClientSettings",
    "NotAuthorized",
    "NotConnected",
    "Outcome",
    "PoolClient",
    "Server",
    "SessionRefused",
    "TooManyUnanswered",
    "Unreachable",
    "Worker",
    "parse_server",
]
