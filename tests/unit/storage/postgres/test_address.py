"""Connection strings of PostgreSQL."""

from __future__ import annotations

import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.database import DatabaseUnusable
from kupool.storage.postgres.address import CONNECT_TIMEOUT, DatabaseServer, parse_address


class ParseTests(SynchronousTestCase):
    """K-88, K-89: strings as libpq takes them."""

    def setUp(self) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        patcher = mock.patch.dict(os.environ, clean, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_forms(self) -> None:
        """K-89: pairs and URLs say the same."""
        pairs = parse_address("host=db.example port=6543 user=kupool dbname=pool password=x")
        for url in (
            "postgresql://kupool:x@db.example:6543/pool",
            "postgres://kupool:x@db.example:6543/pool",
        ):
            parsed = parse_address(url)
            self.assertEqual((parsed.servers, parsed.options), (pairs.servers, pairs.options))
        self.assertEqual(pairs.shown, "PostgreSQL at db.example:6543, database pool")
        self.assertEqual(pairs.timeout, CONNECT_TIMEOUT)

    def test_arguments(self) -> None:
        """What is not said of a server is not said to libpq, and what is said stays."""
        parsed = parse_address("host=db sslmode=require application_name=mine password=x")
        self.assertEqual(
            parsed.arguments(parsed.servers[0], "10.0.0.7"),
            {
                "host": "db",
                "hostaddr": "10.0.0.7",
                "port": "5432",
                "sslmode": "require",
                "application_name": "mine",
                "fallback_application_name": "kupool",
                "client_encoding": "UTF8",
                "password": "x",
            },
        )

    def test_several_servers(self) -> None:
        """K-88: with a port for each, or one for all."""
        for ports, expected in (("1,2", ["1", "2"]), ("7", ["7", "7"])):
            parsed = parse_address(f"host=a,b port={ports}")
            self.assertEqual([server.port for server in parsed.servers], expected)
        self.assertEqual(parsed.shown, "PostgreSQL at a:7, b:7")
        parsed = parse_address("hostaddr=10.0.0.1,::1")
        self.assertEqual([server.address for server in parsed.servers], ["10.0.0.1", "::1"])
        self.assertEqual(parsed.shown, "PostgreSQL at 10.0.0.1:5432, [::1]:5432")

    def test_environment(self) -> None:
        """K-89: what is not said comes from libpq's own variables."""
        os.environ.update(PGHOST="db", PGPORT="99")
        self.assertEqual(list(parse_address("").servers), [DatabaseServer("db", "", "99")])
        self.assertEqual(list(parse_address("host=x").servers), [DatabaseServer("x", "", "99")])

    def test_names(self) -> None:
        """Only names are looked up."""
        for host in ("", "/run/postgresql", "@abstract", "127.0.0.1", "::1", "fe80::1%eth0"):
            self.assertFalse(DatabaseServer(host, "", "1").has_name, host)
        for host in ("localhost", "db.example", "10.example", "abc"):
            self.assertTrue(DatabaseServer(host, "", "1").has_name, host)
        self.assertFalse(DatabaseServer("localhost", "127.0.0.1", "1").has_name)

    def test_timeout(self) -> None:
        """libpq leaves its own setting to us where it does not wait itself."""
        self.assertEqual(parse_address("connect_timeout=3").timeout, 3.0)
        self.assertEqual(parse_address("connect_timeout=0").timeout, CONNECT_TIMEOUT)

    def test_refused(self) -> None:
        """K-92: no part of what cannot be read is repeated."""
        for dsn in (
            "hunter2",
            "port=hunter2",
            "host=a,b port=1,2,3",
            "host=hunter2@x",
            "x=hunter2",
        ):
            with self.assertRaises(DatabaseUnusable) as refused:
                parse_address(dsn)
            self.assertNotIn("hunter2", str(refused.exception), dsn)
