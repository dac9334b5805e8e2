"""Kills, stops and freezes hosts of rooms at random, while members talk and move about.

    python -m tools.rooms_kills --hosts 3 --rounds 50 --bus remote --seed 1

Each host is a process (:mod:`tests.servers.rooms_host`). They share the rooms over the bus of one
more process, or over RabbitMQ. In each round hosts are killed with SIGKILL, stopped in order,
frozen with SIGSTOP, or the bus is, or is started anew; then all is left to settle. Every request
must have one outcome: an answer, an error, or the end of its connection. Nothing may be handled
twice, or be delivered twice to a connection; what one connection says stays in order. A room
must be in one place, but for a host that stood still; where a host is stopped in order, what was
said in its rooms must be with the next one. In the end, when everybody has left, no host may
have anything left. Ends with status 1 where any of that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner

from tests.servers.own_process import free_port
from tests.servers.running_daemon import ROOT
from tools.rooms_journal import Judge, Trouble, read_journals
from tools.rooms_talk import Member, MemberConnection, Told

#: Seconds that a host has to be ready, to end, and all hosts to find each other.
PATIENCE = 40.0

#: Seconds in which every request has its outcome, and every host has let go of what it had.
LAST_OUTCOMES = 30.0

#: Seconds for which all hosts must have been there after the bus was not: until then those that
#: have not heard themselves meanwhile may not know it yet.
STEADY = 3.0

#: What is done to a host, and what to the bus. Most that is done is to stop a host in order.
HOST_WAYS = ("kill", "stop", "stop", "freeze", "freeze long")
BUS_WAYS = ("freeze bus", "restart bus")

#: What a host's log may not have in it.
_WRONG = ("Traceback", "Unhandled", "could not be handled", "state is lost", "CRITICAL")


class HostProcess:
    """A process of :mod:`tests.servers.rooms_host`; its methods block."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self.journal = folder / f"{name}.journal"
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.rooms_host", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        self.port = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def wait_ready(self) -> None:
        """Wait until it listens; raises :class:`RuntimeError`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{self.name} did not start: {line!r}, see {self.log}")
        self.port = int(line.split()[-1])

    def end(self, number: int) -> int:
        """End it with a signal; returns its status, or kills it after a while."""
        self.process.send_signal(number)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = 1000
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


class OwnBus:
    """The bus as a process that goes and comes back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.address = str(self._port)
        self._start()

    def _start(self) -> None:
        self._process = HostProcess(self._folder, "bus", "bus", "--port", self.address)
        self._process.wait_ready()

    def restart(self) -> None:
        """Kill it, and start it anew on its port."""
        self._process.end(signal.SIGKILL)
        self._start()

    def freeze(self, seconds: float) -> None:
        """Let it stand still so long."""
        self._process.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self._process.end(signal.SIGKILL)


class RabbitMQ:
    """RabbitMQ as the bus: a node that is only this run's."""

    def __init__(self) -> None:
        from tests.servers.services import RabbitServer

        self._server = RabbitServer().__enter__()
        self.address = self._server.new_vhost()

    def restart(self) -> None:
        """Stop it, and start it anew with what it had."""
        self._server.stop()
        self._server.start()

    def freeze(self, seconds: float) -> None:
        """Let it stand still so long."""
        self._server.pause()
        time.sleep(seconds)
        self._server.resume()

    def close(self) -> None:
        """End it."""
        self._server.close()


class Site:
    """The hosts, and what is done to them."""

    def __init__(self, reactor: Any, folder: Path, bus: Any, hosts: int, seed: int) -> None:
        self._reactor = reactor
        self._folder = folder
        self._bus = bus
        self._random = random.Random(f"{seed}/site")
        self.names = [chr(ord("a") + n) for n in range(hosts)]
        self._hosts: dict[str, HostProcess] = {}
        self._unsettled: list[tuple[str, frozenset[int], float, float]] = []
        self.troubles: list[Trouble] = []
        #: When each process ended.
        self.ends: dict[int, float] = {}
        self.problems: list[str] = []
        self.done: Counter[str] = Counter()

    def ports(self) -> list[int]:
        """Return where the hosts listen that are there."""
        return [host.port for host in self._hosts.values()]

    async def start(self) -> None:
        """Start all hosts, and wait until they have found each other."""
        await gatherResults([ensureDeferred(self._start(name)) for name in self.names])
        await self.settle()

    async def _start(self, name: str) -> None:
        host = HostProcess(
            self._folder,
            name,
            "host",
            name,
            self._bus.address,
            "--journal",
            str(self._folder / f"{name}.journal"),
        )
        await deferToThread(host.wait_ready)
        self._hosts[name] = host

    async def _end(self, name: str, number: int) -> int:
        host = self._hosts[name]
        if number == signal.SIGKILL:
            del self._hosts[name]
        status = await deferToThread(host.end, number)
        self._hosts.pop(name, None)
        self.ends[host.pid] = time.monotonic()
        return status

    def _pids(self) -> frozenset[int]:
        return frozenset(host.pid for host in self._hosts.values())

    async def trouble(self, ways: Sequence[str]) -> None:
        """Do something to the bus, or to as many hosts as there are ways."""
        names = self._random.sample(self.names, len(ways))
        doing = [
            self._bus_trouble(way) if way in BUS_WAYS else self._host_trouble(name, way)
            for name, way in zip(names, ways, strict=True)
        ]
        await gatherResults([ensureDeferred(each) for each in doing])

    async def _bus_trouble(self, way: str) -> None:
        begun, pids = time.monotonic(), self._pids()
        if way == "restart bus":
            await deferToThread(self._bus.restart)
        else:
            await deferToThread(self._bus.freeze, self._random.uniform(0.2, 5.0))
        self._did(way, pids, begun)

    async def _host_trouble(self, name: str, way: str) -> None:
        host, begun = self._hosts[name], time.monotonic()
        pids = frozenset([host.pid])
        if way.startswith("freeze"):
            longest = (4.5, 8.0) if way == "freeze long" else (0.2, 1.5)
            host.process.send_signal(signal.SIGSTOP)
            await deferLater(self._reactor, self._random.uniform(*longest), lambda: None)
            host.process.send_signal(signal.SIGCONT)
            self._did(way, pids, begun)
            return
        number = signal.SIGKILL if way == "kill" else signal.SIGTERM
        status = await self._end(name, number)
        if way == "stop" and status:
            self.problems.append(f"host {name} ended with status {status}")
        self._did(way, pids, begun)
        await deferLater(self._reactor, self._random.uniform(0.0, 6.0), lambda: None)
        await self._start(name)

    def _did(self, kind: str, pids: frozenset[int], begun: float) -> None:
        self.done[kind] += 1
        self._unsettled.append((kind, pids, begun, time.monotonic()))

    async def settle(self) -> None:
        """Wait until every host takes all of them for there, and goes on to."""
        now = since = time.monotonic()
        end = now + PATIENCE
        steady = STEADY if any(kind != "stop" for kind, *_ in self._unsettled) else 0.0
        while now < end:
            states = await self.states()
            whole = all(state.get("hosts") == self.names for state in states.values())
            now = time.monotonic()
            if not whole:
                since = now
            elif now >= since + steady:
                self._settled()
                return
            await deferLater(self._reactor, 0.2, lambda: None)
        self._settled()
        self.problems.append(f"the hosts did not find each other: {await self.states()}")

    def _settled(self) -> None:
        now, done = time.monotonic(), self._unsettled
        self._unsettled = []
        self.troubles += [Trouble(*each, now) for each in done]

    async def states(self) -> dict[str, dict[str, Any]]:
        """Return what each host has; nothing for one that does not say it."""
        return {name: await self._state(host.port) for name, host in self._hosts.items()}

    async def _state(self, port: int) -> dict[str, Any]:
        connection = MemberConnection(Told(), Stranger(), 0)
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", port, timeout=5)
        answer: Deferred[Any] = Deferred()
        with contextlib.suppress(Exception):
            await connectProtocol(endpoint, connection)
            connection.ask(lambda result: answer.callback(result), "state")
            answer.addTimeout(5, self._reactor)
            result = await answer
            return result if isinstance(result, dict) else {}
        if connection.up:
            connection.transport.abortConnection()
        return {}

    async def nothing_left(self) -> None:
        """Wait until no host has anything any more."""
        end = time.monotonic() + LAST_OUTCOMES
        while time.monotonic() < end:
            states = await self.states()
            left = {
                name: state
                for name, state in states.items()
                if not state or any(value for key, value in state.items() if key != "hosts")
            }
            if not left:
                return
            await deferLater(self._reactor, 0.3, lambda: None)
        self.problems.append(f"left in the end: {left}")

    async def stop(self) -> None:
        """Stop all hosts in order, one after the other, and read their logs."""
        for name in list(self._hosts):
            status = await self._end(name, signal.SIGTERM)
            if status:
                self.problems.append(f"host {name} ended with status {status}")
        for name in self.names:
            log = (self._folder / f"{name}.log").read_text()
            wrong = [line for line in log.splitlines() if any(word in line for word in _WRONG)]
            if wrong:
                self.problems.append(f"log of {name}: {len(wrong)} lines such as {wrong[0]!r}")

    def close(self) -> None:
        """End what still runs."""
        for host in self._hosts.values():
            host.end(signal.SIGKILL)


class Stranger:
    """Who asks a host what it has, and is in no room."""

    user = "stranger"

    def gone(self, connection: MemberConnection) -> None:
        """The connection has ended, as it should."""

    def lost(self, connection: MemberConnection) -> None:
        """There is no room to lose."""


class Found:
    """What a run came to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problems: list[str] = []


async def kills(
    reactor: Any,
    folder: Path,
    bus: Any,
    *,
    seed: int,
    rounds: Iterable[Sequence[str]],
    hosts: int = 3,
    members: int = 24,
    rate: float = 4.0,
) -> Found:
    """Have members talk, each ``rate`` times a second, while there is trouble.

    ``rounds`` are the ways in which each makes it: some of :data:`HOST_WAYS` at once, each for a
    host, or one of :data:`BUS_WAYS`.
    """
    site, told, found = Site(reactor, folder, bus, hosts, seed), Told(), Found()
    chance = random.Random(f"{seed}/members")
    rooms = [f"room {n}" for n in range(members // 2)]
    talkers = [
        Member(
            reactor,
            site.ports,
            told,
            name=f"u{n}",
            rooms=rooms,
            random=random.Random(f"{seed}/{n}"),
        )
        for n in range(members)
    ]

    talking = LoopingCall(_talk, talkers, rate / 20, chance)
    talking.clock = reactor
    try:
        await site.start()
        for member in talkers:
            member.connect()
        await deferLater(reactor, 1.0, lambda: None)
        talking.start(0.05)
        for ways in rounds:
            await site.trouble(ways)
            await site.settle()
            if site.problems:
                break
            await deferLater(reactor, chance.uniform(0.2, 2.0), lambda: None)
        talking.stop()
        await _all_leave(reactor, talkers, found)
        await site.nothing_left()
        await site.stop()
    finally:
        if talking.running:
            talking.stop()
        for member in talkers:
            member.close()
        await deferToThread(site.close)
    _judge(folder, site, told, found)
    found.lines.insert(0, f"troubles                  {dict(site.done)}")
    return found


def _talk(members: list[Member], often: float, chance: random.Random) -> None:
    """Have some of them say something, and a few move about."""
    for member in members:
        draw = chance.random()
        if draw < often:
            member.say()
        elif draw < often + 0.003:
            member.change_hosts()
        elif draw < often + 0.004:
            member.change_rooms()


async def _all_leave(reactor: Any, members: list[Member], found: Found) -> None:
    """Have all of them leave their rooms, and end their connections."""
    await _all_told(reactor, members, found)
    for member in members:
        member.leave()
    await _all_told(reactor, members, found)
    for member in members:
        member.close()


async def _all_told(reactor: Any, members: list[Member], found: Found) -> None:
    """Wait until every request has its outcome."""
    end = time.monotonic() + LAST_OUTCOMES
    while time.monotonic() < end:
        if not any(member.unanswered for member in members):
            return
        await deferLater(reactor, 0.1, lambda: None)
    left = sum(member.unanswered for member in members)
    if left:
        found.problems.append(f"{left} requests have no outcome")


def _judge(folder: Path, site: Site, told: Told, found: Found) -> None:
    lives = read_journals(sorted(folder.glob("*.journal")))
    judge = Judge(lives, site.troubles, site.ends, told.answered)
    judge.judge()
    found.problems += site.problems + told.problems + judge.problems
    handled = sum(len(life.said) for life in lives)
    reasons = Counter(life.reason or "with its process" for life in lives)
    moved = sum(life.taken is not None for life in lives)
    found.lines += [
        f"requests                  {told.asked}: {dict(told.outcomes)}",
        f"messages                  {handled} handled, {len(told.answered)} answered, "
        f"{told.heard} delivered",
        f"told                      {dict(told.news)}",
        f"rooms                     {len(lives)}, {moved} of them taken over; "
        f"ended: {dict(reasons)}",
        f"excused                   {dict(judge.excused)}",
    ]


def _rounds(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    chance, end = random.Random(f"{options.seed}/rounds"), time.monotonic() + options.seconds
    for number in count():
        if time.monotonic() > end if options.seconds else number >= options.rounds:
            return
        way = chance.choice((*HOST_WAYS, *BUS_WAYS))
        if way in BUS_WAYS or options.hosts < 3 or chance.random() < 0.8:
            yield (way,)
        else:
            yield way, chance.choice(HOST_WAYS)


async def _main(reactor: Any, options: argparse.Namespace) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-"))
        )
        bus: Any = RabbitMQ() if options.bus == "rabbit" else OwnBus(folder)
        stack.callback(bus.close)
        try:
            found = await kills(
                reactor,
                folder,
                bus,
                seed=options.seed,
                rounds=_rounds(options),
                hosts=options.hosts,
                members=options.members,
                rate=options.rate,
            )
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(2) from error
    print("\n".join(found.lines))
    print(f"problems                  {len(found.problems)}  ({time.monotonic() - began:.0f} s)")
    for text in found.problems[:20]:
        print(f"  {text}")
    raise SystemExit(1 if found.problems else 0)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.0, help="instead of rounds")
    parser.add_argument("--bus", choices=["remote", "rabbit"], default="remote")
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--rate", type=float, default=4.0, help="messages of each in a second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", type=Path, help="a folder for the journals and logs")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(exist_ok=True)
    print(f"seed                      {options.seed}, {options.bus}", flush=True)
    globalLogBeginner.beginLoggingTo([cast(Any, lambda event: None)], redirectStandardIO=False)
    react(lambda reactor: ensureDeferred(_main(reactor, options)))


if __name__ == "__main__":
    main()
