"""TLS on real sockets: whom clients believe, and which certificate a server shows."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.amqp.address import parse_brokers
from kupool.amqp.connection import connect
from kupool.amqp.wire import ConnectionSettings
from kupool.bus.remote.client import RemoteBus
from kupool.client import PoolClient
from kupool.client.servers import parse_server
from kupool.net.dialling.client import Client
from kupool.net.dialling.tls import client_endpoint
from kupool.net.transport.certificates import CertificateFiles, Certificates, ServerCertificate
from kupool.net.transport.endpoints import endpoint_for


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def pem(thing: Any) -> bytes:
    return bytes(thing.public_bytes(serialization.Encoding.PEM))


def append(path: str, data: bytes, *, anew: bool = False) -> None:
    with open(path, "wb" if anew else "ab") as file:
        file.write(data)


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Authority:
    """A certificate authority, and what it issues."""

    def __init__(self, name: str = "root", *names: Any, ca: bool = True) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), 30, names, ca=ca)

    def _sign(self, subject: Any, key: Any, days: float, names: Any, *, ca: bool = False) -> Any:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            # Python 3.13 wants all of these.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if ca:
            usage = {name: name in ("key_cert_sign", "crl_sign") for name in _USAGES}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(
        self, folder: Path, name: str, *names: Any, days: float = 30, common: str = "localhost"
    ) -> CertificateFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        certificate = self._sign(subject, key.public_key(), days, names)
        return self._write(folder, name, key, certificate)

    def itself(self, folder: Path) -> CertificateFiles:
        """Return the files of its own certificate, which it has signed."""
        return self._write(folder, "own", self.key, self.certificate)

    def _write(self, folder: Path, name: str, key: Any, certificate: Any) -> CertificateFiles:
        files = CertificateFiles(str(folder / f"{name}.key"), str(folder / f"{name}.pem"))
        Path(files.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        Path(files.certificate).write_bytes(pem(certificate))
        return files


LOCALHOST = x509.DNSName("localhost")
LOOPBACK = x509.IPAddress(ip_address("127.0.0.1"))


class Greeter(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello\n")

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard.append(data)  # type: ignore[union-attr]


class TlsCase(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = Authority()
        self.roots = self.folder / "root.pem"
        self.roots.write_bytes(pem(self.root.certificate))

    async def serve(
        self, files: CertificateFiles, certificates: Any = None, heard: list[bytes] | None = None
    ) -> int:
        """Serve TLS; what a client sends goes to ``heard``."""
        text = f"ssl:0:interface=127.0.0.1:privateKey={files.key}:certKey={files.certificate}"
        factory = Factory.forProtocol(Greeter)
        factory.noisy = False
        factory.heard = [] if heard is None else heard  # type: ignore[attr-defined]
        endpoint = endpoint_for(the_reactor(), text, certificates=certificates)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)


class ClientTests(TlsCase):
    """Issue 15, build 6: a man in the middle is refused by each of our clients."""

    async def hears(self, endpoint: Any) -> str:
        """Return what a client hears, or why it ended."""
        heard: Deferred[str] = Deferred()

        class Listener(Protocol):
            def dataReceived(self, data: bytes) -> None:
                if not heard.called:
                    heard.callback(data.decode())
                assert self.transport is not None
                self.transport.abortConnection()  # type: ignore[attr-defined]

            def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
                if not heard.called:
                    heard.callback(f"{reason.type.__name__}: {reason.getErrorMessage()}")

        await endpoint.connect(Factory.forProtocol(Listener))
        return await heard.addTimeout(10, the_reactor())

    def impostors(self) -> dict[str, CertificateFiles]:
        """Certificates of others, by what a client has to say of each."""
        other, own = Authority("other"), Authority("localhost", LOCALHOST, ca=False)
        return {
            "is not for localhost": self.root.issue(
                self.folder, "other", x509.DNSName("evil.example")
            ),
            "has no subjectAltName": self.root.issue(self.folder, "plain"),
            "has expired": self.root.issue(self.folder, "old", LOCALHOST, days=-1),
            "certificate authority of the server's certificate is not trusted": other.issue(
                self.folder, "alien", LOCALHOST
            ),
            "self-signed and not trusted": own.itself(self.folder),
        }

    async def test_the_right_one(self) -> None:
        port = await self.serve(self.root.issue(self.folder, "good", LOCALHOST, LOOPBACK))
        for host in ("localhost", "127.0.0.1"):
            text = f"tls:{host}:{port}:trustRoots={self.roots}"
            self.assertEqual(await self.hears(client_endpoint(the_reactor(), text)), "hello\n")

    def use_our_authority(self) -> None:
        """Trust it as one of the system's; OpenSSL and its Python layer read this variable."""
        self.patch(os, "environ", {**os.environ, "SSL_CERT_FILE": str(self.roots)})
        os.putenv("SSL_CERT_FILE", str(self.roots))
        self.addCleanup(os.unsetenv, "SSL_CERT_FILE")

    async def as_pool_client(self, port: int) -> str:
        client = PoolClient(the_reactor(), [self.address(port)], "alice")
        return await self.refused(client.connect(), client.close, lambda: client.problem)

    async def as_client_of_the_framework(self, port: int) -> str:
        """It is connected before the handshake, and says afterwards why it is not any more."""
        ended: list[str] = []
        client = Client(the_reactor(), self.address(port), on_disconnected=ended.append)
        await client.connect()
        for _ in range(300):
            if ended:
                break
            await deferLater(the_reactor(), 0.01)
        await client.close()
        return " ".join(ended[:1])

    async def as_remote_bus(self, port: int) -> str:
        bus = RemoteBus(the_reactor(), client_endpoint(the_reactor(), self.address(port)))
        return await self.refused(bus.connect(), bus.close, lambda: "")

    async def as_client_of_a_broker(self, port: int) -> str:
        """Of the log, the bus and the rooms between hosts: all of them dial by this."""
        (broker,) = parse_brokers(f"amqps://u:p@localhost:{port}/v")
        dialled = connect(the_reactor(), broker, ConnectionSettings(timeout=5.0), "test")
        return await self.refused(ensureDeferred(dialled), None, lambda: "")

    def address(self, port: int) -> str:
        return f"tls:localhost:{port}:trustRoots={self.roots}"

    async def refused(self, dialled: Any, close: Any, problem: Any) -> str:
        """Return why a client gives up, or what it says while it still tries."""
        looking = LoopingCall(lambda: problem() and dialled.cancel())
        looking.start(0.01)
        why = ""
        try:
            await dialled.addTimeout(10, the_reactor())
        except Exception as error:
            why = f"{problem()} {error} {error.__cause__ or ''}"
        finally:
            looking.stop()
        if close is not None:
            await maybeDeferred(close)
        return why

    async def test_each_client_against_each_certificate(self) -> None:
        """Only the right one is told anything; the reason of each refusal is named."""
        self.use_our_authority()
        good = self.root.issue(self.folder, "good", LOCALHOST)
        for client in (
            self.as_pool_client,
            self.as_client_of_the_framework,
            self.as_remote_bus,
            self.as_client_of_a_broker,
        ):
            for why, files in self.impostors().items():
                heard: list[bytes] = []
                said = await client(await self.serve(files, heard=heard))
                if client != self.as_remote_bus:  # which is connected before the handshake
                    self.assertIn(why, said, client.__name__)
                self.assertEqual(heard, [], (client.__name__, why))
            if client != self.as_client_of_the_framework:  # which has nothing to end it
                said = await client(await self.serve(good))
                for word in ("certificate", "TLS"):
                    self.assertNotIn(word, said, client.__name__)
        self.flushLoggedErrors()

    async def test_a_certificate_of_no_name_is_named(self) -> None:
        port = await self.serve(self.root.issue(self.folder, "plain"))
        text = f"tls:localhost:{port}:trustRoots={self.roots}"
        heard = await self.hears(client_endpoint(the_reactor(), text))
        self.assertIn("subjectAltName", heard)


class SpellingTests(SynchronousTestCase):
    """Issue 15, build 6: `ssl:` in a client is refused with the right spelling."""

    def refused(self, text: str) -> str:
        return str(self.assertRaises(ValueError, client_endpoint, the_reactor(), text))

    def test_ssl(self) -> None:
        self.assertIn("write tls:pool.example:8443", self.refused("ssl:pool.example:8443"))
        for make in (parse_server, Client):
            error = self.assertRaises(ValueError, make, the_reactor(), "ssl:pool.example:8443")
            self.assertIn("write tls:pool.example:8443", str(error))

    def test_what_cannot_be(self) -> None:
        for text in ("tls:", "tls:host", "tls:host:0", "tls:host:65536", "tls:host:x", "tls::1"):
            self.assertIn("expected tls:HOST:PORT", self.refused(text))
        self.assertIn("trustroots", self.refused("tls:host:1:trustroots=a"))
        self.assertIn("No such file", self.refused("tls:host:1:trustRoots=/none"))
        empty = Path(self.mktemp())
        empty.write_text("nothing\n")
        self.assertIn("no certificate", self.refused(f"tls:host:1:trustRoots={empty}"))


class ServerTests(TlsCase):
    """Issue 15, build 6: certificates are reloaded, send their chain, and are watched."""

    def shown(self, port: int) -> tuple[str, str]:
        """Connect as a client that knows the root alone; returns the name it was shown."""
        import socket

        context = ssl.create_default_context(cafile=str(self.roots))
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            found: Any = secure.getpeercert()
            return found["subject"][0][0][1], secure.recv(100).decode()

    async def test_a_file_with_a_chain_sends_the_chain(self) -> None:
        middle = Authority("middle")
        crossed = self.root._sign(middle.name, middle.key.public_key(), 30, None, ca=True)
        files = middle.issue(self.folder, "leaf", LOCALHOST)
        append(files.certificate, pem(crossed))
        port = await self.serve(files)
        self.assertEqual(await deferToThread(self.shown, port), ("localhost", "hello\n"))

    async def test_reload(self) -> None:
        certificates = Certificates(the_reactor(), lambda: datetime.now(UTC).timestamp())
        self.addCleanup(lambda: ensureDeferred(certificates.stop()))
        files = self.root.issue(self.folder, "leaf", LOCALHOST, common="first")
        port = await self.serve(files, certificates)
        self.assertEqual((await deferToThread(self.shown, port))[0], "first")
        self.root.issue(self.folder, "leaf", LOCALHOST, common="second")
        self.assertEqual((await deferToThread(self.shown, port))[0], "first")
        for read in certificates.reload():
            await read
        self.assertEqual((await deferToThread(self.shown, port))[0], "second")
        append(files.key, b"nothing", anew=True)
        for read in certificates.reload():
            await read
        self.assertEqual((await deferToThread(self.shown, port))[0], "second")

    def test_the_end_is_a_concern(self) -> None:
        now = [datetime.now(UTC).timestamp()]
        certificates = Certificates(the_reactor(), lambda: now[0])
        files = self.root.issue(self.folder, "leaf", LOCALHOST, days=30)
        certificates.get(files)
        self.assertEqual(list(certificates.concerns()), [])
        now[0] += 17 * 86_400
        (text,) = certificates.concerns()
        self.assertIn(f"{files.certificate} ends on 2", text)
        now[0] += 17 * 86_400
        (text,) = certificates.concerns()
        self.assertIn("ended on", text)

    def test_files_that_cannot_be_used(self) -> None:
        one = self.root.issue(self.folder, "one", LOCALHOST)
        two = self.root.issue(self.folder, "two", LOCALHOST)
        for files, why in (
            (CertificateFiles(one.key, two.certificate), "is not the key of"),
            (CertificateFiles(one.certificate, one.certificate), "no private key"),
            (CertificateFiles(one.key, one.key), "no certificate"),
        ):
            self.assertIn(why, str(self.assertRaises(ValueError, ServerCertificate, files)))
        missing = CertificateFiles("/none", one.certificate)
        self.assertRaises(FileNotFoundError, ServerCertificate, missing)
