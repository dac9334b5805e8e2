"""A PostgreSQL database for a command that has nothing else to do: plain, blocking psycopg2."""

from __future__ import annotations

from typing import Any

from kupool.storage.database import DatabaseUnusable
from kupool.storage.postgres.address import parse_address


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


def trouble() -> type[Exception]:
    """Return what the methods of such a connection raise."""
    import psycopg2

    error: type[Exception] = psycopg2.Error
    return error


__all__ = ["connect", "trouble"]
