"""Kills and cuts off the subscribers of a bus at random, while calls go over it.

    python -m tools.bus_kills --calls 100000 --form networked --seed 1
    python -m tools.bus_kills --evenness --form networked

Four subscribers answer, fail, refuse or stay silent, come and go. Over a network each is a
process that is killed with SIGKILL, frozen with SIGSTOP, or has its connections cut or
frozen, as the publisher's own are. Every call must have exactly one outcome, by its
deadline and 100 ms; it is the publisher's clock that says so. In the end nothing may be
left of them. With ``--evenness``, 10,000 calls must be spread evenly, and those that are
nobody's must be answered within 10 ms. Ends with status 1 where any of that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread
from twisted.logger import LogPublisher, globalLogBeginner

from kupool.bus import BusError
from tests.servers.running_daemon import ROOT
from tools.bus_load import PacedCalls
from tools.bus_node import (
    ECHO,
    MOODY,
    NOBODY,
    ClosedLoop,
    Worker,
    make_bus,
    quantile,
)
from tools.torture_proxy import HOLE, OPEN, Proxy

SUBSCRIBERS = 4

#: Each of four subscribers should have a quarter of the calls, give or take so much.
EVEN = 0.02

#: Seconds within which 99 of 100 calls must end that are nobody's.
NOBODY_P99 = 0.010

#: Calls a second, by the form: less than half of what one core can do.
RATES = {"local": 1500.0, "networked": 450.0, "rabbit": 250.0}


class Node:
    """A process of :mod:`tools.bus_node`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.bus_node", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def first_line(self) -> bytes:
        """Return what it says when it is ready; blocks."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class LocalTrouble:
    """Subscribers in this process that vanish and come back."""

    def __init__(self, reactor: Any, seed: int) -> None:
        self._reactor = reactor
        self._random = random.Random(f"{seed}/trouble")
        self._workers = [Worker(reactor, f"{seed}/{n}") for n in range(SUBSCRIBERS)]
        self.done: Counter[str] = Counter()
        self.bus: Any = None

    async def start(self, bus: Any) -> None:
        """Have them all there."""
        self.bus = bus
        for worker in self._workers:
            await worker.subscribe(bus)

    async def once(self) -> None:
        """Let one vanish for a moment, or all of them."""
        several = self._random.random() < 0.1
        gone = self._workers if several else [self._random.choice(self._workers)]
        self.done["all vanished" if several else "vanished"] += 1
        for worker in gone:
            await self.bus.unsubscribe(worker.moody)
        await deferLater(self._reactor, self._random.uniform(0.0, 0.5), lambda: None)
        for worker in gone:
            await self.bus.subscribe([MOODY], worker.moody)

    def close(self) -> None:
        """Leave no handler at work."""
        for worker in self._workers:
            worker.close()


class Trouble:
    """Subscribers that are processes, and proxies that their and our connections go through."""

    def __init__(
        self, reactor: Any, form: str, seed: int, port: int, url: str, *, proxies: bool
    ) -> None:
        self._reactor = reactor
        self._form = form
        self._seed = seed
        self._random = random.Random(f"{seed}/trouble")
        self._port = port
        self._url = url
        self._proxies = [Proxy(lambda: port) for _ in range(SUBSCRIBERS + 1) if proxies]
        self._nodes: list[Node] = []
        self._started = 0
        self.done: Counter[str] = Counter()

    def address(self, number: int) -> str:
        """Return where a subscriber, or as the last the publisher, connects to."""
        if not self._proxies:
            return self._url or str(self._port)
        port = self._proxies[number].port
        return self._url.replace(f":{self._port}/", f":{port}/") if self._url else str(port)

    def _node(self, number: int) -> Node:
        self._started += 1
        arguments = ["--subscribe", "1", "--seed", f"{self._seed}/{self._started}"]
        return Node(self._form, self.address(number), *arguments)

    async def start(self, bus: Any) -> None:
        """Have them all there."""
        self._nodes = [self._node(n) for n in range(SUBSCRIBERS)]
        for node in self._nodes:
            node.first_line()

    async def once(self) -> None:
        """Do one thing to one of them, or to the publisher's connection.

        In threads: what blocks must not keep the publisher from its clock.
        """
        number = self._random.randrange(SUBSCRIBERS)
        way = self._random.choice(("kill", "freeze", "cut", "cut", "hole", "cut ours"))
        pause = self._random.uniform(0.05, 1.5)
        self.done[way] += 1
        if way == "kill":
            await deferToThread(self._nodes[number].kill)
            await self._sleep(pause / 3)
            self._nodes[number] = await deferToThread(self._node, number)
        elif way == "freeze":
            self._nodes[number].signal(signal.SIGSTOP)
            await self._sleep(pause)
            self._nodes[number].signal(signal.SIGCONT)
        elif way == "hole" and self._proxies:
            await deferToThread(self._proxies[number].set, HOLE)
            await self._sleep(pause)
            await deferToThread(self._proxies[number].set, OPEN)
        elif self._proxies:
            await deferToThread(self._proxies[number if way == "cut" else SUBSCRIBERS].reset)

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds, lambda: None)

    def close(self) -> None:
        """End them all."""
        for node in self._nodes:
            node.kill()
        for proxy in self._proxies:
            proxy.close()


class Found:
    """What a run came to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problems: list[str] = []
        #: What took too long: not for tests, which a busy machine must not fail.
        self.slow: list[str] = []


async def kills(
    reactor: Any, trouble: Any, bus: Any, *, calls: int, rate: float, seed: int, every: float
) -> Found:
    """Publish so many calls while there is trouble, about one in ``every`` seconds."""
    found, load = Found(), PacedCalls(reactor, bus, random.Random(seed), calls, rate)
    await trouble.start(bus)
    over: list[bool] = []
    spread = random.Random(f"{seed}/when")

    async def make_trouble() -> None:
        while not over:
            await deferLater(reactor, spread.uniform(0, 2 * every), lambda: None)
            await trouble.once()

    making = ensureDeferred(make_trouble())
    await load.run()
    over.append(True)
    await making
    found.problems += load.problems
    found.slow += load.too_late
    left = await _what_is_left(reactor, bus)
    if left:
        found.problems.append(f"in the end: {left}")
    found.lines = [
        *load.lines(),
        f"trouble                   {dict(trouble.done)}",
        f"left at the broker        {left or '0 calls, 0 unanswered'}",
    ]
    return found


async def _what_is_left(reactor: Any, bus: Any) -> str:
    """Return what the broker still has in hand, once all is quiet; nothing is all right."""
    said = ""
    for _ in range(100):
        await deferLater(reactor, 0.1, lambda: None)
        try:
            status = await bus.status()
        except BusError as error:
            said = str(error)
            continue
        unanswered = sum(subscriber.unanswered for subscriber in status.subscribers)
        waiting = sum(topic.waiting for topic in status.topics)
        if not (status.calls or status.calls_bytes or unanswered or waiting):
            return ""
        said = f"{status.calls} calls, {unanswered} unanswered, {waiting} waiting"
    return said


async def evenness(reactor: Any, trouble: Any, bus: Any, *, calls: int) -> Found:
    """See who gets how many calls, and how soon those end that are nobody's."""
    found = Found()
    await trouble.start(bus)
    await _until_there(reactor, bus)
    loop = ClosedLoop(reactor, bus, "reliable-random", ECHO, 10.0)
    seconds = await loop.run(20, calls=calls)
    shares = {who: count / calls for who, count in loop.by.items()}
    found.lines.append(
        f"{calls} calls in {seconds:.1f} s: {dict(loop.kinds)}, shares "
        + ", ".join(f"{share:.2%}" for share in sorted(shares.values()))
    )
    fair = 1 / SUBSCRIBERS
    if len(shares) != SUBSCRIBERS or any(abs(s - fair) > EVEN for s in shares.values()):
        found.problems.append(f"not even: {shares}")
    loop = ClosedLoop(reactor, bus, "reliable-specific", NOBODY, 10.0)
    await loop.run(1, calls=calls // 5)
    turn = quantile(await _bare_turns(reactor, calls // 5), 0.99)
    p50, p99 = (quantile(loop.took, part) for part in (0.5, 0.99))
    found.lines.append(
        f"{len(loop.took)} calls that are nobody's: {dict(loop.kinds)}, p50 {p50 * 1e3:.2f} ms, "
        f"p99 {p99 * 1e3:.2f} ms; an empty turn of the reactor: p99 {turn * 1e3:.2f} ms"
    )
    if set(loop.kinds) != {"no subscriber"}:
        found.problems.append(f"nobody's calls: {dict(loop.kinds)}")
    if p99 > NOBODY_P99 + turn:
        found.slow.append(f"p99 of nobody's calls: {p99 * 1e3:.1f} ms")
    return found


async def _bare_turns(reactor: Any, count: int) -> list[float]:
    """Return how long turns of the reactor take that do nothing: what the machine costs."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await deferLater(reactor, 0.0, lambda: None)
        took.append(time.perf_counter() - began)
    return took


async def _until_there(reactor: Any, bus: Any) -> None:
    """Wait until every subscriber is known."""
    for _ in range(200):
        status = await bus.status()
        if sum(ECHO in s.topics for s in status.subscribers) == SUBSCRIBERS:
            return
        await deferLater(reactor, 0.05, lambda: None)
    raise SystemExit("not every subscriber is there")


async def with_bus(
    reactor: Any,
    form: str,
    seed: int,
    run: Callable[[Any, Any], Any],
    rabbit: Any = None,
    *,
    proxies: bool = True,
) -> Found:
    """Set up a form of the bus with its subscribers, and run something on it.

    ``proxies`` stand between all and their server, where there is one.
    """
    if form == "local":
        bus = await make_bus(reactor, form, "")
        local = LocalTrouble(reactor, seed)
        result: Found = await run(local, bus)
        await bus.close()
        local.close()
        return result
    with contextlib.ExitStack() as stack:
        if form == "networked":
            server = Node("server")
            stack.callback(server.kill)
            port, url = json.loads(server.first_line())["port"], ""
        else:
            host, _, number = rabbit.address.rpartition(":")
            port, url = int(number), rabbit.new_vhost()
            proxies = proxies and host == "127.0.0.1"  # elsewhere it is not ours to cut off
        trouble = Trouble(reactor, form, seed, port, url, proxies=proxies)
        stack.callback(trouble.close)
        bus = await make_bus(reactor, form, trouble.address(SUBSCRIBERS))
        result = await run(trouble, bus)
        await bus.close()
        return result


async def _main(reactor: Any, options: argparse.Namespace) -> None:
    rabbit: Any = None
    if options.form == "rabbit":
        from tests.servers.services import RabbitServer

        rabbit = RabbitServer().__enter__()
    began = time.monotonic()

    def run(trouble: Any, bus: Any) -> Any:
        if options.evenness:
            return evenness(reactor, trouble, bus, calls=10_000)
        return kills(
            reactor,
            trouble,
            bus,
            calls=options.calls,
            rate=options.rate or RATES[options.form],
            seed=options.seed,
            every=options.every,
        )

    try:
        found = await with_bus(
            reactor, options.form, options.seed, run, rabbit, proxies=not options.evenness
        )
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(2) from error
    finally:
        if rabbit is not None:
            rabbit.close()
    print("\n".join(found.lines))
    problems = found.problems + found.slow
    print(f"problems                  {len(problems)}  ({time.monotonic() - began:.0f} s)")
    for text in problems[:20]:
        print(f"  {text}")
    raise SystemExit(1 if problems else 0)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--form", choices=sorted(RATES), default="networked")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two troubles")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--evenness", action="store_true", help="see how calls are spread instead")
    options = parser.parse_args()
    print(f"seed                      {options.seed}, {options.form}", flush=True)
    globalLogBeginner.beginLoggingTo([LogPublisher()], redirectStandardIO=False)
    react(lambda reactor: ensureDeferred(_main(reactor, options)))


if __name__ == "__main__":
    main()
