"""Publishers and readers of a channel whose daemon is killed again and again, for live_kills.

Each publisher has one publication under way. What it gets no answer for, it sends again with the
same id. The client library has no ids: what it gets no answer for may be there once, or not at all.
Readers reconnect by themselves, and recover. They keep all that they get, and are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from centrifuge import (
    Client,
    ClientState,
    PublicationContext,
    SubscribedContext,
    SubscriptionEventHandler,
)

from tests.servers.running_daemon import ROOT, LineClient, RunningDaemon

#: The durable channel.
CHANNEL = "killed"

#: Seconds until an answer is taken for lost, and between two tries.
PATIENCE = 5.0
PAUSE = 0.02

#: Where `make sdk` installs the client library for JavaScript.
MODULES = ROOT / ".cache" / "sdk" / "node_modules"

_NODE_READER = Path(__file__).with_name("live_kills_reader.cjs")


class Seen(NamedTuple):
    """A publication as a reader or the log has it: its offset, its publisher, and its number."""

    offset: int
    publisher: str
    number: int


def seen(offset: int, data: Any) -> Seen:
    """Return a publication that was read."""
    return Seen(offset, data["by"], data["n"])


class Published:
    """What became of the publications of one publisher.

    ``acknowledged`` has the offsets by number, 0 where the answer has none. ``unknown`` are those
    without an answer that were not sent again. ``tries`` counts those after the first one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: dict[int, int] = {}
        self.unknown: set[int] = set()
        self.tries = 0
        self.refusals: dict[str, int] = {}

    def refused(self, why: object) -> None:
        """Note an answer that is an error."""
        text = str(why)[:200]
        self.refusals[text] = self.refusals.get(text, 0) + 1


class Reading:
    """What one reader got, and what it was told that should not be."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[Seen] = []
        self.problems: list[str] = []
        #: How often it has begun, and how often it has recovered.
        self.begun = self.recovered = 0

    @property
    def end(self) -> int:
        """The offset of the newest publication that it has."""
        return self.got[-1].offset if self.got else 0

    def subscribed(self, was_recovering: bool, recovered: bool) -> None:
        """Note a subscription that has begun."""
        self.begun += 1
        self.recovered += was_recovering and recovered
        if was_recovering and not recovered:
            self.problems.append(f"not recovered, behind offset {self.end}")


class ThreadedReader(Protocol):
    """A reader that is started and stopped, and works in a thread."""

    reading: Reading

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and wait for the end."""


class _Thread:
    """Runs ``work`` in a thread until it is stopped."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.over = threading.Event()
        self._thread = threading.Thread(target=work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        self._thread.join(60)


# -- publishers


#: Sends a publication, and returns its offset; raises if there is no answer, or an error.
Send = Callable[[Any, str], int]


class ResendingPublisher:
    """Publishes numbers, each with an id, until it is acknowledged; ``connect`` opens a way."""

    def __init__(self, name: str, connect: Callable[[], Send]) -> None:
        self.published = Published(name)
        self._connect = connect
        self._runner = _Thread(self._work)

    def start(self) -> None:
        """Begin."""
        self._runner.start()

    def stop(self) -> None:
        """Publish no more, and wait for the answer to the last one."""
        self._runner.stop()

    def _work(self) -> None:
        name, number, send = self.published.name, 0, None
        while not self._runner.over.is_set():
            again = False
            while number not in self.published.acknowledged:
                try:
                    send = send or self._connect()
                    self.published.tries += again
                    again = True
                    offset = send({"by": name, "n": number}, f"{name}/{number}")
                except Refused as error:
                    self.published.refused(error)
                    time.sleep(PAUSE)
                except (OSError, EOFError, ValueError, http.client.HTTPException):
                    send = None
                    time.sleep(PAUSE)
                else:
                    self.published.acknowledged[number] = offset
            number += 1


class Refused(Exception):
    """The daemon has answered with an error."""


def by_http(daemon: RunningDaemon) -> Send:
    """Return how to publish by the server API, with an idempotency key."""
    key = (daemon.data / "live-api-key").read_text()
    connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=PATIENCE)

    def send(data: Any, event_id: str) -> int:
        body = {"channel": CHANNEL, "data": data, "idempotency_key": event_id}
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        connection.request("POST", "/api/publish", json.dumps(body), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        if "result" not in found:
            raise Refused(found)
        return int(found["result"]["offset"])

    return send


def by_session(daemon: RunningDaemon) -> Send:
    """Return how to publish by our own protocol, with an event id."""
    client = LineClient(daemon, PATIENCE)
    client.authorize()

    def send(data: Any, event_id: str) -> int:
        client.notifications.clear()
        found = client.request("publish", channel=CHANNEL, data=data, event_id=event_id)
        if not isinstance(found.get("result"), dict):
            raise Refused(found.get("error"))
        return int(found["result"]["offset"])

    return send


class SdkPublisher:
    """Publishes numbers by the client library for Python, each of them once."""

    def __init__(self, name: str, url: str) -> None:
        self.published = Published(name)
        self._url = url
        self._over = False

    async def run(self) -> None:
        """Publish until :meth:`stop`."""
        client = sdk_client(self._url)
        await client.connect()
        number = 0
        while not self._over:
            if client.state is not ClientState.CONNECTED:
                await asyncio.sleep(PAUSE)
                continue
            try:
                data = {"by": self.published.name, "n": number}
                await client.publish(CHANNEL, data, timeout=PATIENCE)
            except Exception as error:
                self.published.unknown.add(number)
                self.published.refused(type(error).__name__)  # texts have numbers
                await asyncio.sleep(PAUSE)
            else:
                self.published.acknowledged[number] = 0
            number += 1
        await client.disconnect()

    def stop(self) -> None:
        """Publish no more."""
        self._over = True


def sdk_client(url: str) -> Client:
    """Return a client that reconnects soon."""
    return Client(
        f"{url.replace('http', 'ws')}/connection/websocket",
        min_reconnect_delay=0.05,
        max_reconnect_delay=0.2,
        proxy=None,
    )


# -- readers


class SdkReader(SubscriptionEventHandler):  # type: ignore[misc]  # it has no types
    """Reads by the client library for Python."""

    def __init__(self, name: str, url: str) -> None:
        self.reading = Reading(name)
        self._client = sdk_client(url)
        self._subscription = self._client.new_subscription(
            CHANNEL, self, recoverable=True, max_resubscribe_delay=0.2
        )

    async def begin(self) -> None:
        """Connect and subscribe."""
        await self._client.connect()
        await self._subscription.subscribe()

    async def end(self) -> None:
        """Disconnect."""
        await self._client.disconnect()

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        """Note whether it has recovered."""
        self.reading.subscribed(ctx.was_recovering, ctx.recovered)

    async def on_unsubscribed(self, ctx: Any) -> None:
        """Note that the server has ended it."""
        if ctx.code:
            self.reading.problems.append(f"unsubscribed: {ctx.code} {ctx.reason}")

    async def on_publication(self, ctx: PublicationContext) -> None:
        """Note a publication."""
        self.reading.got.append(seen(ctx.pub.offset, ctx.pub.data))


class NodeReader:
    """Reads by the client library for JavaScript, over one of its transports, under Node."""

    def __init__(self, transport: str, url: str) -> None:
        self.reading = Reading(f"javascript over {transport}")
        self._command = ["node", str(_NODE_READER), transport, url, CHANNEL]
        self._process: subprocess.Popen[str] | None = None
        self._runner = _Thread(self._work)

    def start(self) -> None:
        """Begin."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(MODULES)},
        )
        self._runner.start()

    def stop(self) -> None:
        """End the process."""
        self._runner.over.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._runner.stop()

    def _work(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = json.loads(line)
            if "offset" in found:
                self.reading.got.append(seen(found["offset"], found["data"]))
            elif "recovered" in found:
                self.reading.subscribed(found["wasRecovering"], found["recovered"])
            else:
                self.reading.problems.append(str(found))
        if not self._runner.over.is_set():
            self.reading.problems.append("the process under Node has ended")


class EventsReader:
    """Reads ``/events``, from the beginning, and then from the last id that it got."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.reading = Reading("/events")
        self._daemon = daemon
        self._last_id = ""
        self._runner = _Thread(self._work)

    def start(self) -> None:
        """Begin."""
        self._runner.start()

    def stop(self) -> None:
        """End."""
        self._runner.stop()

    def _work(self) -> None:
        while not self._runner.over.is_set():
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._stream()
            time.sleep(PAUSE)

    def _stream(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.http_port, timeout=2)
        query, headers = f"channel={CHANNEL}&from=0", {}
        if self._last_id:
            query, headers = f"channel={CHANNEL}", {"Last-Event-ID": self._last_id}
        try:
            connection.request("GET", f"/events?{query}", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self.reading.problems.append(f"/events: {answer.status} {answer.read()!r}")
                return
            self.reading.begun += 1
            self.reading.recovered += bool(self._last_id)
            event: dict[str, str] = {}
            while not self._runner.over.is_set() and (line := answer.readline()):
                if line.strip():
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    event[name] = value
                else:
                    self._take(event)
                    event = {}
        finally:
            connection.close()

    def _take(self, event: dict[str, str]) -> None:
        kind = event.get("event", "message")
        if kind == "message" and "data" in event:
            shown = json.loads(event["data"])
            self.reading.got.append(seen(shown["offset"], shown["data"]))
        elif kind in ("gap", "unsubscribed", "error"):
            self.reading.problems.append(f"{kind}: {event.get('data')}")
        self._last_id = event.get("id", self._last_id)


__all__ = [
    "CHANNEL",
    "MODULES",
    "EventsReader",
    "NodeReader",
    "Published",
    "Reading",
    "ResendingPublisher",
    "SdkPublisher",
    "SdkReader",
    "Seen",
    "ThreadedReader",
    "by_http",
    "by_session",
    "seen",
]
