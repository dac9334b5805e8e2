"""The HTTP server: its routes, and the limits on whoever connects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from kupool import __version__
from kupool.net.manager import ConnectionManager
from kupool.stats import IStatsStore
from kupool.web import IStatusSource
from kupool.web.answers import MAX_BODY, Answer, NotFound, Route, encode, headers
from kupool.web.control import Control, Hosts
from kupool.web.queries import show_time
from kupool.web.statistics import Statistics
from kupool.web.upgrade import Origins, Upgrade
from kupool.web.websocket import PoolWebSocketFactory


@dataclass(frozen=True)
class HttpLimits:
    """The limits of the HTTP server; times are in seconds.

    ``request_timeout`` is for a whole request to arrive, from the connection's
    beginning or the answer before. ``ping_interval`` is that of WebSockets, which do
    not count among ``max_connections`` once they are open: the pool has its own limit.
    """

    max_connections: int = 200
    request_timeout: float = 30.0
    ping_interval: float = 30.0


class _Slots:
    """How many HTTP connections there are."""

    def __init__(self) -> None:
        self.taken = 0

    def release(self) -> None:
        self.taken -= 1


class _Channel(HTTPChannel):
    """An HTTP connection that is counted, and has limited time for each request."""

    def __init__(self, slots: _Slots) -> None:
        HTTPChannel.__init__(self)
        self._slots = slots

    def connectionMade(self) -> None:
        self._slots.taken += 1
        HTTPChannel.connectionMade(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._slots.release()
        HTTPChannel.connectionLost(self, reason)

    def resetTimeout(self) -> None:
        """Do nothing: a byte now and then does not buy a request more time."""


class _Request(Request):
    """A request whose body is kept in memory, as it is small."""

    _refused = False

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that says that it is too large."""
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, unless that makes it too large."""
        if self._refused:
            return
        assert self.content is not None
        if self.content.tell() + len(data) > MAX_BODY:
            self._refuse()
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer, unless that is done."""
        if not self._refused:
            Request.requestReceived(self, command, path, version)

    def _refuse(self) -> None:
        self._refused = True
        body = encode({"error": f"body: larger than {MAX_BODY} bytes"})
        lines = [b"HTTP/1.1 413 Content Too Large", b"Connection: close"]
        lines += [b"%b: %b" % header for header in headers(len(body)).items()]
        self.channel.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.channel.loseConnection()


class ApiSite(Site):
    """Serves the routes to a limited number of connections."""

    noisy = False
    _logger = Logger()

    def __init__(self, reactor: Any, root: IResource, limits: HttpLimits, slots: _Slots) -> None:
        Site.__init__(
            self,
            root,
            requestFactory=_Request,
            parsePOSTFormSubmission=False,
            timeout=limits.request_timeout,
            reactor=reactor,
        )
        self._slots = slots
        self._most = limits.max_connections

    @property
    def connections(self) -> int:
        """HTTP connections, without the WebSockets that are open."""
        return self._slots.taken

    def protocol(self) -> _Channel:  # type: ignore[override]
        """Return the protocol of a new connection."""
        return _Channel(self._slots)

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """Return the protocol of a new connection; one too many is closed at once."""
        if self._most and self._slots.taken >= self._most:
            return None
        channel: IProtocol = Site.buildProtocol(self, addr)
        return channel

    def startFactory(self) -> None:
        """Open no access log."""

    def stopFactory(self) -> None:
        """There is no access log to close."""

    def log(self, request: Any) -> None:
        """Log a request, where details are wanted."""
        self._logger.debug(
            "{method} {path} {code}",
            method=request.method.decode(errors="replace"),
            path=request.path.decode(errors="replace"),
            code=request.code,
            remote=getattr(request.client, "host", ""),
        )


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

    async def ready(self, request: Request) -> Answer:
        """``GET /ready``: whether it takes work, and what is wrong, with that or otherwise."""
        refusals = list(self._source.ready())
        reasons = [*refusals, *self._source.concerns()]
        return Answer(503 if refusals else 200, {"ready": not refusals, "reasons": reasons})

    async def shutdown(self, request: Request) -> object:
        """``GET /shutdown/status``: how far a stop has come."""
        status = self._source.shutdown()
        return {**status._asdict(), "since": show_time(status.since)}


class _Root(Route):
    """``/``, and below it everything that has no route."""

    def getChild(self, path: bytes, request: Any) -> IResource:
        return self if path == b"" and not request.postpath else NotFound()


def make_site(
    reactor: Any,
    source: IStatusSource,
    stats: IStatsStore,
    wall: Callable[[], float],
    *,
    manager: ConnectionManager | None = None,
    ws_origins: Collection[str] = (),
    hosts: Collection[str] = (),
    limits: HttpLimits | None = None,
    more: Callable[[Hosts], Mapping[str, Route]] | None = None,
) -> ApiSite:
    """Return the site to listen with.

    ``wall`` returns seconds since the epoch. With a ``manager``, the pool's protocol is
    spoken at ``/ws`` on connections of that manager. ``ws_origins`` are the sites whose
    pages may open it, ``hosts`` the names of this server besides ``localhost``; see
    :class:`~kupool.web.upgrade.Origins` and :class:`~kupool.web.control.Hosts`, which
    raise :class:`ValueError` for those that cannot be. ``more`` returns further routes by
    their paths.
    """
    limits = limits or HttpLimits()
    slots = _Slots()
    known = Hosts(hosts)
    status = _Status(reactor, source)
    control = Control(source, known)
    routes: dict[str, Route] = {
        "/health": Route({b"GET": status.health}),
        "/ready": Route({b"GET": status.ready}),
        "/stats": Route({b"GET": Statistics(reactor, source, stats, wall).get}),
        "/shutdown/status": Route({b"GET": status.shutdown}),
        "/jobs/rotate": Route({b"POST": control.rotate}),
        "/jobs/interval": Route({b"POST": control.interval}),
    }
    if more is not None:
        routes.update(more(known))
    origins = Origins(ws_origins, known)
    if manager is not None:
        factory = PoolWebSocketFactory(reactor, manager, limits.ping_interval, slots.release)
        routes["/ws"] = Upgrade(factory, origins)
    return ApiSite(reactor, _root(routes), limits, slots)


def _root(routes: dict[str, Route]) -> Route:
    """Return the resource at the top, with the routes where their paths say."""

    async def index(request: Request) -> object:
        listed = [{"path": path, "methods": route.methods} for path, route in routes.items()]
        return {"name": "kupool", "version": __version__, "routes": listed}

    root = _Root({b"GET": index})
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
