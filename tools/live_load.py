"""Healthy and stalled clients of a live channel: how late, how much memory, and what is missed?

    python -m tools.live_load --healthy 1000 --stalled 100 --rate 5000 --seconds 300

A daemon of its own publishes to one channel, so often that all healthy clients together get
``--rate`` publications a second, over WebSocket. The stalled clients subscribe and then read
nothing. At the end they read again. Each of them has to get everything, or to learn exactly how
many publications it has missed.

It prints what docs/speed.md publishes: connections per GB, deliveries a second, and delays.

It fails if the 99th percentile of the delays of healthy clients is over ``--most-ms``, if the
daemon uses more memory than the bound that is printed, or if a client misses something unsaid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.servers.running_daemon import RunningDaemon
from tools.process import complaints, megabytes, rss

CHANNEL = "load"

#: The most bytes that may wait for one client that reads nothing: what the kernel and the
#: transport hold, and the queue of its subscription.
PER_STALLED = 1_500_000

#: What the kernel takes for a stalled client, in bytes.
SMALL_BUFFER = 4096

#: The bytes of a connection of a healthy client with its subscription.
PER_CLIENT = 30_000

#: Seconds that stalled clients have to catch up.
CATCH_UP = 60.0

#: The kind of a WebSocket frame with text.
_TEXT = 1

_HANDSHAKE = (
    "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class LoadClient(asyncio.Protocol):
    """A client that subscribes, and follows the offsets of what it gets.

    ``missed`` counts what it was told that it missed; ``unsaid`` what it got out of order, or
    missed without being told. Delays are in seconds.
    """

    def __init__(self, delays: list[float]) -> None:
        self._delays = delays
        self._data = b""
        self._upgraded = False
        self.transport: Any = None
        self.epoch = ""
        self.offset = -1
        self.got = self.missed = self.unsaid = self.closes = 0
        self.told: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._upgraded, self._data = False, b""
        transport.write(_HANDSHAKE.encode())

    def connection_lost(self, error: Exception | None) -> None:
        self.closes += 1

    @property
    def subscribed(self) -> bool:
        """Whether the reply to a subscribe has come."""
        return self.offset >= 0

    def send(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame."""
        data = "\n".join(map(json.dumps, commands)).encode()
        size = len(data)
        head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self.transport.write(head + b"\0\0\0\0" + data)

    def _subscribe(self) -> dict[str, Any]:
        wishes: dict[str, Any] = {"channel": CHANNEL}
        if self.subscribed:
            wishes |= {"recover": True, "offset": self.offset, "epoch": self.epoch}
        return {"id": 2, "subscribe": wishes}

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._upgraded:
            _, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._upgraded, self._data = True, rest
            self.send({"id": 1, "connect": {}}, self._subscribe())
        self._read_frames()

    def _read_frames(self) -> None:
        data, at = self._data, 0
        while len(data) - at >= 2:
            kind, size, start = data[at] & 0x0F, data[at + 1], at + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[start : start + width], "big"), start + width
            if len(data) < start + size:
                break
            at = start + size
            if kind == _TEXT:
                for line in data[start:at].split(b"\n"):
                    self._message(json.loads(line))
            else:
                self.told.append(repr(data[start:at])[:200])
        self._data = data[at:]

    def _message(self, message: dict[str, Any]) -> None:
        push = message.get("push", {})
        if not message:
            self.send({})
        elif "pub" in push:
            self._publication(push["pub"])
        elif "unsubscribe" in push:
            self.send(self._subscribe())
        elif "subscribe" in message:
            self._begun(message["subscribe"])
        elif "error" in message or push:
            self.told.append(json.dumps(message))

    def _begun(self, result: dict[str, Any]) -> None:
        if not self.subscribed:
            self.epoch, self.offset = result["epoch"], result.get("offset", 0)
        elif result.get("recovered"):
            for publication in result.get("publications", ()):
                self._publication(publication)
        else:
            self.missed += result.get("offset", 0) - self.offset
            self.offset = result.get("offset", 0)

    def _publication(self, publication: dict[str, Any]) -> None:
        self.unsaid += abs(publication["offset"] - self.offset - 1)
        self.offset = publication["offset"]
        self.got += 1
        self._delays.append(time.monotonic() - publication["data"]["at"])


class Load:
    """The clients of one run."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.daemon = daemon
        self.delays: list[float] = []
        #: Delays of stalled clients mean nothing.
        self.ignored: list[float] = []
        self.published = 0

    async def open(self, number: int, delays: list[float], buffer: int = 0) -> list[LoadClient]:
        """Open clients, and wait until they are subscribed.

        With ``buffer``, the kernel takes only about so many bytes for each.
        """
        clients = [LoadClient(delays) for _ in range(number)]
        for client in clients:
            await self.connect(client, buffer)
        if not await wait_for(lambda: all(each.subscribed for each in clients), 60):
            raise SystemExit("not every client could subscribe")
        return clients

    async def connect(self, client: LoadClient, buffer: int = 0) -> None:
        """Open a connection for a client."""
        near = socket.socket()
        if buffer:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        near.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(near, ("127.0.0.1", self.daemon.http_port))
        await loop.create_connection(lambda: client, sock=near)

    async def publish(self, by: LoadClient, every: float, seconds: float, size: int) -> int:
        """Publish at a steady rate; returns the most memory that the daemon used meanwhile."""
        begin, most, padding = time.monotonic(), 0, "x" * size
        while (due := begin + self.published * every) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            data = {"at": time.monotonic(), "x": padding}
            by.send({"id": 3, "publish": {"channel": CHANNEL, "data": data}})
            self.published += 1
            if self.published % 10 == 0:
                most = max(most, rss(self.daemon))
        return most


async def wait_for(holds: Callable[[], object], timeout: float) -> bool:
    """Wait until something is so; returns False if that took ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def run(arguments: argparse.Namespace, daemon: RunningDaemon) -> list[str]:
    """Run the load; returns what is wrong."""
    load = Load(daemon)
    before = rss(daemon)
    healthy = await load.open(arguments.healthy, load.delays)
    print(density(rss(daemon) - before, len(healthy)))
    stalled = await load.open(arguments.stalled, load.ignored, SMALL_BUFFER)
    for client in stalled:
        client.transport.pause_reading()
    every = arguments.healthy / arguments.rate
    most = await load.publish(healthy[0], every, arguments.seconds, arguments.size)
    await wait_for(lambda: all(each.got >= load.published for each in healthy), CATCH_UP)
    delays = sorted(load.delays)
    bound = before + arguments.healthy * PER_CLIENT + arguments.stalled * PER_STALLED
    p50, p99 = (delays[(len(delays) * part - 1) // 100] * 1000 for part in (50, 99))
    print(
        f"{load.published} publications, {len(delays)} deliveries to {len(healthy)} healthy "
        f"clients ({len(delays) / arguments.seconds:.0f}/s): p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"most {delays[-1] * 1000:.1f} ms"
    )
    print(f"memory {megabytes(before)} before, {megabytes(most)} at most, bound {megabytes(bound)}")
    wrong = await _catch_up(load, stalled)
    if any(each.got != load.published or each.unsaid or each.told for each in healthy):
        wrong.append("a healthy client missed something")
    if p99 > arguments.most_ms:
        wrong.append(f"the p99 is over {arguments.most_ms} ms")
    if most > bound:
        wrong.append("the memory is over its bound")
    return wrong


def density(grown: int, clients: int) -> str:
    """Say how much memory connections with a subscription take, if a daemon has grown by it."""
    each = grown / clients
    if each < 1000:
        return f"{clients} clients are too few to tell how much memory a connection takes"
    return (
        f"{clients} connections with a subscription take {each / 1000:.1f} KB each: "
        f"{1e9 / each:.0f} connections per GB"
    )


async def _catch_up(load: Load, stalled: list[LoadClient]) -> list[str]:
    """Let the stalled clients read; returns what is wrong with what they got."""
    for client in stalled:
        client.transport.resume_reading()
    await wait_for(
        lambda: all(each.closes or each.got + each.missed >= load.published for each in stalled),
        CATCH_UP,
    )
    closed = [each for each in stalled if each.closes]
    for client in closed:  # they come back as a client does, with their position
        await load.connect(client)
    done = await wait_for(
        lambda: all(each.got + each.missed >= load.published for each in stalled), CATCH_UP
    )
    full = sum(each.got == load.published for each in stalled)
    told = sum(each.got + each.missed == load.published and bool(each.missed) for each in stalled)
    print(
        f"{len(stalled)} stalled clients returned, {len(closed)} of them over a new connection: "
        f"{full} got everything, {told} the exact count of what they missed"
    )
    wrong = [] if done and full + told == len(stalled) else ["a stalled client does not know all"]
    wrong += [
        f"a client got {each.got}, missed {each.missed}, is at {each.offset}, was closed "
        f"{each.closes} times, and told {each.told[-3:]}"
        for each in stalled
        if each.got + each.missed != load.published
    ]
    if any(each.unsaid for each in stalled):
        wrong.append("a stalled client missed something unsaid")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--healthy", type=int, default=1000)
    parser.add_argument("--stalled", type=int, default=100)
    parser.add_argument("--rate", type=float, default=5000.0, help="deliveries a second")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--size", type=int, default=200, help="bytes of a publication")
    parser.add_argument("--history", type=int, default=1000, help="publications that are kept")
    parser.add_argument("--most-ms", type=float, default=100.0)
    arguments = parser.parse_args(argv)
    rule = f"{CHANNEL} history_size={arguments.history} forced_recovery=on publish_by_clients=on"
    flags = ("--live-insecure=on", f"--live-rules={rule}", "--mq=memory", "--store=memory")
    with RunningDaemon(*flags) as daemon:
        wrong = asyncio.run(run(arguments, daemon))
        wrong += [f"the daemon complains: {line:.300}" for line in complaints(daemon)]
    for each in wrong:
        print(f"WRONG: {each}")
    print("FAILED" if wrong else "OK")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
