"""W-77, issue 17, build 2: the Centrifuge protocol over SSE and over HTTP streaming."""

from __future__ import annotations

from typing import Any

from kupool.live.rules import ChannelRule
from kupool.web.centrifuge_clients import client_limits
from kupool.web.crowd import HttpLimits
from tests.servers.live_site import OPEN, HttpAnswer, LiveSiteCase, token

CONNECT = {"id": 1, "connect": {}}
SUBSCRIBE = {"id": 2, "subscribe": {"channel": "news"}}
KINDS = ("sse", "http_stream")
PAGE = "https://app.example.com"


class StreamTests(LiveSiteCase):
    """W-77: the same subscription over SSE and over HTTP streaming."""

    async def _connected(self, kind: str, *commands: Any) -> HttpAnswer:
        stream = await self.stream(kind, CONNECT, *commands)
        await self.until(lambda: len(stream.messages) > len(commands))
        return stream

    async def test_heads_and_forms(self) -> None:
        """No proxy may keep anything back, and no line is blank in an HTTP stream."""
        for kind in KINDS:
            stream = await self._connected(kind)
            self.assertEqual(stream.status, 200)
            self.assertEqual(stream.header("X-Accel-Buffering"), "no")
            self.assertIn("no-store", stream.header("Cache-Control") or "")
            self.assertIsNone(stream.header("Content-Encoding"))
            if kind == "sse":
                self.assertEqual(stream.header("Content-Type"), "text/event-stream; charset=utf-8")
                self.assertTrue(stream.body.startswith(b'\ndata: {"id":1'), stream.body)
                self.assertTrue(stream.body.endswith(b"}\n\n"))
            else:
                self.assertTrue(stream.body.startswith(b'{"id":1'), stream.body)
                self.assertNotIn(b"\n\n", stream.body)

    async def test_commands_by_requests_of_their_own(self) -> None:
        for kind in KINDS:
            stream = await self._connected(kind)
            publish = {"id": 3, "publish": {"channel": "news", "data": kind}}
            self.assertEqual(await self.emulate(stream, SUBSCRIBE, publish), 204)
            await self.until(lambda: len(stream.messages) == 4)  # noqa: B023
            reply, push, done = stream.messages[1:]
            self.assertEqual((reply["id"], done), (2, {"id": 3, "publish": {}}))
            self.assertEqual(push["push"]["pub"]["data"], kind)

    async def test_commands_may_overtake_each_other(self) -> None:
        stream = await self._connected("sse")
        self.assertEqual(await self.emulate(stream, {**SUBSCRIBE, "id": 6}), 204)
        self.assertEqual(await self.emulate(stream, {"id": 5, "rpc": {"method": "x"}}), 204)
        await self.until(lambda: len(stream.messages) == 3)
        self.assertEqual([each["id"] for each in stream.messages], [1, 6, 5])

    async def test_connect_and_subscribe_in_one_request(self) -> None:
        for kind in KINDS:
            stream = await self._connected(kind, SUBSCRIBE)
            self.assertEqual([each["id"] for each in stream.messages], [1, 2])

    async def test_events_by_post(self) -> None:
        answer = HttpAnswer("POST", "/connection/sse", CONNECT, {})
        await self.dial(answer)
        await self.until(lambda: answer.connect_result)
        self.assertEqual(answer.header("Content-Type"), "text/event-stream; charset=utf-8")

    async def test_a_close_is_a_push_and_the_end(self) -> None:
        for kind in KINDS:
            stream = await self._connected(kind)
            self.assertEqual(await self.emulate(stream, {"send": {"data": 1}}), 204)
            await stream.gone
            self.assertEqual(
                stream.messages[-1],
                {"push": {"disconnect": {"code": 3508, "reason": "not available"}}},
            )

    async def test_a_wrong_token(self) -> None:
        for kind in KINDS:
            stream = await self.stream(kind, {"id": 1, "connect": {"token": "no token"}})
            await stream.gone
            self.assertEqual(stream.messages[-1]["push"]["disconnect"]["code"], 3500)

    async def test_a_stop_says_so(self) -> None:
        streams = [await self._connected(kind) for kind in KINDS]
        await self.live.clients.stop()
        for stream in streams:
            await stream.gone
            self.assertEqual(stream.messages[-1]["push"]["disconnect"]["code"], 3001)

    async def test_a_dropped_stream_ends_the_session_at_once(self) -> None:
        for kind in KINDS:
            stream = await self._connected(kind, SUBSCRIBE)
            self.assertEqual(self.live.service.presence_stats("news").clients, 1)
            stream.transport.abortConnection()
            await self.until(lambda: not self.live.service.presence_stats("news").clients)
            self.assertEqual(await self.emulate(stream, SUBSCRIBE), 404)

    async def test_a_long_token_in_the_query(self) -> None:
        """A request line of 16 KiB is taken, since the query may hold a token."""
        connect = {"id": 1, "connect": {"token": token(sub="a", info={"x": "y" * 11_500})}}
        stream = await self.stream("sse", connect)
        await self.until(lambda: stream.connect_result)

    async def test_a_publication_is_encoded_once_for_all_streams(self) -> None:
        """X-01: the bytes of a publication are made once for each framing."""
        streams = [await self._connected("sse", SUBSCRIBE) for _ in range(3)]
        connections = list(self.live.clients.manager)
        self.assertEqual(len({id(each.framing.encode) for each in connections}), 1)
        publish = {"id": 9, "publish": {"channel": "news", "data": 1}}
        self.assertEqual(await self.emulate(streams[0], publish), 204)
        for stream in streams:
            await self.until(lambda: any("push" in m for m in stream.messages))  # noqa: B023


class RefusalTests(LiveSiteCase):
    """Issue 17, bad input: requests that begin no stream, or are for none."""

    named = {"origins": (PAGE,)}

    async def _connected(self) -> HttpAnswer:
        stream = await self.stream("http_stream", CONNECT)
        await self.until(lambda: stream.connect_result)
        return stream

    async def test_no_connect_command(self) -> None:
        for method, path in (
            ("GET", "/connection/sse"),
            ("POST", "/connection/sse"),
            ("POST", "/connection/http_stream"),
        ):
            self.assertEqual((await self.ask(method, path)).status, 400, path)

    async def test_methods(self) -> None:
        for method, path in (
            ("GET", "/connection/http_stream"),
            ("PUT", "/connection/sse"),
            ("HEAD", "/connection/sse"),
            ("GET", "/emulation"),
        ):
            self.assertEqual((await self.ask(method, path)).status, 405, path)

    async def test_protobuf(self) -> None:
        path = "/connection/sse?cf_connect=%7B%7D&cf_protocol=protobuf"
        self.assertEqual((await self.ask("GET", path)).status, 400)
        headers = {"Content_Type": "application/octet-stream"}
        answer = await self.ask("POST", "/connection/http_stream", CONNECT, **headers)
        self.assertEqual(answer.status, 400)

    async def test_commands_for_nobody(self) -> None:
        """A client that gets 404 connects again; with 204 it would wait for its reply."""
        stream = await self._connected()
        self.assertEqual(await self.emulate(stream, SUBSCRIBE, session="another"), 404)
        self.assertEqual(await self.emulate(stream, SUBSCRIBE, node="another"), 404)
        self.assertEqual(await self.emulate(stream, SUBSCRIBE, data=7), 400)
        self.assertEqual((await self.ask("POST", "/emulation", b"{")).status, 400)
        self.assertEqual((await self.ask("POST", "/emulation", b"x" * 65_537)).status, 413)
        self.assertEqual(len(stream.messages), 1)

    async def test_a_page_of_another_site(self) -> None:
        evil = {"Origin": "https://evil.example.com"}
        stream = await self._connected()
        asked = {"data": "{}", **{key: stream.connect_result[key] for key in ("session", "node")}}
        for method, path, body in (
            ("GET", "/connection/sse?cf_connect=%7B%7D", b""),
            ("POST", "/connection/http_stream", CONNECT),
            ("POST", "/emulation", asked),
            ("OPTIONS", "/emulation", b""),
        ):
            answer = await self.ask(method, path, body, **evil)
            self.assertEqual(answer.status, 403, path)
            self.assertIsNone(answer.header("Access-Control-Allow-Origin"))

    async def test_a_page_that_may(self) -> None:
        for kind in KINDS:
            stream = await self.stream(kind, CONNECT, Origin=PAGE)
            await self.until(lambda: stream.connect_result)  # noqa: B023
            self.assertEqual(stream.header("Access-Control-Allow-Origin"), PAGE)
            self.assertEqual(stream.header("Access-Control-Allow-Credentials"), "true")

    async def test_the_question_of_a_browser(self) -> None:
        for path in ("/connection/http_stream", "/emulation"):
            headers = {"Origin": PAGE, "Access_Control_Request_Headers": "content-type"}
            answer = await self.ask("OPTIONS", path, **headers)
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), PAGE)
            self.assertEqual(answer.header("Access-Control-Allow-Headers"), "content-type")
            self.assertEqual(answer.header("Access-Control-Allow-Methods"), "POST, OPTIONS")
            self.assertEqual(answer.header("Access-Control-Max-Age"), "300")

    async def test_a_name_that_is_not_this_server(self) -> None:
        """A page whose site resolves to this machine sends no Origin to it."""
        client = HttpAnswer("POST", "/connection/http_stream", CONNECT, {})
        client.named = "evil.example.com"
        await self.dial(client)
        await client.gone
        self.assertEqual(client.status, 403)


class StreamLimitTests(LiveSiteCase):
    """Issue 17, bad input: more streams than places, and streams that nobody reads."""

    rules = (OPEN, ChannelRule(pattern="big:*", publish_by_clients=True))
    named = {"limits": client_limits(3), "http": HttpLimits(max_requests=2, max_connections=10)}

    async def test_one_stream_too_many(self) -> None:
        for kind in ("sse", "http_stream", "sse"):
            stream = await self.stream(kind, CONNECT)
            await self.until(lambda: stream.connect_result)  # noqa: B023
        for kind in KINDS:
            refused = await self.stream(kind, CONNECT)
            await refused.gone
            self.assertEqual(refused.messages[-1]["push"]["disconnect"]["code"], 4102)
        self.assertEqual(self.live.clients.manager.refused, 2)

    async def test_streams_are_no_requests_that_wait_for_an_answer(self) -> None:
        """Streams leave the places of requests, and of HTTP connections, to others."""
        for _ in range(3):
            stream = await self.stream("sse", CONNECT)
            await self.until(lambda: stream.connect_result)  # noqa: B023
        self.assertEqual((await self.ask("GET", "/stats")).status, 200)
        await self.until(lambda: not self.live.site.connections)

    async def test_one_that_sends_and_does_not_read_is_closed(self) -> None:
        """Nothing stops such a client from sending, so what waits for it is limited."""
        stream = await self.stream("sse", CONNECT)
        await self.until(lambda: stream.connect_result)
        publish = {"id": 2, "publish": {"channel": "news", "data": "x" * 60_000}}
        self.assertEqual(await self.emulate(stream, publish), 204)
        stream.transport.pauseProducing()
        history = [{"id": n, "history": {"channel": "news", "limit": 1}} for n in range(1, 101)]
        statuses = []
        while 404 not in statuses and len(statuses) < 50:
            statuses.append(await self.emulate(stream, *history))
        self.assertIn(404, statuses)
        self.assertEqual(self.live.clients.manager.counters.closes["slow reader"], 1)
