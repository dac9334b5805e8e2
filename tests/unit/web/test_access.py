"""Who may use which route of the HTTP API."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed

from kupool.accounts.authenticator import Authenticator
from kupool.accounts.login_guard import LoginSettings
from kupool.accounts.logins import Logins
from kupool.accounts.web_tokens import SigningKeys, WebIdentity, WebTokens
from kupool.net.transport.proxied import TrustedProxies
from kupool.permissions.grants import parse_grant
from kupool.permissions.table import PermissionTable
from kupool.web.access import WebAccess
from kupool.web.control import KnownHosts
from kupool.web.login import LoginPages
from kupool.web.site import make_site
from tests.fakes.web_site import NOW, SECRET, Answer, RouteTestCase, Transport

#: What each role may use: the least role, the method and the path.
TABLE = (
    ("anonymous", "GET", "/health"),
    ("anonymous", "GET", "/ready"),
    ("worker", "GET", "/stats"),
    ("operator", "GET", "/shutdown/status"),
    ("operator", "GET", "/bans"),
    ("operator", "POST", "/bans/lift"),
    ("operator", "POST", "/jobs/rotate"),
    ("operator", "POST", "/jobs/interval"),
)
ROLES = ("anonymous", "worker", "operator", "admin")


class AccessCase(RouteTestCase):
    """A site with accounts, asked from an address."""

    peer = "192.0.2.1"

    def setUp(self) -> None:
        super().setUp()
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"right horse")
        settings = LoginSettings(address_failures=3, delay=0.0, at_once=1.0)
        self.logins = Logins(self.clock, Authenticator(self.clock, [checker]), settings)
        self.addCleanup(self.logins.guard.refusals.stop)
        self.tokens = WebTokens(SigningKeys.of_secret("x" * 32, lambda: NOW), lambda: NOW)
        self.permissions = PermissionTable()
        access = WebAccess(
            KnownHosts(["pool.example.com"]),
            secrets={SECRET: WebIdentity("local", "admin")},
            logins=self.logins,
            tokens=self.tokens,
            proxies=TrustedProxies(["10.0.0.0/8"]),
            permissions=self.permissions,
        )
        pages = LoginPages(access, self.tokens, 3600.0, lambda: NOW)
        self.site = make_site(
            self.clock, self.source, self.stats, lambda: NOW, access=access, more=pages.routes()
        )

    def connect(self) -> tuple[Any, Transport]:
        address = IPv4Address("TCP", self.peer, 50000)
        protocol = self.site.buildProtocol(address)
        transport = Transport()
        transport.peerAddr = address
        assert protocol is not None
        protocol.makeConnection(transport)
        return protocol, transport

    def ask_as(self, credentials: str, path: str, method: str = "GET", **headers: str) -> Answer:
        given = {"Host": "pool.example.com", **headers}
        if credentials:
            given["Authorization"] = credentials
        body = b"{}" if method == "POST" else b""
        if method == "POST":
            given["Content_Type"] = "application/json"
            given["Content_Length"] = "2"
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
        return Answer(self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body))

    def token(self, role: str, user: str = "alice") -> str:
        if role == "anonymous":
            return ""
        return f"Bearer {self.tokens.sign(WebIdentity(user, role), 60)}"


class RoleTests(AccessCase):
    """Issue 15, acceptance 4: method and route by role, tried from outside."""

    def test_the_table(self) -> None:
        self.source.rotations = [succeed(number) for number in range(10)]
        for least, method, path in TABLE:
            for role in ROLES:
                code = self.ask_as(self.token(role), path, method).code
                may = ROLES.index(role) >= ROLES.index(least)
                if may:
                    self.assertNotIn(code, (401, 403), (role, path))
                else:
                    self.assertEqual(code, 401 if role == "anonymous" else 403, (role, path))

    def test_rules_that_change(self) -> None:
        """Issue 15, build 2: routes go by the table as it is now."""
        worker, operator = self.token("worker"), self.token("operator")
        self.permissions.use([parse_grant("@admin GET /stats"), parse_grant("alice GET /bans")])
        answer = self.ask_as(operator, "/shutdown/status")
        self.assertEqual(answer.code, 200)
        answer = self.ask_as(operator, "/stats")
        self.assertEqual(
            (answer.code, answer.json["error"]),
            (403, "forbidden: needs the role admin, alice is operator"),
        )
        self.assertEqual(self.ask_as(worker, "/bans").code, 200)
        self.assertEqual(self.ask_as(self.token("worker", "bob"), "/bans").code, 403)
        self.permissions.use([])
        self.assertEqual(self.ask_as(worker, "/stats").code, 200)
        self.assertEqual(self.ask_as(worker, "/bans").code, 403)

    def test_a_worker_sees_their_own_counts(self) -> None:
        self.count(1795255500, "alice", "bob")
        worker = self.token("worker")
        self.assertEqual(self.ask_as(worker, "/stats").json["username"], "alice")
        self.assertEqual(self.ask_as(worker, "/stats?username=alice.rig1").code, 200)
        self.assertEqual(self.ask_as(worker, "/stats?username=bob").code, 403)
        self.assertEqual(self.ask_as(worker, "/stats?minute=2026-11-21T10:05:00Z").json["count"], 1)
        self.assertEqual(self.ask_as(self.token("operator"), "/stats").json["accepted_total"], 2)

    def test_the_secret_of_this_machine(self) -> None:
        self.assertEqual(self.ask_as(f"Bearer {SECRET}", "/bans").code, 200)
        self.assertEqual(self.ask_as(f"Bearer {SECRET[:-1]}", "/bans").code, 401)

    def test_names_and_passwords(self) -> None:
        right = "Basic " + b64encode(b"alice:right horse").decode()
        wrong = "Basic " + b64encode(b"alice:wrong").decode()
        self.assertEqual(self.ask_as(right, "/api/me").json, {"user": "alice", "role": "worker"})
        for _ in range(3):
            self.assertEqual(self.ask_as(wrong, "/api/me").code, 401)
        answer = self.ask_as(right, "/api/me")
        self.assertEqual((answer.code, answer.headers["retry-after"]), (503, "20"))

    def test_what_is_no_authorization(self) -> None:
        for text in ("Digest x", "Basic !", "Basic YQ==", "Bearer", "Bearer a.b.c", "Bearer x"):
            self.assertEqual(self.ask_as(text, "/stats").code, 401, text)

    def test_hosts_and_pages(self) -> None:
        admin = f"Bearer {SECRET}"
        self.assertEqual(self.ask_as(admin, "/stats", Host="evil.example").code, 403)
        for origin, code in (
            ("https://evil.example", 403),
            ("null", 403),
            ("http://pool.example.com", 200),
            ("https://pool.example.com", 403),
        ):
            self.assertEqual(self.ask_as(admin, "/stats", Origin=origin).code, code, origin)

    def test_a_forwarded_address_of_a_trusted_proxy_counts(self) -> None:
        """Issue 15, build 4: and of nobody else."""
        wrong = "Basic " + b64encode(b"alice:wrong").decode()
        right = "Basic " + b64encode(b"alice:right horse").decode()
        self.peer = "10.0.0.9"
        for _ in range(3):
            self.ask_as(wrong, "/api/me", X_Forwarded_For="1.1.1.1, 198.51.100.7")
        self.assertEqual(self.ask_as(right, "/api/me", X_Forwarded_For="198.51.100.7").code, 503)
        self.assertEqual(self.ask_as(right, "/api/me", X_Forwarded_For="198.51.100.8").code, 200)
        self.peer = "192.0.2.9"
        for _ in range(3):
            self.ask_as(wrong, "/api/me", X_Forwarded_For="203.0.113.5")
        self.assertEqual(self.ask_as(right, "/api/me", X_Forwarded_For="203.0.113.6").code, 503)


class LocalTests(AccessCase):
    """Issue 15, build 4: reading on this machine needs no login, changing anything does."""

    peer = "127.0.0.1"

    def test_reading(self) -> None:
        for host in ("localhost:8081", "127.0.0.1", "[::1]:8081"):
            self.assertEqual(self.ask_as("", "/bans", Host=host).code, 200, host)

    def test_a_proxy_in_between(self) -> None:
        for name in ("Forwarded", "X_Forwarded_For", "X_Real_IP", "Via"):
            answer = self.ask_as("", "/bans", Host="localhost", **{name: "192.0.2.1"})
            self.assertEqual(answer.code, 401, name)

    def test_another_name(self) -> None:
        """A page may have made its own name point to this machine."""
        self.assertEqual(self.ask_as("", "/bans").code, 401)
        self.assertEqual(self.ask_as("", "/bans", Host="evil.example").code, 403)

    def test_changing(self) -> None:
        answer = self.ask_as("", "/jobs/rotate", "POST", Host="localhost")
        self.assertEqual(answer.code, 401)
        self.assertIn("http-secret", answer.json["error"])
        self.assertEqual(
            self.ask_as(f"Bearer {SECRET}", "/bans/lift", "POST", Host="localhost").code, 400
        )


class LoginTests(AccessCase):
    """W-23, W-24: a name and a password for a token and a cookie."""

    def log_in(self, body: object, **headers: str) -> Answer:
        return self.ask(
            "/api/login",
            "POST",
            json.dumps(body).encode(),
            Host="pool.example.com",
            Authorization="",
            **headers,
        )

    def test_a_token_and_a_cookie(self) -> None:
        answer = self.log_in({"username": "alice", "password": "right horse"})
        self.assertEqual(answer.code, 200)
        self.assertEqual((answer.json["user"], answer.json["role"]), ("alice", "worker"))
        bearer = f"Bearer {answer.json['token']}"
        self.assertEqual(self.ask_as(bearer, "/api/me").json["user"], "alice")
        cookie, _, attributes = answer.headers["set-cookie"].partition(";")
        for attribute in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=3600"):
            self.assertIn(attribute.lower(), attributes.lower())
        self.assertEqual(self.ask_as("", "/api/me", Cookie=cookie).json["user"], "alice")
        gone = self.ask_as("", "/api/logout", "POST").headers["set-cookie"]
        self.assertIn("max-age=0", gone.lower())

    def test_empty_ones(self) -> None:
        for body in ({}, {"username": "", "password": "x"}, {"username": "alice", "password": ""}):
            answer = self.log_in(body)
            self.assertEqual(
                (answer.code, answer.json["error"]),
                (400, "username and password must not be empty"),
            )
            answer = self.log_in(body, Accept_Language="zh-CN,zh;q=0.9")
            self.assertEqual(answer.json["error"], "用户名或密码不能为空")

    def test_wrong_ones(self) -> None:
        for body in (
            {"username": "alice", "password": "wrong"},
            {"username": "nobody", "password": "wrong"},
        ):
            answer = self.log_in(body)
            self.assertEqual(
                (answer.code, answer.json["error"]), (401, "unauthorized: wrong name or password")
            )

    def test_a_page_of_another_site(self) -> None:
        body = {"username": "alice", "password": "right horse"}
        self.assertEqual(self.log_in(body, Origin="https://evil.example").code, 403)


class BanTests(AccessCase):
    """Issue 15, build 5: bans can be listed and lifted."""

    def test_bans(self) -> None:
        self.source.banned = {"192.0.2.7": 12.34}
        admin = f"Bearer {SECRET}"
        self.assertEqual(
            self.ask_as(admin, "/bans").json, {"bans": [{"address": "192.0.2.7", "seconds": 12.3}]}
        )
        body = b'{"address":"192.0.2.7"}'
        lifted = self.ask("/bans/lift", "POST", body, Host="localhost")
        self.assertEqual((lifted.code, lifted.json), (200, {"address": "192.0.2.7"}))
        self.assertEqual(self.ask("/bans/lift", "POST", body, Host="localhost").code, 404)


class RotationTests(RouteTestCase):
    """Issue 15, build 4: new jobs have a bound."""

    def test_too_many(self) -> None:
        self.source.rotations = [succeed(n) for n in range(20)]
        codes = [self.ask("/jobs/rotate", "POST", b"{}").code for _ in range(7)]
        self.assertEqual(codes, [200] * 5 + [429] * 2)
        self.clock.advance(1.0)
        self.assertEqual(self.ask("/jobs/rotate", "POST", b"{}").code, 200)
        body = b'{"interval":"25h"}'
        self.assertEqual(self.ask("/jobs/interval", "POST", body).code, 400)
