"""The bus on real sockets: TCP in every framing and WebSocket, one server."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.trial.unittest import TestCase

from kupool.bus import Kind, Message
from kupool.bus.local import LocalBus
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import BusService
from kupool.net.server import Server
from kupool.web.site import make_site
from kupool.wire.framing import FRAMINGS
from tests.servers.sockets import started, until
from tests.servers.websocket_peers import WebSocketClient


class SocketTests(TestCase):
    """A-07, A-61: the same bus over TCP and over WebSocket."""

    timeout = 60

    async def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.local = LocalBus(self.reactor, wall=lambda: 1_800_000_000.0)
        self.addCleanup(self.local.close)
        self.server = await self.serve("127.0.0.1:0")
        self.port = self.server.addresses[0].port

    async def serve(self, address: str) -> Server:
        server = Server(self.reactor, BusService(self.local.broker))
        await server.listen([address])
        self.addCleanup(lambda: started(server.stop(timeout=1.0)))
        return server

    async def connect(self, framing: str = "frame") -> RemoteBus:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port)
        bus = RemoteBus(self.reactor, endpoint, framing=FRAMINGS[framing])
        await bus.connect()
        self.addCleanup(bus.close)
        return bus

    async def test_every_framing(self) -> None:
        """A-07, A-18: peers of different framings call each other."""
        buses = {name: await self.connect(name) for name in FRAMINGS}
        for name, bus in buses.items():
            await bus.subscribe([name], lambda m, name=name: name.encode() + m.data)
        for bus in buses.values():
            for name in buses:
                outcome = await bus.publish_reliable_random(b"\xff" * 40_000, name)
                self.assertEqual(outcome.data, name.encode() + b"\xff" * 40_000)

    async def test_websocket(self) -> None:
        """A-07: the same methods, both ways."""
        nothing: Any = None  # nobody asks it here
        factory = make_site(self.reactor, nothing, nothing, time.time, manager=self.server.manager)
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        browser = WebSocketClient(host=f"127.0.0.1:{port.getHost().port}")
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port)
        await connectProtocol(endpoint, browser)
        await browser.opened
        reply = await browser.call("bus.subscribe", topics=["browser.*"])
        self.assertEqual(reply["result"]["topics"], ["browser.*"])
        bus = await self.connect()
        waiting = bus.publish_reliable_random("名".encode(), "browser.1")
        call = await browser.receive()
        self.assertEqual((call["method"], call["params"]["data"]), ("call", "名"))
        browser.send({"id": call["id"], "result": "from the browser"})
        self.assertEqual((await waiting).data, b"from the browser")
        await bus.subscribe(["tcp"], lambda message: b"from " + message.data)
        reply = await browser.call("bus.publish", topic="tcp", data="x", model="reliable-random")
        self.assertEqual(reply["result"]["data"], "from x")
        browser.transport.abortConnection()
        await until(
            self.reactor, lambda: len(self.local.broker.status().subscribers) == 1, "its removal"
        )

    async def test_server_restart(self) -> None:
        """A-05, A-06, A-24: clients come back by themselves; a call outlives the gap."""
        worker, publisher = await self.connect(), await self.connect()
        heard: list[Message] = []

        def handler(message: Message) -> bytes:
            heard.append(message)
            return b"here again"

        await worker.subscribe(["t"], handler)
        await self.server.stop(timeout=1.0)
        await until(self.reactor, lambda: not publisher.connected, "the end of the connection")
        waiting = publisher.publish_reliable_random(b"", "t", 20.0)
        self.server = await self.serve(f"127.0.0.1:{self.port}")
        outcome = await waiting
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b"here again"))
        self.assertEqual(len(heard), 1)

    async def test_nobody_listens(self) -> None:
        """A-06: the first failure is reported to the caller."""
        await self.server.stop(timeout=1.0)
        with self.assertRaises(Refused):
            await self.connect()

    async def test_many_calls(self) -> None:
        """A-22: thousands at once, with workers that come and go: one outcome each."""
        publisher = await self.connect()
        outcomes: list[Any] = []
        waiting: list[Deferred[Any]] = []
        for round_ in range(6):
            worker = await self.connect()
            await worker.subscribe(["t"], lambda message: message.data)
            for n in range(300):
                data = b"%d.%d" % (round_, n)
                deferred = publisher.publish_reliable_random(data, "t", 10.0)
                deferred.addCallback(lambda outcome, data=data: outcomes.append((data, outcome)))
                waiting.append(deferred)
            if round_ % 2:
                await worker.close()
        await gatherResults(waiting)
        self.assertEqual(len(outcomes), 1800)
        for data, outcome in outcomes:
            self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, data))
