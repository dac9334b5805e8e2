"""Secrets that other users of the machine can read are named, with what to do."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.exposed import exposed_secrets
from kupool.daemon.service import Daemon
from kupool.net.testing import MemoryNetwork
from kupool.settings import load

DSN = "postgres://u:s3cret@h/d"


class ExposedTests(SynchronousTestCase):
    """Issue 15, build 7."""

    def file(self, text: str, mode: int) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def lines(self, flags: dict[str, str], environ: dict[str, str] | None = None) -> list[str]:
        lines = list(exposed_secrets(load(flags, environ or {})))
        self.assertNotIn("s3cret", "".join(lines))
        return lines

    def test_a_settings_file_with_a_secret(self) -> None:
        for mode, expected in ((0o644, 1), (0o604, 1), (0o640, 0), (0o600, 0)):
            path = self.file(f"pg_dsn: {DSN}\nbus_token: s3cret\n", mode)
            lines = self.lines({"config": path})
            self.assertEqual(len(lines), expected, oct(mode))
            for line in lines:
                self.assertIn(f"{path} has secrets (pg_dsn, bus_token)", line)
                self.assertTrue(line.endswith(f": chmod o-r {path}"))

    def test_without_a_secret(self) -> None:
        """A connection string without a password, or a file of passwords, is none."""
        path = self.file("pg_dsn: host=h dbname=d\nauth: [file:/etc/passwd]\n", 0o644)
        self.assertEqual(self.lines({"config": path}), [])

    def test_a_value_that_another_place_overrides(self) -> None:
        path = self.file(f"pg_dsn: {DSN}\n", 0o644)
        self.assertEqual(self.lines({"config": path}, {"KUP_PG_DSN": "host=h"}), [])

    def test_a_file_of_one_secret(self) -> None:
        path = self.file(DSN, 0o644)
        (line,) = self.lines({"pg_dsn_file": path})
        self.assertIn(f"{path} has the secret pg_dsn", line)
        self.assertIn(f"chmod o-r {path}", line)
        os.chmod(path, 0o640)
        self.assertEqual(self.lines({"pg_dsn_file": path}), [])

    def test_the_command_line(self) -> None:
        (line,) = self.lines({"pg_dsn": DSN})
        self.assertIn("--pg-dsn is visible to every user of this machine", line)
        self.assertIn("(ps)", line)
        self.assertIn("--pg-dsn-file", line)
        self.assertIn("KUP_PG_DSN", line)
        (line,) = self.lines({"auth": ["memory:alice:s3cret"]})  # type: ignore[dict-item]
        self.assertIn("use KUP_AUTH or the settings file", line)
        self.assertEqual(self.lines({"pg_dsn": "host=h"}, {"KUP_BUS_TOKEN": "s3cret"}), [])

    def test_once_at_the_start(self) -> None:
        network = MemoryNetwork()
        loaded = load(
            {"store": "memory", "mq": "memory", "addr": "127.0.0.1:8000", "bus_token": "s3cret"},
            {"KUP_HTTP": ""},
        )
        with capturedLogs() as events:
            daemon = Daemon(network, loaded, failed=self.fail)
            self.addCleanup(lambda: network.run(daemon.stop(), patience=40))
            daemon.start()
            network.settle()
        lines = [event["line"] for event in events if "line" in event]
        self.assertEqual(lines, list(exposed_secrets(loaded)))
        self.assertEqual(len(lines), 1)
