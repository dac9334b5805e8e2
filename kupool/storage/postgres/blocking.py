"""A PostgreSQL database for commands, with plain, blocking psycopg2."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kupool.storage.database import DatabaseUnusable
from kupool.storage.postgres.address import parse_address
from kupool.storage.postgres.owner import NotOwner, Ownership, switches_sessions
from kupool.storage.postgres.schema import BlockingCursor


def connect(dsn: str) -> Any:
    """Return an open connection of psycopg2, with ISO times and in UTC.

    Raises :class:`kupool.storage.database.DatabaseUnusable`, without a password.
    """
    import psycopg2

    from kupool.storage.postgres.trouble import explain

    address = parse_address(dsn)
    try:
        connection = psycopg2.connect(
            dsn,
            connect_timeout=max(2, round(address.timeout)),
            client_encoding="UTF8",
            fallback_application_name="kupool",
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'")
        return connection
    except psycopg2.Error as error:
        raise DatabaseUnusable(f"{address.shown}: {explain(error)}") from None


def keep_daemons_off(connection: Any, again: Callable[[], Any]) -> None:
    """Lock the database for this connection, as a daemon does, until it is closed.

    ``again`` makes another connection to it. Raises
    :class:`kupool.storage.database.DatabaseUnusable`, which names the daemon that has the lock.
    """

    async def switches() -> bool:
        return switches_sessions(again)

    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            begun = Ownership().begin(
                BlockingCursor(cursor), connection.get_backend_pid(), switches
            )
            _done(begun)
    except NotOwner as error:
        raise DatabaseUnusable(str(error)) from None
    finally:
        connection.autocommit = False


def _done(work: Coroutine[Any, Any, None]) -> None:
    """Raise what a coroutine raises that never waits."""
    failures: list[Failure] = []
    Deferred.fromCoroutine(work).addErrback(failures.append)
    for failure in failures:
        failure.raiseException()


def trouble() -> type[Exception]:
    """Return the exceptions that the methods of such a connection raise."""
    import psycopg2

    error: type[Exception] = psycopg2.Error
    return error


__all__ = ["connect", "keep_daemons_off", "trouble"]
