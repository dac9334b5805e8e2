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
from typing import Protocol, TypeVar
from unittest import SkipTest

from .own_process import ServerFailed
from .postgres_server import GivenPostgres, PostgresServer
from .rabbit_cluster import RabbitCluster
from .rabbit_server import GivenRabbit, RabbitServer

__all__ = [
    "GivenPostgres",
    "GivenRabbit",
    "PostgresServer",
    "RabbitCluster",
    "RabbitServer",
    "ServerFailed",
    "postgres",
    "rabbit",
    "rabbit_cluster",
    "required",
]


class _Closes(Protocol):
    def close(self) -> None: ...


_Server = TypeVar("_Server", bound=_Closes)


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
    with required():
        outcome = _shared_postgres()
        if isinstance(outcome, Exception):
            raise outcome
        outcome.ensure_running()
        return outcome


def rabbit() -> RabbitServer | GivenRabbit:
    """Return the RabbitMQ of this run, running; raises SkipTest or :class:`ServerFailed`."""
    with required():
        outcome = _shared_rabbit()
        if isinstance(outcome, Exception):
            raise outcome
        outcome.ensure_running()
        return outcome


def rabbit_cluster() -> RabbitCluster:
    """Return three RabbitMQ nodes of this run for tests that stop none of them, running.

    Raises SkipTest or :class:`ServerFailed`.
    """
    with required():
        outcome = _shared_cluster()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@functools.cache
def _shared_cluster() -> RabbitCluster | Exception:
    return _outcome(lambda: RabbitCluster(3).__enter__())


@functools.cache
def _shared_postgres() -> PostgresServer | GivenPostgres | Exception:
    def make() -> PostgresServer | GivenPostgres:
        dsn = os.environ.get("KUPOOL_TEST_PG_DSN")
        return GivenPostgres(dsn) if dsn else PostgresServer().__enter__()

    return _outcome(make)


@functools.cache
def _shared_rabbit() -> RabbitServer | GivenRabbit | Exception:
    def make() -> RabbitServer | GivenRabbit:
        url = os.environ.get("KUPOOL_TEST_AMQP_URL")
        api = os.environ.get("KUPOOL_TEST_AMQP_API", "")
        return GivenRabbit(url, api) if url else RabbitServer().__enter__()

    return _outcome(make)


def _outcome(make: Callable[[], _Server]) -> _Server | Exception:
    """Make a server; a failure is kept as well, so that not every test waits for it again."""
    try:
        server = make()
    except (SkipTest, ServerFailed, OSError) as error:
        return error
    atexit.register(server.close)
    return server
