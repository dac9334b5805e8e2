"""Fuzzes every codec, by itself and in live servers, in memory and over real sockets.

    python -m tools.fuzz_codecs --minutes 10 --seed 1

No exception may leave the framework, whatever bytes come in and whatever handlers do; see
:mod:`tools.fuzz_codecs_splitters` and :mod:`tools.fuzz_codecs_served` for
what is required. Ends with status 1 where it is not. A problem is printed with its round,
which ``--round memory/17`` does again with the same seed; over sockets, time is not the same.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import time
import traceback
from collections import Counter
from typing import Any

import psutil
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react
from twisted.logger import LogPublisher, globalLogBeginner

from tools.fuzz_codecs_servers import LogWatch, ServerFuzz
from tools.fuzz_codecs_splitters import SplitterFuzz

#: Growth of the resident memory that is still none: what allocators keep, in bytes.
GROWTH = 24_000_000

#: Seconds of the warm-up, and those that what needs no socket has at a time.
WARM_UP = 20.0
SLICE = 0.05

#: Rounds over sockets at a time: they mostly wait.
TOGETHER = 6

#: Problems that are printed in full.
SHOWN = 20


class Fuzz:
    """All the parts of a run, in turn until its time is over."""

    def __init__(self, reactor: Any, seed: int) -> None:
        self._reactor = reactor
        self._log = LogWatch()
        self.splitters = SplitterFuzz(str(seed))
        self.servers = {
            name: ServerFuzz(str(seed), self._log, name=name)
            for name in ("memory", "sockets", "stock")
        }
        self.problems: list[str] = []
        self.rss: tuple[int, int] | None = None
        self.descriptors = (0, 0)
        self.seconds = 0.0

    async def run(self, seconds: float) -> None:
        """Go on for so long."""
        began = time.monotonic()
        with self._log:
            await self._turn("sockets", None)
            self.descriptors = (_descriptors(), 0)
            sockets = [
                Deferred.fromCoroutine(self._sockets(began + seconds, bool(n % 2)))
                for n in range(TOGETHER)
            ]
            while self.seconds < seconds:
                for part in ("splitters", "memory"):
                    end = time.monotonic() + SLICE
                    while time.monotonic() < end:
                        await self._turn(part, None)
                    await deferLater(self._reactor, 0.0, lambda: None)
                self.seconds = time.monotonic() - began
                if self.rss is None and self.seconds > min(WARM_UP, seconds / 4):
                    self.rss = (_resident(), 0)
            await gatherResults(sockets)
            await deferLater(self._reactor, 0.1, lambda: None)
        self.descriptors = (self.descriptors[0], _descriptors())
        self.rss = ((self.rss or (_resident(), 0))[0], _resident())
        grown = self.rss[1] - self.rss[0]
        if grown > GROWTH:
            self.problems.append(f"the memory grew by {grown / 1e6:.1f} MB")
        if self.descriptors[1] > self.descriptors[0]:
            self.problems.append(f"descriptors: {self.descriptors}")

    async def _sockets(self, end: float, stock: bool) -> None:
        while time.monotonic() < end:
            await self._turn("stock" if stock else "sockets", None)

    async def _turn(self, part: str, number: int | None) -> None:
        try:
            if part == "splitters":
                self.splitters.round(number)
            elif part == "memory":
                self.servers[part].memory_round(number)
            else:
                await self.servers[part].socket_round(self._reactor, number)
        except Exception as error:
            fuzz = self.splitters if part == "splitters" else self.servers[part]
            text = f"{part}/{number or fuzz.rounds}: {error}"
            self.problems.append(text)
            print(text[:2000], flush=True)

    async def again(self, which: str) -> None:
        """Do one round again, such as ``memory/17``."""
        part, _, number = which.partition("/")
        with self._log:
            await self._turn(part, int(number))

    def lines(self) -> list[str]:
        """Return what was done and found."""
        codecs: Counter[str] = Counter(self.splitters.counts)
        lines = [
            f"seconds              {self.seconds:.1f}",
            f"codecs by themselves {self.splitters.rounds} rounds, "
            f"{self.splitters.bytes / 1e6:.0f} MB: messages {dict(codecs.most_common())}",
        ]
        for name, fuzz in self.servers.items():
            lines += [
                f"servers, {name:<11} {fuzz.rounds} rounds, {fuzz.connections} connections, "
                f"{fuzz.sent} messages, {fuzz.good} right answers to good peers",
                f"  by codec           {dict(fuzz.counts.most_common())}",
                f"  ends               {dict(fuzz.ends.most_common())}",
            ]
        rss = self.rss or (0, 0)
        return [
            *lines,
            f"failures asked for   {self._log.deliberate}, each logged under its reference",
            f"resident memory      {rss[0] / 1e6:.1f} MB after the warm-up, {rss[1] / 1e6:.1f} MB",
            f"descriptors          {self.descriptors[0]} before, {self.descriptors[1]} after",
            f"problems             {len(self.problems)}",
            *(f"  {text}" for text in self.problems[:SHOWN]),
        ]


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def _main(reactor: Any, arguments: argparse.Namespace) -> None:
    fuzz = Fuzz(reactor, arguments.seed)
    try:
        if arguments.round:
            await fuzz.again(arguments.round)
        else:
            await fuzz.run(arguments.minutes * 60)
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(2) from error
    print("\n".join(fuzz.lines()))
    raise SystemExit(1 if fuzz.problems else 0)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--round", help="one round alone, as a problem names it: memory/17")
    arguments = parser.parse_args()
    print(f"seed                 {arguments.seed}", flush=True)
    # What fails on purpose fills any log; what does not is found by the watch.
    globalLogBeginner.beginLoggingTo([LogPublisher()], redirectStandardIO=False)
    react(lambda reactor: ensureDeferred(_main(reactor, arguments)))


if __name__ == "__main__":
    main()
