"""A disk that is full when it should be."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
from pathlib import Path


class Disk:
    """The disk of the daemon: a small file system of its own where that may be mounted.

    Otherwise its files may not grow, which is an error of writing all the same.
    """

    def __init__(self, size: str = "24m") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kupool-torture-")
        self.path = Path(self._folder.name)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.path)]
        self.own = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
        self._ballast = self.path / "ballast"

    def fill(self, pid: int) -> None:
        """Leave no room; ``pid`` is the daemon's."""
        if not self.own:
            self._limit(pid, 0)
            return
        with open(self._ballast, "ab", buffering=0) as file:
            for size in (65536, 512):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)

    def clear(self, pid: int) -> None:
        """There is room again."""
        if not self.own:
            self._limit(pid, None)
        self._ballast.unlink(missing_ok=True)

    def _limit(self, pid: int, size: int | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            soft = hard if size is None else size
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    def close(self) -> None:
        if self.own:
            subprocess.run(["umount", "--lazy", str(self.path)], check=False)
        self._folder.cleanup()


__all__ = ["Disk"]
