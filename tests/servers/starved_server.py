"""A server with few descriptors: prints its port, then answers commands on stdin."""

from __future__ import annotations

import resource
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet import tcp
from twisted.internet.defer import ensureDeferred
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver

from kupool.net.server import Server
from tests.fakes.peers import Observer

reactor: Any = _reactor


def main(transport: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    server = Server(reactor, Observer(), transport=transport)
    accepts = 0
    accept = tcp.Port.doRead

    def counted(port: Any) -> None:
        nonlocal accepts
        accepts += 1
        accept(port)

    tcp.Port.doRead = counted  # type: ignore[method-assign]

    class Commands(LineOnlyReceiver):
        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            answers = {b"accepts": accepts, b"connections": len(server.manager)}
            self.sendLine(b"%d" % answers[line])

        def connectionLost(self, reason: Any = None) -> None:
            if reactor.running:
                reactor.stop()

    async def start() -> None:
        await server.listen(["127.0.0.1:0"])
        commands: Any = Commands()
        StandardIO(commands)
        commands.sendLine(b"%d" % server.addresses[0].port)

    ensureDeferred(start())
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
