"""A server: endpoints in, connections out, and an orderly end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from kupool.errors import GOING_DOWN, CloseReason
from kupool.net import IConnectionObserver
from kupool.net.descriptors import DescriptorGroup
from kupool.net.detecting import DetectingFactory
from kupool.net.endpoints import endpoint_for
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.protocols import FACTORIES
from kupool.net.transport import direct_transport_available


class Server:
    """Listens on any number of addresses, and hands connections to an observer.

    ``framing`` is ``auto``, which detects it, or the name of one framing;
    ``transport`` is ``direct`` or ``stock``. Several servers may share a reactor.
    Raises :class:`ValueError` for a framing or transport of another name.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        observer: IConnectionObserver,
        settings: ServerSettings | None = None,
        *,
        framing: str = "auto",
        transport: str = "direct",
        http_port: str = "",
    ) -> None:
        if framing != "auto" and framing not in FACTORIES:
            raise ValueError(f"framing {framing!r} is none of auto, {', '.join(FACTORIES)}")
        if transport not in ("direct", "stock"):
            raise ValueError(f"transport {transport!r} is neither direct nor stock")
        self._reactor = reactor
        self.manager = ConnectionManager(reactor, observer, settings or ServerSettings())
        self._factory = (
            DetectingFactory(self.manager, http_port)
            if framing == "auto"
            else FACTORIES[framing](self.manager)
        )
        self._direct = transport == "direct" and direct_transport_available()
        self._group: DescriptorGroup | None = None
        self._ports: list[Any] = []
        self._closing: list[Deferred[None]] = []

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are bound, as Twisted address objects."""
        return [port.getHost() for port in self._ports]

    async def listen(self, addresses: Sequence[str]) -> None:
        """Listen on every address; when one fails, none is left listening.

        Raises :class:`twisted.internet.error.CannotListenError`, or
        :class:`ValueError` for an address that names no endpoint.
        """
        if self._direct and self._group is None:
            self._group = DescriptorGroup(self._reactor)
            self.manager.after_turn = self._group.after_turn
        self.manager.start()
        try:
            for text in addresses:
                endpoint = endpoint_for(self._reactor, text, self._group)
                self._ports.append(await endpoint.listen(self._factory))
        except BaseException:
            await self.stop_listening()
            self._release()
            raise

    async def stop_listening(self) -> None:
        """Accept no further connection; those there are stay."""
        ports, self._ports = self._ports, []
        self._closing += [maybeDeferred(port.stopListening) for port in ports]
        # A second call, while the first still waits, waits for the same ports.
        for closing in list(self._closing):
            closed: Deferred[None] = Deferred()
            closing.chainDeferred(closed)
            await closed
            if closing in self._closing:
                self._closing.remove(closing)

    async def stop(self, reason: CloseReason = GOING_DOWN, timeout: float = 10.0) -> None:
        """Stop listening, close every connection with ``reason``, and wait for them.

        Those that have not ended ``timeout`` seconds later are cut off. May be called
        again, from a handler too.
        """
        await self.stop_listening()
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


__all__ = ["Server"]
