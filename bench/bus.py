"""Compares the three forms of the bus: messages per second, and the cost of each.

``python -m bench.bus`` starts the processes of each form: one process with everything (in-process);
a server, a publisher and a process with four subscribers (networked); and two nodes with a private
RabbitMQ, one of which publishes to the four subscribers of the other. They take turns, for each of
the four models. It prints medians over the rounds: messages per second until the last one is
handled; the CPU time per message in microseconds, of all processes and of each; and both as a ratio
to the in-process form of the same round.

Three more measurements follow:

- the time of a call that every subscriber declines;
- the CPU time of an idle server, without calls, and with 10,000 calls that wait for a
  subscriber;
- the CPU time of a daemon with one session that publishes to a hundred others, at the default
  of ``--bus-rate``.

``python -m bench.bus --before DIR`` compares two checkouts instead: the processes of the
networked form of both publish in turns. It prints the CPU time of one message in the server
and in both clients together, as the median of the ratios within a round, this checkout to the
other. Above 1, this checkout costs more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.pair import shown
from tests.servers.running_daemon import ROOT, LineClient, RunningDaemon
from tests.servers.services import RabbitServer

MODELS = ("reliable-random", "reliable-specific", "unreliable-all", "unreliable-random")

#: Calls under way at a time. Unreliable messages in one process are published as fast as
#: they are handled: nothing else would hold the publisher back.
WINDOW = 64

#: Seconds without another message after which all count as handled.
QUIET = 0.3

#: Calls that wait for a subscriber, the seconds they do, and those of the look at them.
WAITING, PATIENCE, LOOK = 10_000, 30.0, 5.0

#: Sessions that a daemon's publisher reaches, its messages a second, and the seconds of it.
AUDIENCE, PACE, FAN_OUT = 100, 100, 5.0


class Node:
    """A process of ``tools.bus_node`` in a checkout."""

    def __init__(self, *arguments: str, tree: Path = ROOT) -> None:
        command = [sys.executable, "-m", "tools.bus_node", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tree
        )
        self.port = int(self._answer()["port"])
        self.process = psutil.Process(self._process.pid)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise SystemExit(str(answer["error"]))
        return answer

    def ask(self, **order: object) -> None:
        """Have it publish; :meth:`result` waits for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Return what came of it."""
        return self._answer()

    def handled(self) -> int:
        """Return how many messages its subscribers have handled so far."""
        self.ask()
        return int(self._answer()["handled"])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Measured(NamedTuple):
    """One run: messages a second, microseconds of each process for one, and the share of
    those taken that did not arrive.
    """

    rate: float
    costs: dict[str, float]
    lost: float

    @property
    def cost(self) -> float:
        """Microseconds of all processes together."""
        return sum(self.costs.values())

    @property
    def server(self) -> float:
        """Microseconds of the server of the networked form."""
        return self.costs["server"]

    @property
    def clients(self) -> float:
        """Microseconds of the publisher and the subscribers of the networked form."""
        return self.costs["publisher"] + self.costs["subscribers"]


class Form:
    """The processes of one form, by what they do: one publishes, one has the subscribers."""

    def __init__(
        self,
        name: str,
        publisher: Node,
        subscribers: Node,
        others: dict[str, list[psutil.Process]],
    ) -> None:
        self.name = name
        self.publisher = publisher
        self.subscribers = subscribers
        if subscribers is not publisher:
            others = {"subscribers": [subscribers.process], **others}
        self.processes = {"publisher": [publisher.process], **others}

    def measure(self, model: str, seconds: float) -> Measured:
        """Publish for so long, and wait until the subscribers have handled it."""
        window = WINDOW
        if self.name != "networked" and model.startswith("unreliable"):
            window = 1
        handled, before = self.subscribers.handled(), self._cpu()
        self.publisher.ask(model=model, topic="echo", seconds=seconds, window=window)
        found = self.publisher.result()
        arrived, later = self._all_handled()
        after = self._cpu()
        good = found["kinds"].get("answered", 0) + found["kinds"].get("sent", 0)
        if not good:
            raise SystemExit(f"{self.name}, {model}: {found['kinds']}")
        costs = {who: (after[who] - before[who]) / good * 1e6 for who in before}
        copies = 4 if model in ("reliable-specific", "unreliable-all") else 1
        lost = 1 - (arrived - handled) / (good * copies)
        return Measured(good / (found["seconds"] + later), costs, max(0.0, lost))

    def _all_handled(self) -> tuple[int, float]:
        """Return how many messages were handled once no more come, and how long that took."""
        began = last = time.perf_counter()
        handled = self.subscribers.handled()
        while time.perf_counter() < last + QUIET:
            time.sleep(QUIET / 10)
            if (now := self.subscribers.handled()) != handled:
                handled, last = now, time.perf_counter()
        return handled, last - began

    def nobodys(self, seconds: float) -> dict[str, Any]:
        """Return how long calls take that every subscriber says is not its own."""
        self.publisher.ask(model="reliable-specific", topic="nobody", seconds=seconds, window=1)
        return self.publisher.result()

    def _cpu(self) -> dict[str, float]:
        return {who: sum(map(_cpu, processes)) for who, processes in self.processes.items()}


def _cpu(process: psutil.Process) -> float:
    """Return the seconds of a processor that a process has used.

    Linux keeps them in nanoseconds for each thread. What psutil returns has a grain of 10 ms.
    """
    threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    used = sum(int(thread.read_text("ascii").split()[0]) for thread in threads)
    if used:
        return used / 1e9
    times = process.cpu_times()
    return float(times.user + times.system)


def start(stack: contextlib.ExitStack) -> list[Form]:
    """Start everything; ended with the stack."""

    def node(*arguments: str) -> Node:
        return started(stack, *arguments)

    alone = node("local", "--subscribe", "4")
    broker = stack.enter_context(RabbitServer())
    url = broker.new_vhost()
    far = node("rabbit", url, "--subscribe", "4")
    near = node("rabbit", url)
    head = psutil.Process(broker.process.pid)
    rabbit = [head, *head.children(recursive=True)]
    return [
        Form("in-process", alone, alone, {}),
        networked(stack),
        Form("RabbitMQ", near, far, {"RabbitMQ": rabbit}),
    ]


def started(stack: contextlib.ExitStack, *arguments: str, tree: Path = ROOT) -> Node:
    """Start a node that ends with the stack."""
    node = Node(*arguments, tree=tree)
    stack.callback(node.close)
    return node


def networked(stack: contextlib.ExitStack, tree: Path = ROOT) -> Form:
    """Start the processes of the networked form of a checkout; they end with the stack."""
    server = started(stack, "server", tree=tree)
    port = str(server.port)
    workers = started(stack, "networked", port, "--subscribe", "4", tree=tree)
    publisher = started(stack, "networked", port, tree=tree)
    return Form("networked", publisher, workers, {"server": [server.process]})


def pair(now: Form, then: Form, *, rounds: int, seconds: float) -> None:
    """Measure two checkouts in turns, and print the ratios of what a message costs in each."""
    for form in (now, then):
        form.measure("reliable-random", seconds / 2)  # warm up
    for model in MODELS:
        found: dict[Form, list[Measured]] = {now: [], then: []}
        for number in range(rounds):
            for form in (now, then) if number % 2 else (then, now):
                found[form].append(form.measure(model, seconds))
        for who in ("server", "clients"):
            ours, theirs = ([getattr(run, who) for run in found[form]] for form in (now, then))
            print(f"{model + ', ' + who:<28} {shown(ours, theirs, 'us')}", flush=True)


def compare(forms: list[Form], rounds: int, seconds: float) -> None:
    """Measure every model of every form in turns, and print the table."""
    found: defaultdict[tuple[str, str], list[Measured]] = defaultdict(list)
    for form in forms:
        form.measure("reliable-random", seconds / 2)  # warm up
    for _ in range(rounds):
        for model in MODELS:
            for form in forms:
                found[model, form.name].append(form.measure(model, seconds))
    print(f"{'':<18} {'':<11} {'a second':>9} {'ratio':>6} {'us each':>8} {'ratio':>6}")
    for model in MODELS:
        base = found[model, forms[0].name]
        for form in forms:
            runs = found[model, form.name]
            rate, cost = _median(runs, "rate"), _median(runs, "cost")
            pairs = list(zip(runs, base, strict=True))
            faster = statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)
            dearer = statistics.median(ours.cost / theirs.cost for ours, theirs in pairs)
            parts = ", ".join(
                f"{who} {statistics.median(run.costs[who] for run in runs):.0f}"
                for who in form.processes
            )
            lost = _median(runs, "lost")
            more = f"; {lost:.0%} lost" if lost >= 0.005 else ""
            print(
                f"{model:<18} {form.name:<11} {rate:>9,.0f} {faster:>6.2f} {cost:>8.0f} "
                f"{dearer:>6.1f}  {parts}{more}",
                flush=True,
            )


def _median(runs: list[Measured], what: str) -> float:
    return float(statistics.median(getattr(run, what) for run in runs))


def print_nobodys(forms: list[Form], seconds: float) -> None:
    """Print how soon calls end that are nobody's."""
    for form in forms:
        found = form.nobodys(seconds)
        print(
            f"nobody's calls     {form.name:<11} p50 {found['p50'] * 1e3:.2f} ms, "
            f"p99 {found['p99'] * 1e3:.2f} ms, one at a time, {found['calls']} of them",
            flush=True,
        )


def print_idle() -> None:
    """Print what a broker costs that holds calls and has nothing to do."""
    server = Node("server")
    publisher = Node("networked", str(server.port))
    try:
        empty = _idle(server)
        publisher.ask(
            model="reliable-random",
            topic="not.there.yet",
            seconds=0.0,
            window=WAITING,
            calls=WAITING,
            timeout=PATIENCE,
        )
        time.sleep(PATIENCE / 3)
        full = _idle(server)
        kinds = publisher.result()["kinds"]
    finally:
        publisher.close()
        server.close()
    print(
        f"idle broker        {empty:.2%} of a core; with {WAITING:,} calls that wait for a "
        f"subscriber {full:.2%}; they ended as {kinds}"
    )


def _idle(server: Node) -> float:
    before, began = _cpu(server.process), time.monotonic()
    time.sleep(LOOK)
    return (_cpu(server.process) - before) / (time.monotonic() - began)


class FanOut(NamedTuple):
    """What one publisher to many costs a daemon: the part of a core, and how many arrived."""

    core: float
    published: int
    arrived: int


def fan_out(seconds: float, audience: int = AUDIENCE, rate: float = PACE) -> FanOut:
    """Have one session of a daemon publish to others, so often a second."""
    with RunningDaemon("--interval=1h", fresh=True) as daemon:
        process = psutil.Process(daemon.pid)
        listeners = [_session(daemon, f"listener{n}") for n in range(audience)]
        publisher = _session(daemon, "publisher")
        for listener in listeners:
            reply = listener.request("bus.subscribe", topics=["all"])
            if "error" in reply:
                raise SystemExit(f"no subscription: {reply}")
            listener.socket.setblocking(False)
        params = {"model": "unreliable-all", "topic": "all", "data": "x" * 100}
        before, began = _cpu(process), time.monotonic()
        published = arrived = 0
        while (passed := time.monotonic() - began) < seconds:
            if published < passed * rate:
                reply = publisher.request("bus.publish", **params)
                if "error" in reply:
                    raise SystemExit(f"not published: {reply}")
                published += 1
                arrived += sum(map(_lines, listeners))
            else:
                time.sleep(0.5 / rate)
        core = (_cpu(process) - before) / (time.monotonic() - began)
        time.sleep(QUIET)
        arrived += sum(map(_lines, listeners))
        for session in (publisher, *listeners):
            session.close()
    return FanOut(core, published, arrived)


def _session(daemon: RunningDaemon, username: str) -> LineClient:
    session = LineClient(daemon)
    session.authorize(username)
    return session


def _lines(session: LineClient) -> int:
    """Return how many messages have come since the last look."""
    try:
        return session.socket.recv(65536).count(b"\n")
    except BlockingIOError:
        return 0


def print_fan_out() -> None:
    """Print what one publisher to many costs a daemon."""
    found = fan_out(FAN_OUT)
    print(
        f"one to {AUDIENCE}         {found.core:.1%} of a core of a daemon, "
        f"{found.published / FAN_OUT:.0f} messages a second; of {found.published * AUDIENCE:,} "
        f"{found.arrived:,} arrived"
    )


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--before", type=Path, help="another checkout: compare with it instead")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.before is not None:
            now, then = networked(stack), networked(stack, options.before.resolve())
            pair(now, then, rounds=options.rounds, seconds=options.seconds)
            return
        forms = start(stack)
        compare(forms, options.rounds, options.seconds)
        print_nobodys(forms, options.seconds)
    print_idle()
    print_fan_out()


if __name__ == "__main__":
    main()
