"""A private PgBouncer for tests: what pools connections to a PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from unittest import SkipTest

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from .own_process import OwnProcess, free_port


class PgBouncer:
    """Pools connections to the server of a DSN, on a port of its own; ``mode`` says how."""

    def __init__(self, dsn: str, mode: str) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise SkipTest("PgBouncer is not installed (apt-get install pgbouncer)")
        given = parse_dsn(dsn)
        self.folder = Path(tempfile.mkdtemp(prefix="kupool-bouncer-"))
        port = free_port()
        users = self.folder / "users"
        users.write_text(f'"{given["user"]}" ""\n')
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={given['host']} port={given['port']}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n"
        )
        user = None
        if os.getuid() == 0:  # it refuses to run as root
            entry = pwd.getpwnam("postgres")
            user = entry.pw_uid, entry.pw_gid
            for path in (self.folder, users, settings):
                os.chown(path, *user)
        #: The database of the given DSN, through the pooler.
        self.dsn = make_dsn(dsn, host="127.0.0.1", port=port)
        self._process = OwnProcess([program, str(settings)], self.folder, user=user)
        self._process.wait_ready(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(self.dsn, connect_timeout=5).close()
            return True
        return False

    def close(self) -> None:
        """End it and remove its folder."""
        self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
