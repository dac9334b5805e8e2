"""Addresses of servers, as people write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kupool.client.servers import parse_server


class AddressTests(SynchronousTestCase):
    """K-65: an address is host:port, :port, or a client endpoint of Twisted's."""

    def test_kinds(self) -> None:
        """K-65: each form gives the endpoint that it names."""
        for text, kind in (
            ("localhost:8080", HostnameEndpoint),
            (":8080", HostnameEndpoint),
            ("127.0.0.1:8080", TCP4ClientEndpoint),
            ("[::1]:8080", TCP6ClientEndpoint),
            ("tcp:host=127.0.0.1:port=8080", TCP4ClientEndpoint),
            ("tcp:localhost:8080", TCP4ClientEndpoint),
            ("unix:/tmp/kupool.sock", UNIXClientEndpoint),
        ):
            server = parse_server(MemoryReactorClock(), text)
            self.assertEqual(server.name, text)
            self.assertIn(kind, type(server.endpoint).__mro__, text)

    def test_a_port_alone_is_this_machine(self) -> None:
        """K-65: ``:8080`` connects to this machine."""
        endpoint = parse_server(MemoryReactorClock(), ":8080").endpoint
        self.assertIn("localhost:8080", repr(endpoint))

    def test_errors_name_the_address(self) -> None:
        for text in (
            "",
            "nonsense",
            "host:",
            "host:99999",
            "host:0",
            "tcp:8080",
            "nosuch:thing=1",
            "a b",
            f"{'a' * 64}:80",
        ):
            error = self.assertRaises(ValueError, parse_server, MemoryReactorClock(), text)
            self.assertIn(repr(text), str(error))

    @given(st.text(max_size=40))
    def test_any_text_is_an_endpoint_or_a_value_error(self, text: str) -> None:
        try:
            parse_server(MemoryReactorClock(), text)
        except ValueError as error:
            self.assertTrue(str(error))
