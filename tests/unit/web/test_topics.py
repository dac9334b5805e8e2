"""Topics over HTTP: the routes of the operations, what waits, and what is too large."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from kupool.permissions.table import PermissionTable
from kupool.topics.api.access import Caller
from kupool.topics.api.table import OPERATIONS, TopicApi
from kupool.web.access import NOBODY, WebAccess
from kupool.web.answers import MAX_BODY, ApiResource
from kupool.web.crowd import LARGE_BODIES_PER_IP, HttpLimits
from kupool.web.topics import topic_routes
from tests.fakes.topic_api import topic_world
from tests.fakes.web_site import SECRET, Answer, RouteTestCase, Transport

MOST = 200_000


class TopicRoutesCase(RouteTestCase):
    limits = HttpLimits(max_requests=3, max_requests_per_ip=3, max_polls=4, max_polls_per_ip=2)

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        self.world = topic_world(self.clock)
        self.api = TopicApi(self.world, lambda *_: None)
        table = PermissionTable()
        self.hosts: list[str] = []

        def caller(request: Any, host: str) -> Caller:
            self.hosts.append(host)
            user, role = getattr(request, "identity", NOBODY)[:2]
            return Caller(user, host, partial(table.may, user, role), lambda _: True)

        return topic_routes(self.api, access, caller, most_body=MOST)

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.site.refusals.stop)
        self.addCleanup(self.api.close)
        self.call("topic.create", topic="shop")

    def call(self, name: str, **params: Any) -> Any:
        answer = self.post(name, params)
        self.assertEqual(answer.code, 200, answer.body)
        return answer.json

    def post(self, name: str, params: Any, **headers: str) -> Answer:
        path = "/api/" + name.replace(".", "/")
        body = params if isinstance(params, bytes) else msgspec.json.encode(params)
        return self.ask(path, "POST", body, **headers)

    def wait(self, host: str = "", wait_ms: int = 60_000) -> tuple[Any, Transport]:
        """Ask for records that are not there yet."""
        protocol, transport = self.connect()
        path = f"/api/log/fetch?topic=shop&partition=0&at=latest&wait_ms={wait_ms}"
        forwarded = f"X-Forwarded-For: {host}\r\n" if host else ""
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{forwarded}"
        protocol.dataReceived(f"{head}Authorization: Bearer {SECRET}\r\n\r\n".encode())
        return protocol, transport


class RouteTests(TopicRoutesCase):
    """Q-66."""

    def test_every_operation_has_a_route(self) -> None:
        """Q-63: those that only read answer GET as well."""
        routes = {route["path"]: route["methods"] for route in self.ask("/").json["routes"]}
        for operation in OPERATIONS:
            methods = ["GET", "HEAD", "POST"] if operation.reads else ["POST"]
            self.assertEqual(routes[operation.path], methods, operation.name)
            if not operation.reads:
                self.assertEqual(self.ask(operation.path).code, 405)

    def test_params_in_the_query(self) -> None:
        """Q-66: numbers and booleans are text there."""
        self.call("log.produce", topic="shop", value="a")
        by_get = self.ask(
            "/api/log/fetch?topic=shop&partition=0&offset=0&max_bytes=10&wait_ms=5",
            Authorization=f"Bearer {SECRET}",
        )
        by_post = self.call("log.fetch", topic="shop", partition=0, offset=0)
        self.assertEqual((by_get.code, by_get.json), (200, by_post))
        found = self.ask("/api/log/offsets?topic=shop&at=0", Authorization=f"Bearer {SECRET}")
        self.assertEqual(found.json, {"offsets": [0]})

    def test_errors(self) -> None:
        """Q-66, Q-63: the text and the code of the protocol, with a status that fits."""
        for name, params, status, code, said in (
            ("topic.create", {"topic": "shop"}, 409, 36, "already exists: topic shop"),
            ("topic.create", {"topic": "a/b"}, 400, 32, "bad params: 'a/b' is no name of a topic"),
            ("log.offsets", {"topic": "none"}, 404, 35, "not found: there is no topic none"),
            ("log.fetch", {"topic": "shop"}, 400, 32, "bad params: partition is required"),
            ("log.fetch", b"[1]", 400, 30, "body: must be a JSON object"),
            ("log.produce", {"topic": "events", "value": "a"}, 403, 33, "forbidden: only the dae"),
            ("group.leave", {"group": "g", "member": "m"}, 404, 35, "not found: member m is not"),
        ):
            answer = self.post(name, params)
            self.assertEqual((answer.code, answer.json["code"]), (status, code), answer.body)
            self.assertTrue(answer.json["error"].startswith(said), answer.body)
        for query in ("topic=%ff", "topic=shop&partition=x&offset=0"):
            answer = self.ask("/api/log/fetch?" + query)
            self.assertEqual((answer.code, answer.json["code"]), (400, 32), query)
        self.assertEqual(self.post("log.offsets", b"{}", Content_Type="text/plain").code, 415)

    def test_who_is_not_known(self) -> None:
        """Issue 16, build 2: is told to log in, and what one may not is refused."""
        answer = self.post("log.offsets", {"topic": "shop"}, Authorization="Bearer wrong")
        self.assertEqual(answer.code, 401)
        answer = self.ask("/api/log/offsets?topic=shop", Host="pool.example.com")
        self.assertEqual((answer.code, answer.json["code"]), (401, 24))
        self.assertEqual(answer.headers["www-authenticate"], "Bearer")
        # From this machine, an operator's rights to read.
        self.assertEqual(self.ask("/api/log/offsets?topic=shop").code, 403)
        self.assertEqual(self.ask("/api/log/offsets?topic=events").code, 404)

    def test_a_page_of_another_site(self) -> None:
        answer = self.post("topic.delete", {"topic": "shop"}, Origin="https://evil.example")
        self.assertEqual(answer.code, 403)


class WaitingTests(TopicRoutesCase):
    """Q-04, Q-66: a fetch that waits is not in the way of others."""

    def test_it_is_answered(self) -> None:
        _, transport = self.wait()
        self.assertEqual(transport.value(), b"")
        self.call("log.produce", topic="shop", value="a")
        self.assertEqual(Answer(transport.value()).json["records"][0]["value"], "a")
        _, transport = self.wait(wait_ms=5000)
        self.clock.advance(5.1)
        self.assertEqual(Answer(transport.value()).json["records"], [])

    def test_others_are_answered_meanwhile(self) -> None:
        """It takes no place of the requests that are answered at once."""
        waiting = [self.wait() for _ in range(2)]
        for _ in range(4):
            self.assertEqual(self.ask("/stats").code, 200)
        self.call("log.produce", topic="shop", value="a")
        for _, transport in waiting:
            self.assertEqual(Answer(transport.value()).code, 200)

    def test_too_many(self) -> None:
        """The first is answered, one too many is refused at once, and one that ends has room."""
        waiting = [self.wait() for _ in range(2)]
        _, transport = self.wait()
        answer = Answer(transport.value())
        self.assertEqual((answer.code, answer.json["code"]), (429, 34))
        self.assertIn("fetches that wait for records", answer.json["error"])
        self.assertIn(
            "HTTP requests that wait, too many at once of one address", self.site.refusals.counts
        )
        self.call("log.produce", topic="shop", value="a")
        for _, transport in waiting:
            self.assertEqual(Answer(transport.value()).code, 200)
        self.assertEqual(self.wait()[1].value(), b"")

    def test_a_visitor_that_leaves(self) -> None:
        """Nothing is left of a fetch whose visitor has disconnected."""
        before = len(self.clock.getDelayedCalls())
        for _ in range(5):
            protocol, transport = self.wait()
            self.assertGreater(len(self.clock.getDelayedCalls()), before)
            protocol.connectionLost(Failure(ConnectionLost()))
        waits = [call for call in self.clock.getDelayedCalls() if call.getTime() > 50]
        self.assertEqual(waits, [])
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.wait()[1].value(), b"", "its place is free")

    def test_a_visitor_that_leaves_while_something_changes(self) -> None:
        """Issue 16, bad input: the change goes on, and the engine learns how it ended."""
        engine: Any = self.world.topics.engine
        begun: list[str] = []
        cut: list[str] = []
        for name, engine_call in (("topic.delete", "delete"), ("log.produce", "append")):

            def begin(*_: Any, name: str = name) -> Deferred[None]:
                begun.append(name)
                return Deferred(lambda _: cut.append(name))

            self.patch(engine, engine_call, begin)
            protocol, _ = self.connect()
            body = b'{"topic":"shop","value":"a"}' if "log" in name else b'{"topic":"shop"}'
            path = "/api/" + name.replace(".", "/")
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\n"
            length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            protocol.dataReceived((head + length).encode() + body)
            self.assertEqual(begun.pop(), name)
            protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(cut, [])

    def test_the_server_stops(self) -> None:
        _, transport = self.wait()
        self.api.close()
        answer = Answer(transport.value())
        self.assertEqual((answer.code, answer.json["code"]), (503, 27))


class LargeTests(TopicRoutesCase):
    """Q-13, Q-62: only what writes records may be large."""

    def test_what_writes_records(self) -> None:
        value = "x" * (MAX_BODY + 1000)
        self.call("log.produce", topic="shop", value=value)
        found = self.call("log.fetch", topic="shop", partition=0, offset=0)
        self.assertEqual(found["records"][0]["value"], value)
        answer = self.post("log.produce", {"topic": "shop", "value": "x" * MOST})
        self.assertEqual(
            (answer.code, answer.json), (413, {"error": f"body: larger than {MOST} bytes"})
        )

    def test_all_others(self) -> None:
        for name in ("log.fetch", "topic.create", "group.join"):
            answer = self.post(name, {"topic": "x" * MAX_BODY})
            self.assertEqual(answer.code, 413, name)
            self.assertEqual(answer.json["error"], f"body: larger than {MAX_BODY} bytes")

    def test_not_many_at_once(self) -> None:
        """Bodies are kept in memory before it is known who sends them."""
        head = (
            b"POST /api/log/produce HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 150000\r\n\r\n"
        )
        halves = []
        for _ in range(LARGE_BODIES_PER_IP):
            protocol, transport = self.connect()
            protocol.dataReceived(head + b" " * 100)
            self.assertEqual(transport.value(), b"")
            halves.append(protocol)
        _, transport = self.connect()
        answer = Answer(self.raw(head))
        self.assertEqual((answer.code, answer.json), (503, {"error": "too many large requests"}))
        halves[0].connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.raw(head), b"")
        self.call("log.offsets", topic="shop")

    def test_one_of_unknown_length(self) -> None:
        """Its size is seen while it comes."""
        protocol, transport = self.connect()
        protocol.dataReceived(
            b"POST /api/log/produce?a=b HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(3):
            protocol.dataReceived(b"%x\r\n%b\r\n" % (70_000, b" " * 70_000))
        self.assertEqual(Answer(transport.value()).code, 413)
