"""PROXY headers: read first, believed from those who are trusted, whole however they come."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport.detecting import DetectingFactory
from kupool.net.transport.proxied import (
    ProxiedFactory,
    ProxySettings,
    parse_networks,
    read_header,
)
from tests.fakes.peers import Bench, PeerTransport, lines

V1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 8080\r\n"
PING = b'{"id":1,"method":"ping"}\n'
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int = 1, family: int = 0x11, more: bytes = b"", body: bytes | None = None) -> bytes:
    """A header of the second version, made without the code under test."""
    if body is None:
        body = struct.pack(
            "!4s4sHH", socket.inet_aton("198.51.100.7"), socket.inet_aton("192.0.2.1"), 51000, 8080
        )
    body += more
    return SIGNATURE + bytes((0x20 | command, family)) + len(body).to_bytes(2, "big") + body


def v2_of_ipv6(host: str) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, host) + socket.inet_pton(socket.AF_INET6, "::1")
    return v2(family=0x21, body=addresses + struct.pack("!HH", 51000, 8080))


def host_of(data: bytes) -> str | None:
    peer: Any = read_header(data)[0]
    return None if peer is None else peer.host


class HeaderTests(SynchronousTestCase):
    """Issue 12, point 8; case 04."""

    def test_what_they_name(self) -> None:
        for header in (V1, v2(), v2(more=b"\x04\x00\x03abc")):
            peer, rest = read_header(header + b"rest")
            self.assertEqual((peer, rest), (IPv4Address("TCP", "198.51.100.7", 51000), b"rest"))

    def test_one_form_of_an_address_of_ipv6(self) -> None:
        """So that a limit by address meets the same peer behind both versions."""
        one = b"PROXY TCP6 2001:DB8:0:0:0:0:0:7 ::1 51000 8080\r\n"
        self.assertEqual(host_of(one), "2001:db8::7")
        self.assertEqual(host_of(v2_of_ipv6("2001:db8::7")), "2001:db8::7")

    def test_those_that_name_nobody(self) -> None:
        unknown = (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n")
        local = (v2(command=0), v2(command=0, family=0, body=b""), v2(family=0, body=b""))
        unix = v2(family=0x31, body=b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0"))
        for header in (*unknown, *local, unix):
            self.assertEqual(read_header(header + b"rest"), (None, b"rest"))

    def test_what_is_none(self) -> None:
        bad = (
            PING,
            b"PROXY TCP4 198.51.100.7\r\n",
            b"PROXY TCP4 here there 1 2\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 x 2\r\n",
            b"PROXY SCTP 1 2 3 4\r\n",
            b"PROXY " + b"x" * 200,
            b"PROXY \xff\xfe\r\n",
            v2(command=3),
            v2(family=0x14),
            v2(body=b"abc"),
            SIGNATURE + b"\x31\x11\x00\x00",
            SIGNATURE + b"\x21\x11\xff\xff",
        )
        for data in bad:
            self.assertRaises(ValueError, read_header, data)


class FactoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(max_connections_per_ip=2)
        self.clock = Clock()

    def make(self, *trusted: str, **settings: Any) -> ProxiedFactory:
        chosen = ProxySettings(trusted or ("10.0.0.0/8", "unix"), **settings)
        return ProxiedFactory(self.clock, DetectingFactory(self.bench.manager), chosen)

    def meet(self, factory: ProxiedFactory, peer: Any = None) -> tuple[Any, PeerTransport]:
        protocol, transport = factory.buildProtocol(None), PeerTransport()
        transport.peerAddr = peer or IPv4Address("TCP", "10.1.2.3", 33000)
        protocol.makeConnection(transport)
        return protocol, transport


class ProxiedTests(FactoryCase):
    """Issue 12, point 8: limits and bans see the real address."""

    def test_cut_anywhere(self) -> None:
        for header in (V1, v2(), b"PROXY UNKNOWN\r\n", v2(command=0)):
            factory = self.make()
            for cut in range(len(header) + len(PING)):
                protocol, transport = self.meet(factory)
                data = header + PING
                protocol.dataReceived(data[:cut])
                protocol.dataReceived(data[cut:])
                self.assertEqual(lines(transport.value()), [{"id": 1, "result": True}])
                connection = self.bench.observer.connections[-1]
                named = "198.51.100.7" if header in (V1, v2()) else "10.1.2.3"
                self.assertEqual(connection.host, named)
                protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.bench.manager), 0)

    def test_nobody_is_admitted_before(self) -> None:
        protocol, _ = self.meet(self.make())
        protocol.dataReceived(V1[:10])
        self.assertEqual(self.bench.manager.accepted, 0)

    def test_a_limit_by_address(self) -> None:
        factory = self.make()
        hosts = ["198.51.100.7", "198.51.100.7", "198.51.100.8", "198.51.100.7"]
        refused = []
        for host in hosts:
            protocol, transport = self.meet(factory)
            protocol.dataReceived(b"PROXY TCP4 %b 192.0.2.1 1 2\r\n" % host.encode() + PING)
            refused.append(b"too many connections" in transport.value())
        self.assertEqual(refused, [False, False, False, True])

    def test_a_ban(self) -> None:
        self.bench.manager.ban("198.51.100.7", 60)
        factory = self.make()
        _, banned = (met := self.meet(factory))
        met[0].dataReceived(V1 + PING)
        self.assertIn(b"banned", banned.value())
        protocol, transport = self.meet(factory)
        protocol.dataReceived(b"PROXY TCP4 198.51.100.8 192.0.2.1 1 2\r\n" + PING)
        self.assertEqual(lines(transport.value()), [{"id": 1, "result": True}])

    def test_halves(self) -> None:
        """The end of each side reaches the protocol behind the header."""
        protocol, transport = self.meet(self.make())
        protocol.dataReceived(V1 + PING)
        protocol.readConnectionLost()
        self.assertEqual(len(self.bench.observer.finished), 1)
        self.assertTrue(transport.disconnecting)


class TrustTests(FactoryCase):
    """Issue 12, point 8: believed only from those that are trusted."""

    def cut_off(self, factory: ProxiedFactory, peer: Any = None) -> str:
        with capturedLogs() as events:
            protocol, transport = self.meet(factory, peer)
            protocol.dataReceived(V1 + PING)
        self.assertEqual((transport.aborted, transport.value()), (True, b""))
        self.assertEqual(self.bench.manager.accepted, 0)
        (event,) = [event for event in events if "why" in event]
        return str(event["why"])

    def test_strangers(self) -> None:
        factory = self.make()
        for peer in (IPv4Address("TCP", "192.0.2.9", 1), IPv4Address("TCP", "::ffff:192.0.2.8", 1)):
            self.assertIn("proxy_trusted", self.cut_off(factory, peer))
        self.assertEqual(factory.refusals, 2)

    def test_a_flood_of_strangers_is_a_few_lines(self) -> None:
        """Issue 15, build 9: with the number in a minute."""
        factory = self.make()
        with capturedLogs() as events:
            for _ in range(50):
                self.meet(factory, IPv4Address("TCP", "192.0.2.9", 1))
            self.clock.advance(60.0)
        self.assertEqual(len(events), 3)
        self.assertEqual((events[-1]["remote"], events[-1]["count"]), ("192.0.2.9", 49))
        factory.doStop()
        self.assertEqual(factory.refusals, 50)

    def test_each_kind_of_name(self) -> None:
        kinds = {
            "10.1.2.3": IPv4Address("TCP", "10.1.2.3", 1),
            "10.0.0.0/8": IPv4Address("TCP", "::ffff:10.1.2.3", 1),
            "fe80::/10": IPv4Address("TCP", "fe80::1%eth0", 1),
            "unix": UNIXAddress(b"/run/haproxy.sock"),
        }
        for name, peer in kinds.items():
            protocol, transport = self.meet(self.make(name), peer)
            protocol.dataReceived(b"PROXY UNKNOWN\r\n" + PING)
            self.assertEqual(lines(transport.value()), [{"id": 1, "result": True}])

    def test_a_unix_socket_that_is_not_trusted(self) -> None:
        self.cut_off(self.make("10.0.0.0/8"), UNIXAddress(b"/run/haproxy.sock"))

    def test_no_header(self) -> None:
        protocol, transport = self.meet(self.make())
        protocol.dataReceived(PING)
        self.assertTrue(transport.aborted)

    def test_not_in_time(self) -> None:
        protocol, transport = self.meet(self.make(timeout=5.0))
        protocol.dataReceived(V1[:20])
        self.clock.advance(4.9)
        self.assertFalse(transport.aborted)
        self.clock.advance(0.2)
        self.assertTrue(transport.aborted)
        protocol.dataReceived(V1[20:] + PING)
        self.assertEqual(self.bench.manager.accepted, 0)

    def test_too_many_wait(self) -> None:
        factory = self.make(most=2)
        waiting = [self.meet(factory)[0] for _ in range(2)]
        self.assertIn("too many", self.cut_off(factory))
        waiting[0].connectionLost(Failure(ConnectionDone()))
        self.assertFalse(self.meet(factory)[1].aborted)
        self.assertEqual(len(factory.waiting), 2)
        factory.doStop()
        self.assertTrue(all(protocol.transport.aborted for protocol in factory.waiting))

    def test_names_that_are_none(self) -> None:
        self.assertRaisesRegex(ValueError, "10.0.0.0/8, and not 'unix'", parse_networks, ["here"])
        self.assertEqual(parse_networks(["unix"]), ())
