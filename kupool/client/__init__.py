"""The pool client: a session on a pool that survives the loss of connections, and a worker.

:class:`~kupool.client.pool.PoolClient` connects, authorizes, reconnects when the connection
is lost, and sends unanswered submissions again. :class:`~kupool.client.worker.Worker`
submits for every job at the permitted pace. Nothing in this package imports the reactor:
pass it in.
"""

from __future__ import annotations

from kupool.client.answers import SubmissionAnswer, SubmissionOutcome
from kupool.client.failures import (
    AlreadyConnected,
    ClientError,
    NotAuthorized,
    PoolClientClosed,
    PoolNotConnected,
    PoolUnreachable,
    SessionRefused,
    TooManyUnanswered,
)
from kupool.client.pool import PoolClient
from kupool.client.servers import parse_server
from kupool.client.settings import PoolClientSettings
from kupool.client.worker import Worker
from kupool.moved import moved_names

#: Old names of this module, and where they are now.
MOVED = {
    "Answer": "kupool.client.answers.SubmissionAnswer",
    "ClientClosed": "kupool.client.failures.PoolClientClosed",
    "ClientSettings": "kupool.client.settings.PoolClientSettings",
    "NotConnected": "kupool.client.failures.PoolNotConnected",
    "Outcome": "kupool.client.answers.SubmissionOutcome",
    "Server": "kupool.net.dialling.dialler.Place",
    "Unreachable": "kupool.client.failures.PoolUnreachable",
}

__getattr__ = moved_names(__name__, MOVED)

__all__ = [
    "AlreadyConnected",
    "ClientError",
    "NotAuthorized",
    "PoolClient",
    "PoolClientClosed",
    "PoolClientSettings",
    "PoolNotConnected",
    "PoolUnreachable",
    "SessionRefused",
    "SubmissionAnswer",
    "SubmissionOutcome",
    "TooManyUnanswered",
    "Worker",
    "parse_server",
]
