"""Certificates of TLS servers: load them with their chain, reload them, check their expiry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.endpoint_strings import is_port, parse_endpoint_string
from kupool.net.pem import pem_certificates
from kupool.net.workers.threads import Threads

if TYPE_CHECKING:
    from OpenSSL.SSL import Connection as TlsConnection

#: Seconds before expiry from which on a certificate is reported.
SOON = 14 * 86_400.0


class CertificateFiles(NamedTuple):
    """The files of a private key, its certificate and an optional ``chain`` of further ones."""

    key: str
    certificate: str
    chain: str = ""


class _Loaded(NamedTuple):
    options: Any
    ends: datetime


def _load(files: CertificateFiles) -> _Loaded:
    """Load a key, its certificate and its chain. Blocking.

    Raises :class:`OSError` and :class:`ValueError`; the texts never contain a part of the
    key.
    """
    from OpenSSL import SSL, crypto
    from twisted.internet.ssl import CertificateOptions

    data = Path(files.certificate).read_bytes()
    if files.chain:
        data += b"\n" + Path(files.chain).read_bytes()
    found = pem_certificates(data)
    if not found:
        raise ValueError(f"{files.certificate}: the file contains no certificate")
    try:
        own, *chain = [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in found]
    except crypto.Error:
        raise ValueError(f"{files.certificate}: the file contains a damaged certificate") from None
    try:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, Path(files.key).read_bytes(), b"")
    except (crypto.Error, ValueError, TypeError):
        raise ValueError(
            f"{files.key}: the file contains no private key, or one with a password"
        ) from None
    options = CertificateOptions(privateKey=key, certificate=own, extraCertChain=chain)
    try:
        options.getContext()
    except SSL.Error:
        raise ValueError(f"{files.key}: this is not the key of {files.certificate}") from None
    return _Loaded(options, own.to_cryptography().not_valid_after_utc)


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificate:
    """A key with its certificate, used for new connections.

    Raises :class:`OSError` and :class:`ValueError` for files that cannot be used, and
    :class:`ImportError` without the extra ``tls``.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self.files = files
        self._loaded = _load(files)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> TlsConnection:
        """Return the TLS connection of a protocol; called by Twisted."""
        from OpenSSL.SSL import Connection as TlsConnection

        return TlsConnection(self._loaded.options.getContext(), None)

    @property
    def ends(self) -> datetime:
        """When the certificate expires."""
        return self._loaded.ends

    def read(self) -> _Loaded:
        """Load the files again, without using them. Blocking; raises as the constructor does."""
        return _load(self.files)

    def use(self, loaded: _Loaded) -> None:
        """Use a loaded certificate for new connections."""
        self._loaded = loaded


class Certificates:
    """The certificates of a process: reloads all of them, and reports those that expire."""

    _log = Logger()

    def __init__(self, reactor: Any, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._threads = Threads(reactor, 1)
        self._all: dict[CertificateFiles, ServerCertificate] = {}

    def get(self, files: CertificateFiles) -> ServerCertificate:
        """Return the certificate of some files, loaded once; raises what loading raises."""
        found = self._all.get(files)
        if found is None:
            found = self._all[files] = ServerCertificate(files)
        return found

    def reload(self) -> list[Deferred[None]]:
        """Reload all files. A failure is logged, and the old certificate stays in use.

        Open connections keep their certificate. Never fails.
        """
        return [self._reload(certificate) for certificate in self._all.values()]

    def _reload(self, certificate: ServerCertificate) -> Deferred[None]:
        name = certificate.files.certificate

        def use(loaded: _Loaded) -> None:
            changed = loaded.ends != certificate.ends
            certificate.use(loaded)
            self._log.info(
                "Certificate {name} was reloaded; it is valid until {ends:%Y-%m-%d %H:%M} UTC",
                name=name,
                ends=loaded.ends,
                changed=changed,
            )

        def keep(failure: Failure) -> None:
            why = getattr(failure.value, "strerror", None) or failure.getErrorMessage()
            self._log.error(
                "Certificate {name} cannot be reloaded: {why}. The old one stays in use",
                name=name,
                why=why,
            )

        return self._threads.run(certificate.read).addCallbacks(use, keep)

    def concerns(self) -> Iterator[str]:
        """Yield a text for each certificate that expires within two weeks or has expired."""
        now = datetime.fromtimestamp(self._wall(), UTC)
        for certificate in self._all.values():
            left = (certificate.ends - now).total_seconds()
            if left < SOON:
                word = "ended" if left <= 0 else "ends"
                yield f"{certificate.files.certificate} {word} on {certificate.ends:%Y-%m-%d}"

    async def stop(self) -> None:
        """Stop reloading."""
        await self._threads.stop(1.0)


class TlsAddress(NamedTuple):
    """The address of a TLS server, and its certificate."""

    port: int
    interface: str
    backlog: int
    files: CertificateFiles


def parse_tls_address(text: str) -> TlsAddress | None:
    """Parse ``ssl:PORT:privateKey=FILE:certKey=FILE``.

    Returns None for other kinds of endpoint, and for an ``ssl:`` endpoint with an argument
    that only Twisted supports, such as ``dhParameters``. Raises :class:`ValueError` for an
    invalid port.
    """
    kind, plain, named = parse_endpoint_string(text)
    known = {"port", "interface", "backlog", "privateKey", "certKey", "extraCertChain"}
    if kind != "ssl" or not set(named) <= known:
        return None
    port = named.get("port", plain[0] if plain else "")
    backlog = named.get("backlog", "1024")
    if not is_port(port) or len(plain) > 1 or not backlog.isdecimal():
        raise ValueError(f"{text!r}: expected ssl:PORT:privateKey=FILE:certKey=FILE")
    key = named.get("privateKey", "server.pem")  # Twisted's default
    files = CertificateFiles(key, named.get("certKey", key), named.get("extraCertChain", ""))
    return TlsAddress(int(port), named.get("interface", ""), int(backlog), files)


__all__ = [
    "SOON",
    "CertificateFiles",
    "Certificates",
    "ServerCertificate",
    "TlsAddress",
    "parse_tls_address",
]
