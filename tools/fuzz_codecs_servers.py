"""Live servers of random codecs, and peers that send them nonsense among what is right.

The same rounds run over :class:`~kupool.net.testing.MemoryNetwork` and over real sockets.
After each the server must have gone on answering a good peer, every connection must have
ended once, for a reason that is documented, and nothing may be left of it.
"""

from __future__ import annotations

import gc
from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.testing import MemoryNetwork
from tools.fuzz_codecs_handlers import failed_on_purpose
from tools.fuzz_codecs_peers import Patience
from tools.fuzz_codecs_served import Served
from tools.fuzz_codecs_splitters import Wrong, require

#: Seconds of running within which a whole round over sockets must have ended.
LONGEST_ROUND = 200.0


@implementer(ILogObserver)
class LogWatch:
    """Keeps what the log tells of, but for what was done on purpose."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.deliberate = 0

    def __enter__(self) -> LogWatch:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event of the log."""
        failure = event.get("log_failure")
        if failure is None and event["log_level"] not in (LogLevel.error, LogLevel.critical):
            return
        if failed_on_purpose(event):
            self.deliberate += 1
            return
        trace = failure.getTraceback() if isinstance(failure, Failure) else str(event)
        self.found.append(f"logged: {event.get('log_format')}: {trace[-1500:]}")

    def take(self) -> None:
        """Raise what was logged since the last call, Deferreds nobody looked at included."""
        gc.collect()
        found, self.found = self.found, []
        if found:
            raise Wrong("\n".join(found))


class ServerFuzz:
    """Rounds of one server each; ``ends`` counts closes by reason, ``counts`` by codec."""

    def __init__(self, seed: str, log: LogWatch, *, name: str = "memory") -> None:
        self._seed = seed
        self._name = name
        self._log = log
        self.rounds = self.connections = self.sent = self.good = 0
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    def memory_round(self, number: int | None = None) -> None:
        """Do one round over a network in memory; raises what it finds."""
        random = self._random(number)
        chunk = random.choice((None, None, 1, 7, 100))
        network = MemoryNetwork(chunk=chunk, window=random.choice((1000, 65536)))
        network.run(self._round(network, random), 1000.0)
        require(not network.connections, f"{network.connections} connections are left")
        left = network.getDelayedCalls()
        require(not left, f"{len(left)} delayed calls are left: {left[:3]}")
        self._log.take()

    async def socket_round(self, reactor: Any, number: int | None = None) -> None:
        """Do one round over real sockets; raises what it finds."""
        playing = ensureDeferred(self._round(reactor, self._random(number)))
        patience = Patience(reactor, LONGEST_ROUND, playing.cancel)
        try:
            await playing
        finally:
            patience.cancel()
        self._log.take()

    def _random(self, number: int | None) -> Random:
        self.rounds += 1
        return Random(f"{self._seed}/{self._name}/{number or self.rounds}")

    async def _round(self, reactor: Any, random: Random) -> None:
        served = Served(reactor, random, stock=self._name == "stock")
        try:
            await served.start()
            peers = [served.hostile(random) for _ in range(random.randint(1, 8))]
            early = random.random() < 0.1  # the server stops while they talk
            good = None if early else served.good()
            if early:
                when = random.choice((0.0, 0.01, 0.5))
                peers.append(served.stopped(when))
            talks = [ensureDeferred(peer) for peer in (*peers, *([good] if good else []))]
            await gatherResults(talks, consumeErrors=True)
            await served.empty()
            served.judge()
        except Exception as error:
            raise Wrong(f"{served.name}, {served.settings}: {error!r}") from error
        finally:
            await served.stop()
        self.counts[served.name.partition("(")[0]] += served.sent
        self.connections += served.opened
        self.sent += served.sent
        self.good += served.answered
        self.ends.update(served.ends)


__all__ = ["LogWatch", "ServerFuzz"]
