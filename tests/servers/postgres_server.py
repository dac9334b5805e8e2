"""A private PostgreSQL for tests, or the one that the environment names."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from unittest import SkipTest

import psycopg2
from psycopg2.extensions import make_dsn

from .own_process import OwnProcess, OwnServer, ServerFailed, free_port

_CLUSTER = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")


_DEBIAN = Path("/usr/lib/postgresql")


def _folders(debian: Path = _DEBIAN) -> list[str]:
    """Return where Debian has PostgreSQL's programs, the newest version first."""
    folders = sorted(debian.glob("[0-9]*/bin"), key=lambda path: float(path.parent.name))
    return [str(folder) for folder in reversed(folders)]


def find_programs(debian: Path = _DEBIAN) -> Path:
    """Return the folder of PostgreSQL's programs; raises SkipTest where there is none."""
    on_path = shutil.which("postgres")
    candidates = [Path(folder) for folder in _folders(debian)]
    candidates += [Path(on_path).resolve().parent] if on_path else []
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise SkipTest("PostgreSQL is not installed (apt-get install postgresql)")


class Databases:
    """A PostgreSQL server that one may connect to."""

    def __init__(self, dsn: str) -> None:
        #: Where an account that may create databases connects.
        self.dsn = dsn
        self._made: list[str] = []

    def new_database(self) -> str:
        """Return the DSN of a fresh, empty database."""
        name = f"kupool_test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        self._made.append(name)
        return str(make_dsn(self.dsn, dbname=name))

    def execute(self, sql: str, parameters: tuple[Any, ...] = (), dsn: str = "") -> list[Any]:
        """Run one statement in a transaction of its own; returns the rows. Blocking."""
        connection = psycopg2.connect(dsn or self.dsn, connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def psql(self, dsn: str, *arguments: str) -> str:
        """Run the real ``psql`` on a database; returns what it printed. Blocking."""
        program = shutil.which("psql", path=os.pathsep.join([*_folders(), os.environ["PATH"]]))
        if program is None:
            raise SkipTest("psql is not installed (apt-get install postgresql-client)")
        command = [program, "--no-psqlrc", "-v", "ON_ERROR_STOP=1", dsn, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ServerFailed(f"psql: {done.stdout}{done.stderr}")
        return done.stdout


class GivenPostgres(Databases):
    """The server of ``KUPOOL_TEST_PG_DSN``: not ours to start and end."""

    def close(self) -> None:
        """Drop the databases that were made here."""
        for name in self._made:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._made.clear()

    def ensure_running(self) -> None:
        """Nothing to do: whoever gave it runs it."""

    def _not_ours(self) -> None:
        raise SkipTest("the PostgreSQL of KUPOOL_TEST_PG_DSN is not ours to stop")

    start = stop = kill = pause = resume = _not_ours


class PostgresServer(OwnServer, Databases):
    """A PostgreSQL of a test's own, on a port and in a folder of its own.

    Not started when made. Raises SkipTest where PostgreSQL is not installed. Its settings for
    durability are the defaults, which the daemon asks for. ``settings`` are further options of the
    server, as ``name=value``. Every method blocks until the thing is done.
    """

    def __init__(self, *settings: str) -> None:
        self._programs = find_programs()
        self._user = _account()
        self.folder = Path(tempfile.mkdtemp(prefix="kupool-pg-"))
        if self._user is not None:
            os.chown(self.folder, *self._user)
        self.port = free_port()
        # A connection that stays silent would hold up the end of the server.
        self._settings = ("authentication_timeout=2", *settings)
        super().__init__(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres")

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it, for the first time or again on the same port and data."""
        assert self._process is None or not self._process.alive, "it runs already"
        data = self.folder / "data"
        if not data.exists():
            self._run("initdb", "--no-sync", "--no-instructions", "-D", str(data), *_CLUSTER)
        # No Unix socket: its path must be short, and the folder for temporary files may not be.
        command = [str(self._programs / "postgres"), "-D", str(data), "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-k", ""]
        command += [part for setting in self._settings for part in ("-c", setting)]
        self._process = OwnProcess(command, self.folder, user=self._user)
        self._process.wait_ready(self._answers)

    def stop(self) -> None:
        """End it in order (its "fast" way: clients are disconnected), keeping the data."""
        self.process.end(signal.SIGINT)

    def kill(self) -> None:
        """End it with SIGKILL, backends and all, keeping the data."""
        self.process.kill()

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg2.OperationalError):
            return self.execute("SELECT 1") == [(1,)]
        return False

    def _run(self, program: str, *arguments: str) -> None:
        account: dict[str, Any] = {}
        if self._user is not None:
            account = {"user": self._user[0], "group": self._user[1], "extra_groups": []}
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            **account,
        )
        if done.returncode:
            raise ServerFailed(f"{program}: {done.stdout}{done.stderr}")


def _account() -> tuple[int, int] | None:
    """Return the uid and the gid to run with: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        raise SkipTest("PostgreSQL does not run as root, and no user postgres exists") from None
    return entry.pw_uid, entry.pw_gid
