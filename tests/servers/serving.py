"""A server of a test's own on real sockets, in the test's reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from kupool.net.hooks import HookedObserver
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
from kupool.wire.framing import encode_tlv
from tests.servers.sockets import Peer, in_thread, started

reactor: Any = _reactor


def received(peer: Peer) -> tuple[int, bytes]:
    """The next message of `length u32 LE, id u32 LE, data`."""
    head = peer.exactly(8)
    return int.from_bytes(head[4:], "little"), peer.exactly(int.from_bytes(head[:4], "little"))


def echo() -> IdRouter:
    return IdRouter(lambda connection, message_id, data: data)


class ServerCase(TestCase):
    timeout = 120
    transport = "direct"

    def keep(self, server: Server) -> Server:
        self.addCleanup(lambda: started(server.stop(timeout=1.0)))
        return server

    def server(self, observer: Any = None, **options: Any) -> Server:
        observer = observer or HookedObserver(echo())
        options = {"addresses": ["127.0.0.1:0"], "framing": "tlv", **options}
        return self.keep(Server(reactor, observer, transport=self.transport, **options))

    async def talk(self, port: Any) -> None:
        """Have one message answered."""

        def conversation() -> None:
            with Peer(port) as peer:
                peer.send(encode_tlv(b"hello", 7))
                self.assertEqual(received(peer), (7, b"hello"))

        await in_thread(conversation)
