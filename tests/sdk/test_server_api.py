"""Issue 17, accepted 2: every method of the server API, by the client library that speaks it.

Effects are checked with a subscriber over HTTP streaming.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
from typing import Any

from joserfc import jwk, jwt
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kupool.live.centrifuge.server_api import ABSENT_METHODS
from kupool.permissions.offered import LIVE_METHODS
from tests.servers.live_daemon import TOKEN_SECRET, live_daemon
from tests.servers.of_class import of_class


class Subscriber:
    """A client over HTTP streaming, who has connected."""

    def __init__(self, port: int, user: str, *channels: str) -> None:
        key = jwk.OctKey.import_key(TOKEN_SECRET.encode())
        claims = {"sub": user, "channels": channels}
        command = {"id": 1, "connect": {"token": jwt.encode({"alg": "HS256"}, claims, key)}}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._connection.request("POST", "/connection/http_stream", json.dumps(command))
        self._answer = self._connection.getresponse()
        replies = [self.next()]
        assert "error" not in replies[0], replies
        self.client_id = replies[0]["connect"]["client"]

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()

    def next(self) -> Any:
        """Return the next message that is no ping; None at the end."""
        while line := self._answer.readline():
            if (message := json.loads(line)) != {}:
                return message
        return None

    def push(self) -> Any:
        """Return the next push."""
        return self.next()["push"]


class ServerApiTests(SynchronousTestCase):
    """W-29, W-67, W-76: what an application does over HTTP."""

    def setUp(self) -> None:
        if importlib.util.find_spec("cent") is None:
            raise SkipTest("needs the Python package cent: pip install -e '.[test]'")
        import cent
        import cent.dto

        self.daemon = of_class(self, live_daemon)
        key = (self.daemon.data / "live-api-key").read_text()
        self.cent = cent
        self.url = self.daemon.url("/api")
        self.client = cent.Client(self.url, api_key=key)
        self.addCleanup(self.client.close)
        self.key = key

    def subscriber(self, user: str, *channels: str) -> Subscriber:
        found = Subscriber(self.daemon.http_port, user, *channels)
        self.addCleanup(found.__exit__)
        return found

    def refused(self, request: Any, code: int) -> None:
        with self.assertRaises(self.cent.CentApiResponseError) as caught:
            getattr(self.client, request.api_method)(request)
        self.assertEqual(caught.exception.code, code, caught.exception)

    def test_publish_and_history(self) -> None:
        """W-75: offsets and the epoch; the same publication again is published once."""
        cent, client = self.cent, self.client
        channel = "recovery:history"
        reader = self.subscriber("alice", channel)
        for number in range(3):
            request = cent.PublishRequest(
                channel=channel, data={"n": number}, tags={"t": "x"}, idempotency_key=f"k{number}"
            )
            first, again = client.publish(request), client.publish(request)
            self.assertEqual((first.offset, again.offset), (number + 1, number + 1))
            self.assertTrue(first.epoch)
            publication = reader.push()["pub"]
            self.assertEqual(
                (publication["data"], publication["tags"]), ({"n": number}, {"t": "x"})
            )
        history = client.history(cent.HistoryRequest(channel=channel, limit=2, reverse=True))
        self.assertEqual([each.data for each in history.publications], [{"n": 2}, {"n": 1}])
        self.assertEqual((history.offset, history.epoch), (3, first.epoch))
        since = cent.StreamPosition(offset=1, epoch=first.epoch)
        history = client.history(cent.HistoryRequest(channel=channel, limit=9, since=since))
        self.assertEqual([each.offset for each in history.publications], [2, 3])
        client.history_remove(cent.HistoryRemoveRequest(channel=channel))
        history = client.history(cent.HistoryRequest(channel=channel, limit=9))
        self.assertEqual((history.publications, history.offset), ([], 3))
        request = cent.HistoryRequest(
            channel=channel, limit=1, since=cent.StreamPosition(offset=1, epoch="other")
        )
        self.refused(request, 112)

    def test_broadcast(self) -> None:
        """W-29: each channel has an answer of its own."""
        cent = self.cent
        reader = self.subscriber("alice", "recovery:one", "recovery:two")
        result = self.client.broadcast(
            cent.BroadcastRequest(channels=["recovery:one", "", "recovery:two"], data="x")
        )
        one, bad, two = result.responses
        self.assertEqual((one.result.offset, bad.error.code, two.result.offset), (1, 107, 1))
        self.assertEqual({reader.push()["channel"] for _ in "12"}, {"recovery:one", "recovery:two"})

    def test_subscribe_and_unsubscribe(self) -> None:
        """W-67: effective at once, for all clients of a user or for one."""
        cent, client, channel = self.cent, self.client, "recovery:given"
        one, two = self.subscriber("bob"), self.subscriber("bob")
        first = client.publish(cent.PublishRequest(channel=channel, data=1))
        client.subscribe(
            cent.SubscribeRequest(
                user="bob",
                channel=channel,
                client=one.client_id,
                data={"hello": "bob"},
                recover_since=cent.StreamPosition(offset=0, epoch=first.epoch),
            )
        )
        push = one.push()
        self.assertEqual(push["subscribe"]["data"], {"hello": "bob"})
        self.assertEqual(one.push()["pub"]["data"], 1)
        client.subscribe(cent.SubscribeRequest(user="bob", channel=channel))
        self.assertEqual(two.push()["channel"], channel)
        stats = client.presence_stats(cent.PresenceStatsRequest(channel=channel))
        self.assertEqual((stats.num_clients, stats.num_users), (2, 1))
        presence = client.presence(cent.PresenceRequest(channel=channel)).presence
        self.assertEqual(set(presence), {one.client_id, two.client_id})
        client.unsubscribe(
            cent.UnsubscribeRequest(user="bob", channel=channel, client=one.client_id)
        )
        self.assertEqual(one.push()["unsubscribe"]["code"], 2000)
        client.unsubscribe(cent.UnsubscribeRequest(user="bob", channel=""))
        self.assertEqual(two.push()["unsubscribe"]["code"], 2000)
        client.subscribe(cent.SubscribeRequest(user="nobody-there", channel=channel))

    def test_disconnect(self) -> None:
        """W-29: all clients of a user, but for some."""
        cent, client = self.cent, self.client
        gone, kept = self.subscriber("carol", "recovery:c"), self.subscriber("carol", "recovery:c")
        client.disconnect(
            cent.DisconnectRequest(
                user="carol",
                whitelist=[kept.client_id],
                disconnect=cent.Disconnect(code=4501, reason="go away"),
            )
        )
        self.assertEqual(gone.push()["disconnect"], {"code": 4501, "reason": "go away"})
        self.assertIsNone(gone.next())
        client.disconnect(cent.DisconnectRequest(user="carol"))
        self.assertEqual(kept.push()["disconnect"]["code"], 3503)

    def test_refresh(self) -> None:
        """W-23: a connection ends when the application says so."""
        cent, client = self.cent, self.client
        reader = self.subscriber("dave")
        client.refresh(cent.RefreshRequest(user="dave", expire_at=2_000_000_000))
        client.refresh(cent.RefreshRequest(user="dave", client=reader.client_id, expired=True))
        self.assertEqual(reader.push()["disconnect"]["code"], 3005)

    def test_what_there_is(self) -> None:
        """Channels with subscribers, and figures of this node."""
        cent, client = self.cent, self.client
        self.subscriber("erin", "recovery:there")
        found = client.channels(cent.ChannelsRequest(pattern="recovery:the*")).channels
        self.assertEqual(
            {name: each.num_clients for name, each in found.items()}, {"recovery:there": 1}
        )
        (node,) = client.info(cent.InfoRequest()).nodes
        self.assertGreaterEqual(node.num_clients, 1)
        self.assertGreaterEqual(node.num_channels, 1)
        self.assertTrue(node.version)

    def test_batch(self) -> None:
        """W-74: the answers are in the order of the commands, in parallel or not."""
        cent = self.cent
        for parallel in (False, True):
            requests = [
                cent.PublishRequest(channel=f"recovery:batch{parallel}", data=number)
                for number in range(20)
            ]
            requests.append(cent.ChannelsRequest())
            replies = self.client.batch(
                cent.BatchRequest(requests=requests, parallel=parallel)
            ).replies
            self.assertEqual([each.offset for each in replies[:-1]], list(range(1, 21)))

    def test_methods_that_are_not_there(self) -> None:
        """Each answers that it is not available."""
        cent = self.cent
        kinds = {
            kind.__api_method__: kind
            for kind in vars(cent.dto).values()
            if isinstance(getattr(kind, "__api_method__", None), str)
        }
        tried = {"cancel_push", "device_list", "revoke_token"}
        self.assertLess(tried, set(ABSENT_METHODS))
        for name in ABSENT_METHODS:
            self.refused(kinds.pop(name).model_construct(), 108)
        self.assertEqual(set(kinds), {*LIVE_METHODS, "refresh"})

    def test_bad_input(self) -> None:
        """Each refusal says what is wrong."""
        cent = self.cent
        self.refused(cent.PublishRequest(channel="", data=1), 107)
        self.refused(cent.PublishRequest(channel="recovery:x", data=None), 107)
        self.refused(cent.PublishRequest(channel="recovery:x", data=1, skip_history=True), 108)
        self.refused(cent.BroadcastRequest(channels=[], data=1), 107)
        self.refused(cent.BroadcastRequest(channels=["a"] * 1001, data=1), 106)
        self.refused(cent.HistoryRequest(channel="no:such", limit=1), 102)
        self.refused(
            cent.DisconnectRequest(user="x", disconnect=cent.Disconnect(code=7, reason="")), 107
        )

    def post(self, method: str, body: bytes, **headers: str) -> tuple[int, Any]:
        given = {"X-API-Key": "wrong", "Content-Type": "application/json", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.http_port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", f"/api/{method}", body, given)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def test_a_request_on_several_lines(self) -> None:
        """W-23: a client gets each message on one line all the same."""
        reader = self.subscriber("grace")
        body = {"user": "grace", "channel": "recovery:lines", "data": {"d": 1}, "info": {"i": 2}}
        text = json.dumps(body, indent=2).encode()
        self.assertEqual(self.post("subscribe", text, **{"X-API-Key": self.key})[0], 200)
        self.assertEqual(reader.push()["subscribe"]["data"], {"d": 1})

    def test_refusals_are_logged(self) -> None:
        """W-87: by method and code."""
        self.refused(self.cent.PresenceRequest(channel="no:such"), 102)
        self.assertTrue(self.daemon.lines_with("server API, presence, error 102"))

    def test_keys(self) -> None:
        """W-72: nothing without the key, which may be in either header."""
        right = {"X-API-Key": self.key}
        self.assertEqual(self.post("info", b"{}")[0], 401)
        self.assertEqual(self.post("info", b"{}", **right)[0], 200)
        self.assertEqual(self.post("info", b"", **right)[0], 200)
        self.assertEqual(self.post("info", b"[]", **right)[0], 400)
        self.assertEqual(self.post("refresh", b"{}")[0], 401)
        code, answer = self.post("refresh", b"{}", **right)
        self.assertEqual((code, answer["error"]["code"]), (200, 107))
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.http_port, timeout=20)
        with contextlib.closing(connection):
            for key, status in ((self.key, 200), ("wrong", 401), ("", 401)):
                connection.request("POST", "/api/info", b"{}", {"Authorization": f"apikey {key}"})
                answer = connection.getresponse()
                self.assertEqual((answer.status, bool(answer.read())), (status, True))
            # A route of logins has the same path: without a key it is that one.
            connection.request("POST", "/api/refresh", b"{}", {"Content-Type": "application/json"})
            self.assertIn("log in", connection.getresponse().read().decode())
        self.assertIn("wrong API key", self.daemon.output)
        self.assertEqual((self.daemon.data / "live-api-key").stat().st_mode & 0o777, 0o600)

    def test_with_asyncio(self) -> None:
        """The library has a client for asyncio, too: every method has its effect."""
        asyncio.run(self.use_asyncio())

    async def use_asyncio(self) -> None:
        cent, channel, other = self.cent, "recovery:asyncio", "recovery:asyncio2"
        async with cent.AsyncClient(self.url, api_key=self.key) as client:
            reader = self.subscriber("frank")
            # subscribe
            await client.subscribe(cent.SubscribeRequest(user="frank", channel=channel))
            self.assertEqual(reader.push()["channel"], channel)
            # publish, broadcast
            first = await client.publish(cent.PublishRequest(channel=channel, data={"n": 1}))
            self.assertEqual((first.offset, reader.push()["pub"]["data"]), (1, {"n": 1}))
            sent = await client.broadcast(
                cent.BroadcastRequest(channels=[channel, other], data={"n": 2})
            )
            self.assertEqual([each.result.offset for each in sent.responses], [2, 1])
            self.assertEqual(reader.push()["pub"]["data"], {"n": 2})
            # presence, presence_stats, channels, info
            found = await client.presence(cent.PresenceRequest(channel=channel))
            self.assertEqual({each.user for each in found.presence.values()}, {"frank"})
            stats = await client.presence_stats(cent.PresenceStatsRequest(channel=channel))
            self.assertEqual((stats.num_clients, stats.num_users), (1, 1))
            listed = await client.channels(cent.ChannelsRequest(pattern="recovery:asyncio*"))
            self.assertEqual(set(listed.channels), {channel})
            info = await client.info(cent.InfoRequest())
            self.assertGreaterEqual(info.nodes[0].num_subs, 1)
            # history, history_remove
            request = cent.HistoryRequest(channel=channel, limit=9)
            history = await client.history(request)
            self.assertEqual([each.data["n"] for each in history.publications], [1, 2])
            await client.history_remove(cent.HistoryRemoveRequest(channel=channel))
            history = await client.history(request)
            self.assertEqual((history.publications, history.offset), ([], 2))
            # batch
            done = await client.batch(
                cent.BatchRequest(
                    requests=[
                        cent.PublishRequest(channel=channel, data={"n": 3}),
                        cent.PresenceStatsRequest(channel=channel),
                    ]
                )
            )
            self.assertEqual((done.replies[0].offset, done.replies[1].num_clients), (3, 1))
            self.assertEqual(reader.push()["pub"]["data"], {"n": 3})
            # unsubscribe, refresh, disconnect
            await client.unsubscribe(cent.UnsubscribeRequest(user="frank", channel=channel))
            self.assertEqual(reader.push()["unsubscribe"]["code"], 2000)
            await client.refresh(cent.RefreshRequest(user="frank", expired=True))
            self.assertEqual(reader.push()["disconnect"]["code"], 3005)
            again = self.subscriber("frank")
            await client.disconnect(cent.DisconnectRequest(user="frank"))
            self.assertEqual(again.push()["disconnect"]["code"], 3503)
            # A refusal is an error of the library.
            with self.assertRaises(cent.CentApiResponseError) as caught:
                await client.publish(cent.PublishRequest(channel="no:such", data=1))
            self.assertEqual(caught.exception.code, 102)
