"""A process with a bus, or with the server of one: it ends with its standard input.

    python -m tools.bus_node server
    python -m tools.bus_node networked PORT --subscribe 1
    python -m tools.bus_node rabbit URL

Prints one line of JSON when it is ready, the server's with its port. Then every line that
it is sent, as ``{"model": ..., "topic": ..., "seconds": ..., "window": ...}``, has it publish
so long with so many calls under way, and print what came of it; ``calls`` is how many at
most, ``timeout`` what each may take. ``{}`` has it print how many messages its subscribers
have handled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater, react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from kupool.bus import BusSettings, Message, Model, NotMine, Outcome, Refusal
from kupool.bus.local import LocalBus

#: The topics of the handlers that :func:`subscribe` makes.
MOODY, ECHO, NOBODY = "moody", "echo", "nobody"

#: Data of the messages that are published here.
DATA = b"x" * 100

PUBLISH = {
    "reliable-random": "publish_reliable_random",
    "reliable-specific": "publish_reliable_specific",
    "unreliable-all": "publish_unreliable_all",
    "unreliable-random": "publish_unreliable_random",
}


async def make_bus(
    reactor: Any, form: str, address: str, settings: BusSettings | None = None
) -> Any:
    """Return a bus of a form, connected: ``local``, ``networked`` or ``rabbit``."""
    if form == "local":
        return LocalBus(reactor, settings, wall=time.time)
    if form == "networked":
        from kupool.bus.remote.client import RemoteBus

        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", int(address))
        bus: Any = RemoteBus(reactor, endpoint, settings)
    else:
        from kupool.bus.rabbit.bus import RabbitBus

        bus = RabbitBus(reactor, address, settings, wall=time.time)
    await bus.connect()
    return bus


class Worker:
    """A subscriber with a mood: it answers, fails, refuses, or does not answer at all."""

    def __init__(self, reactor: Any, seed: str) -> None:
        self._reactor = reactor
        self._random = random.Random(seed)
        self._answers: dict[Deferred[bytes], IDelayedCall] = {}
        #: Messages that came on :data:`ECHO`.
        self.handled = 0

    def moody(self, message: Message) -> object:
        """Answer most messages with their data."""
        draw = self._random.random()
        if draw < 0.03:
            raise RuntimeError("a handler that fails")
        if draw < 0.06:
            return self._later(3600.0, b"")  # cancelled when its time is over
        if draw < 0.09:
            return self._later(self._random.random(), message.data)
        if draw < 0.12:
            raise Refusal("not today")
        if draw < 0.2:
            raise NotMine
        return message.data

    def _later(self, seconds: float, data: bytes) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred(lambda _: self._answers.pop(answer).cancel())
        self._answers[answer] = self._reactor.callLater(seconds, self._answer, answer, data)
        return answer

    def _answer(self, answer: Deferred[bytes], data: bytes) -> None:
        del self._answers[answer]
        answer.callback(data)

    def close(self) -> None:
        """Give all the answers that are still to come."""
        for answer, call in list(self._answers.items()):
            call.cancel()
            self._answer(answer, b"")

    def echo(self, message: Message) -> bytes:
        """Answer with what came."""
        self.handled += 1
        return message.data

    def nobody(self, message: Message) -> object:
        """Say that it is not ours."""
        raise NotMine

    async def subscribe(self, bus: Any) -> None:
        """Listen to all three topics."""
        await bus.subscribe([MOODY], self.moody)
        await bus.subscribe([ECHO], self.echo)
        await bus.subscribe([NOBODY], self.nobody)


class ClosedLoop:
    """Publishes with so many calls under way at a time."""

    def __init__(self, reactor: Any, bus: Any, model: str, topic: str, timeout: float) -> None:
        self._reactor = reactor
        publish = getattr(bus, PUBLISH[model])
        arguments = (timeout,) if Model(model).reliable else ()
        self._publish: Callable[[], Deferred[Outcome]] = lambda: publish(DATA, topic, *arguments)
        self.kinds: Counter[str] = Counter()
        self.by: Counter[str] = Counter()
        self.took: list[float] = []
        self._most: float = 0
        self._begun = 0
        self._end = 0.0

    async def run(self, window: int, *, seconds: float = 1e9, calls: float = 1e18) -> float:
        """Go on for so long, or for so many; returns the seconds until all have ended."""
        self._most, self._begun = calls, 0
        began = time.perf_counter()
        self._end = began + seconds
        lanes = [ensureDeferred(self._lane()) for _ in range(window)]
        for lane in lanes:
            await lane
        return time.perf_counter() - began

    async def _lane(self) -> None:
        clock = time.perf_counter
        while self._begun < self._most:
            self._begun += 1
            began = clock()
            outcome = await self._publish()
            now = clock()
            self.took.append(now - began)
            self.kinds[outcome.kind.value] += 1
            self.by[outcome.subscriber] += 1
            if now >= self._end:
                return
            if len(self.took) % 100 == 0:
                await deferLater(self._reactor, 0.0, lambda: None)


def quantile(values: list[float], part: float) -> float:
    """Return the value below which this part of them is."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


class Orders(LineOnlyReceiver):
    """Takes orders from whoever started this process."""

    delimiter = b"\n"

    def __init__(
        self, reactor: Any, bus: Any, workers: Sequence[Worker], over: Deferred[None]
    ) -> None:
        self._reactor = reactor
        self._bus = bus
        self._workers = workers
        self._over = over

    def lineReceived(self, line: bytes) -> None:
        """Carry one out."""
        ensureDeferred(self._run(json.loads(line))).addErrback(self._failed)

    async def _run(self, order: dict[str, Any]) -> None:
        if not order:
            say(handled=sum(worker.handled for worker in self._workers))
            return
        timeout = order.get("timeout", 10.0)
        loop = ClosedLoop(self._reactor, self._bus, order["model"], order["topic"], timeout)
        before = time.process_time()
        limits = {"seconds": order["seconds"], "calls": order.get("calls", 1e18)}
        seconds = await loop.run(order["window"], **limits)
        say(
            calls=len(loop.took),
            seconds=seconds,
            cpu=time.process_time() - before,
            kinds=dict(loop.kinds),
            p50=quantile(loop.took, 0.5),
            p99=quantile(loop.took, 0.99),
        )

    def _failed(self, failure: Failure) -> None:
        say(error=failure.getTraceback())

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """End with whoever started this."""
        if not self._over.called:
            self._over.callback(None)


def say(**what: object) -> None:
    """Print a line of JSON."""
    print(json.dumps(what), flush=True)


async def serve(reactor: Any) -> tuple[Any, int]:
    """Serve a bus in memory; returns it and the port."""
    from kupool.bus.remote.service import BusService
    from kupool.net.server import Server

    bus = LocalBus(reactor, wall=time.time)
    server = Server(reactor, BusService(bus.broker))
    await server.listen(["127.0.0.1:0"])
    return bus, server.addresses[0].port


async def main(reactor: Any, arguments: argparse.Namespace) -> None:
    """Be a node until the standard input ends."""
    over: Deferred[None] = Deferred()
    port = 0
    if arguments.form == "server":
        bus, port = await serve(reactor)
    else:
        bus = await make_bus(reactor, arguments.form, arguments.address)
    workers = [Worker(reactor, f"{arguments.seed}/{n}") for n in range(arguments.subscribe)]
    for worker in workers:
        await worker.subscribe(bus)
    StandardIO(Orders(reactor, bus, workers, over), reactor=reactor)
    say(port=port, pid=os.getpid())
    await over


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("form", choices=["server", "local", "networked", "rabbit"])
    parser.add_argument("address", nargs="?", default="", help="the server's port, or an AMQP URL")
    parser.add_argument("--subscribe", type=int, default=0, help="so many subscribers in it")
    parser.add_argument("--seed", default="1")
    react(lambda reactor, *argv: ensureDeferred(main(reactor, *argv)), (parser.parse_args(),))
