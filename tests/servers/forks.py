"""Daemons and commands without the second that their imports take.

A process imports once what all of them import, and forks into each that a test starts. A fork has
the arguments, the environment, the working folder and the output that a new interpreter would
have. It runs the same program to its end, and the same signals end it.

Run as a script it is that process: it needs nothing else of the tests.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: What a daemon imports, and what the commands do. To import it has no effect, and installs no
#: reactor.
DAEMON = (
    "twisted.scripts.twistd",
    "twisted.scripts._twistd_unix",
    "twisted.internet.default",
    "kupool.tap",
)
COMMANDS = (
    "twisted.internet.default",
    "kupool.cli",
    *sorted(f"kupool.commands.{path.stem}" for path in (ROOT / "kupool/commands").glob("*.py")),
)

#: Variables that an interpreter or a library reads when it starts, and not later.
_READ_AT_THE_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC", "OPENSSL", "SSL", "TWISTED")


class Fork:
    """A process that was forked, with what tests use of ``subprocess.Popen``."""

    def __init__(self, pid: int, status: int) -> None:
        """``status`` is a descriptor from which the status comes when the process has ended."""
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit status, minus the number of the signal that ended it; None before."""
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                text = os.read(self._status, 16)
                os.close(self._status)
                self.returncode = int(text) if text else -signal.SIGKILL
            return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end; raises :class:`subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it has not ended."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, seen from a test."""

    def __init__(self, modules: Sequence[str]) -> None:
        """``modules`` are those that each fork has imported."""
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env=_own_environment(),
                cwd=ROOT,
            )
        self._lock = threading.Lock()  # tests start daemons in threads

    def start(
        self,
        *command: str,
        env: Mapping[str, str],
        stdout: int,
        stderr: int,
        cwd: Path | None = None,
    ) -> Fork:
        """Fork, and run ``python -c`` with a command: a program and its arguments. Blocking."""
        order = {"command": command, "env": dict(env), "cwd": str(cwd or Path.cwd())}
        status, its_status = os.pipe()
        given = [stdout, stderr, its_status]
        with self._lock:
            socket.send_fds(self._orders, [json.dumps(order).encode()], given)
            pid = int(self._orders.recv(16))
        os.close(its_status)
        return Fork(pid, status)

    def close(self) -> None:
        """End it. Its forks go on."""
        self._orders.close()
        self._process.wait()


@functools.cache
def forks(*modules: str) -> Forks:
    """Return the process that forks with these modules, started when a test first asks for it."""
    made = Forks(modules)
    atexit.register(made.close)
    return made


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a fork would be what a new interpreter is with this environment."""
    own = _own_environment()
    return sys.platform == "linux" and not any(
        name.startswith(_READ_AT_THE_START) and own.get(name) != env.get(name)
        for name in own.keys() | env.keys()
    )


def _own_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class _Forking:
    """The process that forks, seen from itself."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        #: Where the status of each fork is to go, by its process id.
        self._statuses: dict[int, int] = {}
        self._woken, self._wake = os.pipe()
        for descriptor in (self._woken, self._wake):
            os.set_blocking(descriptor, False)

    def serve(self) -> str:
        """Fork for each order; returns in a fork alone, the program that it is to run."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the tests and for the forks
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake)
        while True:
            orders = self._orders.fileno()
            ready, _, _ = select.select([orders, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._tell()
            if orders in ready:
                data, given, _, _ = socket.recv_fds(self._orders, 1 << 20, 3)
                if not data:
                    os._exit(0)
                pid = os.fork()
                if pid == 0:
                    return self._become(json.loads(data), *given)
                self._orders.send(str(pid).encode())
                *outputs, self._statuses[pid] = given
                for descriptor in outputs:
                    os.close(descriptor)

    def _tell(self) -> None:
        """Send the status of each fork that has ended."""
        for pid in list(self._statuses):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                descriptor = self._statuses.pop(pid)
                with suppress(BrokenPipeError):  # nobody asks any more
                    os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
                os.close(descriptor)

    def _become(self, order: dict[str, Any], stdout: int, stderr: int, status: int) -> str:
        """Be what a new interpreter would be; returns its program."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._orders.close()
        for descriptor in (self._woken, self._wake, status, *self._statuses.values()):
            os.close(descriptor)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)
        os.environ.clear()
        os.environ.update(order["env"])
        time.tzset()
        os.chdir(order["cwd"])
        program: str
        program, *arguments = order["command"]
        sys.argv = ["-c", *arguments]
        sys.path[0] = ""
        return program


if __name__ == "__main__":
    for _name in sys.argv[2:]:
        importlib.import_module(_name)
    gc.freeze()  # a collection in a fork, such as the one at its end, would copy all of it
    exec(_Forking(socket.socket(fileno=int(sys.argv[1]))).serve(), {"__name__": "__main__"})
