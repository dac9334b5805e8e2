"""What counts as one address."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.net.networks import network_of


class NetworkTests(SynchronousTestCase):
    """W-32"""

    def test_networks(self) -> None:
        for host, network in (
            ("192.0.2.1", "192.0.2.1"),
            ("", ""),
            ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
            ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("a:b", "a:b"),
        ):
            self.assertEqual(network_of(host), network)
