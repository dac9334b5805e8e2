"""The HTTP server: its routes, and the limits of its connections."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from kupool import __version__
from kupool.accounts.web_tokens import WebIdentity
from kupool.errors import CLOSE_MALFORMED
from kupool.net.manager import ConnectionManager
from kupool.net.refusals import Refusals
from kupool.stats import IStatsStore
from kupool.web import IStatusSource
from kupool.web.access import NOBODY, WebAccess
from kupool.web.answers import (
    MAX_BODY,
    ApiResource,
    Handler,
    JsonAnswer,
    NotFound,
    encode,
    headers,
)
from kupool.web.bans import BanPages
from kupool.web.centrifuge_clients import CentrifugeClients
from kupool.web.centrifuge_routes import centrifuge_routes
from kupool.web.control import JobControl, KnownHosts
from kupool.web.crowd import Crowd, HttpLimits, RequestPlace
from kupool.web.pages import DASHBOARD_PATH, DashboardPages, RootPage, StaticFiles
from kupool.web.queries import show_time
from kupool.web.statistics import Statistics
from kupool.web.upgrade import PATH, Elsewhere, HandsOver, Origins, Upgrade, wants_websocket
from kupool.web.websocket import PoolWebSocketFactory
from kupool.wire.framing import Framing, detect
from kupool.wire.messages import close_message

#: The detail of the close for a client of the pool on this port.
NOT_THE_POOL = CLOSE_MALFORMED.about("this port serves HTTP; connect to the port of the pool")

#: The longest line of a request's head, and the longest head, in bytes: the query of a stream may
#: hold a token of 16 KiB.
LONGEST_LINE = 20_480
LONGEST_HEAD = 32_768

#: Seconds that a peer has to close its side after its request has timed out.
CUT = 5.0


class _Channel(HTTPChannel):
    """An HTTP connection, which is counted and has a time limit for each request."""

    MAX_LENGTH = LONGEST_LINE
    totalHeadersSize = LONGEST_HEAD
    transport: Any
    site: Any
    callLater: Any
    loseConnection: Any

    def __init__(self, crowd: Crowd) -> None:
        HTTPChannel.__init__(self)
        self.crowd = crowd
        self._began = self._heard = self._overdue = False
        self._cut: IDelayedCall | None = None
        self._successor: IProtocol | None = None

    def connectionMade(self) -> None:
        HTTPChannel.connectionMade(self)
        self.crowd.enter(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.left()
        cut, self._cut = self._cut, None
        if cut is not None and cut.active():
            cut.cancel()
        HTTPChannel.connectionLost(self, reason)

    @property
    def host(self) -> str:
        """The address of the peer; empty for a local socket."""
        return str(getattr(self.transport.getPeer(), "host", None) or "")

    def make_room(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def left(self, successor: IProtocol | None = None) -> None:
        """The connection is no longer HTTP; ``successor`` gets the data that was read already."""
        self.crowd.leave(self)
        self._successor = successor

    def rawDataReceived(self, data: bytes) -> None:
        """Handle data after a request: HTTP waits for the answer first."""
        if self._successor is not None:
            self._successor.dataReceived(data)
        else:
            HTTPChannel.rawDataReceived(self, data)

    def dataReceived(self, data: bytes) -> None:
        framing = None if self._began else _framing_of_the_pool(data)
        self._heard = self._began = True
        if framing is None:
            HTTPChannel.dataReceived(self, data)
        else:
            self.transport.write(close_message(framing, NOT_THE_POOL))
            self.loseConnection()

    def lineReceived(self, line: bytes) -> None:
        before = len(self.requests)
        HTTPChannel.lineReceived(self, line)
        if len(self.requests) > before:  # it was the first line of a request
            target = line.split(b" ")[1:2] or [b""]
            self.requests[-1].expect(self.site.most_body(target[0].partition(b"?")[0]))

    def allContentReceived(self) -> None:
        self._overdue = False
        self.crowd.begins(self)
        HTTPChannel.allContentReceived(self)

    def requestDone(self, request: Request) -> None:
        self.crowd.ends(self)
        HTTPChannel.requestDone(self, request)

    def resetTimeout(self) -> None:
        """Do nothing: single bytes must not extend the time of a request."""

    def timeoutConnection(self) -> None:
        """Close, once all arrived data was read: the process may have been paused."""
        self._heard, self._overdue = False, True
        self.callLater(0, self._timed_out)

    def _timed_out(self) -> None:
        if self._overdue and self._heard:
            self.timeoutConnection()  # perhaps there is more
        elif self._overdue and self.crowd.waits(self):
            self.loseConnection()
            self._cut = self.callLater(CUT, self.make_room)


def _framing_of_the_pool(data: bytes) -> Framing | None:
    """Return the framing that a client of the pool begins with; None for HTTP."""
    # An empty line may come before a request of HTTP, and before a message of ``line``.
    return None if data[:1].isspace() else detect(data[0])


class _Request(Request):
    """A request whose body is kept in memory, because it is small, or one of few."""

    _refused = False
    _most_body = MAX_BODY
    _is_large = False

    #: The visitor, once that is known.
    identity: WebIdentity = NOBODY

    #: The place among those that are answered, once it has one.
    place: RequestPlace | None = None

    def expect(self, most_body: int) -> None:
        """Set the largest body that the request may have."""
        self._most_body = most_body

    def gotLength(self, length: int | None) -> None:
        """Refuse a body whose announced length is too large."""
        self.content = BytesIO()
        if length is not None:
            self._check(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Store a part of the body, unless the body becomes too large."""
        if self._refused:
            return
        assert self.content is not None
        if self._check(self.content.tell() + len(data)):
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer, unless that has happened already."""
        if not self._refused:
            Request.requestReceived(self, command, path, version)

    def _check(self, size: int) -> bool:
        """Return whether a body may have this size; otherwise answer that it may not."""
        if size > self._most_body:
            self._refuse(b"413 Content Too Large", f"body: larger than {self._most_body} bytes")
        elif size > MAX_BODY and not self._is_large:
            channel: Any = self.channel
            crowd, host = channel.crowd, channel.host
            self._is_large = crowd.take_large(host)
            if self._is_large:
                self.notifyFinish().addBoth(lambda _: crowd.end_large(host))
            else:
                self._refuse(b"503 Service Unavailable", "too many large requests")
        return not self._refused

    def _refuse(self, status: bytes, text: str) -> None:
        self._refused = True
        body = encode({"error": text})
        lines = [b"HTTP/1.1 " + status, b"Connection: close"]
        lines += [b"%b: %b" % header for header in headers(len(body)).items()]
        self.channel.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.channel.loseConnection()


class ApiSite(Site):
    """Serves the routes to a limited number of connections."""

    noisy = False
    _logger = Logger()

    def __init__(
        self,
        reactor: Any,
        root: IResource,
        *,
        request_timeout: float,
        crowd: Crowd,
        refusals: Refusals,
        access: WebAccess,
        always: Collection[IResource] = (),
        bodies: Mapping[bytes, int] | None = None,
        websocket: bool = False,
    ) -> None:
        """``access`` decides who may use the API. ``bodies`` has the largest body of those paths
        that take larger ones than others. ``always`` are the resources that are answered
        whatever the number of requests; ``websocket`` says whether there is one.
        """
        Site.__init__(
            self,
            root,
            requestFactory=_Request,
            parsePOSTFormSubmission=False,
            timeout=request_timeout or None,
            reactor=reactor,
        )
        self.refusals = refusals
        self._crowd = crowd
        self._access = access
        self._always = frozenset(always)
        self._has_websocket = websocket
        self._bodies = dict(bodies or {})

    def most_body(self, path: bytes) -> int:
        """Return the largest body that a request to a path may have, in bytes."""
        return self._bodies.get(path, MAX_BODY)

    @property
    def connections(self) -> int:
        """The number of HTTP connections, without open WebSockets."""
        return len(self._crowd)

    def protocol(self) -> _Channel:  # type: ignore[override]
        """Return the protocol of a new connection."""
        return _Channel(self._crowd)

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """Return the protocol of a new connection; above the limit it is closed at once."""
        if not self._crowd.has_room(str(getattr(addr, "host", None) or "")):
            return None
        channel: IProtocol = Site.buildProtocol(self, addr)
        return channel

    def getResourceFor(self, request: Any) -> IResource:
        """Return the resource for a request."""
        resource: IResource = Site.getResourceFor(self, request)
        if isinstance(resource, HandsOver):
            return resource
        if self._has_websocket and wants_websocket(request):
            return Elsewhere()
        if resource not in self._always:
            peer = self._access.peer(request)
            if not self._crowd.take_request(peer, lambda: self._access.is_operator(request)):
                return Busy(self.reactor)
            request.place = place = RequestPlace(self._crowd, peer)
            request.notifyFinish().addBoth(lambda result: place.leave())
        return resource

    def startFactory(self) -> None:
        """Open no access log."""

    def stopFactory(self) -> None:
        """Do nothing: there is no access log to close."""
        self.refusals.stop()

    def log(self, request: Any) -> None:
        """Log a request at the level debug."""
        self._logger.debug(
            "{method} {path} {code}",
            method=request.method.decode(errors="replace"),
            path=request.path.decode(errors="replace"),
            code=request.code,
            remote=getattr(request.client, "host", ""),
        )


#: Seconds before a request over the limit is answered. A client that repeats refused requests in a
#: loop would otherwise cost more than one whose requests are answered.
BUSY_DELAY = 1.0


class Busy(ApiResource):
    """Answers instead of another route, because too many requests are being answered."""

    def __init__(self, reactor: Any) -> None:
        super().__init__({})
        self._reactor = reactor

    async def _answer(self, request: Request) -> JsonAnswer:
        await deferLater(self._reactor, BUSY_DELAY)
        request.setHeader(b"Retry-After", b"1")
        return JsonAnswer(503, {"error": "too many requests"})


class _Status:
    """Answers the routes about the daemon itself."""

    def __init__(self, reactor: Any, source: IStatusSource) -> None:
        self._reactor = reactor
        self._source: Any = source
        self._began: float = reactor.seconds()

    async def health(self, request: Request) -> object:
        """``GET /health``: the process answers; ``uptime`` is in seconds."""
        uptime = round(self._reactor.seconds() - self._began, 3)
        return {"status": "ok", "version": __version__, "uptime": uptime}

    async def ready(self, request: Request) -> JsonAnswer:
        """``GET /ready``: whether submissions are accepted, and all problems."""
        refusals = list(self._source.ready())
        reasons = [*refusals, *self._source.concerns()]
        return JsonAnswer(503 if refusals else 200, {"ready": not refusals, "reasons": reasons})

    async def shutdown(self, request: Request) -> object:
        """``GET /shutdown/status``: the progress of a shutdown."""
        status = self._source.shutdown()
        return {**status._asdict(), "since": show_time(status.since)}


def make_site(
    reactor: Any,
    source: IStatusSource,
    stats: IStatsStore,
    wall: Callable[[], float],
    *,
    access: WebAccess | None = None,
    manager: ConnectionManager | None = None,
    ws_origins: Collection[str] = (),
    limits: HttpLimits | None = None,
    more: Mapping[str, ApiResource] | None = None,
    centrifuge: CentrifugeClients | None = None,
) -> ApiSite:
    """Return the site to listen with.

    ``wall`` returns seconds since the epoch. ``access`` decides who may use a route; by default
    requests from this machine may read. With a ``manager``, the pool's protocol is served at
    ``/ws`` on connections of that manager. ``ws_origins`` are the sites whose pages may open it;
    see :class:`~kupool.web.upgrade.Origins`, which raises :class:`ValueError` for invalid ones.
    ``more`` are further routes by their paths. With ``centrifuge``, its clients are served.
    """
    limits = limits or HttpLimits()
    access = access or WebAccess(KnownHosts())
    refusals = Refusals(reactor)
    crowd = Crowd(reactor, limits, refusals)
    status, statistics = _Status(reactor, source), Statistics(reactor, source, stats, wall)
    pages = DashboardPages(StaticFiles())
    routes: dict[str, ApiResource] = {
        DASHBOARD_PATH: pages,
        **_routes(reactor, source, status, statistics, access=access),
        **(more or {}),
    }
    origins = Origins(ws_origins, access.hosts, setting="--ws-origins", refusals=refusals)
    if manager is not None:
        factory = PoolWebSocketFactory(
            manager,
            ping_interval=limits.ping_interval,
            most=limits.max_websockets,
            crowd=crowd,
            refusals=refusals,
        )
        routes[PATH] = Upgrade(factory, origins, access.peer)
    if centrifuge is not None:
        sockets = PoolWebSocketFactory(
            centrifuge.manager, ping_interval=0.0, most=0, crowd=crowd, refusals=refusals
        )
        routes.update(centrifuge_routes(centrifuge, sockets, access, origins))
    return ApiSite(
        reactor,
        _root(routes, pages),
        request_timeout=limits.request_timeout,
        crowd=crowd,
        refusals=refusals,
        access=access,
        always=[routes["/health"], routes["/ready"]],
        bodies={
            path.encode(): route.most_body
            for path, route in routes.items()
            if getattr(route, "most_body", 0) > MAX_BODY
        },
        websocket=manager is not None or centrifuge is not None,
    )


def _routes(
    reactor: Any,
    source: IStatusSource,
    status: _Status,
    statistics: Statistics,
    *,
    access: WebAccess,
) -> dict[str, ApiResource]:
    """Return the routes about the daemon and its counts."""
    control, bans = JobControl(reactor, source), BanPages(source)
    table: list[tuple[str, bytes, Handler]] = [
        ("/health", b"GET", status.health),
        ("/ready", b"GET", status.ready),
        ("/stats", b"GET", statistics.get),
        ("/shutdown/status", b"GET", status.shutdown),
        ("/jobs/rotate", b"POST", control.rotate),
        ("/jobs/interval", b"POST", control.interval),
        ("/bans", b"GET", bans.list),
        ("/bans/lift", b"POST", bans.lift),
    ]
    return {path: access.resource(path, {method: handler}) for path, method, handler in table}


def _root(routes: dict[str, ApiResource], pages: DashboardPages) -> ApiResource:
    """Return the root resource, with the routes at their paths, and the page for browsers."""

    async def index(request: Request) -> object:
        listed = [
            {"path": path, "methods": route.methods}
            for path, route in routes.items()
            if route.listed
        ]
        return {"name": "kupool", "version": __version__, "routes": listed}

    root = RootPage({b"GET": index}, pages.page)
    for path, route in routes.items():
        *folders, name = path.strip("/").split("/")
        parent: Any = root
        for folder in folders:
            below = parent.children.get(folder.encode())
            if below is None:
                below = NotFound()
                parent.putChild(folder.encode(), below)
            parent = below
        parent.putChild(name.encode(), route)
    return root


__all__ = ["ApiSite", "HttpLimits", "make_site"]
