"""A PostgreSQL database: connections that reconnect by themselves, and its tables.

Only this package imports txpostgres and psycopg2, and only when a database is opened.
"""

from kupool.storage.postgres.database import (
    DatabaseUnavailable,
    PostgresDatabase,
    PostgresSettings,
)

__all__ = ["DatabaseUnavailable", "PostgresDatabase", "PostgresSettings"]
