"""Real PostgreSQL and RabbitMQ for tests: one of each for a whole run, started when first asked.

Where the environment names a server (``KUPOOL_TEST_PG_DSN``, ``KUPOOL_TEST_AMQP_URL``) that one
is used. Where none is installed the test is skipped with the reason; with
``KUPOOL_REQUIRE_SERVICES=1`` it fails. A test that needs a server for itself makes a
:class:`PostgresServer`, a :class:`RabbitServer` or a :class:`RabbitCluster`, under
:func:`required`.
"""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest import SkipTest

from .own_process import ServerFailed
from .postgres_server import GivenPostgres, PostgresServer
from .rabbit_server import GivenRabbit, RabbitCluster, RabbitServer

__all__ = [
    "GivenPostgres",
    "GivenRabbit",
    "PostgresServer",
    "RabbitCluster",
    "RabbitServer",
    "ServerFailed",
    "postgres",
    "rabbit",
    "required",
]

_Server = TypeVar("_Server", PostgresServer | GivenPostgres, RabbitServer | GivenRabbit)


@contextmanager
def required() -> Iterator[None]:
    """Turn a skip for a missing server into a failure where the environment demands it."""
    try:
        yield
    except SkipTest as skip:
        if os.environ.get("KUPOOL_REQUIRE_SERVICES") == "1":
            raise ServerFailed(f"KUPOOL_REQUIRE_SERVICES=1, but {skip}") from None
        raise


def postgres() -> PostgresServer | GivenPostgres:
    """Return the PostgreSQL of this run, running; raises SkipTest or :class:`ServerFailed`."""
    return _running(_shared_postgres())


def rabbit() -> RabbitServer | GivenRabbit:
    """Return the RabbitMQ of this run, running; raises SkipTest or :class:`ServerFailed`."""
    return _running(_shared_rabbit())


def _running(outcome: _Server | Exception) -> _Server:
    with required():
        if isinstance(outcome, Exception):
            raise outcome
        outcome.ensure_running()
        return outcome


@functools.cache
def _shared_postgres() -> PostgresServer | GivenPostgres | Exception:
    dsn = os.environ.get("KUPOOL_TEST_PG_DSN")
    return _outcome((lambda: GivenPostgres(dsn)) if dsn else _own_postgres)


@functools.cache
def _shared_rabbit() -> RabbitServer | GivenRabbit | Exception:
    url = os.environ.get("KUPOOL_TEST_AMQP_URL")
    api = os.environ.get("KUPOOL_TEST_AMQP_API", "")
    return _outcome((lambda: GivenRabbit(url, api)) if url else _own_rabbit)


def _outcome(make: Callable[[], _Server]) -> _Server | Exception:
    """Make a server; a failure is kept as well, so that not every test waits for it again."""
    try:
        server = make()
    except (SkipTest, ServerFailed, OSError) as error:
        return error
    atexit.register(server.close)
    return server


def _own_postgres() -> PostgresServer:
    server = PostgresServer()
    server.start()
    return server


def _own_rabbit() -> RabbitServer:
    server = RabbitServer()
    server.start()
    return server
