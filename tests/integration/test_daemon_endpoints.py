"""What the daemon listens on and whom it tells: endpoints, passwords, systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.fakes.peers import int32s
from tests.servers.certificates import make_certificate
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, *flags: str, **options: Any) -> RunningDaemon:
        daemon = RunningDaemon("--interval=1h", *UNLIMITED, *flags, **options)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def client(self, daemon: Any, username: str = "alice") -> LineClient:
        client = LineClient(daemon)
        self.addCleanup(client.close)
        self.job = client.authorize(username)
        return client

    def converse(self, connect: Callable[[], socket.socket]) -> None:
        """Authorize, submit and be counted over some kind of connection."""
        client = self.client(Door(connect))
        self.assertEqual(client.submit(self.job, "a")["result"], True)
        self.assertEqual(client.submit(self.job, "a")["error"], "Duplicate submission")


class Door:
    """Where a LineClient gets its connection from."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect

    def connect(self, timeout: float) -> socket.socket:
        sock = self._connect()
        sock.settimeout(timeout)
        return sock


def unix(path: Path) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        return sock

    return connect


class EndpointTests(Case):
    """K-01, K-89: --addr takes any address, several times, over either transport."""

    def test_several_addresses(self) -> None:
        """K-89: --addr is repeatable; all of them lead to one pool."""
        daemon = self.start("--addr=tcp:0:interface=127.0.0.1", f"--addr=unix:{self.folder}/sock")
        self.assertEqual(len(daemon.addresses), 3)
        self.assertEqual(daemon.addresses[2], f"{self.folder}/sock")
        self.converse(daemon.connect)
        second = int(daemon.addresses[1].rpartition(":")[2])
        client = self.client(Door(lambda: socket.create_connection(("127.0.0.1", second))))
        self.assertEqual(client.submit(self.job, "a")["error"], "Duplicate submission")
        client = self.client(Door(unix(self.folder / "sock")), "bob")
        self.assertEqual(client.submit(self.job, "a")["result"], True)

    def test_ipv6(self) -> None:
        """K-89: [::1]:0 is an address as well."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as error:
            raise SkipTest(f"this system has no IPv6: {error}") from None
        daemon = self.start(addr="[::1]:0")
        self.converse(lambda: socket.create_connection(("::1", daemon.port)))
        self.assertEqual(daemon.addresses, [f"[::1]:{daemon.port}"])

    def test_a_unix_socket_after_a_kill(self) -> None:
        """K-89: what a killed daemon left behind does not keep the next one from starting."""
        path = self.folder / "sock"
        daemon = self.start(addr=f"unix:{path}")
        self.converse(unix(path))
        job = self.job
        daemon.kill()
        self.assertTrue(path.exists())
        daemon.start()
        client = self.client(Door(unix(path)))
        self.assertEqual(client.submit(job, "a")["error"], "Duplicate submission")
        self.assertEqual(daemon.stop(), 0)
        self.assertFalse(path.exists())

    def test_modes_of_unix_sockets(self) -> None:
        """Issue 15, build 7: a setting for all of them, which an address overrides."""
        names = {"pool": 0o660, "own": 0o600, "http": 0o660, "bus": 0o660, "proxied": 0o660}
        at = {name: self.folder / name for name in names}
        daemon = self.start(
            f"--addr=unix:{at['pool']}",
            f"--addr=unix:{at['own']}:mode=600",
            f"--addr=haproxy:unix:{at['proxied']}",
            f"--http=unix:{at['http']}",
            f"--bus-compatible-addr=unix:{at['bus']}",
            "--unix-mode=660",
        )
        found = {name: stat.S_IMODE(path.stat().st_mode) for name, path in at.items()}
        self.assertEqual(found, names)
        self.assertEqual(daemon.stop(), 0)
        self.start(f"--addr=unix:{at['pool']}")
        self.assertEqual(stat.S_IMODE(at["pool"].stat().st_mode), 0o666)

    def test_tls(self) -> None:
        """K-89: an ssl: endpoint, with the certificate it is given."""
        try:
            import OpenSSL  # noqa: F401
            import service_identity  # noqa: F401
        except ImportError as error:
            raise SkipTest(f"the extra 'tls' is not installed: {error}") from None
        certificate = make_certificate(self.folder / "both.pem")
        daemon = self.start(
            addr=f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}"
        )
        context = ssl.create_default_context(cafile=str(certificate))

        def connect() -> socket.socket:
            return context.wrap_socket(daemon.connect(), server_hostname="localhost")

        self.converse(connect)
        client = self.client(Door(connect), "bob")
        daemon.process.send_signal(15)  # type: ignore[union-attr]
        self.assertEqual(client.receive()["params"]["reason"], "server going down")
        self.assertEqual(daemon.wait(), 0)

    def test_the_stock_transport(self) -> None:
        """K-94: where there is no epoll the stock transport does the same."""
        daemon = self.start("--transport=stock")
        self.converse(daemon.connect)
        self.assertEqual(daemon.stop(), 0)

    def test_one_framing_for_an_address(self) -> None:
        """K-01: pinned to int32, it speaks that, and to nobody else."""
        daemon = self.start("--framing=int32")
        with daemon.connect() as sock:
            message = b'{"id":1,"method":"authorize","params":{"username":"a"}}'
            sock.sendall(len(message).to_bytes(4, "big") + message)
            data = b""
            while data.count(b"}") < 3:
                data += sock.recv(4096)
            reply, job = int32s(data)
            self.assertEqual(reply, b'{"id":1,"result":true}')
            self.assertIn(b'"method":"job"', job)
        with daemon.connect() as sock:
            sock.sendall(message + b"\n")
            (close,) = int32s(sock.makefile("rb").read())
            self.assertIn(b"frame too large", close)

    def test_a_nonce_for_each_session(self) -> None:
        """K-55: in the scope session nobody can replay another's work, also after a restart."""
        daemon = self.start("--nonce-scope=session")
        alice = self.client(daemon)
        job = self.job
        bob = self.client(daemon, "bob")
        self.assertEqual(job["job_id"], self.job["job_id"])
        self.assertNotEqual(job["server_nonce"], self.job["server_nonce"])
        self.assertEqual(bob.submit(job, "a")["error"], "Invalid result")
        self.assertEqual(alice.submit(job, "a")["result"], True)
        self.assertEqual(bob.submit(self.job, "a")["result"], True)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        alice = self.client(daemon)
        self.assertEqual(alice.submit(self.job, "a")["error"], "Duplicate submission")
        self.assertEqual(alice.submit(job, "b")["error"], "Invalid result")
        self.assertEqual(alice.submit(self.job, "b")["result"], True)


class PasswordTests(Case):
    """K-17: --auth checks passwords."""

    def test_a_file_of_passwords(self) -> None:
        """K-17: who is in the file comes in with the password, and nobody else."""
        passwords = self.folder / "passwd"
        passwords.write_text("alice:open sesame\nbob:b:c\n")
        daemon = self.start(f"--auth=file:{passwords}", env={"KUP_LOG_LEVEL": "debug"})
        for username, password, welcome in (
            ("alice", "open sesame", True),
            ("alice.rig1", "open sesame", True),
            ("alice", "wrong", False),
            ("alice", None, False),
            ("carol", "open sesame", False),
        ):
            client = LineClient(daemon)
            given = {} if password is None else {"password": password}
            reply = client.request("authorize", username=username, **given)
            if welcome:
                self.assertEqual(reply, {"id": 1, "result": True})
                self.assertGreater(client.job()["job_id"], 0)
            else:
                self.assertEqual((reply["error"], reply["code"]), ("unauthorized", 24))
                close = client.receive()["params"]
                self.assertEqual((close["code"], close["reconnect"]), (4500, False))
                self.assertRaises(EOFError, client.receive)
            client.close()
        self.assertEqual(daemon.stop(), 0)
        self.assertNotIn("sesame", daemon.output)


class SystemdTests(Case):
    """K-85, K-94: the daemon works with systemd where it is there."""

    def test_it_tells_systemd(self) -> None:
        """K-85: READY=1 when it takes connections, STOPPING=1 when a stop begins."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self.folder / "notify"))
            manager.settimeout(20)
            daemon = self.start(env={"NOTIFY_SOCKET": str(self.folder / "notify")})
            self.assertEqual(manager.recv(100), b"READY=1")
            self.client(daemon)
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(manager.recv(100), b"STOPPING=1")

    def test_it_says_nothing_when_the_start_fails(self) -> None:
        """K-88: a failed start is never announced as ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self.folder / "notify"))
            manager.setblocking(False)
            daemon = RunningDaemon(
                addr=f"unix:{self.folder}/none/sock",
                env={"NOTIFY_SOCKET": str(self.folder / "notify")},
            )
            self.addCleanup(daemon.__exit__)
            self.assertRaises(StartFailed, daemon.start)
            with contextlib.suppress(BlockingIOError):
                self.assertEqual(manager.recv(100), b"STOPPING=1")

    def test_a_socket_that_systemd_opened(self) -> None:
        """K-85: connections made before the daemon runs wait for it in the socket."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            early = socket.create_connection(("127.0.0.1", port))
            self.addCleanup(early.close)
            os.set_inheritable(listening.fileno(), True)
            wrapper = (
                "import os, sys\n"
                f"os.dup2({listening.fileno()}, 3)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', "
                "LISTEN_FDNAMES='kupool.socket')\n"
                "os.execv(sys.argv[1], sys.argv[1:])\n"
            )
            daemon = self.start(
                addr="systemd:domain=INET:index=0",
                prefix=(sys.executable, "-c", wrapper),
                pass_fds=(listening.fileno(),),
            )
        self.assertEqual(daemon.port, port)
        self.converse(lambda: early)
        self.assertEqual(daemon.stop(), 0)
