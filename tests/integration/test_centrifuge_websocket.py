"""W-77, issue 17, build 2: the Centrifuge protocol over WebSocket, as bytes on a socket."""

from __future__ import annotations

from typing import Any

from kupool.live.rules import ChannelRule
from kupool.web import websocket
from kupool.web.centrifuge_clients import client_limits
from tests.servers.live_site import BEARER, OPEN, CentrifugeSocket, LiveSiteCase, token

CONNECT = {"id": 1, "connect": {}}
SUBSCRIBE = {"id": 2, "subscribe": {"channel": "news"}}


class ConversationTests(LiveSiteCase):
    """Issue 17, build 2: commands, replies and pushes in text frames."""

    async def test_several_commands_in_one_frame(self) -> None:
        client = await self.socket(CONNECT, SUBSCRIBE, {"id": 3, "history": {"channel": "news"}})
        replies = [await client.next() for _ in range(3)]
        self.assertEqual([reply["id"] for reply in replies], [1, 2, 3])
        self.assertEqual(set(client.kinds), {1})  # texts

    async def test_a_publication_reaches_the_others(self) -> None:
        one, two = await self.socket(CONNECT, SUBSCRIBE), await self.socket(CONNECT)
        await one.next()
        await one.next()
        await two.next()
        two.say({"id": 2, "publish": {"channel": "news", "data": {"n": 1}}})
        self.assertEqual(await two.next(), {"id": 2, "publish": {}})
        push = await one.next()
        self.assertEqual(push["push"]["pub"]["data"], {"n": 1})
        self.assertEqual(push["push"]["pub"]["offset"], 1)

    async def test_the_end_of_a_socket_ends_the_session_at_once(self) -> None:
        client = await self.socket(CONNECT, SUBSCRIBE)
        await client.next()
        await client.next()
        self.assertEqual(self.live.service.presence_stats("news").clients, 1)
        client.transport.abortConnection()
        await self.until(lambda: not self.live.service.presence_stats("news").clients)
        self.assertEqual(self.live.service.clients, 0)
        self.assertEqual(len(self.live.clients), 0)

    async def test_presence_is_gone_before_the_close_is_answered(self) -> None:
        """A client that does not answer the close keeps no place in its channels."""
        client = await self.socket(CONNECT, SUBSCRIBE, polite=False)
        await client.next()
        await client.next()
        client.send(b"no JSON")
        self.assertEqual((await self._close_of(client))[0], 3501)
        self.assertEqual(self.live.service.presence_stats("news").clients, 0)

    async def _close_of(self, client: Any) -> Any:
        await self.until(lambda: client.ended)
        return client.ended

    async def test_an_empty_frame_is_bad(self) -> None:
        client = await self.socket(CONNECT)
        await client.next()
        client.send(b"")
        self.assertEqual(await client.ending(), (3501, "bad request"))

    async def test_a_frame_over_the_limit(self) -> None:
        """Issue 17, bad input: more than 64 KiB ends with the code 1009 of WebSocket."""
        self.patch(websocket, "CLOSE_GRACE", 0.05)
        client = await self.socket(CONNECT)
        await client.next()
        client.transport.write(client.frame(0x81, b"", 65537))
        self.assertEqual((await self._close_of(client))[0], 1009)

    async def test_a_second_connect(self) -> None:
        client = await self.socket(CONNECT, {"id": 2, "connect": {}})
        await client.next()
        self.assertEqual(await client.ending(), (3501, "bad request"))

    async def test_a_wrong_token(self) -> None:
        client = await self.socket({"id": 1, "connect": {"token": "no token"}})
        self.assertEqual(await client.ending(), (3500, "invalid token"))

    async def test_an_expired_token(self) -> None:
        client = await self.socket({"id": 1, "connect": {"token": token(sub="a", exp=1)}})
        self.assertEqual((await client.next())["error"]["code"], 109)

    async def test_a_stop_says_so(self) -> None:
        client = await self.socket(CONNECT)
        await client.next()
        await self.live.clients.stop()
        self.assertEqual(await client.ending(), (3001, "shutdown"))


class HandshakeTests(LiveSiteCase):
    """Issue 17, build 2: subprotocols, pings, pages of other sites."""

    named = {"ping": 0.05, "pong_wait": 0.02, "origins": ("https://app.example.com",)}

    async def test_no_subprotocol_is_answered_that_was_not_asked_for(self) -> None:
        for headers in ((), ("Sec-WebSocket-Protocol: ",), ("Sec-WebSocket-Protocol: other",)):
            client = await self.socket(CONNECT, headers=headers)
            await client.next()
            self.assertNotIn(b"Sec-WebSocket-Protocol", client.head)

    async def test_json_is_accepted(self) -> None:
        headers = ("Sec-WebSocket-Protocol: centrifuge-protobuf, centrifuge-json",)
        client = await self.socket(CONNECT, headers=headers)
        self.assertIn("connect", await client.next())
        self.assertIn(b"Sec-WebSocket-Protocol: centrifuge-json", client.head)

    async def test_protobuf_is_accepted_and_closed(self) -> None:
        """A client would repeat a handshake that is refused."""
        headers = ("Sec-WebSocket-Protocol: centrifuge-protobuf",)
        for client in (
            await self.socket(headers=headers),
            await self.socket(query="?cf_protocol=protobuf"),
        ):
            self.assertEqual(await client.ending(), (3506, "inappropriate protocol"))

    async def test_compression_is_not_used(self) -> None:
        client = await self.socket(
            CONNECT, headers=("Sec-WebSocket-Extensions: permessage-deflate",)
        )
        await client.next()
        self.assertNotIn(b"Sec-WebSocket-Extensions", client.head)

    async def test_pings_of_the_protocol(self) -> None:
        client = await self.socket(CONNECT)
        self.assertTrue((await client.next())["connect"]["pong"])
        self.assertEqual(await client.next(), {})
        client.say({})
        self.assertEqual(await client.next(), {})  # the answer was heard
        self.assertEqual(await client.ending(), (3012, "no pong"))
        self.assertEqual(client.pings, 0)

    async def test_pings_of_the_websocket(self) -> None:
        client = await self.socket(CONNECT, query="?cf_ws_frame_ping_pong=true")
        self.assertNotIn("ping", (await client.next())["connect"])
        await self.until(lambda: client.pings > 3)
        self.assertEqual(client.messages, [])

    async def test_who_answers_no_ping_of_the_websocket_is_cut(self) -> None:
        client = await self.socket(CONNECT, query="?cf_ws_frame_ping_pong=true", polite=False)
        await client.gone
        self.assertEqual(len(self.live.clients), 0)

    async def test_pages_of_other_sites(self) -> None:
        """W-31: pages of sites that are not allowed open no WebSocket."""
        client = await self.socket(CONNECT, origin="https://app.example.com")
        self.assertIn("connect", await client.next())
        refused = await self.dial(CentrifugeSocket(origin="https://evil.example.com"))
        await self.until(lambda: refused.refusal)
        self.assertTrue(refused.refusal.startswith(b"HTTP/1.1 403 "), refused.refusal)


class IdentityTests(LiveSiteCase):
    """Issue 17, build 2: a client without a token of the protocol is who its request is from."""

    async def _users(self, *headers: str) -> list[str]:
        client = await self.socket(CONNECT, SUBSCRIBE, headers=headers)
        await client.next()
        await client.next()
        client.say({"id": 3, "presence": {"channel": "news"}})
        found = (await client.next())["presence"]["presence"]
        client.transport.abortConnection()
        return [each["user"] for each in found.values()]

    async def test_a_user_of_the_http_api(self) -> None:
        self.assertEqual(await self._users(f"Authorization: Bearer {BEARER}"), ["alice"])

    async def test_nobody_who_is_known(self) -> None:
        self.assertEqual(await self._users("Authorization: Bearer wrong"), [""])


class LifetimeTests(LiveSiteCase):
    """W-13: no connection stays longer than a time, and clients come back by themselves."""

    rules = (OPEN,)
    named = {"lifetime": 0.5}

    async def test_a_client_is_told_to_come_back(self) -> None:
        client = await self.socket(CONNECT)
        await client.next()
        self.assertEqual((await client.ending())[0], 3011)


class LimitTests(LiveSiteCase):
    """Issue 17, bad input: too many connections, and a client that does not read."""

    rules = (
        OPEN,
        ChannelRule(pattern="big:*", publish_by_clients=True),
    )
    named = {"limits": client_limits(2)}

    async def test_one_connection_too_many(self) -> None:
        clients = [await self.socket(CONNECT) for _ in range(2)]
        for client in clients:
            await client.next()
        refused = await self.socket()
        self.assertEqual((await refused.ending())[0], 4102)
        self.assertEqual(self.live.clients.manager.refused, 1)
        self.assertEqual(len(self.live.clients), 2)

    async def test_one_that_does_not_read_is_counted_and_the_other_goes_on(self) -> None:
        """W-17: fan-out waits for nobody; what a client did not get is counted."""
        slow, other = await self.socket(CONNECT), await self.socket(CONNECT)
        for client in (slow, other):
            await client.next()
            client.say({"id": 2, "subscribe": {"channel": "big:a"}})
            await client.next()
        slow.transport.pauseProducing()
        size = 60_000
        for _ in range(400):
            other.say({"id": 3, "publish": {"channel": "big:a", "data": "x" * size}})
            self.assertIn("push", await other.next())
            self.assertEqual(await other.next(), {"id": 3, "publish": {}})
            if self.live.service.drops:
                break
        self.assertTrue(self.live.service.drops)
        slow.transport.resumeProducing()
        await self.until(lambda: any("message" in each.get("push", {}) for each in slow.messages))
        told = next(each for each in slow.messages if "message" in each.get("push", {}))
        self.assertGreater(told["push"]["message"]["data"]["gap"]["missed"], 0)
