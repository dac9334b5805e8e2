"""A pool with accounts, and a daemon for it that the dashboard can be tried with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kupool.accounts.hashing import hash_password
from tests.servers.own_process import free_port
from tests.servers.running_daemon import UNLIMITED, RunningDaemon

#: The password of every account.
PASSWORD = "correct horse"

#: The accounts, and their roles.
ROLES = {
    "alice": "worker",
    "bob": "worker",
    "carol": "worker",
    "olga": "operator",
    "root": "admin",
}

#: For every daemon of the dashboard: what it has been asked is counted soon, and nothing that a
#: test does comes too often.
FLAGS = (
    "--interval=1h",
    "--flush-interval=100ms",
    "--topics=sqlite",
    "--login-delay=0",
    "--login-address-failures=0",
    *UNLIMITED,
)


@contextmanager
def open_pool(
    *flags: str, data: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[RunningDaemon]:
    """Run a daemon without accounts: any name may submit, and this machine reads everything.

    It has the same HTTP port after each start.
    """
    daemon = RunningDaemon(
        *FLAGS,
        *flags,
        data=data,
        env=env,
        http_address=f"tcp:{free_port()}:interface=127.0.0.1",
    )
    with daemon:
        yield daemon


@contextmanager
def pool_with_accounts(
    *flags: str, data: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[RunningDaemon]:
    """Run a daemon with the accounts of :data:`ROLES`."""
    with tempfile.TemporaryDirectory(prefix="kupool-test-") as folder:
        accounts = Path(folder) / "accounts"
        stored = hash_password(PASSWORD)
        accounts.write_text(
            "".join(f"{name}:{stored}:role={role}\n" for name, role in ROLES.items())
        )
        accounts.chmod(0o600)
        daemon = RunningDaemon(
            *FLAGS,
            f"--auth=file:{accounts}",
            *flags,
            data=data,
            env=env,
            http_address=f"tcp:{free_port()}:interface=127.0.0.1",
        )
        with daemon:
            yield daemon
