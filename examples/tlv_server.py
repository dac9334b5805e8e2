"""A server of messages with ids: ``length u32 LE, id u32 LE, data``, the framing ``tlv``.

It greets a peer with message 301, answers 0 with 201 and 1 with 200, and sends 302 when a
connection ends. It answers an unknown id with 400. At the connection limit, and when the server
stops, it also sends the framework's own close: JSON under the id 0.
"""

from __future__ import annotations

import argparse
from typing import Any

from kupool.net import Connection, IdRouter, Request, Server, ServerSettings, run
from kupool.net.hooks import HookedObserver
from kupool.net.routing.base import BaseRouter
from kupool.wire.framing import Tlv

PING, HELLO = 0, 1
HELLO_ANSWER, PING_ANSWER = 200, 201
GREETING, FAREWELL = 301, 302
ERROR = 400


class PingRouter(BaseRouter):
    """Answers a ping."""

    def handle(self, request: Request) -> Tlv:
        """Answer."""
        return Tlv(PING_ANSWER, b"ping...ping...ping")


class HelloRouter(BaseRouter):
    """Says hello to the name in the data."""

    def handle(self, request: Request) -> Tlv:
        """Answer."""
        return Tlv(HELLO_ANSWER, b"hello " + request.data)


def answer_unknown(connection: Connection, message_id: int, data: bytes) -> Tlv:
    """Say that the id has no handler; the connection stays open."""
    return Tlv(ERROR, b"no handler for message %d" % message_id)


def greet(connection: Connection) -> None:
    """Greet a new connection."""
    connection.send_message(GREETING, b"welcome")


def farewell(connection: Connection, reason: object) -> None:
    """Say farewell when a connection ends, if it can still receive it."""
    if connection.sends:
        connection.send_message(FAREWELL, b"farewell")


def make(reactor: Any, arguments: argparse.Namespace) -> Server:
    """Return the server without starting it."""
    router = IdRouter(answer_unknown)
    router.add(PING, PingRouter())
    router.add(HELLO, HelloRouter())
    settings = ServerSettings(max_connections=arguments.max_connections)
    return Server(reactor, HookedObserver(router, greet, farewell), settings, framing="tlv")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("--max-connections", type=int, default=1000, help="0: without a limit")


if __name__ == "__main__":
    run(make, __doc__, options)
