"""The HTTP site without a socket: what it shows, and how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.accounts.web_tokens import WebIdentity
from kupool.stats import BatchCounts
from kupool.stats.memory import MemoryStats
from kupool.web import IStatusSource, Overview, ShutdownStatus
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.control import KnownHosts
from kupool.web.site import ApiSite, HttpLimits, make_site

#: 2026-11-21T10:05:30Z, and its minute.
NOW = 1795255530.0

#: The secret of this machine.
SECRET = "s" * 40


@implementer(IStatusSource)
class Source:
    """A daemon whose answers the test sets."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.worries: list[str] = []
        self.rotations: list[Deferred[int]] = []
        self.interval = 30.0
        self.broken = False
        self.banned: dict[str, float] = {}

    def ready(self) -> Sequence[str]:
        if self.broken:
            raise RuntimeError("secret detail")
        return self.reasons

    def concerns(self) -> Sequence[str]:
        return self.worries

    def overview(self) -> Overview:
        return Overview(sessions=3, users=2, job_id=41)

    def shutdown(self) -> ShutdownStatus:
        return ShutdownStatus("stopping: clients", NOW - 2, 7, 1, 12, 3, 5)

    def bans(self) -> dict[str, float]:
        return self.banned

    def unban(self, address: str, by: str) -> bool:
        return self.banned.pop(address, None) is not None

    def rotate(self) -> Deferred[int]:
        return self.rotations.pop(0)

    def set_interval(self, seconds: float) -> None:
        if seconds < 0.01:
            raise ValueError("must be at least 10ms")
        self.interval = seconds


class Transport(StringTransport):
    """A transport that remembers whether it was ended."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 50000))
        self.closed = self.aborted = False

    def loseConnection(self) -> None:
        super().loseConnection()
        self.closed = True

    def abortConnection(self) -> None:
        super().abortConnection()
        self.aborted = True


class Answer:
    """A response, taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.code = int(status.split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class RouteTestCase(SynchronousTestCase):
    """A site, and a way to ask it."""

    limits = HttpLimits()

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        """Further routes of the site."""
        return {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = Source()
        self.stats = MemoryStats()
        access = WebAccess(
            KnownHosts(["pool.example.com"]), secrets={SECRET: WebIdentity("local", "admin")}
        )
        self.site: ApiSite = make_site(
            self.clock,
            self.source,
            self.stats,
            lambda: NOW,
            access=access,
            limits=self.limits,
            more=self.more(access),
        )

    def connect(self) -> tuple[Any, Transport]:
        protocol = self.site.buildProtocol(None)
        transport = Transport()
        assert protocol is not None
        protocol.makeConnection(transport)
        return protocol, transport

    def raw(self, data: bytes) -> bytes:
        protocol, transport = self.connect()
        protocol.dataReceived(data)
        return transport.value()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        given = {"Host": "localhost:8081"}
        if body is not None:
            given["Content-Type"] = "application/json"
            given["Content-Length"] = str(len(body))
        if method != "GET" and "Authorization" not in headers:
            given["Authorization"] = f"Bearer {SECRET}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items())]
        return Answer(self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")))

    def count(self, minute: int, *usernames: str) -> None:
        batch_id = f"batch-{minute}-{len(usernames)}-{usernames[0]}"
        self.successResultOf(self.stats.apply([BatchCounts(batch_id, b"", minute, usernames)], {}))


#: Seconds that a turn of the reactor takes here.
MOMENT = 1e-6


class TurningClock(Clock):
    """As a reactor: what is to be called after 0 seconds has its turn after the next reads."""

    def callLater(self, delay: float, *call: Any, **named: Any) -> Any:
        return super().callLater(max(delay, MOMENT), *call, **named)
