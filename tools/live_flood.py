"""Publishers of many normal messages, in a process of their own; for ``live_overload``."""

from __future__ import annotations

import asyncio
import json
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

CHANNEL = "load"

#: The types of events of each device.
TYPES = 4

#: Messages that are written together, and seconds between two looks at what is due.
BLOCK = 20
TICK = 0.005

#: Messages that a publisher of the measurement of the capacity has under way.
WINDOW = 16


class FloodPlan(NamedTuple):
    """Sessions that publish, devices of each, messages a second of all, and for how many seconds.

    A rate of 0 is as fast as answers come, with few messages under way.
    """

    publishers: int
    devices: int
    rate: float
    seconds: float


class FloodCounts(NamedTuple):
    """What publishers have seen: messages that were due, were sent, and their answers."""

    due: int
    sent: int
    published: int
    merged: int
    refused: int


class Flooder(asyncio.Protocol):
    """One session that publishes; ``window`` of 0 does not wait for answers."""

    def __init__(self, number: int, devices: int, window: int) -> None:
        self._window = window
        self._rest = b""
        self._blocks = _blocks(number, devices)
        self._at = 0
        self.transport: Any = None
        self.writable = True
        self.sent = self.published = self.merged = self.refused = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        hello = {"id": 0, "method": "authorize", "params": {"username": "flood"}}
        transport.write(json.dumps(hello).encode() + b"\n")

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    def send_block(self) -> None:
        """Publish :data:`BLOCK` messages."""
        self.transport.write(self._blocks[self._at])
        self._at = (self._at + 1) % len(self._blocks)
        self.sent += BLOCK

    def data_received(self, data: bytes) -> None:
        lines = self._rest + data
        whole, end, self._rest = lines.rpartition(b"\n")
        if not end:
            return
        self.merged += whole.count(b'"merged":')
        self.refused += whole.count(b'"error":')
        self.published += whole.count(b'"result":{')
        while self._window and self.sent - self.published - self.refused < self._window:
            self.send_block()


def _blocks(number: int, devices: int) -> list[bytes]:
    """Return messages to publish, ready to be written; each device and type occurs as often."""
    lines = [
        json.dumps(
            {
                "id": 1,
                "method": "publish",
                "params": {
                    "channel": CHANNEL,
                    "device": f"device-{number}-{device}",
                    "type": f"type-{kind}",
                    "data": {"reading": device * kind, "text": "x" * 80},
                },
            }
        ).encode()
        + b"\n"
        for kind in range(TYPES)
        for device in range(devices)
    ]
    lines *= BLOCK
    return [b"".join(lines[at : at + BLOCK]) for at in range(0, len(lines), BLOCK)]


async def _run(port: int, plan: FloodPlan) -> FloodCounts:
    loop = asyncio.get_running_loop()
    publishers, devices, rate, seconds = plan
    window = 0 if rate else WINDOW
    flooders = [Flooder(number, devices, window) for number in range(publishers)]
    for each in flooders:
        await loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]
    begin = time.monotonic()
    passed, turn = 0.0, 0
    while passed < seconds:
        due = rate * passed
        for _ in range(publishers):
            flooder = flooders[turn % publishers]
            turn += 1
            while rate and flooder.writable and flooder.sent < due / publishers:
                flooder.send_block()
        if not rate and not passed:
            for each in flooders:
                each.send_block()
        await asyncio.sleep(TICK)
        passed = time.monotonic() - begin
    counts = FloodCounts(
        int(rate * seconds),
        sum(each.sent for each in flooders),
        sum(each.published for each in flooders),
        sum(each.merged for each in flooders),
        sum(each.refused for each in flooders),
    )
    for each in flooders:
        each.transport.abort()
    return counts


def flood(pipe: Connection, port: int, plan: FloodPlan) -> None:
    """Publish as planned, and send the counts to ``pipe``."""
    pipe.send(asyncio.run(_run(port, plan)))
    pipe.close()


__all__ = ["CHANNEL", "FloodCounts", "FloodPlan", "flood"]
