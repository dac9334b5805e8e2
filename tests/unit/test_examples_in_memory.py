"""P-62: the examples on the network in memory: no socket, no process, no waiting."""

from __future__ import annotations

import importlib.util
import json
from argparse import Namespace
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.command import serve
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.wire.framing import Tlv

EXAMPLES = Path(__file__).parents[2] / "examples"


class ExampleCase(SynchronousTestCase):
    def start(self, name: str, **options: object) -> None:
        """Run an example's server on port 8000 of a network of its own."""
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.printed: list[str] = []
        arguments = Namespace(host="127.0.0.1", port=8000, **options)
        self.network = MemoryNetwork()
        self.running = Deferred.fromCoroutine(
            serve(self.network, module.make, arguments, self.printed.append)
        )
        self.network.settle()
        self.assertEqual(self.printed, ["listening on 8000"])

    def interrupt(self) -> None:
        self.network.shut_down(patience=20)
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual(self.network.connections, 0)


class EchoTests(ExampleCase):
    def test_it_echoes(self) -> None:
        """P-62: hello world, in every framing, and byte by byte."""
        self.start("echo")
        for chunk in (None, 1, 3):
            self.network.chunk = chunk
            for codec in ("line", "frame", "int32"):
                peer = self.network.connect(8000, codec)
                said = {"x": [1, "a", chunk]}
                self.assertEqual(peer.ask("echo", said)["result"], said)
                self.assertEqual(peer.ask("shout")["error"], "unknown method")
        self.interrupt()
        self.assertIsNone(self.successResultOf(self.running))


class TlvServerTests(ExampleCase):
    def connect(self) -> MemoryPeer:
        return self.network.connect(8000, "tlv")

    def test_a_conversation(self) -> None:
        """P-24, P-25, P-36: greeting, a router for each id, unknown ids, farewell."""
        self.start("tlv_server", max_connections=1000)
        self.network.chunk = 1
        peer = self.connect()
        self.assertEqual(peer.items(), [Tlv(301, b"welcome")])
        peer.tell(Tlv(0, b""))
        peer.tell(Tlv(1, b"peer"))
        peer.tell(Tlv(77, b""))
        self.assertEqual(
            peer.items(),
            [
                Tlv(201, b"ping...ping...ping"),
                Tlv(200, b"hello peer"),
                Tlv(400, b"no handler for message 77"),
            ],
        )
        self.interrupt()
        farewell, close = peer.items()
        self.assertEqual(farewell, Tlv(302, b"farewell"))
        assert isinstance(close, Tlv)
        self.assertEqual(json.loads(close.payload)["params"]["code"], 4000)

    def test_one_over_the_limit_is_told(self) -> None:
        self.start("tlv_server", max_connections=1)
        first, second = self.connect(), self.connect()
        (refusal,) = second.items()
        assert isinstance(refusal, Tlv)
        self.assertEqual(json.loads(refusal.payload)["params"]["code"], 4102)
        self.assertEqual((first.open, second.open), (True, False))
        first.close()
        self.assertTrue(self.connect().open)
        self.interrupt()
