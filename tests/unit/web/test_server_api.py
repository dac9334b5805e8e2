"""The routes of the server API: keys, bodies, and how wrong ones are refused."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from kupool.accounts.key_guard import WRONG_KEY, KeyGuard
from kupool.accounts.login_guard import LoginSettings
from kupool.live.centrifuge.server_api import ABSENT_METHODS, ApiLimits, NodeIdentity, ServerApi
from kupool.live.rules import ChannelRule
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.server_api import ServerApiRoutes
from tests.fakes.centrifuge import CentrifugeServer
from tests.fakes.live import LiveWorld
from tests.fakes.web_site import Answer, RouteTestCase

KEY = "k" * 40
MOST_BODY = 100_000


class ServerApiRouteCase(RouteTestCase):
    """A site with the routes, and how they are asked."""

    key = KEY

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        live = LiveWorld(ChannelRule(pattern="*", history_size=5))
        self.addCleanup(live.service.stop)
        world = CentrifugeServer(live).world
        api = ServerApi(world, NodeIdentity("uid", "host", 0.0), ApiLimits(calls=3))
        self.addCleanup(api.stop)
        self.guard_clock = Clock()
        self.guard = KeyGuard(self.guard_clock, LoginSettings(address_failures=3, at_once=1.0))
        self.addCleanup(self.guard.stop)
        return ServerApiRoutes(api, access, self.key, self.guard, most_body=MOST_BODY).routes({})

    def post(self, method: str, body: bytes = b"{}", **headers: str) -> Answer:
        return self.ask(f"/api/{method}", "POST", body, **{"Authorization": "", **headers})

    def wrong(self, **headers: str) -> Answer:
        """Return the answer to a wrong key, which comes late."""
        protocol, transport = self.connect()
        given = {"Host": "localhost:8081", "Content-Length": "2", **headers}
        lines = ["POST /api/info HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
        protocol.dataReceived("\r\n".join(lines).encode() + b"\r\n\r\n{}")
        self.assertEqual(transport.value(), b"")
        self.guard_clock.advance(1)
        return Answer(transport.value())


class ServerApiRouteTests(ServerApiRouteCase):
    """W-72, W-87: who may use the routes, and with what."""

    def code(self, answer: Answer) -> Any:
        self.assertEqual(answer.code, 200)
        return answer.json["error"]["code"]

    def test_the_key_in_either_header(self) -> None:
        self.assertEqual(self.post("info", X_API_Key=KEY).code, 200)
        self.assertEqual(self.post("info", Authorization=f"apikey {KEY}").code, 200)
        self.assertEqual(self.post("info", Authorization=f"APIKEY {KEY}").code, 200)

    def test_a_wrong_key(self) -> None:
        """It is answered late, counted, and refused without a look when there were too many."""
        for headers in ({"X_API_Key": "x"}, {"Authorization": "apikey x"}, {"X_API_Key": ""}):
            answer = self.wrong(**headers)
            self.assertEqual(answer.code, 401)
            self.assertIn("live-api-key", answer.json["error"])
        self.assertEqual(self.guard.refusals.counts[WRONG_KEY], 3)
        answer = self.post("info", X_API_Key="x")
        self.assertEqual(answer.code, 503)
        self.assertEqual(answer.headers["retry-after"], "17")  # 20, of which 3 have passed
        self.assertEqual(self.post("info", X_API_Key=KEY).code, 200)

    def test_the_key_in_the_url(self) -> None:
        """It is not taken: URLs are in logs. The answer says where it belongs."""
        answer = self.ask(f"/api/info?api_key={KEY}", "POST", b"{}", Authorization="Bearer x")
        self.assertEqual(answer.code, 401)
        self.assertIn("X-API-Key", answer.json["error"])

    def test_bodies(self) -> None:
        self.assertEqual(self.post("info", b"", X_API_Key=KEY).code, 200)
        for body in (b"[]", b"{", b"1", b"[" * 5000):
            self.assertEqual(self.post("info", body, X_API_Key=KEY).code, 400, body[:9])
        self.assertEqual(self.code(self.post("publish", b"{}", X_API_Key=KEY)), 107)
        large = b'{"channel":"a","data":"%s"}' % (b"x" * MOST_BODY)
        self.assertEqual(self.post("publish", large, X_API_Key=KEY).code, 413)

    def test_other_methods_of_http(self) -> None:
        answer = self.ask("/api/info", X_API_Key=KEY)
        self.assertEqual((answer.code, answer.headers["allow"]), (405, "POST"))

    def test_methods_that_there_are_not(self) -> None:
        """Those of the paid edition say so, and are not listed; others are unknown."""
        for method in ABSENT_METHODS:
            self.assertEqual(self.code(self.post(method, X_API_Key=KEY)), 108)
        self.assertEqual(self.post("map_publish", X_API_Key=KEY).code, 404)
        listed = {route["path"] for route in self.ask("/").json["routes"]}
        self.assertIn("/api/publish", listed)
        self.assertFalse(listed & {f"/api/{method}" for method in ABSENT_METHODS})


class ServerWithoutKeyTests(ServerApiRouteCase):
    """W-72: without a data folder and a setting there is no key."""

    key = ""

    def test_no_key_is_right(self) -> None:
        """The answer says what to set."""
        for key in (KEY, ""):
            answer = self.wrong(X_API_Key=key)
            self.assertEqual(answer.code, 401)
            self.assertIn("set --live-api-key", answer.json["error"])
