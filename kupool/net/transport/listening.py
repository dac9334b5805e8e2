"""Listen on the addresses of a server: on all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from kupool.net.transport.certificates import Certificates
from kupool.net.transport.descriptors import DescriptorGroup
from kupool.net.transport.endpoints import EVERYBODY, Address, endpoint_for
from kupool.net.transport.proxied import ProxySettings
from kupool.net.transport.resolving import resolved
from kupool.timing.waiting import after

#: Error of listening on an address that this machine does not have.
_NOT_HERE = frozenset((EADDRNOTAVAIL, EAFNOSUPPORT))


class Listening:
    """The listening ports of one factory."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        proxies: ProxySettings | None = None,
        certificates: Certificates | None = None,
        *,
        unix_mode: int = EVERYBODY,
    ) -> None:
        self._reactor = reactor
        self._unix_mode = unix_mode
        self._certificates = certificates
        self._proxies = proxies
        self._factory = factory
        self._ports: list[Any] = []
        self._closing: list[Deferred[None]] = []
        self._stops = 0

    @property
    def ports(self) -> list[Any]:
        """The listening ports, as Twisted port objects."""
        return list(self._ports)

    async def listen(self, text: str, group: DescriptorGroup | None) -> None:
        """Listen on an address, or on all addresses of a host name.

        Addresses of a name that this machine does not have are skipped, as long as it has
        one. A port of 0 is the same port for all of them. If :meth:`stop` is called
        meanwhile, nothing listens at the end. Raises ``CannotListenError``, and
        :class:`ValueError` for an invalid address.
        """
        stops = self._stops
        named = await resolved(self._reactor, text)
        if self._stops != stops:
            return
        if named:
            await self._on_each(named, group, stops)
        else:
            await self._on(text, group, stops)

    async def _on_each(
        self, named: Sequence[Address], group: DescriptorGroup | None, stops: int
    ) -> None:
        port, missing = 0, None
        for address in named:
            wanted = address if address.port else address._replace(port=port)
            try:
                bound = await self._on(str(wanted), group, stops)
            except CannotListenError as error:
                if getattr(error.socketError, "errno", None) not in _NOT_HERE:
                    raise
                missing = error  # such as an IPv6 address if the system has IPv6 turned off
                continue
            if self._stops != stops:
                return
            port = bound.getHost().port
        if missing is not None and not port:
            raise missing

    async def _on(self, text: str, group: DescriptorGroup | None, stops: int) -> Any:
        endpoint = endpoint_for(
            self._reactor,
            text,
            group,
            self._proxies,
            certificates=self._certificates,
            unix_mode=self._unix_mode,
        )
        try:
            port = await endpoint.listen(self._factory)
        except OSError as error:
            # If a Unix socket's folder is missing, the error does not name the address.
            kind, _, rest = text.partition(":")
            raise CannotListenError(kind, rest, error) from error
        self._ports.append(port)
        if self._stops != stops:
            await self.stop()
        return port

    async def stop(self) -> None:
        """Stop accepting connections. Errors of a port are logged."""
        self._stops += 1
        ports, self._ports = self._ports, []
        for port in ports:
            closing = maybeDeferred(port.stopListening)
            closing.addErrback(
                lambda failure: self._log.failure("A port could not be closed", failure)
            )
            self._closing.append(closing)
        # A second call during the first one waits for the same ports.
        for closing in list(self._closing):
            await after(closing)
            if closing in self._closing:
                self._closing.remove(closing)


__all__ = ["Listening"]
