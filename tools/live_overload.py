"""Too many normal messages on a live channel, and emergencies among them: are these in time?

    python -m tools.live_overload --seconds 120

First it measures how many normal messages of its devices a daemon of its own takes in a second,
over TCP, with ``--subscribers`` over WebSocket. Then publishers try to send ``--times`` as many for
``--seconds``, while emergencies are published, and the load ends.

It fails if the 99th percentile of the delays of emergencies is over ``--most-ms``, if one is lost
or out of order, or if degraded mode is not entered, left, and told on the channel ``server``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from tests.servers.running_daemon import RunningDaemon
from tools.live_flood import CHANNEL, FloodCounts, FloodPlan, flood
from tools.live_load import LoadClient, wait_for
from tools.process import complaints

#: Seconds between two emergencies.
EVERY = 0.05

#: Seconds in which degraded mode has to end, and emergencies have to come, after the load.
CALM = 30.0

#: What the data of an emergency has, and of no other message.
_MARK = b'"emergency"'


class Listener(LoadClient):
    """A client of the Centrifuge protocol that subscribes, and looks at emergencies only."""

    def __init__(self, channel: str) -> None:
        super().__init__([])
        self._channel = channel
        self.delays: list[float] = []
        self.numbers: list[int] = []
        self.others = 0
        self.texts: list[dict[str, Any]] = []

    def _subscribe(self) -> dict[str, Any]:
        return {"id": 2, "subscribe": {"channel": self._channel}}

    def _read_frames(self) -> None:
        # Parsing every message would take as long as publishing it.
        if self.subscribed and self._channel == CHANNEL and _MARK not in self._data:
            pings = self._data.count(b"\x81\x02{}")
            whole = self._whole()
            self.others += self._data.count(b'"pub":{', 0, whole)
            # A frame that has not come in full may hold an emergency.
            self._data = self._data[whole:]
            for _ in range(pings):
                self.send({})
            return
        super()._read_frames()

    def _whole(self) -> int:
        """Return the number of bytes of whole frames."""
        data, at = self._data, 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[start : start + width], "big"), start + width
            if len(data) < start + size:
                break
            at = start + size
        return at

    def _message(self, message: dict[str, Any]) -> None:
        if "subscribe" in message:
            self.offset = 0
            return
        publication = message.get("push", {}).get("pub")
        if publication is None:
            super()._message(message)
            return
        data = publication["data"]
        if "emergency" in data:
            self.delays.append(time.monotonic() - data["at"])
            self.numbers.append(data["emergency"])
        elif self._channel == CHANNEL:
            self.others += 1
        else:
            self.texts.append(data)


def watch(pipe: Connection, port: int, number: int) -> None:
    """Be so many subscribers until the process ends; tells ``pipe`` when all have subscribed."""
    asyncio.run(_watch(pipe, port, number))


async def _watch(pipe: Connection, port: int, number: int) -> None:
    loop = asyncio.get_running_loop()
    clients = [Listener(CHANNEL) for _ in range(number)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    if await wait_for(lambda: all(each.subscribed for each in clients), 20):
        pipe.send(number)
        await asyncio.Event().wait()
    pipe.close()


class Alarm(asyncio.Protocol):
    """A session that publishes emergencies of a device that floods as well."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.sent = 0
        self._rest = b""
        self._begun: dict[int, float] = {}
        #: Seconds until an emergency was answered.
        self.delays: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send("authorize", {"username": "alarm"})

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            begun = self._begun.pop(json.loads(line).get("id"), None)
            if begun is not None:
                self.delays.append(time.monotonic() - begun)

    def ring(self) -> None:
        """Publish an emergency."""
        data = {"emergency": self.sent, "at": time.monotonic()}
        self.sent += 1
        self._begun[self.sent] = data["at"]
        params = {"channel": CHANNEL, "data": data, "priority": 3, "device": "device-0-1"}
        self._send("publish", params)

    def _send(self, method: str, params: dict[str, Any]) -> None:
        line = json.dumps({"id": self.sent, "method": method, "params": params})
        self.transport.write(line.encode() + b"\n")


class Overload:
    """One run against a daemon."""

    def __init__(self, daemon: RunningDaemon, arguments: argparse.Namespace) -> None:
        self._daemon = daemon
        self._arguments = arguments
        self.listener, self.news, self.alarm = Listener(CHANNEL), Listener("server"), Alarm()
        #: How late the daemon was during the load, in milliseconds.
        self.lags: list[float] = []

    async def run(self) -> list[str]:
        """Measure, overload, and wait; returns what is wrong."""
        loop, daemon, arguments = asyncio.get_running_loop(), self._daemon, self._arguments
        for client in (self.listener, self.news):
            await loop.create_connection(
                lambda client=client: client,  # type: ignore[misc]
                "127.0.0.1",
                daemon.http_port,
            )
        await loop.create_connection(lambda: self.alarm, "127.0.0.1", daemon.port)
        if not await wait_for(lambda: self.listener.subscribed and self.news.subscribed, 20):
            return ["the subscribers could not subscribe"]
        watching = await self._watch(arguments.subscribers - 1)
        measured = await self._flood(0.0, arguments.measure)
        capacity = measured.published / arguments.measure
        before, self.listener.others = await self._status(), 0
        print(f"capacity: {capacity:.0f} normal messages a second")
        looking = asyncio.ensure_future(self._look())
        ringing = asyncio.ensure_future(self._ring(arguments.seconds))
        counts = await self._flood(capacity * arguments.times, arguments.seconds)
        await ringing
        looking.cancel()
        left = await wait_for(lambda: self._told("live.recovered"), CALM)
        await wait_for(lambda: len(self.listener.numbers) >= self.alarm.sent, CALM)
        watching.terminate()
        return self._judged(counts, before, await self._status(), left)

    async def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = (await asyncio.to_thread(self._daemon.get, "/api/live/status"))[1]
        return status

    async def _flood(self, rate: float, seconds: float) -> FloodCounts:
        near, far = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        plan = FloodPlan(self._arguments.publishers, self._arguments.devices, rate, seconds)
        process = context.Process(target=flood, args=(far, self._daemon.port, plan))
        process.start()
        far.close()
        counts: FloodCounts = await asyncio.to_thread(near.recv)
        await asyncio.to_thread(process.join)
        return counts

    async def _watch(self, number: int) -> BaseProcess:
        """Start a process with other subscribers; returns it when they have subscribed."""
        near, far = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=watch, args=(far, self._daemon.http_port, number))
        process.start()
        far.close()
        await asyncio.to_thread(near.recv)
        return process

    async def _look(self) -> None:
        """Note how late the daemon is during the load."""
        while True:
            await asyncio.sleep(0.5)
            self.lags.append((await self._status())["lag_ms"])

    async def _ring(self, seconds: float) -> None:
        begin = time.monotonic()
        while (due := self.alarm.sent * EVERY) < seconds:
            await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
            self.alarm.ring()

    def _told(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.news.texts if each["type"] == kind]

    def _judged(
        self, counts: FloodCounts, before: dict[str, Any], after: dict[str, Any], left: bool
    ) -> list[str]:
        seconds, listener = self._arguments.seconds, self.listener
        print(
            f"normal: {counts.due} due ({counts.due / seconds:.0f}/s), {counts.sent} could be sent "
            f"({counts.sent / seconds:.0f}/s), {counts.published} answered, {counts.refused} "
            f"refused; {after['merged'] - before['merged']} merged into newer ones; "
            f"{listener.others} reached the subscriber, dropped for it: {after['dropped']}"
        )
        delays = sorted(listener.delays) or [float("inf")]
        p50, p99 = (delays[(len(delays) * part - 1) // 100] * 1000 for part in (50, 99))
        answered = sorted(self.alarm.delays) or [float("inf")]
        lost = self.alarm.sent - len(listener.numbers)
        print(
            f"emergencies: {self.alarm.sent} sent, {lost} lost, p50 {p50:.1f} ms, p99 {p99:.1f} "
            f"ms, most {delays[-1] * 1000:.1f} ms; {len(self.alarm.delays)} answered, p99 "
            f"{answered[(len(answered) * 99 - 1) // 100] * 1000:.1f} ms"
        )
        print(
            f"degraded mode: entered {after['entered']}, left {after['left']}; told on the channel "
            f"server: {[each['type'] for each in self.news.texts if 'live' in each['type']]}"
        )
        middle = sorted(self.lags)[len(self.lags) // 2] if self.lags else 0.0
        print(f"the daemon was late by {middle} ms in the middle, {before['lag_ms']} ms before")
        print(f"refused: {after['refused']}; batches: {after['batches']}")
        entered, checks = self._told("live.degraded"), dict[str, bool]()
        checks["degraded mode was entered before the load"] = bool(before["entered"])
        checks["degraded mode was not entered, or not told"] = not entered or not after["entered"]
        checks["degraded mode was not left, or not told"] = not left or after["degraded"]
        checks["an emergency was lost"] = bool(lost)
        checks["emergencies came out of order"] = listener.numbers != sorted(listener.numbers)
        checks[f"the p99 is over {self._arguments.most_ms} ms"] = p99 > self._arguments.most_ms
        return [text for text, wrong in checks.items() if wrong]


def _number(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least:g}")
        return value

    return parse


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=_number(1), default=120.0, help="of the overload")
    parser.add_argument("--times", type=_number(1), default=10.0, help="times the capacity")
    parser.add_argument("--measure", type=_number(1), default=5.0, help="seconds for the capacity")
    parser.add_argument("--publishers", type=int, default=20, help="sessions that publish")
    parser.add_argument("--devices", type=int, default=5, help="of each of these sessions")
    parser.add_argument("--subscribers", type=int, default=1, help="that get every message")
    parser.add_argument("--most-ms", type=float, default=200.0)
    parser.add_argument("--flag", action="append", default=[], help="of the daemon")
    arguments = parser.parse_args()
    flags = (
        "--live-insecure=on",
        f"--live-rules={CHANNEL} publish_by_clients=on queue=high",
        *(f"--permissions=* channel.publish {CHANNEL}",),
        "--live-rate=0",
        "--live-device-rate=0",
        "--mq=memory",
        "--store=memory",
        *arguments.flag,
    )
    with RunningDaemon(*flags) as daemon:
        wrong = asyncio.run(Overload(daemon, arguments).run())
        wrong += [f"the daemon complains: {line:.300}" for line in complaints(daemon)]
        for line in daemon.lines:
            if "overloaded" in line:
                print(f"log: {line:.250}")
    for each in wrong:
        print(f"WRONG: {each}")
    print("FAILED" if wrong else "OK")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
