"""The daemon as a real process, for tests that need one."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from tests.servers.forks import DAEMON, Fork, can_fork, forks

ROOT = Path(__file__).resolve().parents[2]

_READY = re.compile(r"Ready: pool on (?P<pool>.+), HTTP on (?P<http>\S+)")

#: What the interpreter is given to run: what the command ``twistd`` runs.
TWISTD = "from twisted.scripts.twistd import run; run()"

#: Nothing is refused for coming too often.
UNLIMITED = ("--submit-interval=0", "--attempts-rate=0", "--attempts-burst=0")


#: The bearer token of an admin of a daemon without a data folder.
SECRET = "s" * 40


class StartFailed(Exception):
    """The daemon ended, or was not ready in time; holds what it printed."""


class RunningDaemon:
    """``twistd -n kupool`` on ports that the system chooses.

    Use it as a context manager, or call :meth:`start` and one of the endings. Blocking:
    for tests without a reactor, or in a thread.

    It is a fork of a process that has imported what a daemon imports, see ``forks.py``. With
    ``fresh``, and where a prefix, descriptors or the environment demand it, it is a new
    interpreter.
    """

    def __init__(
        self,
        *flags: str,
        data: str | os.PathLike[str] | None = None,
        port: int = 0,
        http: bool = True,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        addr: str | None = None,
        http_address: str = "tcp:0:interface=127.0.0.1",
        pass_fds: tuple[int, ...] = (),
        program: str = TWISTD,
        fresh: bool = False,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kupool-test-") if not data else None
        self.data = Path(data or f"{self._temporary.name}/data")  # type: ignore[union-attr]
        self.flags = list(flags)
        self.port = port
        self.http_port = 0
        self._http_address = http_address if http else ""
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        if {"--mq=memory", "--store=memory"} <= set(flags):  # which has no data folder
            self._env.setdefault("KUP_HTTP_SECRET", SECRET)
        self._prefix = prefix
        self._addr = addr
        self._pass_fds = pass_fds
        self._program = program
        self._forks = not (fresh or prefix or pass_fds) and can_fork(self._env)
        self.process: subprocess.Popen[bytes] | Fork | None = None
        self.lines: list[str] = []
        #: What it listens on, as it says itself; ``port`` is that of the first.
        self.addresses: list[str] = []
        self._reader: threading.Thread | None = None

    def __enter__(self) -> RunningDaemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        assert self.process is not None
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything that the daemon printed so far, on both streams."""
        return "\n".join(self.lines)

    def command(self) -> list[str]:
        """The command line."""
        return [*self._prefix, sys.executable, "-c", self._program, *self.arguments()]

    def arguments(self) -> list[str]:
        """The arguments of the program."""
        return [
            "--nodaemon",
            "--pidfile=",
            "kupool",
            f"--addr={self._addr or f'127.0.0.1:{self.port}'}",
            f"--http={self._http_address}",
            f"--data={self.data}",
            *self.flags,
        ]

    def start(self, timeout: float = 30.0) -> RunningDaemon:
        """Start it and wait until it is ready; raises :class:`StartFailed`."""
        self.lines = []
        output, its_output = os.pipe()
        self.process = self._launch(its_output)
        os.close(its_output)
        lines = os.fdopen(output, encoding="utf-8")
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = _READY.search(self.output)
            if found is not None:
                self.addresses = found["pool"].split(", ")
                port = self.addresses[0].rpartition(":")[2]
                self.port = int(port) if port.isdigit() else 0
                if found["http"].strip('",') != "off":
                    port = found["http"].strip('",').rpartition(":")[2]
                    self.http_port = int(port) if port.isdigit() else 0
                return self
            if self.process.poll() is not None:
                self._reader.join(5)
                raise StartFailed(f"status {self.process.returncode}: {self.output}")
            time.sleep(0.02)
        self.kill()
        raise StartFailed(f"not ready after {timeout} s: {self.output}")

    def _launch(self, output: int) -> subprocess.Popen[bytes] | Fork:
        cwd = self.data.parent if self.data.parent.exists() else None
        if self._forks:
            command = (self._program, *self.arguments())
            return forks(*DAEMON).start(
                *command, env=self._env, stdout=output, stderr=output, cwd=cwd
            )
        return subprocess.Popen(
            self.command(),
            stdout=output,
            stderr=output,
            env=self._env,
            pass_fds=self._pass_fds,
            cwd=cwd,
        )

    def _read(self, output: TextIO) -> None:
        with output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    def lines_with(self, text: str, timeout: float = 10.0) -> list[str]:
        """The lines that have a text; waits for the first one, as output comes a little later.

        Raises :class:`AssertionError` if there is none in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = [line for line in list(self.lines) if text in line]
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"no line has {text!r}:\n{self.output}")
            time.sleep(0.02)

    def events(self) -> list[dict[str, Any]]:
        """The lines of the JSON log, as objects."""
        return self.events_from(0)

    def events_from(self, number: int) -> list[dict[str, Any]]:
        """The lines of the JSON log from the one of this number on."""
        return [json.loads(line) for line in self.lines[number:] if line.startswith("{")]

    @property
    def refusals(self) -> list[str]:
        """Why it did not start, as it says in its log, or on stderr where there is none yet."""
        plain = [line for line in self.lines if line.startswith("kupool: ")]
        logged = [e["reason"] for e in self.events() if e["message"].startswith("Cannot start: ")]
        return plain + [f"kupool: {reason}" for reason in logged]

    def signal(self, number: int) -> None:
        """Send a signal to the daemon, if it has not ended."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout: float = 40.0) -> int:
        """Stop it in order; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 40.0) -> int:
        """Wait for the end; returns the exit status."""
        assert self.process is not None
        status = self.process.wait(timeout)
        if self._reader is not None:
            self._reader.join(5)
        return status

    def kill(self) -> None:
        """End it with SIGKILL, if it is still there."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.wait()

    def get(self, path: str, timeout: float = 10.0) -> tuple[int, Any]:
        """Return the status and the decoded JSON of a GET of the HTTP API."""
        return self._fetch(urllib.request.Request(self.url(path)), timeout)

    def post(self, path: str, body: object, timeout: float = 10.0) -> tuple[int, Any]:
        """Return the status and the decoded JSON of a POST of JSON."""
        request = urllib.request.Request(
            self.url(path),
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.secret}"},
        )
        return self._fetch(request, timeout)

    @property
    def secret(self) -> str:
        """The bearer token of an admin of this daemon."""
        file = self.data / "http-secret"
        return file.read_text("utf-8") if file.exists() else SECRET

    def url(self, path: str) -> str:
        """Return the URL of a path of the HTTP API."""
        return f"http://127.0.0.1:{self.http_port}{path}"

    def _fetch(self, request: urllib.request.Request, timeout: float) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """Return a new connection to the pool's port."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)


@functools.cache
def shared_daemon(*flags: str) -> RunningDaemon:
    """Return a daemon with these flags that serves every test of this run.

    For tests that leave nothing behind that others could see. It ends with the process.
    """
    daemon = RunningDaemon(*flags).start()
    atexit.register(daemon.__exit__)
    return daemon


class LineClient:
    """A client over one blocking socket, in the framing ``line``."""

    def __init__(self, daemon: RunningDaemon, timeout: float = 10.0) -> None:
        self.socket = daemon.connect(timeout)
        self._file = self.socket.makefile("rb")
        self._next = 0
        self.notifications: list[dict[str, Any]] = []

    def send(self, message: object) -> None:
        """Send one message; bytes are sent as they are, with the end of a line."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.socket.sendall(data + b"\n")

    def receive(self) -> dict[str, Any]:
        """Return the next message; raises :class:`EOFError` at the end."""
        line = self._file.readline()
        if not line:
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        return message

    def request(self, method: str, **params: object) -> dict[str, Any]:
        """Send a request and return its reply; notifications that come before are kept."""
        self._next += 1
        self.send({"id": self._next, "method": method, "params": params})
        while True:
            message = self.receive()
            if message.get("id") == self._next:
                return message
            self.notifications.append(message)

    def authorize(self, username: str = "admin") -> dict[str, Any]:
        """Authorize; returns the params of the first job."""
        reply = self.request("authorize", username=username)
        assert reply == {"id": self._next, "result": True}, reply
        return self.job()

    def job(self) -> dict[str, Any]:
        """Return the params of the next job notification that is not taken yet."""
        while True:
            message = self.notifications.pop(0) if self.notifications else self.receive()
            if message.get("method") == "job":
                params: dict[str, Any] = message["params"]
                return params

    def submit(self, job: Mapping[str, Any], nonce: str, **changes: object) -> dict[str, Any]:
        """Submit the right result for a nonce, or what ``changes`` says; returns the reply."""
        from hashlib import sha256

        result = sha256((job["server_nonce"] + nonce).encode()).hexdigest()
        params = {"job_id": job["job_id"], "client_nonce": nonce, "result": result, **changes}
        return self.request("submit", **params)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()
