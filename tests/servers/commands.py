"""The kupool command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from tests.servers.running_daemon import ROOT

KUPOOL = (sys.executable, "-c", "import sys; from kupool.cli import main; sys.exit(main())")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **(extra or {})}


def kupool(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*KUPOOL, *arguments], capture_output=True, text=True, timeout=60, env=environment(env)
    )
