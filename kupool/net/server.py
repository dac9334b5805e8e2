"""The server: listens on endpoints, accepts connections, and stops in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.interfaces import IProtocolFactory, IReactorFDSet
from twisted.logger import Logger

from kupool.callbacks import called
from kupool.errors import GOING_DOWN, CloseReason
from kupool.net.clock import use_monotonic
from kupool.net.configuration import ServerConfig
from kupool.net.failures import MESSAGE_TOO_LARGE
from kupool.net.interfaces import IConnectionObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.stopping import caller_waits
from kupool.net.transport.certificates import Certificates
from kupool.net.transport.descriptor_table import make_room
from kupool.net.transport.descriptors import DescriptorGroup
from kupool.net.transport.detecting import DetectingFactory
from kupool.net.transport.direct import direct_transport_available
from kupool.net.transport.endpoints import parse_address
from kupool.net.transport.listening import Listening
from kupool.net.transport.protocols import FACTORIES, CodecFactory
from kupool.timing.waiting import Waiters
from kupool.wire.codecs import CODECS, Codec
from kupool.wire.packets import UNLIMITED

#: Gets the server. May return a coroutine or a Deferred, which is awaited.
ServerHook = Callable[["Server"], object]

#: Makes the protocol factory of a server from its manager.
MakeFactory = Callable[[ConnectionManager], IProtocolFactory]


class Server:
    """Listens on any number of addresses, and reports connections to an observer.

    ``framing`` is ``auto`` (detect it), the name of a framing or codec, or a codec object.
    ``factory`` makes the protocol factory instead. ``transport`` is ``direct`` or
    ``stock``. :meth:`start` listens on ``addresses``. Several servers may share a reactor.
    Raises :class:`ValueError` for an unknown framing or transport.
    """

    _log = Logger()

    #: The configuration given to :meth:`from_config`.
    config: ServerConfig | None = None

    def __init__(
        self,
        reactor: Any,
        observer: IConnectionObserver,
        settings: ServerSettings | None = None,
        *,
        framing: str | Codec = "auto",
        transport: str = "direct",
        http_port: str = "",
        name: str = "KuPool",
        addresses: Sequence[str] = (),
        factory: MakeFactory | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        if transport not in ("direct", "stock"):
            raise ValueError(f"transport {transport!r} is neither direct nor stock")
        settings = settings or ServerSettings()
        if not settings.max_frame:
            self._log.warn("Server {name} accepts messages of unlimited size", name=name)
            settings = replace(settings, max_frame=UNLIMITED)
        use_monotonic(reactor)
        self.name = name
        self._reactor = reactor
        self.manager = ConnectionManager(reactor, observer, settings)
        protocols = (
            _factory(framing, self.manager, http_port) if factory is None else factory(self.manager)
        )
        self._ports = Listening(
            reactor,
            protocols,
            settings.proxies,
            certificates,
            unix_mode=settings.unix_mode,
        )
        self._addresses = tuple(addresses)
        self._after_start: list[ServerHook] = []
        self._before_stop: list[ServerHook] = []
        self._served = False
        self._stops = 0
        self._stopping = False
        self._ended = Waiters[None]()
        self._direct = (
            transport == "direct"
            and direct_transport_available()
            and IReactorFDSet.providedBy(reactor)  # a network in memory has no descriptors
        )
        self._group: DescriptorGroup | None = None

    @property
    def planned(self) -> tuple[str, ...]:
        """The configured addresses to listen on."""
        return self._addresses

    @property
    def addresses(self) -> list[Any]:
        """The bound addresses, as Twisted address objects."""
        return [port.getHost() for port in self.ports]

    @property
    def ports(self) -> list[Any]:
        """The listening ports, as Twisted port objects, for example to set socket options."""
        return self._ports.ports

    @property
    def host(self) -> str:
        """The bound IP address, else the configured host; empty without one."""
        bound, planned = self._first_address()
        return str(getattr(bound, "host", planned.host if planned is not None else ""))

    @property
    def port(self) -> int:
        """The bound port, else the configured port; 0 without one."""
        bound, planned = self._first_address()
        return int(getattr(bound, "port", planned.port if planned is not None else 0))

    @property
    def ip_version(self) -> str:
        """``tcp4`` or ``tcp6``, by the address; empty if it is not TCP."""
        bound, planned = self._first_address()
        if planned is None and not hasattr(bound, "host"):
            return ""
        named = not bound and self._addresses[0].startswith("tcp6:")
        return "tcp6" if named or ":" in self.host else "tcp4"

    def _first_address(self) -> tuple[Any, Any]:
        bound = next(iter(self.addresses), None)
        planned = parse_address(self._addresses[0]) if self._addresses and not bound else None
        return bound, planned

    @classmethod
    def from_config(
        cls,
        reactor: Any,
        observer: IConnectionObserver,
        config: ServerConfig,
        *,
        settings: ServerSettings | None = None,
        framing: str | Codec = "tlv",
        transport: str = "direct",
    ) -> Server:
        """Return a server as a file configures it; ``settings`` holds the other limits.

        The sizes of the worker pool are in ``config``; the router uses them.
        """
        limits = replace(
            settings or ServerSettings(),
            max_frame=config.max_packet_size,
            max_connections=config.max_conn,
            too_large=MESSAGE_TOO_LARGE,
        )
        server = cls(
            reactor,
            observer,
            limits,
            framing=framing,
            transport=transport,
            name=config.name,
            addresses=[config.address],
        )
        server.config = config
        return server

    # -- start and stop

    def after_start(self, hook: ServerHook) -> None:
        """Register a function that is called each time the server has started to listen.

        The functions are called in the order of registration. If one fails, the server is
        stopped, and :meth:`start` raises its exception.
        """
        self._after_start.append(hook)

    def before_stop(self, hook: ServerHook) -> None:
        """Register a function that is called each time the server stops, before connections close.

        No new connection is accepted by then. The functions are called in reverse order;
        failures are logged. A hook must not wait for :meth:`stop`, which waits for the
        hook.
        """
        self._before_stop.append(hook)

    async def start(self, addresses: Sequence[str] | None = None) -> None:
        """Listen, by default on the configured addresses, then call the hooks.

        Raises what :meth:`listen` raises.
        """
        stops = self._stops
        await self.listen(self._addresses if addresses is None else addresses)
        try:
            for hook in list(self._after_start):
                if self._stops != stops:
                    return  # it was stopped meanwhile
                await called(hook, self)
        except GeneratorExit:
            raise  # a closed coroutine may not wait again
        except BaseException:
            await self.stop()
            raise

    async def serve(self, addresses: Sequence[str] | None = None) -> None:
        """Start, and return when the server has been stopped; raises as :meth:`start`."""
        ended = self._ended.wait()
        try:
            await self.start(addresses)
        except BaseException:
            ended.addErrback(lambda _: None).cancel()
            raise
        await ended

    async def listen(self, addresses: Sequence[str]) -> None:
        """Listen on every address; if one fails, stop listening on all.

        ``name:port`` means all addresses of a host. Those that this machine does not have
        are skipped, as long as it has one; port 0 is the same port for all of them. If
        :meth:`stop` is called meanwhile, nothing listens at the end.

        Raises :class:`twisted.internet.error.CannotListenError`, or :class:`ValueError` for
        an invalid address.
        """
        if isinstance(addresses, str):  # a string is a sequence of strings, too
            raise ValueError(f"{addresses!r} is one address: expected a list of them")
        stops = self._stops
        if self._direct and self._group is None:
            make_room(self.manager.settings.max_connections)
            self._group = DescriptorGroup(self._reactor)
            self.manager.turns = self._group
        self.manager.start()
        try:
            for text in addresses:
                await self._ports.listen(text, self._group)
                if self._stops != stops:
                    await self._ports.stop()
                    return
        except GeneratorExit:
            raise  # a closed coroutine may not wait again
        except BaseException:
            await self.stop_listening()
            self._release()
            raise
        self._served = True

    async def stop_listening(self) -> None:
        """Stop accepting connections; open connections stay.

        Errors of a port, such as those about the file of a Unix socket, are logged.
        """
        await self._ports.stop()

    async def stop(self, reason: CloseReason = GOING_DOWN, timeout: float = 10.0) -> None:
        """Stop listening, close every connection with ``reason``, and wait until they have ended.

        Connections that have not ended after ``timeout`` seconds are aborted. It may be
        called more than once, also by a handler; a second call waits for the first. A
        worker pool that drains meanwhile does not wait for a handler that waits for this
        stop.
        """
        with caller_waits():
            await self._stop_once(reason, timeout)

    async def _stop_once(self, reason: CloseReason, timeout: float) -> None:
        if self._stopping:
            await self._ended.wait()
            return
        self._stopping = True
        self._stops += 1
        try:
            await self._stop(reason, timeout)
        finally:
            self._stopping = False
            self._ended.tell(None)

    async def _stop(self, reason: CloseReason, timeout: float) -> None:
        await self.stop_listening()
        served, self._served = self._served, False
        for hook in reversed(self._before_stop) if served else ():
            await called(hook, self).addErrback(
                lambda why: self._log.failure(
                    "A hook before the stop of {name} failed", why, name=self.name
                )
            )
        await self.manager.close_all(reason)
        empty = self.manager.when_empty()
        cut = self._reactor.callLater(timeout, self._cut_off)
        await empty
        if cut.active():
            cut.cancel()
        self._release()

    def _cut_off(self) -> None:
        for connection in self.manager:
            connection.abort()

    def _release(self) -> None:
        self.manager.stop()
        if self._group is not None:
            self._group.close()
            self._group = None


def _factory(framing: str | Codec, manager: ConnectionManager, http_port: str) -> Any:
    """Return the protocol factory of a framing."""
    if not isinstance(framing, str):
        return CodecFactory(manager, framing)
    if framing == "auto":
        return DetectingFactory(manager, http_port)
    if framing in FACTORIES:
        return FACTORIES[framing](manager)
    if framing in CODECS:
        return CodecFactory(manager, CODECS[framing](manager.settings.max_frame))
    known = dict.fromkeys(("auto", *FACTORIES, *CODECS))
    raise ValueError(f"framing {framing!r} is none of {', '.join(known)}")


__all__ = ["MakeFactory", "Server", "ServerHook"]
