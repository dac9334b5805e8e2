"""What a setting says about an address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport.endpoints import Address, endpoint_for, parse_address


class ParseTests(SynchronousTestCase):
    """K-89: `:8080` and its relatives."""

    def test_addresses(self) -> None:
        cases = {
            ":8080": Address("", 8080),
            "localhost:8080": Address("localhost", 8080),
            "127.0.0.1:0": Address("127.0.0.1", 0),
            "[::1]:8080": Address("::1", 8080),
            "[::]:65535": Address("::", 65535),
            "tcp:8080": Address("", 8080),
            "tcp:port=8080": Address("", 8080),
            "tcp:8080:interface=127.0.0.1": Address("127.0.0.1", 8080),
            "tcp:8080:interface=127.0.0.1:backlog=5": Address("127.0.0.1", 8080, 5),
            "tcp6:8080": Address("::", 8080),
            r"tcp6:8080:interface=\:\:1": Address("::1", 8080),
            r"tcp:8080:interface=\:\:1": Address("::1", 8080),
        }
        for text, expected in cases.items():
            self.assertEqual(parse_address(text), expected, text)

    def test_other_endpoints_are_left_to_twisted(self) -> None:
        for text in ("unix:/run/kupool.sock", "ssl:443:privateKey=k.pem", "haproxy:tcp\\:1"):
            self.assertIsNone(parse_address(text), text)

    def test_errors_name_the_value(self) -> None:
        """K-88: one clear line."""
        for text in (
            "",
            "8080",
            "localhost",
            ":x",
            ":65536",
            "host:99999",
            "tcp:",
            "tcp:x",
            "tcp:70000",
            "tcp:\N{SUPERSCRIPT TWO}",
            "tcp:8080:backlog=many",
            "tcp:8080:nonsense=1",
            "tcp:8080:9090",
            "Tcp:8080x",
        ):
            with self.assertRaises(ValueError) as caught:
                parse_address(text)
            self.assertIn(repr(text), str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    @given(st.text(max_size=30))
    def test_no_text_raises_anything_else(self, text: str) -> None:
        try:
            address = parse_address(text)
        except ValueError as error:
            self.assertIn(repr(text), str(error))
        else:
            self.assertTrue(address is None or 0 <= address.port <= 65535)


class EndpointTests(SynchronousTestCase):
    def test_errors_of_twisted_name_the_value_too(self) -> None:
        """K-88: whatever the parser of a kind raises."""
        for text in (
            "nonsense:one",
            "ssl:443:privateKey=/does/not/exist.pem",
            "ssl:x",
            "systemd:domain=INET",
            "fd:3",
        ):
            with self.assertRaises(ValueError) as caught:
                endpoint_for(MemoryReactorClock(), text)
            self.assertIn(repr(text), str(caught.exception))

    def test_stock_endpoints_listen_where_they_should(self) -> None:
        for text, expected in (
            (":8080", (8080, "")),
            ("[::1]:8080", (8080, "::1")),
            ("tcp:8080:interface=127.0.0.1:backlog=7", (8080, "127.0.0.1")),
        ):
            reactor = MemoryReactorClock()
            self.successResultOf(endpoint_for(reactor, text).listen(None))  # type: ignore[arg-type]
            ((port, _, backlog, interface),) = reactor.tcpServers
            self.assertEqual((port, interface), expected)
            self.assertEqual(backlog, 7 if "backlog" in text else 1024)
