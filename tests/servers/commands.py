"""The kupool command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from tests.servers.forks import COMMANDS, can_fork, forks
from tests.servers.running_daemon import ROOT

_MAIN = "import sys; from kupool.cli import main; sys.exit(main())"

#: The command in a new interpreter.
KUPOOL = (sys.executable, "-c", _MAIN)

#: Seconds within which a command ends.
_TIMEOUT = 60.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **(extra or {})}


def kupool(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a fork where that makes no difference."""
    its = environment(env)
    if not can_fork(its):
        return subprocess.run(
            [*KUPOOL, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, env=its
        )
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        fork = forks(*COMMANDS).start(
            _MAIN, *arguments, env=its, stdout=stdout.fileno(), stderr=stderr.fileno()
        )
        try:
            status = fork.wait(_TIMEOUT)
        finally:
            fork.kill()
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(arguments, status, stdout.read(), stderr.read())
