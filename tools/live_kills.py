"""Kills a daemon again and again while a durable channel is published to and read.

    python -m tools.live_kills --kills 50 --seed 1

Publishers send numbers by the server API and by our own protocol, with ids, each again until it is
acknowledged, and by the client library for Python. Readers are the client libraries for Python and,
under Node, for JavaScript over its three transports, and a reader of ``/events``. All of them
reconnect by themselves. The daemon gets SIGKILL at random moments, and starts again on the same
ports and the same folder.

At the end the log is read. Every acknowledged publication has to be there once, at the offset of
its answer. What was sent again must not be there twice. The publications of a publisher have to be
in their order, and offsets without a gap. What had no answer, and no id, may be there once or not
at all. Each reader has to have got exactly what is in the log, in its order, and must never be told
that it could not recover. Ends with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import random
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.servers.own_process import free_port
from tests.servers.running_daemon import RunningDaemon
from tools.live_kills_clients import (
    CHANNEL,
    MODULES,
    EventsReader,
    NodeReader,
    Published,
    Reading,
    ResendingPublisher,
    SdkPublisher,
    SdkReader,
    Seen,
    ThreadedReader,
    by_http,
    by_session,
    seen,
)

#: Publishers of each kind.
PUBLISHERS = 2

#: Seconds that readers have to begin, and to catch up after the last kill.
CATCH_UP = 60.0

#: Publications of one request for the history.
_PAGE = 1000

#: Differences that are printed of each kind.
_PRINTED = 5


class LiveKills:
    """What was published, what is in the log, and what readers have got."""

    def __init__(self) -> None:
        self.kills = 0
        #: Publications that a daemon has not published, as it knew their events; at least.
        self.repeated = 0
        self.published: list[Published] = []
        self.log: list[Seen] = []
        self.readings: list[Reading] = []

    def problems(self) -> list[str]:
        """Return all that is not as it should be."""
        found = self._of_the_log()
        for published in self.published:
            found += _of_a_publisher(published, self.log)
        for reading in self.readings:
            found += [f"{reading.name}: {each}" for each in reading.problems]
            found += _of_a_reader(reading, self.log)
        return found

    def _of_the_log(self) -> list[str]:
        found = []
        if [each.offset for each in self.log] != list(range(1, len(self.log) + 1)):
            found.append("the offsets of the log have gaps")
        known = {published.name for published in self.published}
        strange = {each.publisher for each in self.log} - known
        return found + [f"the log has something of {each}" for each in sorted(strange)]


def _of_a_publisher(published: Published, log: Sequence[Seen]) -> list[str]:
    mine = [each for each in log if each.publisher == published.name]
    offsets = {each.number: each.offset for each in mine}
    times = Counter(each.number for each in mine)
    found = []
    for number, offset in published.acknowledged.items():
        if not times[number]:
            found.append(f"acknowledged, and lost: {number}, with offset {offset}")
        elif offset and times[number] == 1 and offsets[number] != offset:
            found.append(f"{number} is at offset {offsets[number]}, not {offset}")
    found += [f"{number} is there {n} times" for number, n in times.items() if n > 1]
    known = published.acknowledged.keys() | published.unknown
    found += [f"{number} was not published" for number in times if number not in known]
    numbers = [each.number for each in mine]
    if numbers != sorted(numbers):
        found.append("its publications are not in the order in which they were sent")
    return [f"{published.name}: {each}" for each in found]


def _of_a_reader(reading: Reading, log: Sequence[Seen]) -> list[str]:
    if reading.got == log:
        return []
    found = []
    times = Counter(reading.got)
    missed = [each for each in log if not times[each]]
    twice = [each for each, n in times.items() if n > 1]
    strange = times.keys() - set(log)
    for what, which in (("missed", missed), ("got twice", twice), ("is not in the log", strange)):
        if which:
            first = ", ".join(str(tuple(each)) for each in sorted(which)[:_PRINTED])
            found.append(f"{reading.name}: {what}: {len(which)}, such as {first}")
    return found or [f"{reading.name}: not in the order of offsets"]


def kill_daemon(*flags: str) -> RunningDaemon:
    """Return a daemon with a durable channel, on ports that stay; it is not started."""
    return RunningDaemon(
        "--topics=sqlite",
        f"--live-rules={CHANNEL} kind=durable topic={CHANNEL} publish_by_clients=on"
        " forced_recovery=on",
        f"--permissions=* channel.publish {CHANNEL}",
        f"--permissions=* channel.subscribe {CHANNEL}",
        "--live-insecure=on",
        "--live-rate=0",
        f"--live-history-per-call={_PAGE}",
        *flags,
        port=free_port(),
        http_address=f"tcp:{free_port()}:interface=127.0.0.1",
    )


def transports() -> Sequence[str]:
    """Return the transports of the client library for JavaScript; none where it is missing."""
    if shutil.which("node") is None or not MODULES.is_dir():
        return ()
    return "websocket", "sse", "http_stream"


def run(kills: int, between: float, chance: random.Random) -> LiveKills:
    """Publish, read and kill, on average every so many seconds; returns what came of it."""
    with kill_daemon() as daemon:
        status, answer = daemon.post("/api/topic/create", {"topic": CHANNEL, "partitions": 1})
        if status != 200:
            raise SystemExit(f"the topic was not created: {answer}")
        return asyncio.run(_run(daemon, kills, between, chance))


async def _run(
    daemon: RunningDaemon, kills: int, between: float, chance: random.Random
) -> LiveKills:
    found, url = LiveKills(), daemon.url("")
    resending = [
        ResendingPublisher(f"{name}{number}", partial(way, daemon))
        for name, way in (("http", by_http), ("session", by_session))
        for number in range(PUBLISHERS)
    ]
    sdk = [SdkPublisher(f"sdk{number}", url) for number in range(PUBLISHERS)]
    found.published = [each.published for each in resending] + [each.published for each in sdk]
    reader = SdkReader("python", url)
    threads: list[ThreadedReader] = [EventsReader(daemon)]
    threads += [NodeReader(each, url) for each in transports()]
    found.readings = [reader.reading, *(each.reading for each in threads)]
    for each in threads:
        each.start()
    await reader.begin()
    await _until(lambda: all(each.begun for each in found.readings), "readers have begun")
    for publisher in resending:
        publisher.start()
    publishing = [asyncio.create_task(each.run()) for each in sdk]
    watching = asyncio.create_task(_watch(daemon, found))
    for _ in range(kills):
        await asyncio.sleep(chance.expovariate(1 / between))
        await asyncio.to_thread(daemon.kill)
        await asyncio.to_thread(daemon.start)
        found.kills += 1
        if found.kills % 10 == 0:
            counts = sum(len(each.acknowledged) for each in found.published)
            print(f"{found.kills} kills, {counts:,} publications acknowledged", flush=True)
    await asyncio.sleep(between)
    watching.cancel()
    for each_sdk in sdk:
        each_sdk.stop()
    for publisher in resending:
        await asyncio.to_thread(publisher.stop)
    await asyncio.gather(*publishing)
    found.log = await asyncio.to_thread(read_log, daemon)
    end = len(found.log)
    with contextlib.suppress(TimeoutError):  # what is missing is a problem of its reader
        await _until(lambda: all(each.end >= end for each in found.readings), "all have it all")
    for each in threads:
        await asyncio.to_thread(each.stop)
    await reader.end()
    return found


async def _watch(daemon: RunningDaemon, found: LiveKills) -> None:
    """Add up how many events each of the daemons had that were published again."""
    seen_last = 0
    while True:
        await asyncio.sleep(0.1)
        try:
            _, status = await asyncio.to_thread(daemon.get, "/api/live/status", 1.0)
            repeated = int(status["duplicates"]["repeated"])
        except (OSError, ValueError, http.client.HTTPException):
            continue
        found.repeated += repeated - seen_last if repeated >= seen_last else repeated
        seen_last = repeated


async def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + CATCH_UP
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"never came true: {what}")
        await asyncio.sleep(0.05)


def read_log(daemon: RunningDaemon) -> list[Seen]:
    """Return the publications of the channel's log, in its order, by the server API."""
    key = (Path(daemon.data) / "live-api-key").read_text()
    found: list[Seen] = []
    since: dict[str, Any] = {}
    while True:
        request = urllib.request.Request(
            daemon.url("/api/history"),
            json.dumps({"channel": CHANNEL, "limit": _PAGE, **since}).encode(),
            {"X-API-Key": key, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            result = json.load(answer)["result"]
        publications = result["publications"]
        if not publications:
            return found
        found += [seen(each["offset"], each["data"]) for each in publications]
        since = {"since": {"offset": found[-1].offset, "epoch": result["epoch"]}}


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--between", type=float, default=2.0, help="seconds between two kills, on average [2]"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    found = run(arguments.kills, arguments.between, random.Random(arguments.seed))
    problems = found.problems()
    for published in found.published:
        print(
            f"{published.name}: {len(published.acknowledged):,} acknowledged, "
            f"{published.tries:,} more tries, {len(published.unknown):,} unknown"
        )
        for text, count in published.refusals.items():
            print(f"  {count} times: {text}")
    for reading in found.readings:
        print(
            f"{reading.name}: got {len(reading.got):,}, connected {reading.begun} times, "
            f"recovered {reading.recovered} times"
        )
    if not transports():
        print("without the client library for JavaScript: it needs Node, and make sdk")
    for problem in problems[:50]:
        print(f"problem: {problem}")
    acknowledged = sum(len(each.acknowledged) for each in found.published)
    print(
        f"{'FAILED' if problems else 'OK'}: {found.kills} kills, {acknowledged:,} publications "
        f"acknowledged, {len(found.log):,} in the log, {found.repeated:,} or more came again and "
        f"were known, problems {len(problems)}"
    )
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
