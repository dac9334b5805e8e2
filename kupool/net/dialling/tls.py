"""TLS of clients: verify the server's certificate and its host name.

Twisted verifies too, but accepts a trusted certificate without a subjectAltName for any
host: of the exceptions of service_identity it treats only ``VerificationError`` as a
failure, and logs the others. (``twisted.internet._sslverify._verifyCB`` of 26.10.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import (
    HostnameEndpoint,
    clientFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.endpoint_strings import is_port, parse_endpoint_string
from kupool.net.pem import NEEDS_TLS, pem_certificates

if TYPE_CHECKING:
    from OpenSSL.crypto import X509
    from OpenSSL.SSL import Connection as TlsConnection

_KEYS = frozenset(("host", "port", "trustRoots", "certificate", "privateKey", "timeout"))


#: What the errors of OpenSSL mean with which it refuses a certificate, by their numbers.
_UNTRUSTED = {
    9: "the certificate of the server is not valid yet",
    10: "the certificate of the server has expired",
    18: "the certificate of the server is self-signed and not trusted",
    19: "a certificate authority of the server's certificate is self-signed and not trusted",
    20: "the certificate authority of the server's certificate is not trusted",
    21: "the certificate authority of the server's certificate is not trusted",
}


class BadCertificate(Exception):
    """A certificate is not trusted, or not for this host; the text says which."""


def client_endpoint(reactor: Any, text: str, timeout: float = 10.0) -> IStreamClientEndpoint:
    """Return the endpoint of a client endpoint string.

    ``tls:HOST:PORT`` verifies the server by the certificate authorities of the system, or
    by those in ``trustRoots=``, a PEM file or a folder of them. ``certificate=`` and
    ``privateKey=`` are the client's own. Twisted's ``ssl:`` verifies nothing, and is
    refused. Raises :class:`ValueError`, which says what is wrong with the text.
    """
    kind, plain, _ = parse_endpoint_string(text)
    if kind == "ssl":
        where = ":".join(plain[:2]) or "HOST:PORT"
        raise ValueError(
            f"{text!r} does not verify who answers: write tls:{where}, and with a certificate "
            "authority of your own :trustRoots=FILE behind it"
        )
    if kind == "tls":
        return _tls_endpoint(reactor, text, timeout)
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, text)
    except Exception as error:
        # The parser of endpoint strings raises what its plugins raise.
        raise ValueError(f"{text!r} is not a client endpoint: {error}") from error
    return endpoint


def _tls_endpoint(reactor: Any, text: str, timeout: float) -> IStreamClientEndpoint:
    _, plain, named = parse_endpoint_string(text)
    unknown = sorted(set(named) - _KEYS)
    if unknown or len(plain) > 2:
        raise ValueError(f"{text!r}: expected tls:HOST:PORT[:trustRoots=FILE]; {unknown or plain}")
    host = named.get("host", plain[0] if plain else "")
    port = named.get("port", plain[1] if len(plain) > 1 else "")
    if not host or not is_port(port) or port == "0":
        raise ValueError(f"{text!r}: expected tls:HOST:PORT, with a port from 1 to 65535")
    try:
        creator = verifying(
            host,
            trust_roots=named.get("trustRoots", ""),
            certificate=named.get("certificate", ""),
            private_key=named.get("privateKey", ""),
        )
    except ImportError:
        raise ValueError(f"{text!r}: {NEEDS_TLS}") from None
    except OSError as error:
        raise ValueError(f"{text!r}: {error.filename}: {error.strerror}") from None
    seconds = float(named.get("timeout", timeout))
    endpoint: IStreamClientEndpoint = wrapClientTLS(
        creator, HostnameEndpoint(reactor, host, int(port), seconds)
    )
    return endpoint


def verifying(
    host: str, *, trust_roots: str = "", certificate: str = "", private_key: str = ""
) -> Any:
    """Return the options of TLS connections to a host, which verify the host.

    ``trust_roots`` is a PEM file or a folder of them, by default the system's certificates.
    Raises :class:`ImportError` without the extra ``tls``, :class:`OSError` for a file that
    cannot be read and :class:`ValueError` for a file without a certificate.
    """
    from twisted.internet.ssl import (
        PrivateCertificate,
        optionsForClientTLS,
        trustRootFromCertificates,
    )

    roots = trustRootFromCertificates(list(_certificates(trust_roots))) if trust_roots else None
    own = None
    if certificate:
        key = Path(private_key or certificate).read_bytes()
        own = PrivateCertificate.loadPEM(Path(certificate).read_bytes() + b"\n" + key)
    return _Verifying(optionsForClientTLS(host, roots, own), host)


def _certificates(place: str) -> Iterator[Any]:
    from twisted.internet.ssl import Certificate

    path = Path(place)
    files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
    found = False
    for file in files:
        for pem in pem_certificates(file.read_bytes()):
            found = True
            yield Certificate.loadPEM(pem)
    if not found:
        raise ValueError(f"{place}: it contains no certificate (between BEGIN and END)")


@implementer(IOpenSSLClientConnectionCreator)
class _Verifying:
    """Makes TLS connections with Twisted's options and an additional check."""

    def __init__(self, options: Any, host: str) -> None:
        self._options = options
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> TlsConnection:
        """Return the TLS connection of a protocol; called by Twisted."""
        from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER

        connection: TlsConnection = self._options.clientConnectionForTLS(tlsProtocol)
        connection.set_verify(
            VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, _check(tlsProtocol, self._host)
        )
        return connection


def _check(protocol: Any, host: str) -> Any:
    from service_identity.exceptions import VerificationError
    from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
    from service_identity.pyopenssl import extract_patterns

    wanted = IPAddress_ID(host) if _is_address(host) else DNS_ID(host)

    def check(connection: Any, certificate: X509, error: int, depth: int, ok: bool) -> bool:
        """Refuse a certificate of another host; called by OpenSSL for each one of a chain."""
        why = ""
        if not ok:
            why = _UNTRUSTED.get(error, f"the certificate of the server is not trusted ({error})")
        elif depth == 0:
            why = wrong_host(certificate)
        if why:
            protocol.failVerification(Failure(BadCertificate(why)))
        return not why

    def wrong_host(certificate: X509) -> str:
        """Return why a certificate is not for the host; empty if it is."""
        try:
            patterns = extract_patterns(certificate)
            if not patterns:
                return "the certificate has no subjectAltName"
            verify_service_identity(patterns, [wanted], [])
        except VerificationError:
            return f"the certificate of the server is not for {host}"
        except BaseException as trouble:  # no exception may leave a callback of OpenSSL
            return f"the certificate cannot be checked: {trouble}"
        return ""

    return check


def _is_address(host: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(host)
    except ValueError:
        return False
    return True


__all__ = [
    "BadCertificate",
    "client_endpoint",
    "verifying",
]
