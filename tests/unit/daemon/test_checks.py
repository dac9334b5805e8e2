"""What is refused before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon import engines
from kupool.daemon.checks import check
from kupool.settings import SettingError, load
from kupool.tap import make_checkers


class CheckTests(SynchronousTestCase):
    """K-88: what no part can do is refused, with the setting and the source."""

    def refused(self, **flags: str | Sequence[str]) -> str:
        return str(self.assertRaises(SettingError, check, load(flags, {})))

    def test_the_defaults(self) -> None:
        self.assertIsNone(check(load({}, {})))

    def test_addresses(self) -> None:
        for text in (":0", "host:1", "[::1]:1", "tcp:1:interface=\\:\\:1", "unix:/tmp/sock",
                     "haproxy:tcp:8080"):  # fmt: skip
            self.assertIsNone(check(load({"addr": [text], "http": text}, {})))
        for text in ("8080", "host", ":65536", "tcp:x", "ssl:1:privateKey=/none",
                     "unknown:1:2"):  # fmt: skip
            self.assertRegex(self.refused(addr=[":0", text]), r"^addr: .*\(from flag --addr\)$")
            self.assertRegex(self.refused(http=text), r"^http: .*\(from flag --http\)$")
        self.assertEqual(self.refused(addr=[]), "addr: no address to listen on (from flag --addr)")
        self.assertIsNone(check(load({"http": ""}, {})))

    def test_origins_and_hosts(self) -> None:
        """K-88: the site would refuse them too, but only after the process is in the background."""
        self.assertIsNone(check(load({"ws_origins": "https://a,*", "http_hosts": "pool,::1"}, {})))
        self.assertRegex(self.refused(ws_origins="pool"), r"^ws_origins: 'pool' .*--ws-origins\)$")
        self.assertRegex(self.refused(http_hosts="a:1"), r"^http_hosts: 'a:1' .*--http-hosts\)$")

    def test_the_bus(self) -> None:
        """A-38, K-88: topics, operators, pages and the token are looked at before a start."""
        for name in ("bus_publish", "bus_subscribe", "bus_direct"):
            self.assertIsNone(check(load({name: ["a.*", "b.>"]}, {})))
            self.assertIsNone(check(load({name: ""}, {})))
            wrong = self.refused(**{name: ["a.*", "a..b"]})
            self.assertRegex(wrong, rf"^{name}: topic 'a..b'.*\(from flag --bus-")
        wrong = self.refused(bus_permissions=["* publish a", "alice writes b"])
        self.assertEqual(
            wrong,
            "bus_permissions: rule 2: 'alice writes b': expected USER publish|subscribe PATTERN, "
            "as 'bank publish orders.{user}.>' (from flag --bus-permissions)",
        )
        self.assertRegex(
            self.refused(bus_permissions=["alice publish a"]),
            "^bus_permissions: rule 1 needs --auth: without it anybody may use the name 'alice' ",
        )
        for name in ("bus_publish", "bus_subscribe"):
            wrong = self.refused(**{name: ["a.{user}"]})
            self.assertRegex(wrong, rf"^{name}: .* needs --auth: ")
            wrong = self.refused(**{name: ["a.x{user}"]})
            self.assertRegex(wrong, f"^{name}: topic 'a.x{{user}}': {{user}} stands for a whole")
        self.assertRegex(self.refused(bus_operators=["alice"]), "^bus_operators: needs --auth: ")
        self.assertRegex(self.refused(bus_origins=["*"]), r"^bus_origins: '\*' .*--bus-origins\)$")
        self.assertRegex(self.refused(bus_origins=["shop"]), "^bus_origins: 'shop' ")
        self.assertIsNone(check(load({"bus_origins": "https://shop.example"}, {})))
        wrong = self.refused(bus_token="s3cret\n")
        self.assertEqual(
            wrong,
            "bus_token: it has a character that an HTTP header cannot hold (from flag --bus-token)",
        )
        self.assertEqual(
            self.refused(bus="rabbit"),
            "bus_url: --bus rabbit needs the address of a broker (from default)",
        )
        for name in ("bus_url", "mq_url"):
            wrong = self.refused(bus="rabbit", **{name: "http://user:s3cret@host/"})
            self.assertRegex(wrong, rf"^{name}: .*http://user:\*\*\*@host/.*\(from flag")
            self.assertIsNone(check(load({"bus": "rabbit", name: "amqp://a,b/v"}, {})))

    def test_the_predecessors_clients(self) -> None:
        """Issue 13, build 4: an address of their own, off at first, never with passwords."""
        self.assertEqual(load({}, {}).settings.bus.compatible_addr, "")
        for text in ("127.0.0.1:8082", "unix:/tmp/sock", "haproxy:tcp:8082"):
            self.assertIsNone(check(load({"bus_compatible_addr": text}, {})))
        self.assertRegex(self.refused(bus_compatible_addr="8082"), r"^bus_compatible_addr: '8082'")
        self.assertEqual(
            self.refused(bus_compatible_addr=":8082", auth=["memory:a:b"]),
            "bus_compatible_addr: cannot be used together with --auth: clients of the "
            "predecessor's bus name no user (from flag --bus-compatible-addr)",
        )
        wrong = self.refused(bus_compatible_addr=":8082", bus="off")
        self.assertRegex(wrong, "^bus_compatible_addr: needs a bus; set --bus local")

    def test_engines(self) -> None:
        """K-88, K-92: an engine on another machine needs its address; no password is shown."""
        self.assertEqual(
            self.refused(store="pg"), "pg_dsn: --store pg needs a connection string (from default)"
        )
        self.assertEqual(
            self.refused(mq="rabbit", mq_url=" "),
            "mq_url: --mq rabbit needs the address of a broker (from flag --mq-url)",
        )
        self.assertRegex(
            self.refused(mq="rabbit", mq_url="amqp://a", mq_queue=""), r"^mq_queue: .*the name of"
        )
        wrong = self.refused(mq="rabbit", mq_url="http://user:s3cret@host/")
        self.assertRegex(wrong, r"^mq_url: .*http://user:\*\*\*@host/.*\(from flag --mq-url\)$")
        over_tls = load({"mq": "rabbit", "mq_url": "amqps://user:s3cret@host/"}, {})
        self.patch(engines, "find_spec", lambda name: object())
        self.assertIsNone(check(over_tls))
        self.patch(engines, "find_spec", lambda name: None)
        error = self.assertRaises(SettingError, check, over_tls)
        self.assertEqual(
            str(error),
            "mq_url: amqps://: TLS needs the extra kupool[tls]; from a checkout: pip install "
            "'.[tls]' (from flag --mq-url)",
        )
        several = "amqp://user:s3cret@one/v,two,three:5673"
        self.assertIsNone(check(load({"mq": "rabbit", "mq_url": several}, {})))
        self.assertIsNone(check(load({"store": "pg", "pg_dsn": "host=db dbname=kupool"}, {})))


class CheckerTests(SynchronousTestCase):
    """K-17, K-88: --auth makes checkers of passwords, or says why not."""

    def refused(self, text: str) -> str:
        return str(
            self.assertRaises(SettingError, make_checkers, load({"auth": [text]}, {}), Clock())
        )

    def test_checkers(self) -> None:
        self.assertEqual(make_checkers(load({}, {}), Clock()), [])
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("alice:secret\n")
        made = make_checkers(load({"auth": [f"file:{path}", "memory:bob:secret"]}, {}), Clock())
        self.assertEqual(len(made), 2)

    def test_what_is_none(self) -> None:
        """K-92: and no password is in what is said."""
        for text in ("file:", "file:/none", "memory:admin:secret:x", "secret:admin:secret"):
            message = self.refused(text)
            self.assertNotIn("admin", message)
        self.assertIn("does not check passwords", self.refused("anonymous"))
