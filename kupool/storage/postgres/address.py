"""Connection strings: the servers and the options for them. Secrets are never shown."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from kupool.storage.database import DatabaseUnusable

#: Seconds to make a connection, if the string does not say.
CONNECT_TIMEOUT = 10.0

#: libpq quotes parts of a bad string in its error, so we say this instead.
_EXPECTED = (
    "expected a URL such as postgresql://user:password@host:5432/database (special characters "
    "of the password written as %40 and the like) or key=value pairs such as "
    "host=127.0.0.1 user=kupool dbname=kupool"
)

_HOST = re.compile(r"[\w.:%/\\ +-]*|@.*")
_NUMBERED = re.compile(r"[\d.]+|[\da-fA-F:]*:[\da-fA-F:.]*(%\w+)?")


class DatabaseServer(NamedTuple):
    """One server of a connection string; ``address`` is empty if it has to be looked up."""

    host: str
    address: str
    port: str

    @property
    def has_name(self) -> bool:
        """Whether its host is a name that has to be looked up."""
        return not (
            self.address or self.host[:1] in ("", "/", "@") or _NUMBERED.fullmatch(self.host)
        )

    @property
    def shown(self) -> str:
        """The server in messages."""
        host = self.host or self.address or "local socket"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True)
class PostgresAddress:
    """A parsed connection string: its servers in order, its other options, and the seconds to make
    a connection.
    """

    dsn: str
    servers: Sequence[DatabaseServer]
    options: dict[str, str]
    timeout: float

    @property
    def shown(self) -> str:
        """The database in messages."""
        servers = ", ".join(dict.fromkeys(server.shown for server in self.servers))
        name = self.options.get("dbname")
        return f"PostgreSQL at {servers}" + (f", database {name}" if name else "")

    def arguments(self, server: DatabaseServer, address: str = "") -> dict[str, str]:
        """Return the arguments for a connection to one of the servers."""
        where = {"host": server.host, "hostaddr": server.address or address, "port": server.port}
        return {
            "client_encoding": "UTF8",
            "fallback_application_name": "kupool",
            **self.options,
            **{key: value for key, value in where.items() if value},
        }


def parse_address(dsn: str) -> PostgresAddress:
    """Parse a connection string; raises :class:`DatabaseUnusable`, without quoting it.

    As with libpq, missing values come from the ``PG*`` environment variables.
    """
    import psycopg2
    from psycopg2.extensions import parse_dsn

    try:
        options: dict[str, str] = parse_dsn(dsn)
    except psycopg2.Error:
        raise DatabaseUnusable(f"not a PostgreSQL connection string: {_EXPECTED}") from None
    hosts = (options.pop("host", None) or os.environ.get("PGHOST", "")).split(",")
    addresses = (options.pop("hostaddr", None) or os.environ.get("PGHOSTADDR", "")).split(",")
    ports = (options.pop("port", None) or os.environ.get("PGPORT", "5432")).split(",")
    number = max(len(hosts), len(addresses))
    given = [_each(values, number) for values in (hosts, addresses, ports)]
    timeout = options.pop("connect_timeout", "0")
    bad_host = not all(_HOST.fullmatch(host) for host in hosts)
    bad_port = not all(port.isascii() and port.isdigit() for port in ports)
    if bad_host or bad_port or not all(given) or not timeout.isdigit():
        raise DatabaseUnusable(f"not a PostgreSQL connection string: {_EXPECTED}")
    servers = [DatabaseServer(*values) for values in zip(*given, strict=True)]
    return PostgresAddress(dsn, servers, options, float(timeout) or CONNECT_TIMEOUT)


def _each(values: list[str], number: int) -> list[str]:
    """Return a value for each server: one for all, or one for each."""
    if len(values) == 1:
        return list(repeat(values[0], number))
    return values if len(values) == number else []


def look_up(reactor: Any, host: str, timeout: float) -> Deferred[list[str]]:
    """Return the numeric addresses of a host; libpq would block the reactor for that.

    Fails with :class:`OSError`, or after ``timeout`` seconds with
    :class:`twisted.internet.defer.TimeoutError`.
    """
    found: Deferred[Any] = deferToThreadPool(
        reactor, reactor.getThreadPool(), socket.getaddrinfo, host, None, type=socket.SOCK_STREAM
    )
    found.addTimeout(timeout, reactor)
    return found.addCallback(lambda entries: list(dict.fromkeys(entry[4][0] for entry in entries)))
