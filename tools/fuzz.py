"""Sends mutated messages to a live daemon, while a good client goes on.

    python -m tools.fuzz --messages 1000000 --seed 1

Half of the messages go to a daemon that never closes a connection for malformed ones,
so that its later messages are looked at too; half to one with the defaults. Ends with
status 1 if the log of either tells of an error, if the good client was answered wrong,
if descriptors are left, if memory has grown beyond a bound, or if it does not serve.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from typing import Any

import msgspec

from kupool.wire.framing import FRAMINGS, Control, Item
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tools.crowd import Crowd, Peer, decode, submission
from tools.fuzz_messages import Mutator
from tools.process import complaints, cpu, descriptors, megabytes, rss

PEERS = 24

#: Bytes handed to the kernel at once; what it does not take waits, and so does the peer.
BACKLOG = 65536

#: Growth of the resident memory that is still none: what allocators keep, in bytes.
GROWTH = 16_000_000

#: Jobs and their nonces are gone after so many seconds.
WINDOW = 1.0


class Fuzz:
    """A number of messages, spread over connections that come and go."""

    def __init__(
        self,
        crowd: Crowd,
        daemon: RunningDaemon,
        seed: str,
        messages: int,
        batches: tuple[int, ...],
    ) -> None:
        self.crowd = crowd
        self.batches = batches
        self.daemon = daemon
        self.random = random.Random(seed)
        self.mutator = Mutator(seed)
        self.left = messages
        self.sent = self.replies = self.connections = 0
        self.ends: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.alive = 0
        for _ in range(PEERS):
            self.another()

    def another(self) -> None:
        """Begin a connection, while there are messages left."""
        if self.left > 0:
            self.connections += 1
            self.alive += 1
            _FuzzPeer(self, self.random.choice(list(FRAMINGS)), self.daemon.port)

    def take(self, wanted: int) -> int:
        """Return how many messages may be sent now."""
        granted = max(0, min(wanted, self.left))
        self.left -= granted
        self.sent += granted
        return granted


class _FuzzPeer(Peer):
    """Sends batches of messages: some before it authorizes, most after."""

    def __init__(self, fuzz: Fuzz, framing: str, port: int) -> None:
        self._fuzz = fuzz
        self._job: dict[str, Any] | None = None
        self._budget = fuzz.random.choice((1, 50, 500, 5000, 5000))
        #: Whether the header of a message may be wrong too, which ends the connection.
        self._breaks = fuzz.random.random() < 0.2
        Peer.__init__(self, fuzz.crowd, port, framing)

    def on_connected(self) -> None:
        fuzz = self._fuzz
        if self._budget == 1:
            if fuzz.take(1):
                self._send_one(fuzz.mutator.greeting())
            fuzz.crowd.call_later(0.2, self.finish)
            return
        self.send({"id": 1, "method": "authorize", "params": {"username": f"fuzz{self._budget}"}})

    def _send_one(self, payload: bytes) -> None:
        data = self.framing.encode(payload)
        if self.framing is FRAMINGS["line"]:
            data = payload.replace(b"\n", b" ") + b"\n"
        if self._breaks and self._fuzz.random.random() < 0.02:
            data = self._fuzz.mutator.framed(self.framing, payload)
        self.send_raw(data)

    def on_item(self, item: Item) -> None:
        if not isinstance(item, bytes):
            return  # the close of the framing `frame`, or a pong
        self._fuzz.replies += 1
        first = self._job is None
        if first or b'"method":"job"' in item:
            try:
                message = decode(item)
            except msgspec.DecodeError:
                self._fuzz.ends["the daemon sent what is no JSON"] += 1
                return
            if message.get("method") == "job":
                self._job = message["params"]
        elif b'"error"' in item:
            text = item.partition(b'"error":"')[2].partition(b'"')[0].decode()
            self._fuzz.kinds[text.partition(":")[0]] += 1
        else:
            self._fuzz.kinds["true"] += 1
        if first and self._job is not None:
            self.batch()

    def batch(self) -> None:
        """Send some more, unless the kernel still has to take the last ones."""
        if self.ended:
            return
        if self.backlog < BACKLOG:
            wanted = min(self._budget, self._fuzz.random.choice(self._fuzz.batches))
            granted = self._fuzz.take(wanted)
            self._budget -= granted
            payload = self._fuzz.mutator.payload
            for _ in range(granted):
                self._send_one(payload(self._job))
            if not self._budget or not granted:
                self._fuzz.crowd.call_later(0.1, self.finish)
                return
        self._fuzz.crowd.call_later(0, self.batch)

    def finish(self) -> None:
        """Leave: sometimes with answers pending."""
        if not self.ended:
            self.close()
            self.on_ended("done")

    def on_ended(self, reason: str) -> None:
        self._fuzz.ends[reason] += 1
        self._fuzz.alive -= 1
        self._fuzz.another()


class GoodClient(Peer):
    """Submits, one at a time: right ones, the same again, wrong ones, unknown jobs."""

    def __init__(self, crowd: Crowd, port: int, name: str = "good", framing: str = "frame") -> None:
        self._name = name
        self._steps = itertools.cycle((self._right, self._again, self._wrong, self._unknown))
        self._nonces = itertools.count()
        self._last: tuple[dict[str, Any], str] | None = None
        self._job: dict[str, Any] = {}
        self._jobs: dict[int, str] = {}
        self._expected: tuple[int, set[Any]] | None = None
        self._next_id = 1
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.stopped = False
        Peer.__init__(self, crowd, port, framing)

    def on_connected(self) -> None:
        self.send({"id": 1, "method": "authorize", "params": {"username": self._name}})

    def on_item(self, item: Item) -> None:
        if isinstance(item, Control):
            self.wrong.append(f"a control frame: {item}")
            return
        message = decode(item)  # type: ignore[arg-type]
        if message.get("method") == "job":
            first = not self._job
            self._job = message["params"]
            if first:
                next(self._steps)()
        elif message["id"] == 1:
            if message != {"id": 1, "result": True}:
                self.wrong.append(f"authorize: {message}")
        elif self._expected is None or message["id"] != self._expected[0]:
            self.wrong.append(f"an answer to nothing: {message}")
        else:
            self._answered(message.get("error", message["result"]))

    def _answered(self, outcome: Any) -> None:
        assert self._expected is not None
        if outcome not in self._expected[1]:
            self.wrong.append(f"answered {outcome}, not one of {self._expected[1]}")
        self._expected = None
        self.answers[str(outcome)] += 1
        if not self.stopped:
            self.crowd.call_later(0.005, next(self._steps))

    def _right(self) -> None:
        self._last = (self._job, f"good{next(self._nonces)}")
        self._ask(*self._last, {True})

    def _again(self) -> None:
        assert self._last is not None
        # The job may have left the short history in the meantime.
        self._ask(*self._last, {"Duplicate submission", "Task does not exist"})

    def _wrong(self) -> None:
        job = {**self._job, "server_nonce": "not this one"}
        self._ask(job, f"good{next(self._nonces)}", {"Invalid result"})

    def _unknown(self) -> None:
        self._ask({**self._job, "job_id": 0}, "good", {"Task does not exist"})

    def _ask(self, job: dict[str, Any], nonce: str, expected: set[Any]) -> None:
        self._next_id += 1
        self._expected = (self._next_id, expected)
        self.send(submission(self._next_id, job, nonce))

    def on_ended(self, reason: str) -> None:
        self.wrong.append(f"the connection ended: {reason}")


class Pass:
    """What a pass over one daemon found."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = self.replies = self.connections = 0
        self.seconds = self.cpu = 0.0
        self.fds = (0, 0)
        self.rss = (0, 0)
        self.kinds: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.problems: list[str] = []

    @property
    def growth(self) -> int:
        return self.rss[1] - self.rss[0]

    def lines(self) -> list[str]:
        return [
            f"-- {self.name}",
            f"messages sent       {self.sent} in {self.seconds:.1f} s on {self.connections} "
            "connections",
            f"answers             {self.replies}: {dict(self.kinds.most_common())}",
            f"ends                {dict(self.ends.most_common())}",
            f"the good client     {dict(self.good)}",
            f"CPU of the daemon   {self.cpu:.1f} s",
            f"resident memory     {megabytes(self.rss[0])} after the warm-up, "
            f"{megabytes(self.rss[1])} at the end: {megabytes(self.growth)} more",
            f"descriptors         {self.fds[0]} before, {self.fds[1]} after",
            f"problems            {len(self.problems)}",
            *(f"  {text}" for text in self.problems[:20]),
        ]


def run_pass(
    name: str, flags: tuple[str, ...], seed: str, messages: int, batches: tuple[int, ...]
) -> Pass:
    """Send ``messages`` messages, and a tenth of that before to warm up.

    ``batches`` are the numbers of messages that are written at once.
    """
    found = Pass(name)
    limits = (*UNLIMITED, "--interval=500ms", f"--history-window={WINDOW:g}s")
    with RunningDaemon(*limits, "--authorize-timeout=2s", *flags) as daemon, Crowd() as crowd:
        good = GoodClient(crowd, daemon.port)
        crowd.run(lambda: good.answers, 10)
        _send_all(crowd, Fuzz(crowd, daemon, f"{seed}/warm", max(2000, messages // 10), batches))
        _settle(crowd, daemon, descriptors(daemon))
        before = (rss(daemon), descriptors(daemon), cpu(daemon))
        began = time.monotonic()
        fuzz = Fuzz(crowd, daemon, seed, messages, batches)
        _send_all(crowd, fuzz)
        found.seconds = time.monotonic() - began
        _settle(crowd, daemon, before[1])
        found.cpu = cpu(daemon) - before[2]
        found.rss = (before[0], rss(daemon))
        found.fds = (before[1], descriptors(daemon))
        found.sent, found.replies, found.connections = fuzz.sent, fuzz.replies, fuzz.connections
        found.kinds, found.ends, found.good = fuzz.kinds, fuzz.ends, good.answers
        _judge(crowd, daemon, good, found)
    return found


def _send_all(crowd: Crowd, fuzz: Fuzz) -> None:
    crowd.run(lambda: not fuzz.left and not fuzz.alive, 3600)


def _settle(crowd: Crowd, daemon: RunningDaemon, fds: int) -> None:
    """Let the jobs that hold nonces leave the history, and connections end."""
    crowd.run_for(WINDOW + 1)
    crowd.run(lambda: descriptors(daemon) <= fds, 5)


def _judge(crowd: Crowd, daemon: RunningDaemon, good: GoodClient, found: Pass) -> None:
    good.stopped = True
    crowd.run_for(0.3)
    found.problems += good.wrong
    if not good.answers["True"]:
        found.problems.append("the good client was never answered with true")
    if found.fds[1] > found.fds[0]:
        found.problems.append(f"{found.fds[1] - found.fds[0]} descriptors are left")
    if found.growth > GROWTH:
        found.problems.append(f"the memory grew by {megabytes(found.growth)}")
    if found.ends["the daemon sent what is no JSON"]:
        found.problems.append("the daemon sent what is no JSON")
    client = LineClient(daemon)
    answer = client.submit(client.authorize("late"), "1")
    client.close()
    if answer.get("result") is not True:
        found.problems.append(f"a new client was answered {answer}")
    status = daemon.get("/ready")
    if status[0] != 200:
        found.problems.append(f"/ready: {status}")
    found.problems += complaints(daemon)
    if (code := daemon.stop()) != 0:
        found.problems.append(f"the daemon ended with status {code}")


def run(messages: int, seed: int) -> list[Pass]:
    """Do both passes."""
    half = messages // 2
    # Where ten errors end a connection, what follows them in a large batch is never read.
    return [
        run_pass("--max-errors=0", ("--max-errors=0",), f"{seed}/0", half, (1, 20, 100, 200)),
        run_pass("the default --max-errors", (), f"{seed}/10", messages - half, (1, 2, 5)),
    ]


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    passes = run(arguments.messages, arguments.seed)
    for one in passes:
        print("\n".join(one.lines()))
    return 1 if any(one.problems for one in passes) else 0


if __name__ == "__main__":
    sys.exit(main())
