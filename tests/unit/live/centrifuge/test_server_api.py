"""The server API: what applications may ask for, and what they are told when it is wrong."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail

from kupool.live.centrifuge.api_messages import ApiAnswer, ApiPublished
from kupool.live.centrifuge.client import ClientIdentity
from kupool.live.centrifuge.server_api import ABSENT_METHODS, ApiLimits, NodeIdentity, ServerApi
from kupool.live.failures import HistoryUnavailable, TopicUnusable
from kupool.live.overload import LoadState
from kupool.live.wishes import HistoryWishes
from kupool.permissions.offered import LIVE_METHODS
from kupool.timing.chunks import SHARE
from tests.fakes.centrifuge import FakeCentrifugeClient
from tests.unit.live.centrifuge.test_client import CentrifugeCase


class ServerApiCase(CentrifugeCase):
    def setUp(self) -> None:
        super().setUp()
        node = NodeIdentity("uid", "host", self.live.clock.seconds())
        self.api = ServerApi(self.server.world, node, ApiLimits(calls=3, answer=2000))
        self.addCleanup(self.api.stop)

    def answer(self, method: str, body: Any) -> Any:
        """Return the answer, or the code of its error."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = self.successResultOf(Deferred.fromCoroutine(self.api.answer(method, text)))
        answer = json.loads(msgspec.json.encode(given))
        self.live.turns()
        return answer["error"]["code"] if "error" in answer else answer.get("result", answer)

    def user(self, name: str) -> FakeCentrifugeClient:
        client = self.server.open(ClientIdentity(name, "worker"))
        client.connect()
        return client


class RequestTests(ServerApiCase):
    """Issue 17, build 3: what is wrong with a request is said."""

    def test_names(self) -> None:
        """The table of permissions has all methods; of refresh, the route is another one's."""
        self.assertEqual(set(self.api.methods), {*LIVE_METHODS, "refresh"})

    def test_bad_requests(self) -> None:
        for method, body in (
            ("publish", {"data": 1}),
            ("publish", {"channel": "", "data": 1}),
            ("publish", {"channel": "a"}),
            ("publish", {"channel": "a", "data": None}),
            ("publish", {"channel": "a", "b64data": "***"}),
            ("publish", {"channel": "a", "b64data": b64encode(b"no json").decode()}),
            ("publish", {"channel": 5, "data": 1}),
            ("publish", {"channel": "a", "data": 1, "tags": {"a": 1}}),
            ("publish", b"{"),
            ("publish", b"[" * 100_000),
            ("broadcast", {"data": 1}),
            ("broadcast", {"channels": [], "data": 1}),
            ("publish", {"channel": "a", "data": 1, "idempotency_key": "k" * 256}),
            ("publish", {"channel": "a", "data": 1, "priority": 4}),
            ("publish", {"channel": "a", "data": 1, "device": "d" * 256}),
            ("publish", {"channel": "a", "data": 1, "tags": {str(n): "" for n in range(200)}}),
            ("subscribe", {"channel": "a"}),
            ("subscribe", {"user": "u", "channel": "a", "b64data": b64encode(b"}{").decode()}),
            ("subscribe", {"user": "u", "channel": "a", "b64info": b64encode(b"}{").decode()}),
            ("subscribe", {"user": "u", "channel": "a", "expire_at": int("9" * 400)}),
            ("subscribe", {"user": "u"}),
            ("subscribe", {"user": "u", "channel": "a", "override": {"other": {"value": True}}}),
            ("unsubscribe", {"channel": "a"}),
            ("disconnect", {}),
            ("disconnect", {"user": "u", "disconnect": {"code": 2999, "reason": ""}}),
            ("refresh", {}),
            ("refresh", {"user": "u", "expire_at": int("9" * 400)}),
            ("refresh", {"user": "u", "expire_at": -1}),
            ("presence", {}),
            ("presence_stats", {}),
            ("history", {}),
            ("history_remove", {}),
            ("channels", {"pattern": "x" * 256}),
            ("batch", {"commands": [{}]}),
            ("batch", {"commands": [{"info": {}, "channels": {}}]}),
            ("batch", {"commands": 1}),
        ):
            self.assertEqual(self.answer(method, body), 107, (method, body))
        self.assertEqual(self.api.refusals.counts["server API, publish, error 107"], 14)

    def test_limits(self) -> None:
        """W-87: of channels and commands."""
        four = ["a", "b", "c", "d"]
        self.assertEqual(self.answer("broadcast", {"channels": four, "data": 1}), 106)
        self.assertEqual(self.answer("batch", {"commands": [{"info": {}}] * 4}), 106)
        self.assertEqual(len(self.answer("batch", {"commands": [{"info": {}}] * 3})["replies"]), 3)

    def test_methods_that_are_not_there(self) -> None:
        for method in ABSENT_METHODS:
            self.assertEqual(self.answer(method, {}), 108)
        self.assertEqual(self.answer("other", {}), 104)
        self.assertEqual(self.answer("rpc", {"method": "a"}), 104)

    def test_an_unexpected_error(self) -> None:
        """It is reported, and the application gets its number."""
        self.patch(self.live.service, "channels", lambda pattern="": 1 // 0)
        self.assertEqual(self.answer("channels", {}), 100)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ChannelTests(ServerApiCase):
    """W-29, W-75: publishing, and histories."""

    def test_channels_without_a_history(self) -> None:
        body = {"channel": "plain:a", "data": 1, "skip_history": True}
        self.assertEqual(self.answer("publish", body), {})
        self.assertEqual(self.answer("publish", {**body, "channel": "a"}), 108)
        self.assertEqual(self.answer("history", {"channel": "plain:a"}), 108)
        self.assertEqual(self.answer("presence", {"channel": "plain:a"}), 108)

    def test_a_position_that_cannot_be_read(self) -> None:
        """What is published is answered with its offset: an error would have it sent again."""
        self.patch(self.live.service, "history", lambda *_: fail(HistoryUnavailable("a")))
        self.assertEqual(self.answer("publish", {"channel": "a", "data": 1}), {"offset": 1})

    def test_a_topic_that_does_not_exist(self) -> None:
        """W-75: the application is told which topic to create, instead of an internal error."""
        error = TopicUnusable("there is no topic orders: create it first")
        self.patch(self.live.service, "publish", lambda *_: fail(error))
        self.assertEqual(self.answer("publish", {"channel": "a", "data": 1}), 108)
        body = b'{"channel":"a","data":1}'
        given = self.successResultOf(Deferred.fromCoroutine(self.api.answer("publish", body)))
        self.assertIn(str(error).encode(), msgspec.json.encode(given))

    def test_delta(self) -> None:
        """It is ignored: whole messages are a valid answer to it."""
        client = self.user("alice")
        client.ask(subscribe={"channel": "a", "delta": "fossil"})
        for number in (1, 2):
            body = {"channel": "a", "data": {"n": number}, "delta": True}
            self.assertEqual(self.answer("publish", body)["offset"], number)
        self.assertEqual(self.received(client), [{"n": 1}, {"n": 2}])

    def test_encoded_data(self) -> None:
        client = self.user("alice")
        client.ask(subscribe={"channel": "a"})
        data = b64encode(b'{"n": 1}').decode()
        self.assertEqual(self.answer("publish", {"channel": "a", "b64data": data})["offset"], 1)
        self.assertEqual(self.received(client), [{"n": 1}])

    def test_events(self) -> None:
        """W-61, W-62: an application says what kind of event it publishes."""
        event = {"device": "d", "type": "t", "key": "k", "priority": 3}
        self.answer("publish", {"channel": "a", "data": 1, **event})
        found = self.successResultOf(self.live.service.history("a", HistoryWishes(1)))
        (kept,) = found.publications
        self.assertEqual(
            (kept.priority, kept.device, kept.event_type, kept.key), (3, "d", "t", "k")
        )

    def test_what_is_replaced(self) -> None:
        """W-62: in degraded mode the newest of a device and type is published."""
        self.live.service.gate.watch.state = LoadState.DEGRADED
        event = {"channel": "a", "device": "d", "type": "t"}
        first, second = (
            Deferred.fromCoroutine(self.api.answer("publish", json.dumps(body).encode()))
            for body in ({**event, "data": 1}, {**event, "data": 2})
        )
        self.assertEqual(self.successResultOf(first), ApiAnswer(ApiPublished(replaced=True)))
        self.live.clock.advance(0.02)
        answer: Any = self.successResultOf(second)
        self.assertEqual(answer.result.offset, 1)

    def test_a_broadcast_of_which_some_fail(self) -> None:
        body = {"channels": ["a", "", "small:b"], "data": 1}
        responses = self.answer("broadcast", body)["responses"]
        self.assertEqual([sorted(each) for each in responses], [["result"], ["error"], ["result"]])

    def test_a_broadcast_of_which_one_fails_unexpectedly(self) -> None:
        """The others have their publication, so they are not answered with an error."""
        publish = self.live.service.publish

        def failing(channel: str, publication: Any) -> Any:
            return fail(ZeroDivisionError()) if channel == "b" else publish(channel, publication)

        self.patch(self.live.service, "publish", failing)
        body = {"channels": ["a", "b", "c"], "data": 1}
        responses = self.answer("broadcast", body)["responses"]
        self.assertEqual([sorted(each) for each in responses], [["result"], ["error"], ["result"]])
        self.assertEqual(responses[1]["error"]["code"], 100)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.api.refusals.counts["server API, broadcast, error 100"], 1)

    def test_a_broadcast_takes_breaks(self) -> None:
        """W-87: nobody else waits for its end."""
        publish = self.live.service.publish

        def slow(channel: str, publication: Any) -> Any:
            self.live.clock.advance(SHARE)
            return publish(channel, publication)

        self.patch(self.live.service, "publish", slow)
        body = msgspec.json.encode({"channels": ["a", "b"], "data": 1})
        answer = Deferred.fromCoroutine(self.api.answer("broadcast", body))
        self.assertNoResult(answer)
        self.live.turns()
        self.successResultOf(answer)

    def test_a_batch_of_which_some_fail(self) -> None:
        commands = [
            {"publish": {"channel": "a", "data": 1}},
            {"publish": {"channel": "a"}},
            {"history": {"channel": "a", "limit": 5}},
        ]
        for parallel in (False, True):
            body = {"commands": commands, "parallel": parallel}
            first, second, third = self.answer("batch", body)["replies"]
            self.assertEqual(second["error"]["code"], 107)
            self.assertEqual(first["publish"]["offset"], len(third["history"]["publications"]))


class UserTests(ServerApiCase):
    """W-29, W-67: the clients of a user."""

    def test_a_subscription_that_there_is_already(self) -> None:
        client = self.user("alice")
        client.ask(subscribe={"channel": "a"})
        self.assertEqual(self.answer("subscribe", {"user": "alice", "channel": "a"}), {})
        self.assertEqual(client.taken(), [])

    def test_who_has_not_connected_yet(self) -> None:
        """It is left alone: it has no subscriptions."""
        waiting = self.server.open(ClientIdentity("alice", "worker"))
        self.assertEqual(self.answer("subscribe", {"user": "alice", "channel": "a"}), {})
        self.assertEqual(waiting.taken(), [])

    def test_a_client_that_cannot_be_subscribed(self) -> None:
        """W-67: the other clients of the user are subscribed all the same."""
        full, free = self.user("alice"), self.user("alice")
        for number in range(self.live.service.limits.channels_per_client):
            full.ask(subscribe={"channel": f"other{number}"})
        full.taken()
        self.assertEqual(self.answer("subscribe", {"user": "alice", "channel": "a"}), 106)
        self.assertEqual(full.taken(), [])
        self.publish("a", 1)
        self.assertEqual((self.received(free), self.received(full)), ([1], []))

    def test_a_client_that_leaves_meanwhile(self) -> None:
        """It is passed over: the others are subscribed, and nothing is wrong."""
        leaving, staying = self.user("alice"), self.user("alice")
        begin = leaving.client.subscriptions.add

        def add(*given: Any) -> Deferred[None]:
            leaving.client.lost()
            return begin(*given)

        self.patch(leaving.client.subscriptions, "add", add)
        self.assertEqual(self.answer("subscribe", {"user": "alice", "channel": "a"}), {})
        self.publish("a", 1)
        self.assertEqual(self.received(staying), [1])

    def test_private_channels(self) -> None:
        """The server may subscribe to what a client needs a token for."""
        client = self.user("alice")
        self.denied.add(("subscribe", "$secret"))
        self.answer("subscribe", {"user": "alice", "channel": "$secret", "data": {"n": 1}})
        (push,) = client.taken()
        self.assertEqual(push["push"]["subscribe"]["data"], {"n": 1})
        self.answer("publish", {"channel": "$secret", "data": 5})
        self.assertEqual(self.received(client), [5])

    def test_data_with_line_breaks(self) -> None:
        """W-23: a line break would end the message to the client."""
        client = self.user("alice")
        body = b'{"user": "alice", "channel": "a", "info": {\n"i": 1}, "data": {\n"d": 2}}'
        self.assertEqual(self.answer("subscribe", body), {})
        (push,) = client.taken()
        self.assertEqual(push["push"]["subscribe"]["data"], {"d": 2})
        encoded = b64encode(b'{\r\n"d": 3}').decode()
        self.answer("subscribe", {"user": "alice", "channel": "b", "b64data": encoded})
        (push,) = client.taken()
        self.assertEqual(push["push"]["subscribe"]["data"], {"d": 3})
        (present,) = self.answer("presence", {"channel": "a"})["presence"].values()
        self.assertEqual(present["chan_info"], {"i": 1})

    def test_a_long_reason(self) -> None:
        """W-29: it is cut to what fits into the frame that closes a WebSocket."""
        client = self.user("alice")
        reason = {"code": 4000, "reason": "\u20ac" * 100}
        self.answer("disconnect", {"user": "alice", "disconnect": reason})
        self.assertEqual([each.reason for each in client.closed], ["\u20ac" * 40])

    def test_a_subscription_that_ends(self) -> None:
        """W-72: at its time."""
        client = self.user("alice")
        end = int(self.server.wall()) + 10
        self.answer("subscribe", {"user": "alice", "channel": "a", "expire_at": end})
        client.taken()
        self.live.clock.pump([1.0] * 60)
        self.assertEqual(self.closed(client), 3006)

    def test_a_connection_that_ends(self) -> None:
        client = self.user("alice")
        end = int(self.server.wall()) + 10
        self.answer("refresh", {"user": "alice", "expire_at": end})
        self.live.clock.pump([1.0] * 5)
        self.assertEqual(client.closed, [])
        self.live.clock.pump([1.0] * 60)
        self.assertEqual(self.closed(client), 3005)

    def test_the_info_does_not_change(self) -> None:
        self.user("alice")
        self.assertEqual(self.answer("refresh", {"user": "alice", "info": {"a": 1}}), 108)

    def test_others_stay(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        for client in (alice, bob):
            client.ask(subscribe={"channel": "a"})
        self.answer("unsubscribe", {"user": "alice", "channel": "a"})
        self.assertEqual(alice.taken()[0]["push"]["unsubscribe"]["code"], 2000)
        self.answer("disconnect", {"user": "alice"})
        self.assertEqual((self.closed(alice), bob.closed, bob.taken()), (3503, [], []))
        self.assertEqual(self.answer("info", {})["nodes"][0]["num_subs"], 1)
