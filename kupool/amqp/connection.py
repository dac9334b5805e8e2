"""A connection to a broker, from the handshake to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Factory

from kupool.amqp import BrokerError, BrokerRefused
from kupool.amqp.address import BrokerAddress
from kupool.amqp.channel import BrokerChannel
from kupool.amqp.wire import ConnectionSettings, as_error, make_protocol
from kupool.net.dialling.explaining import explained
from kupool.net.dialling.tls import BadCertificate, verifying
from kupool.timing.waiting import after

#: Reply codes of permanent errors: no access, no virtual host.
_REFUSALS = (403, 530)


async def connect(
    reactor: Any, broker: BrokerAddress, settings: ConnectionSettings, name: str
) -> BrokerConnection:
    """Connect to a broker and open the virtual host; the broker shows the connection as ``name``.

    Raises :class:`BrokerRefused` if the broker refuses the account or the virtual host,
    otherwise :class:`BrokerError`. The text is one line and contains no password.
    """
    protocol = make_protocol(reactor, broker, settings, name)
    endpoint: Any = HostnameEndpoint(reactor, broker.host, broker.port, settings.timeout)
    if broker.tls:
        endpoint = wrapClientTLS(verifying(broker.host), endpoint)
    try:
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        await endpoint.connect(factory)
    except (ConnectError, DNSLookupError, OSError) as error:
        raise BrokerError(f"RabbitMQ at {broker} cannot be reached: {explained(error)}") from None
    protocol.opened.addTimeout(settings.timeout, reactor)
    try:
        await protocol.opened
    except defer.TimeoutError:
        protocol.reason = BrokerError(f"RabbitMQ at {broker} does not answer")
        protocol.wire.abortConnection()
        raise protocol.reason from None
    except defer.CancelledError:
        protocol.wire.abortConnection()
        raise
    except Exception as error:
        raise _not_opened(broker, error) from None
    return BrokerConnection(broker, protocol)


def _not_opened(broker: BrokerAddress, error: Exception) -> BrokerError:
    if broker.tls and (trouble := tls_trouble(error)):
        return BrokerRefused(f"RabbitMQ at {broker} cannot be reached over TLS: {trouble}")
    found = as_error(error)
    detail = str(found).partition(" - ")[2] or str(found)
    if found.code == 403:
        why = f"refuses user {broker.user!r}: wrong password, or no such user"
    elif found.code == 530 and "refused for user" in detail:
        why = f"does not let user {broker.user!r} use virtual host {broker.vhost!r}"
    elif found.code == 530 and "not found" in detail:
        why = f"has no virtual host {broker.vhost!r}"
    else:
        why = f"ends the handshake: {detail}"
    kind = BrokerRefused if found.code in _REFUSALS else BrokerError
    return kind(f"RabbitMQ at {broker} {why}", found.code)


def tls_trouble(error: BaseException) -> str:
    """Return what was wrong with TLS or a certificate; empty if nothing was."""
    from OpenSSL.SSL import Error

    if isinstance(error, BadCertificate):
        return str(error)
    if isinstance(error, Error):
        reasons = error.args[0] if error.args else ()
        texts = [str(reason[-1]) for reason in reasons if isinstance(reason, tuple) and reason]
        return ", ".join(dict.fromkeys(texts)) or "the handshake failed"
    return ""


class BrokerConnection:
    """An open connection. It is not reopened; a new connection is a new object."""

    def __init__(self, broker: BrokerAddress, protocol: Any) -> None:
        self._protocol = protocol
        self._why: BrokerError | None = None
        self.broker = broker

    @property
    def blocked(self) -> bool:
        """Whether the broker accepts no data because it is low on memory or disk."""
        return bool(self._protocol.blocked)

    @property
    def writable(self) -> bool:
        """Whether data sent now leaves soon; only valid after :meth:`watch`."""
        return bool(self._protocol.wire.writable) and not self.blocked

    def watch(self, resumed: Callable[[], object]) -> None:
        """Keep :attr:`writable` up to date; ``resumed`` is called when it becomes true again."""
        self._protocol.wire.watch(resumed)
        self._protocol.unblocked = resumed

    @property
    def is_open(self) -> bool:
        """Whether the connection is open."""
        return bool(self._protocol.is_open) and self._why is None

    async def channel(self) -> BrokerChannel:
        """Open a channel; raises :class:`BrokerError`."""
        try:
            return BrokerChannel(await self._protocol.channel(), self._protocol)
        except Exception as error:
            raise as_error(error) from None

    async def ended(self) -> BrokerError:
        """Wait until the connection has ended; returns the reason."""
        await after(self._protocol.over)
        return self._why or as_error(self._protocol.reason or Exception("the connection ended"))

    def drop(self, why: str) -> None:
        """Abort the connection because it is no longer usable."""
        if self._why is None and not self._protocol.over.called:
            self._why = BrokerError(why)
            self._protocol.wire.abortConnection()

    def close(self) -> None:
        """Close the connection in order; it is aborted if that takes too long."""
        if self._protocol.over.called or self._why is not None:
            return
        self._why = BrokerError("closed")
        if self._protocol.is_open:
            self._protocol.close().addErrback(lambda _: None)
        self._protocol.wire.cut_later()


__all__ = ["BrokerConnection", "connect", "tls_trouble"]
