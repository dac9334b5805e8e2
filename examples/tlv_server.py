"""A server of messages with ids: ``length u32 LE, id u32 LE, data``, the framing ``tlv``.

It greets with message 301, answers 0 with 201 and 1 with 200, and says farewell with 302
when it is stopped. What it does not know it answers with 400. At the connection limit, and
when it ends, it also sends the framework's own close: JSON under the id 0.
"""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from kupool.net.connection import Connection
from kupool.net.id_router import IdRouter
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.server import Server
from kupool.wire.framing import Tlv, encode_tlv

PING, HELLO = 0, 1
HELLO_ANSWER, PING_ANSWER = 200, 201
GREETING, FAREWELL = 301, 302
ERROR = 400


def answer_ping(connection: Connection, message_id: int, data: bytes) -> Tlv:
    """Answer a ping."""
    return Tlv(PING_ANSWER, b"ping...ping...ping")


def answer_hello(connection: Connection, message_id: int, data: bytes) -> Tlv:
    """Say hello to whoever the data names."""
    return Tlv(HELLO_ANSWER, b"hello " + data)


def answer_unknown(connection: Connection, message_id: int, data: bytes) -> Tlv:
    """Say that the id has no handler; the connection goes on."""
    return Tlv(ERROR, b"no handler for message %d" % message_id)


class Demo(Observer):
    """Greets every connection."""

    def opened(self, connection: Connection) -> None:
        """Send the greeting, before anything has been asked."""
        super().opened(connection)
        connection.send_encoded(encode_tlv(b"welcome", GREETING))


async def stop(server: Server) -> None:
    """Say farewell to everybody, and end."""
    farewell = encode_tlv(b"farewell", FAREWELL)
    await server.manager.each(lambda connection: connection.send_encoded(farewell))
    await server.stop()


async def main(reactor: Any, port: int, max_connections: int) -> None:
    """Serve until the process is told to stop."""
    router = IdRouter(answer_unknown)
    router.add(PING, answer_ping)
    router.add(HELLO, answer_hello)
    settings = ServerSettings(max_connections=max_connections)
    server = Server(reactor, Demo(router), settings, framing="tlv")
    reactor.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(stop(server)))
    await server.listen([f"127.0.0.1:{port}"])
    print(f"listening on {server.addresses[0].port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; 0: any")
    parser.add_argument("--max-connections", type=int, default=1000, help="0: without a limit")
    arguments = parser.parse_args()
    react(main, [arguments.port, arguments.max_connections])
