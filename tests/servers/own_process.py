"""Processes of a test's own: ended with it, however it ends; killed or paused as a whole."""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

#: Seconds after which a server that does not answer fails the test; never a measure of speed.
PATIENCE = 90.0

#: Outlives us by moments: its standard input ends when we do, however we ended.
_WATCH = 'read -r _; kill -9 "$0" 2>/dev/null; sleep 1; rm -rf -- "$1"'

_HALTED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE)


class ServerFailed(Exception):
    """A server ended or did not answer in time; holds the end of what it printed."""


def free_port() -> int:
    """Return a free TCP port of the loopback interface for a server that comes and goes.

    Not one of those that the system hands to outgoing connections: while the server is down,
    a client's connection could take its port, and it could not come back.
    """
    try:
        first = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    except OSError:  # not Linux: there they begin at 49152
        first = "49152"
    for _ in range(100):
        port = random.randrange(10240, max(int(first), 10241))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; raises :class:`ServerFailed` with ``what`` when it stays false."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class _Member:
    """One process of a family; one that is gone takes every signal."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def is_in(self, *states: str) -> bool:
        """Whether it is in one of these states, or gone."""
        try:
            return self._process.status() in states
        except psutil.NoSuchProcess:
            return True


class OwnProcess:
    """One server process with all that it starts, in a folder of its own."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
    ) -> None:
        """``user`` is the uid and the gid that it runs with; None: ours."""
        self._output = folder / "console"
        account = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=None if env is None else dict(env),
                start_new_session=True,
                **account,  # type: ignore[call-overload]
            )
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(self.pid), str(folder)],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        pid: int = self._process.pid
        return pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; one that is paused has not."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """The end of what it printed."""
        return self._output.read_text(errors="replace")[-3000:]

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until it is ready; raises :class:`ServerFailed` when it ends or takes too long."""

        def settled() -> bool:
            if not self.alive:
                raise ServerFailed(f"status {self._process.returncode}: {self.output}")
            return ready()

        try:
            wait_until(settled, "ready")
        except ServerFailed as failed:
            self.kill()
            raise ServerFailed(f"{failed}\n{self.output}") from None

    def pause(self) -> None:
        """Stop all of its processes (SIGSTOP), and return when they have stopped."""
        # The server first: it starts no more of them. A group's signal would miss PostgreSQL's
        # backends and Erlang's helpers, each of which leads a session of its own.
        for process in self._family():
            process.send_signal(signal.SIGSTOP)
            wait_until(functools.partial(process.is_in, *_HALTED), "paused")

    def resume(self) -> None:
        """Let all of its processes go on."""
        for process in self._family():
            process.send_signal(signal.SIGCONT)

    def end(self, number: int, seconds: float = PATIENCE) -> None:
        """Ask it to end with this signal, and wait for it; raises :class:`ServerFailed`."""
        if self.alive:
            self.resume()
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ServerFailed(f"it does not end: {self.output}") from None
        self._forget()

    def kill(self) -> None:
        """End all of its processes at one moment with SIGKILL, and wait until they are gone."""
        if self.alive:
            self.pause()
            family = list(self._family())
            for process in family:
                process.send_signal(signal.SIGKILL)
            self._process.wait()
            for process in family:
                wait_until(functools.partial(process.is_in, psutil.STATUS_ZOMBIE), "gone")
        self._forget()

    def _family(self) -> Iterator[_Member]:
        with contextlib.suppress(psutil.NoSuchProcess):
            head = psutil.Process(self.pid)
            yield _Member(head)
            for child in head.children(recursive=True):
                yield _Member(child)

    def _forget(self) -> None:
        if self._watch.poll() is None:
            self._watch.kill()
            self._watch.wait()
        if self._watch.stdin is not None:
            self._watch.stdin.close()


class OwnServer:
    """What the servers of a test's own have in common: a process that may be let down."""

    _process: OwnProcess | None = None

    @property
    def process(self) -> OwnProcess:
        """The running server."""
        assert self._process is not None, "start it first"
        return self._process

    def start(self) -> None:
        """Start it, for the first time or again on the same ports and data."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop all of its processes: connections stay open and nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self.process.resume()

    def ensure_running(self) -> None:
        """Start or resume it if a test left it down."""
        if not self.process.alive:
            self.start()
        self.process.resume()
