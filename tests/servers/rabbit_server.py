"""A private RabbitMQ for tests, or the one that the environment names."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import quote, unquote, urlsplit

from .own_process import OwnProcess, OwnServer, ServerFailed, free_port

#: Seconds after its declaration before a quorum queue survives ``kill -9`` of its only node.
#: Killed earlier it comes back without a log and a leader, and every use of it hangs for 65 s.
SETTLING = 2.0

#: Idle schedulers that spin would take the processor from what is tested.
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"


def find_programs(debian: Path = Path("/usr/lib/rabbitmq/bin")) -> Path:
    """Return the folder of RabbitMQ's programs; raises SkipTest where there is none."""
    # First where Debian has the programs: what it has in the path changes the user.
    on_path = shutil.which("rabbitmq-server")
    folder = debian if debian.exists() else Path(on_path).resolve().parent if on_path else None
    if folder is None or shutil.which("epmd") is None:
        raise SkipTest("RabbitMQ is not installed (apt-get install rabbitmq-server)")
    return folder


class VirtualHosts:
    """A RabbitMQ that one may connect to, through its management API as well."""

    def __init__(self, address: str, api: str, user: str, password: str) -> None:
        """``address`` is the broker's host:port, ``api`` the URL up to and with ``/api``."""
        self.address = address
        self.api_url = api
        self.user = user
        self.password = password
        self._made: list[str] = []

    def new_vhost(self, timeout: float = 30) -> str:
        """Return the AMQP URL of a fresh, empty virtual host; raises as :meth:`api`."""
        name = f"kupool-test-{secrets.token_hex(6)}"
        self.api(f"vhosts/{name}", "PUT", timeout=timeout)
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.api(f"permissions/{name}/{quote(self.user, '')}", "PUT", everything)
        self._made.append(name)
        return self.url(name)

    def url(self, vhost: str = "/") -> str:
        """Return the AMQP URL of a virtual host."""
        account = f"{quote(self.user, '')}:{quote(self.password, '')}"
        return f"amqp://{account}@{self.address}/{quote(vhost, '')}"

    def api(self, path: str, method: str = "GET", body: object = None, timeout: float = 30) -> Any:
        """Return the answer of the management API. Blocking; raises HTTPError and OSError."""
        account = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.api_url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {account}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout) as response:
            data = response.read()
        return json.loads(data) if data else None


class GivenRabbit(VirtualHosts):
    """The broker of ``KUPOOL_TEST_AMQP_URL``: not ours to start and end.

    Its management API is that of ``KUPOOL_TEST_AMQP_API``, by default
    ``http://HOST:15672/api`` with the same account. Raises SkipTest where that is not there.
    """

    def __init__(self, url: str, api: str = "") -> None:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        super().__init__(
            f"{host}:{parts.port or 5672}",
            api or f"http://{host}:15672/api",
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
        )
        try:
            self.api("overview")
        except OSError as error:
            raise SkipTest(
                f"no management API at {self.api_url} (KUPOOL_TEST_AMQP_API): {error}"
            ) from None

    def close(self) -> None:
        """Delete the virtual hosts that were made here."""
        for name in self._made:
            self.api(f"vhosts/{name}", "DELETE")
        self._made.clear()

    def ensure_running(self) -> None:
        """Nothing to do: whoever gave it runs it."""

    def _not_ours(self) -> None:
        raise SkipTest("the RabbitMQ of KUPOOL_TEST_AMQP_URL is not ours to stop")

    start = stop = kill = pause = resume = _not_ours


class PortMapper:
    """An ``epmd`` of our own, which tells Erlang's nodes each other's ports."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kupool-epmd-"))
        self.port = free_port()
        program = shutil.which("epmd")
        assert program is not None
        self._process = OwnProcess(
            [program, "-address", "127.0.0.1", "-port", str(self.port)], self.folder
        )
        self._process.wait_ready(lambda: _first_byte(self.port, b"\0\1n") != b"")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RabbitServer(OwnServer, VirtualHosts):
    """A RabbitMQ node of a test's own, on ports and in a folder of its own.

    Not started when made. Raises SkipTest where RabbitMQ is not installed. ``settings`` are
    further lines of ``rabbitmq.conf``. Every method blocks until the thing is done.
    """

    def __init__(
        self,
        *settings: str,
        name: str = "kupool",
        mapper: PortMapper | None = None,
    ) -> None:
        """``mapper`` is the one that a cluster's nodes share."""
        self._programs = find_programs()
        self._own_mapper = mapper is None
        self._mapper = mapper or PortMapper()
        self.node = f"{name}@localhost"
        self.folder = Path(tempfile.mkdtemp(prefix=f"kupool-{name}-"))
        self.port = free_port()
        api_port = free_port()
        super().__init__(
            f"127.0.0.1:{self.port}", f"http://127.0.0.1:{api_port}/api", "guest", "guest"
        )
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {api_port}",
            "log.console = true",
            "log.console.level = info",
            "log.file = false",
            "disk_free_limit.absolute = 50MB",
            *settings,
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        # Erlang need not ask the system who localhost is: not every machine knows.
        (self.folder / "inetrc").write_text(
            '{lookup, [file, native]}.\n{host, {127,0,0,1}, ["localhost"]}.\n'
        )
        cookie = self.folder / ".erlang.cookie"  # the secret that nodes and tools share
        cookie.write_text("kupool-tests")
        cookie.chmod(0o400)
        self._env = self._environment()

    def __enter__(self) -> RabbitServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self) -> None:
        """Start it without waiting for it: the nodes of a cluster wait for each other."""
        assert self._process is None or not self._process.alive, "it runs already"
        command = [str(self._programs / "rabbitmq-server")]
        self._process = OwnProcess(command, self.folder, env=self._env)

    def wait_ready(self) -> None:
        """Wait until it serves AMQP and the management API."""
        self.process.wait_ready(self._answers)

    def start(self) -> None:
        """Start it, for the first time or again on the same ports and data."""
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """End it in order, keeping the data."""
        self.process.end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, keeping the data.

        RabbitMQ 3.10 loses a quorum queue, confirmed messages and all, that is declared less
        than about a second before: its registration is not flushed at once. See
        :data:`SETTLING`.
        """
        self.process.kill()

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.kill()
        if self._own_mapper:
            self._mapper.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def control(self, *arguments: str, program: str = "rabbitmqctl") -> str:
        """Run ``rabbitmqctl`` or another of its tools; returns what it printed. Takes seconds."""
        env = {name: value for name, value in self._env.items() if name != "RABBITMQ_ALLOW_INPUT"}
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise ServerFailed(f"{program} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _answers(self) -> bool:
        if _first_byte(self.port, b"AMQP\0\0\x09\1") != b"\1":  # the frame of Connection.Start
            return False
        try:
            return bool(self.api("overview"))
        except (OSError, ValueError):
            return False

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the broker: the pid is its own
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            "ERL_INETRC": str(folder / "inetrc"),
            "ERL_EPMD_PORT": str(self._mapper.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(folder / "crash.dump"),
        }


def _first_byte(port: int, message: bytes) -> bytes:
    """Return the first byte that a port answers to a message; none where nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(5)
            connection.sendall(message)
            return connection.recv(1)
    except OSError:
        return b""
