"""Issue 12: every client of the product against every close, as docs/protocol.md has it.

The table there is what this test has seen: it is compared cell by cell.
"""

from __future__ import annotations

import importlib.util
import random
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.remote.client import RemoteBus
from kupool.client import PoolClient
from kupool.errors import BANNED, CLOSE_MALFORMED, CLOSE_REASONS, CloseReason
from kupool.net.dialling.backoff import SPREAD
from kupool.net.dialling.client import Client
from kupool.wire.framing import FRAMINGS, LINE
from kupool.wire.messages import close_message
from tests.fakes.client_script import ScriptedEndpoint

ROOT = Path(__file__).parents[4]


class Close(NamedTuple):
    """How a server ends a connection; without a reason it says nothing."""

    name: str
    reason: CloseReason | None = None
    retry_after: float | None = None


CLOSES = (
    *(Close(f"{r.code} {r.reason}", r) for r in CLOSE_REASONS if r is not CLOSE_MALFORMED),
    Close("4503 banned, with 60 seconds", BANNED, 60.0),
    Close("another code, `reconnect` true", CloseReason(4900, "full moon", True)),
    Close("another code, `reconnect` false", CloseReason(4900, "kicked", False)),
    Close("none: the connection is lost"),
)

#: Makes a client of an endpoint on a clock, and begins.
Make = Callable[[Clock, ScriptedEndpoint, str], object]


def make_client(clock: Clock, endpoint: ScriptedEndpoint, framing: str) -> object:
    client = Client(clock, endpoint, codec=framing, random=lambda: 1.0)
    client.connect().addErrback(lambda _: None)
    return client


def make_pool_client(clock: Clock, endpoint: ScriptedEndpoint, framing: str) -> object:
    client = PoolClient(clock, [endpoint.server()], "ann", framing=framing, random=lambda: 1.0)
    client.connect().addErrback(lambda _: None)
    return client


def make_bus(clock: Clock, endpoint: ScriptedEndpoint, framing: str) -> object:
    bus = RemoteBus(clock, endpoint, framing=FRAMINGS[framing], random=lambda: 1.0)
    bus.connect().addErrback(lambda _: None)
    return bus


#: Each client, and the first wait of its backoff in seconds.
CLIENTS: dict[str, tuple[Make, float]] = {
    "Client": (make_client, 0.5),
    "PoolClient": (make_pool_client, 0.5),
    "RemoteBus": (make_bus, 0.25),
}


def described(waits: list[float | None], backoff: float) -> str:
    """Say what three waits in a row are: after a steady session, and after two short ones."""
    if waits[0] is None:
        return "never"
    known = {
        "with backoff": [backoff, 2 * backoff, 4 * backoff],
        "at once": [SPREAD, backoff, 2 * backoff],
        "after 60 s": [60 + backoff, 60 + 2 * backoff, 60 + 4 * backoff],
    }
    for name, expected in known.items():
        if all(abs((w or 0.0) - e) < 0.02 for w, e in zip(waits, expected, strict=True)):
            return name
    return f"odd: {waits}"


class Watched:
    """A client against a scripted server, on a fake clock."""

    def __init__(self, make: Make, framing: str) -> None:
        self.clock = Clock()
        self.framing = framing
        self.endpoint = ScriptedEndpoint(framing)
        self.client = make(self.clock, self.endpoint, framing)
        self.welcome()

    def welcome(self) -> None:
        session = self.endpoint.last
        for request in session.heard():
            if isinstance(request, dict) and request.get("method") == "authorize":
                session.say({"id": request["id"], "result": True})

    def stand(self, seconds: float) -> None:
        """Let the session stand, with whatever is a sign of life."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.endpoint.last.say({"id": None, "method": "ping"})

    def away(self, close: Close) -> float | None:
        """Close the session; returns the seconds until the next attempt, None for never."""
        attempts, began = self.endpoint.attempts, self.clock.seconds()
        session = self.endpoint.last
        if close.reason is None:
            session.drop()
        else:
            data = close_message(FRAMINGS[self.framing], close.reason, close.retry_after)
            session.protocol.dataReceived(data)
        for _ in range(200 * 100):
            if self.endpoint.attempts > attempts:
                self.welcome()
                return self.clock.seconds() - began
            self.clock.advance(0.005)
        return None

    def waits(self, close: Close) -> list[float | None]:
        self.stand(60.0)
        first = self.away(close)
        if first is None:
            return [None]
        return [first, self.away(close), self.away(close)]


class Stopped(BaseException):
    """Ends the worker of the examples, which has no end of its own."""


class Waits(list[float | None]):
    """Notes three waits in place of waiting."""

    def sleep(self, seconds: float) -> None:
        self.append(seconds)
        if len(self) == 3:
            raise Stopped


class WatchedWorker:
    """``examples/worker.py``, with sockets that say one close each."""

    def __init__(self, case: SynchronousTestCase) -> None:
        where = ROOT / "examples" / "worker.py"
        spec = importlib.util.spec_from_file_location("worker_of_the_examples", where)
        assert spec is not None
        assert spec.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.case = case
        self.now = 1000.0

    def waits(self, close: Close) -> list[float | None]:
        """Return what it slept between four sessions, or None as soon as it ended."""
        waits = Waits()
        ends: list[socket.socket] = []
        goodbye = b""
        if close.reason is not None:
            goodbye = close_message(LINE, close.reason, close.retry_after)

        def connect(address: object, timeout: object) -> socket.socket:
            near, far = socket.socketpair()
            ends.extend((near, far))
            far.sendall(b'{"id":1,"result":true}\n')
            return near

        def selected(*arguments: Any) -> Any:
            if not real_select(*arguments[:3], 0)[0]:
                # It has heard that it is welcome: the first session stands for a while.
                self.now += 0.0 if waits else 60.0
                ends[-1].sendall(goodbye)
                ends[-1].shutdown(socket.SHUT_WR)
            return real_select(*arguments)

        real_select = select.select
        patches = (
            self.case.patch(socket, "create_connection", connect),
            self.case.patch(select, "select", selected),
            self.case.patch(time, "sleep", waits.sleep),
            self.case.patch(time, "monotonic", lambda: self.now),
            self.case.patch(random, "uniform", lambda least, most: most),
        )
        vars(self.module)["print"] = lambda *said, **how: None
        try:
            self.module.main("here", 1, "ann")
        except Stopped:
            pass
        except SystemExit:
            waits.append(None)
        for patch in patches:
            patch.restore()
        for end in ends:
            end.close()
        return waits


class TableTests(SynchronousTestCase):
    """Issue 12: all obey."""

    def measured(self) -> list[str]:
        """Return the rows of the table, as they are in docs/protocol.md."""
        names = [*(f"`{name}`" for name in CLIENTS), "`examples/worker.py`"]
        rows = [f"| close | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for close in CLOSES:
            cells = []
            for make, backoff in CLIENTS.values():
                found = {
                    described(Watched(make, framing).waits(close), backoff) for framing in FRAMINGS
                }
                cells.append(", ".join(sorted(found)))
            cells.append(described(WatchedWorker(self).waits(close), 0.5))
            rows.append(f"| {close.name} | {' | '.join(cells)} |")
        return rows

    def test_the_table_is_what_clients_do(self) -> None:
        """Issue 12: in each framing, against each close of protocol 6."""
        rows = "\n".join(self.measured())
        text = (ROOT / "docs" / "protocol.md").read_text()
        self.assertIn(rows, text, f"docs/protocol.md should have this table:\n{rows}")
        self.assertNotIn("odd", rows)
