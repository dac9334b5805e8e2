"""The bus as the daemon carries it: what every bus does, over its own port."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.trial.unittest import TestCase

from kupool.bus import BusSettings
from kupool.bus.members import SILENCE
from kupool.bus.remote.client import RemoteBus
from kupool.daemon import service
from kupool.daemon.service import Daemon
from kupool.net.testing import MemoryNetwork
from kupool.settings import load
from kupool.tap import make_checkers
from kupool.wire.framing import FRAME, INT32, LINE, Framing
from tests.contract.test_bus import BusContract, FakeTime

PORT = 8000


class _DaemonBusTests(FakeTime, BusContract):
    """A-61, A-07: each participant is a session of an operator, in one framing of the pool's."""

    settings = BusSettings(direct=("direct.*",))
    framing: Framing = FRAME
    clock: MemoryNetwork

    def setUp(self) -> None:
        super().setUp()
        passwords = self.mktemp()
        with open(passwords, "w") as file:
            file.write("root:secret\n")
        flags = {
            "store": "memory", "mq": "memory", "addr": [f"127.0.0.1:{PORT}"], "http": "",
            "interval": "1000h", "auth": [f"file:{passwords}"], "bus_operators": ["root"],
            "bus_direct": ["direct.*"], "bus_topics": "1000",
        }  # fmt: skip
        loaded = load(flags, {})
        # A test's process goes on after this daemon.
        self.patch(service, "collect_rarely", lambda: None)
        self.daemon = Daemon(
            self.clock,
            loaded,
            checkers=make_checkers(loaded, self.clock),
            failed=self.fail,
            wall=self.wall,
        )
        self.patch(self.daemon.parts.bus.bus.broker, "_random", self.random)
        self.daemon.start()
        self.settle()
        self.addCleanup(self.stop)
        self.clock.advance(SILENCE)  # until then the members of a daemon before it may come back

    def make_clock(self) -> MemoryNetwork:
        return MemoryNetwork()

    def settle(self) -> None:
        self.clock.settle()

    def stop(self) -> None:
        self.clock.run(self.daemon.stop(), patience=40)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def open_bus(self) -> RemoteBus:
        endpoint = TCP4ClientEndpoint(self.clock, "127.0.0.1", PORT)
        bus = RemoteBus(
            self.clock,
            endpoint,
            self.settings,
            framing=self.framing,
            username=f"root.{self.framing.name}",
            password="secret",
        )
        await self.result(bus.connect())
        self.addCleanup(self.end, bus)
        return bus

    def end(self, bus: Any) -> None:
        ended = bus.close()
        self.settle()
        self.assertTrue(ended.called)


class DaemonBusOverFrameTests(_DaemonBusTests, TestCase):
    """A-61, A-07: over `frame`."""


class DaemonBusOverLineTests(_DaemonBusTests, TestCase):
    """A-61, A-07: over `line`."""

    framing = LINE


class DaemonBusOverInt32Tests(_DaemonBusTests, TestCase):
    """A-61, A-07: over `int32`."""

    framing = INT32
