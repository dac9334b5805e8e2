"""A daemon in memory, with its clients."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon import service
from kupool.daemon.service import Daemon
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.settings import load
from kupool.tap import make_checkers

PORT = 8000

#: The settings of every such daemon.
WANTED: dict[str, Any] = {
    "store": "memory",
    "mq": "memory",
    "addr": [f"127.0.0.1:{PORT}"],
    "http": "",
    "submit_interval": "0",
}


class DaemonCase(SynchronousTestCase):
    """A daemon on the network in memory, its logs and counts in memory, too."""

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.start(**self.settings)

    def start(self, **settings: Any) -> None:
        self.network = MemoryNetwork()
        loaded = self.read_again = load({**WANTED, **settings}, {})
        self.failures: list[str] = []
        self.daemon = Daemon(
            self.network,
            loaded,
            checkers=make_checkers(loaded, self.network),
            failed=self.failures.append,
            read=lambda: self.read_again,
            wall=lambda: 1.8e9 + self.network.seconds(),
        )
        # A test's process goes on after this daemon.
        self.patch(service, "collect_rarely", lambda: None)
        self.daemon.start()
        self.network.settle()
        self.assertEqual((self.failures, self.daemon.status.phase), ([], "running"))
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.network.run(self.daemon.stop(), patience=40)
        self.assertEqual(self.network.getDelayedCalls(), [])

    @property
    def broker(self) -> Any:
        assert self.daemon.parts.bus is not None
        return self.daemon.parts.bus.bus.broker

    def told(self) -> bool:
        """Whether anything is told of accepted submissions."""
        return bool(self.daemon.parts.acceptance.events.wants_accepted)

    def session(self, username: str = "alice", codec: str = "line", **more: str) -> MemoryPeer:
        peer = self.network.connect(PORT, codec)
        reply = peer.ask("authorize", {"username": username, **more})
        self.assertEqual(reply["result"], True)
        peer.items()
        return peer

    def ask(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        reply = peer.ask(f"bus.{method}", params)
        return reply["result"] if "error" not in reply else (reply["code"], reply["error"])

    def publish(self, peer: MemoryPeer, topic: Any, **more: Any) -> Any:
        return self.ask(peer, "publish", topic=topic, model="unreliable-all", **more)


class PasswordCase(DaemonCase):
    """A daemon with accounts for some users, all with the same password."""

    users: tuple[str, ...] = ()

    def start(self, **settings: Any) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.writelines(f"{user}:secret\n" for user in self.users)
        self.auth = [f"file:{path}"]
        super().start(**{"auth": self.auth, **settings})

    def reload(self, **settings: Any) -> None:
        """Reload with other settings than those of the class."""
        self.read_again = load({**WANTED, "auth": self.auth, **self.settings, **settings}, {})
        self.daemon.reload()

    def user(self, name: str) -> MemoryPeer:
        return self.session(name, password="secret")

    def code(self, peer: MemoryPeer, method: str, **params: Any) -> int:
        return int(peer.ask(method, params).get("code", 0))
