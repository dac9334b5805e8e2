"""Addresses of brokers, as people write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp.address import BrokerAddress, parse_brokers


class AddressTests(SynchronousTestCase):
    """K-81: several brokers in one setting."""

    def test_one(self) -> None:
        (found,) = parse_brokers("amqp://u%2C:p%40%2F@host:5673/a%2Fb")
        self.assertEqual(found, BrokerAddress("host", 5673, "u,", "p@/", "a/b"))

    def test_defaults(self) -> None:
        (found,) = parse_brokers("amqp://host")
        self.assertEqual(found, BrokerAddress("host", 5672, "guest", "guest", "/"))
        (found,) = parse_brokers("amqps://host/")
        self.assertEqual(found, BrokerAddress("host", 5671, "guest", "guest", "/", tls=True))

    def test_several(self) -> None:
        for url in (
            "amqp://u:p@one:1,two:2,[::1]/v",
            "amqp://u:p@one:1/v, two:2, [::1]",
            "amqp://u:p@one:1/v,amqp://u:p@two:2,amqp://u:p@[::1]",
        ):
            found = parse_brokers(url)
            self.assertEqual([str(broker) for broker in found], ["one:1", "two:2", "[::1]:5672"])
            self.assertEqual({(b.user, b.password, b.vhost) for b in found}, {("u", "p", "v")})

    def test_each_its_own(self) -> None:
        one, two = parse_brokers("amqp://a:b@one/x,amqps://c:d@two/y")
        self.assertEqual(one, BrokerAddress("one", 5672, "a", "b", "x"))
        self.assertEqual(two, BrokerAddress("two", 5671, "c", "d", "y", tls=True))

    def test_none(self) -> None:
        for url, why in (
            ("", "must begin with amqp://"),
            ("http://u:s3cret@host", "must begin with amqp://"),
            ("amqp://u:s3cret@", "a host is missing"),
            ("amqp://u:s3cret@host:99999", "a port is a number"),
            ("amqp://u:s3cret@host:x", "a port is a number"),
            ("amqp://u:s3cret@one,,two", "a host is missing"),
            ("amqp://u:s3cret@host/v?heartbeat=1", "unexpected text after the virtual host"),
        ):
            with self.assertRaises(ValueError) as caught:
                parse_brokers(url)
            self.assertIn(why, str(caught.exception))
            self.assertNotIn("s3cret", str(caught.exception))

    def test_no_password_is_shown(self) -> None:
        (found,) = parse_brokers("amqp://u:s3cret@host")
        self.assertNotIn("s3cret", f"{found} {found!r}")
