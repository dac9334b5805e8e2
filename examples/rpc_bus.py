"""Calls over a bus: the bank and its callers know a topic, and not each other.

``python examples/rpc_bus.py --port 8000`` runs the bus. ``rpc_bus.py bank 8000`` joins it as a
bank. Start as many banks as you like: each call goes to one of them. ``rpc_bus.py ask 8000 alice``
asks for a balance. Ctrl-C ends each program.
"""

import argparse
import os
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.task import react

from kupool.bus import Kind, LocalBus, Message, Refusal, RemoteBus
from kupool.bus.remote.service import BusService
from kupool.net import Server, run

ACCOUNTS = {"alice": 100, "bob": 7}


def make(reactor: Any, arguments: argparse.Namespace) -> Server:
    """Return the server that carries the bus."""
    bus = LocalBus(reactor, wall=time.time)
    server = Server(reactor, BusService(bus.broker))
    server.before_stop(lambda stopping: bus.close())  # open calls end with an outcome
    return server


def balance(message: Message) -> bytes:
    """Answer a call; with an exception, such as this one, the caller gets ``refused``."""
    name = message.data.decode()
    if name not in ACCOUNTS:
        raise Refusal(f"no account of {name}")
    return f"{ACCOUNTS[name]}, says bank {os.getpid()}".encode()


async def connect(reactor: Any, port: int) -> RemoteBus:
    """Return the bus at a port, or end with an error message."""
    bus = RemoteBus(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
    try:
        await bus.connect()
    except ConnectError as error:
        raise SystemExit(f"no bus at port {port}: {error}") from None
    return bus


async def bank(reactor: Any, port: int) -> None:
    """Answer calls until Ctrl-C, even if the bus is restarted meanwhile."""
    bus = await connect(reactor, port)
    reactor.addSystemEventTrigger("before", "shutdown", bus.close)
    await bus.subscribe(["bank.balance"], balance)
    print("the bank is open", flush=True)
    await Deferred()


async def ask(reactor: Any, port: int, *names: str) -> None:
    """Ask for some balances, and print the outcomes."""
    bus = await connect(reactor, port)
    for name in names:
        outcome = await bus.publish_reliable_random(name.encode(), "bank.balance", timeout=2.0)
        answer = outcome.data.decode() if outcome.kind is Kind.ANSWERED else outcome.reason
        print(f"{name}: {outcome.kind.value} {answer}".rstrip(), flush=True)
    await bus.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bank", port]:
            react(lambda reactor: ensureDeferred(bank(reactor, int(port))))
        case ["ask", port, *names]:
            react(lambda reactor: ensureDeferred(ask(reactor, int(port), *names)))
        case _:
            run(make, __doc__)
