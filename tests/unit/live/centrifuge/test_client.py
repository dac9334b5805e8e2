"""A client of the Centrifuge protocol: what it may ask, and what it is told."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial import unittest

from kupool.live.centrifuge.client import ClientIdentity
from kupool.live.centrifuge.world import RpcFailed
from kupool.live.interfaces import CHANNEL_ACTIONS
from kupool.live.rules import ChannelRule, QueuePolicy
from tests.fakes.centrifuge import CentrifugeServer, FakeCentrifugeClient
from tests.fakes.live import LiveWorld, new

RULES = (
    ChannelRule(
        pattern="small:*", history_size=2, forced_recovery=True, presence=True, recovery=True
    ),
    ChannelRule(pattern="plain:*", presence=False),
    ChannelRule(
        pattern=">",
        history_size=100,
        history_time=300.0,
        forced_recovery=True,
        presence=True,
        join_leave=True,
        publish_by_clients=True,
    ),
)


class CentrifugeCase(unittest.TestCase):
    settings: dict[str, Any] = {"ping": 0}

    def setUp(self) -> None:
        self.live = LiveWorld(*RULES, may=self.may)
        self.server = CentrifugeServer(self.live, **self.settings)
        self.denied: set[tuple[str, str]] = set()
        self.addCleanup(self.live.service.stop)

    def may(self, user: str, role: str, action: str, channel: str) -> bool:
        return (action, channel) not in self.denied

    def publish(self, channel: str, *data: Any) -> None:
        for each in data:
            self.successResultOf(self.live.service.publish(channel, new(each)))
        self.live.turns()

    def closed(self, client: FakeCentrifugeClient) -> int:
        [reason] = client.closed
        return reason.code

    def error(self, reply: Any) -> int:
        self.assertEqual(set(reply), {"error"})
        return int(reply["error"]["code"])

    @staticmethod
    def received(client: FakeCentrifugeClient) -> list[Any]:
        return [m["push"]["pub"]["data"] for m in client.taken() if "pub" in m.get("push", ())]


class ConnectTests(CentrifugeCase):
    """The first command is connect (W-23, W-72)."""

    def test_whether_it_is_connected(self) -> None:
        """W-09: that is known, so nothing is sent to find out."""
        client = self.server.open()
        self.assertFalse(client.client.connected)
        client.connect()
        self.assertTrue(client.client.connected)
        self.assertEqual(client.taken(), [])
        client.cut()
        self.assertFalse(client.client.connected)

    def test_without_a_token(self) -> None:
        reply = self.server.open().connect(name="js")
        self.assertEqual(reply, {"connect": {"client": "client1", "version": ""}})

    def test_who_the_transport_says(self) -> None:
        client = self.server.open(ClientIdentity("alice", "operator"))
        client.connect()
        self.assertEqual((client.client.user, client.client.role), ("alice", "operator"))

    def test_a_token(self) -> None:
        client = self.server.open()
        reply = client.connect(token=self.server.token(sub="alice", seconds=10, info={"n": 1}))
        self.assertEqual(
            reply, {"connect": {"client": "client1", "version": "", "expires": True, "ttl": 10}}
        )
        self.assertEqual((client.client.user, client.client.role), ("alice", "worker"))

    def test_a_token_that_is_none(self) -> None:
        client = self.server.open()
        client.send(connect={"token": "x"})
        self.assertEqual((self.closed(client), client.taken()), (3500, []))

    def test_an_expired_token(self) -> None:
        client = self.server.open()
        self.assertEqual(self.error(client.connect(token=self.server.token(exp=1))), 109)
        client.send(subscribe={"channel": "a"})
        self.assertEqual((client.taken(), client.closed), ([], []))
        self.live.clock.advance(10)
        self.assertEqual(self.closed(client), 3502)

    def test_no_connect_in_time(self) -> None:
        client = self.server.open()
        self.live.clock.advance(9.9)
        self.assertEqual(client.closed, [])
        self.live.clock.advance(0.2)
        self.assertEqual(self.closed(client), 3502)

    def test_another_command_first(self) -> None:
        client = self.server.open()
        client.send(subscribe={"channel": "a"})
        self.assertEqual(self.closed(client), 3501)

    def test_twice(self) -> None:
        client = self.server.client()
        client.send(connect={})
        self.assertEqual(self.closed(client), 3501)

    def test_what_is_no_command(self) -> None:
        for frame in ("", "no json", "[]", '{"id":1}'):
            client = self.server.client()
            client.raw(frame)
            self.assertEqual(self.closed(client), 3501)

    def test_nothing_is_heard_after_the_end(self) -> None:
        client = self.server.client()
        client.raw("x")
        client.send(subscribe={"channel": "a"})
        self.assertEqual((client.taken(), len(client.closed)), ([], 1))

    def test_commands_in_the_frame_of_the_connect(self) -> None:
        client = self.server.open()
        client.raw('{"connect":{},"id":1}\n{"subscribe":{"channel":"a","flag":1},"id":2}')
        connect, subscribe = client.taken()
        self.assertEqual(connect["connect"]["client"], "client1")
        self.assertEqual(
            subscribe,
            {"id": 2, "subscribe": {"recoverable": True, "epoch": "epoch1", "positioned": True}},
        )

    def test_too_many_commands_that_wait(self) -> None:
        self.server.world.live.connect = None  # type: ignore[assignment, method-assign]
        client = self.server.open()
        client.raw("\n".join(f'{{"rpc":{{}},"id":{n}}}' for n in range(1, 1026)))
        self.assertEqual(self.closed(client), 3013)

    def test_nothing_is_left_of_one_that_has_gone(self) -> None:
        client = self.server.client(token=self.server.token(sub="alice", seconds=5))
        client.ask(subscribe={"channel": "a"})
        client.cut()
        self.live.turns()
        self.assertEqual(self.live.service.clients, 0)
        self.assertEqual(self.live.service.presence_stats("a"), (0, 0))
        self.live.clock.advance(1000)
        self.assertEqual(client.closed, [])


class AnonymousTests(CentrifugeCase):
    """Without permission nobody is anonymous (W-72)."""

    settings = {"ping": 0, "anonymous": False}

    def test_refused(self) -> None:
        client = self.server.open()
        client.send(connect={})
        self.assertEqual(self.closed(client), 3501)

    def test_a_user(self) -> None:
        self.server.open(ClientIdentity("alice")).connect()
        self.server.client(token=self.server.token(sub="alice"))


class InsecureTests(CentrifugeCase):
    """The insecure mode permits everything but what a token is for (W-72)."""

    settings = {"ping": 0, "insecure": True, "anonymous": False}

    def test_everything_is_permitted(self) -> None:
        self.denied.update((action, "a") for action in CHANNEL_ACTIONS)
        client = self.server.client()
        self.assertIn("subscribe", client.ask(subscribe={"channel": "a"}))
        self.assertIn("presence", client.ask(presence={"channel": "a"}))
        self.assertIn("history", client.ask(history={"channel": "a"}))
        client.send(publish={"channel": "a", "data": 1})
        self.assertIn("publish", client.taken()[-1])

    def test_private_channels_need_a_token(self) -> None:
        client = self.server.client()
        self.assertEqual(self.error(client.ask(subscribe={"channel": "$a"})), 103)

    def test_connections_do_not_expire(self) -> None:
        reply = self.server.open().connect(token=self.server.token(sub="alice", seconds=10))
        self.assertNotIn("expires", reply["connect"])


class PingTests(CentrifugeCase):
    """Who does not answer a ping in time is closed (W-08, W-10)."""

    settings = {"ping": 25, "pong_wait": 8}

    def test_said_in_the_reply(self) -> None:
        reply = self.server.open().connect()
        self.assertEqual((reply["connect"]["ping"], reply["connect"]["pong"]), (25, True))

    def test_answered(self) -> None:
        client = self.server.client()
        self.live.clock.advance(25)
        for _ in range(4):
            self.assertEqual(client.taken(), [{}])
            client.raw("{}")
            self.live.clock.advance(8)
            self.live.turns()
            self.live.clock.advance(17)
            self.live.turns()
        self.assertEqual(client.closed, [])

    def test_not_answered(self) -> None:
        client = self.server.client()
        self.live.clock.advance(25)
        client.taken()
        self.live.clock.advance(7.9)
        self.assertEqual(client.closed, [])
        self.live.clock.advance(0.1)
        self.live.turns()
        self.assertEqual(self.closed(client), 3012)

    def test_an_answer_that_was_read_just_in_time(self) -> None:
        client = self.server.client()
        self.live.clock.advance(25)
        # It is read in the turn of the look, after it.
        self.live.clock.callLater(8, client.client.receive, b"{}")
        self.live.clock.advance(8)
        self.assertEqual(client.closed, [])

    def test_a_pong_that_nobody_asked_for(self) -> None:
        client = self.server.client()
        client.raw("{}")
        self.assertEqual(client.closed, [])


class SubscribeTests(CentrifugeCase):
    """Subscriptions by the client (W-66, W-67, W-75)."""

    def test_publications_follow_the_reply(self) -> None:
        client = self.server.client()
        client.ask(subscribe={"channel": "a"})
        self.publish("a", 1, {"n": 2})
        self.assertEqual(
            client.taken(),
            [
                {"push": {"channel": "a", "pub": {"data": 1, "offset": 1}}},
                {"push": {"channel": "a", "pub": {"data": {"n": 2}, "offset": 2}}},
            ],
        )

    def test_refused(self) -> None:
        self.denied.add(("subscribe", "secret"))
        client = self.server.client()
        client.ask(subscribe={"channel": "a"})
        for channel, code in (
            ("a", 105),
            ("secret", 103),
            ("x" * 256, 107),
            ("\u00e4", 107),
            ("none:a", 102),
            ("$a", 103),
        ):
            self.assertEqual(self.error(client.ask(subscribe={"channel": channel})), code, channel)
        self.assertEqual(client.closed, [])

    def test_what_is_not_supported(self) -> None:
        client = self.server.client()
        for wish, code in (({"type": 1}, 108), ({"type": 4}, 108), ({"tf": {"op": "eq"}}, 107)):
            self.assertEqual(self.error(client.ask(subscribe={"channel": "a", **wish})), code)
        reply = client.ask(subscribe={"channel": "a", "delta": "fossil"})
        self.assertNotIn("delta", reply["subscribe"])

    def test_no_channel(self) -> None:
        for command in ("subscribe", "unsubscribe", "publish", "presence", "history"):
            client = self.server.client()
            client.send(**{command: {}})
            self.assertEqual(self.closed(client), 3501, command)

    def test_at_most_128(self) -> None:
        client = self.server.client()
        for number in range(128):
            client.ask(subscribe={"channel": f"c{number}"})
        self.assertEqual(self.error(client.ask(subscribe={"channel": "one more"})), 106)

    def test_unsubscribe(self) -> None:
        client = self.server.client()
        self.assertEqual(client.ask(unsubscribe={"channel": "a"}), {"unsubscribe": {}})
        client.ask(subscribe={"channel": "a"})
        client.ask(unsubscribe={"channel": "a"})
        self.publish("a", 1)
        self.assertEqual(client.taken(), [])

    def test_ten_times_in_a_row(self) -> None:
        client = self.server.client()
        for _ in range(10):
            client.send(subscribe={"channel": "a"})
            client.send(unsubscribe={"channel": "a"})
        client.send(subscribe={"channel": "a"})
        client.taken()
        stats = client.ask(presence_stats={"channel": "a"})
        self.assertEqual(stats, {"presence_stats": {"num_clients": 1, "num_users": 1}})
        client.ask(unsubscribe={"channel": "a"})
        stats = client.ask(presence_stats={"channel": "a"})
        self.assertEqual(stats, {"presence_stats": {"num_clients": 0, "num_users": 0}})

    def test_a_gap_without_a_position_is_told(self) -> None:
        client = self.server.client()
        client.ask(subscribe={"channel": "plain:a"})
        client.stall()
        self.publish("plain:a", *range(300))
        client.read()
        gaps = [m["push"]["message"] for m in client.taken() if "message" in m["push"]]
        missed = sum(gap["data"]["gap"]["missed"] for gap in gaps)
        self.assertEqual({gap["data"]["gap"]["channel"] for gap in gaps}, {"plain:a"})
        self.assertGreater(missed, 0)

    def test_who_is_too_slow(self) -> None:
        self.live = LiveWorld(ChannelRule(pattern=">", policy=QueuePolicy.DISCONNECT))
        self.server = CentrifugeServer(self.live, ping=0)
        client = self.server.client()
        client.ask(subscribe={"channel": "a"})
        client.stall()
        self.publish("a", *range(300))
        self.assertEqual(self.closed(client), 3008)

    def test_one_who_may_no_longer(self) -> None:
        client = self.server.client()
        client.ask(subscribe={"channel": "a"})
        self.denied.add(("subscribe", "a"))
        self.live.service.check_again()
        self.assertEqual(
            client.taken(),
            [
                {
                    "push": {
                        "channel": "a",
                        "unsubscribe": {"code": 2502, "reason": "state invalidated"},
                    }
                }
            ],
        )
        self.publish("a", 1)
        self.assertEqual(client.taken(), [])


class RecoveryTests(CentrifugeCase):
    """A client that comes back gets what it missed, or learns that it cannot (W-75)."""

    def recover(self, channel: str, offset: int, epoch: str, **more: Any) -> Any:
        self.client = self.server.client()
        request = {"channel": channel, "recover": True, "offset": offset, "epoch": epoch, **more}
        return self.client.ask(subscribe=request)

    def test_recovered(self) -> None:
        self.publish("a", *range(4))
        reply = self.recover("a", 1, "epoch1")
        self.assertEqual(
            reply["subscribe"],
            {
                "recoverable": True,
                "epoch": "epoch1",
                "positioned": True,
                "publications": [
                    {"data": 1, "offset": 2},
                    {"data": 2, "offset": 3},
                    {"data": 3, "offset": 4},
                ],
                "recovered": True,
                "offset": 1,
                "was_recovering": True,
            },
        )
        self.publish("a", 4)
        self.assertEqual(self.received(self.client), [4])

    def test_nothing_missed(self) -> None:
        self.publish("a", 0)
        subscribed = self.recover("a", 1, "epoch1")["subscribe"]
        self.assertEqual((subscribed["recovered"], subscribed["offset"]), (True, 1))
        self.assertNotIn("publications", subscribed)

    def test_not_recovered(self) -> None:
        self.publish("small:a", *range(5))
        subscribed = self.recover("small:a", 1, "epoch1")["subscribe"]
        self.assertEqual((subscribed["was_recovering"], subscribed["offset"]), (True, 5))
        self.assertNotIn("recovered", subscribed)
        self.assertNotIn("publications", subscribed)
        self.publish("small:a", 5)
        self.assertEqual(self.received(self.client), [5])

    def test_another_epoch(self) -> None:
        self.publish("a", 1)
        self.assertNotIn("recovered", self.recover("a", 1, "other")["subscribe"])

    def test_an_error_instead(self) -> None:
        self.publish("a", 1)
        self.assertEqual(self.error(self.recover("a", 1, "other", flag=3)), 112)
        self.publish("a", 2)
        self.assertEqual(self.client.taken(), [])
        self.assertIn("subscribe", self.client.ask(subscribe={"channel": "a"}))

    def test_a_slow_reader_subscribes_again(self) -> None:
        self.live = LiveWorld(
            ChannelRule(
                pattern=">", history_size=5, forced_recovery=True, policy=QueuePolicy.DROP_NEW
            )
        )
        self.server = CentrifugeServer(self.live, ping=0)
        client = self.server.client()
        client.ask(subscribe={"channel": "a"})
        client.stall()
        self.publish("a", *range(300))
        client.read()
        last = client.taken()[-1]
        self.assertEqual(last["push"]["unsubscribe"]["code"], 2500)
        self.assertIn("subscribe", client.ask(subscribe={"channel": "a"}))


class TokenTests(CentrifugeCase):
    """Tokens of channels, and what expires (W-72)."""

    def connect(self, **claims: Any) -> FakeCentrifugeClient:
        return self.server.client(token=self.server.token(sub="alice", **claims))

    def channel_token(self, channel: str, **claims: Any) -> str:
        return self.server.token(**{"sub": "alice", "channel": channel, **claims})

    def test_a_private_channel(self) -> None:
        self.denied.add(("subscribe", "$a"))
        client = self.connect()
        token = self.channel_token("$a", info={"n": 1}, data=[1])
        reply = client.ask(subscribe={"channel": "$a", "token": token})
        self.assertEqual(reply["subscribe"]["data"], [1])
        presence = client.ask(presence={"channel": "$a"})["presence"]["presence"]
        self.assertEqual(presence["client1"]["chan_info"], {"n": 1})

    def test_wrong_tokens(self) -> None:
        client = self.connect()
        expired = self.channel_token("$a", exp=1)
        self.assertEqual(self.error(client.ask(subscribe={"channel": "$a", "token": expired})), 109)
        self.assertEqual(self.error(client.ask(subscribe={"channel": "$a", "token": "x"})), 103)
        client.send(subscribe={"channel": "$a", "token": self.channel_token("$b")})
        self.assertEqual(self.closed(client), 3500)

    def test_the_token_of_another_user(self) -> None:
        client = self.connect()
        client.send(subscribe={"channel": "$a", "token": self.channel_token("$a", sub="bob")})
        self.assertEqual(self.closed(client), 3500)

    def test_a_subscription_expires(self) -> None:
        client = self.connect()
        token = self.channel_token("$a", seconds=10)
        reply = client.ask(subscribe={"channel": "$a", "token": token})["subscribe"]
        self.assertEqual((reply["expires"], reply["ttl"]), (True, 10))
        self.live.clock.advance(34.9)
        self.assertEqual(client.taken(), [])
        self.live.clock.advance(0.2)
        [message] = client.taken()
        self.assertEqual(message["push"]["unsubscribe"]["code"], 2501)

    def test_a_subscription_is_refreshed(self) -> None:
        client = self.connect()
        token = self.channel_token("$a", seconds=10)
        client.ask(subscribe={"channel": "$a", "token": token})
        self.live.clock.advance(9)
        token = self.channel_token("$a", seconds=100)
        reply = client.ask(sub_refresh={"channel": "$a", "token": token})
        self.assertEqual(reply, {"sub_refresh": {"expires": True, "ttl": 100}})
        self.live.clock.advance(60)
        self.assertEqual(client.taken(), [])
        reply = client.ask(sub_refresh={"channel": "$a", "token": self.channel_token("$a")})
        self.assertEqual(reply, {"sub_refresh": {}})
        self.live.clock.advance(1000)
        self.assertEqual(client.taken(), [])

    def test_refreshes_that_are_refused(self) -> None:
        client = self.connect()
        client.ask(subscribe={"channel": "a"})
        self.assertEqual(self.error(client.ask(sub_refresh={"channel": "b", "token": "x"})), 103)
        self.assertEqual(
            self.error(client.ask(sub_refresh={"channel": "a", "token": "x", "type": 1})), 108
        )
        client.send(sub_refresh={"channel": "a", "token": self.channel_token("a", exp=1)})
        push, reply = client.taken()
        self.assertEqual(push["push"]["unsubscribe"]["code"], 2501)
        self.assertEqual(reply["sub_refresh"], {})
        client.ask(subscribe={"channel": "a"})
        client.send(sub_refresh={"channel": "a", "token": "x"})
        self.assertEqual(self.closed(client), 3500)

    def test_a_connection_expires(self) -> None:
        client = self.connect(seconds=10)
        self.live.clock.advance(34.9)
        self.assertEqual(client.closed, [])
        self.live.clock.advance(0.2)
        self.assertEqual(self.closed(client), 3005)

    def test_a_connection_is_refreshed(self) -> None:
        client = self.connect(seconds=10)
        reply = client.ask(refresh={"token": self.server.token(sub="alice", seconds=100)})
        self.assertEqual(reply, {"refresh": {"client": "client1", "expires": True, "ttl": 100}})
        self.live.clock.advance(100)
        self.assertEqual(client.closed, [])

    def test_refreshes_that_close(self) -> None:
        for claims, code in (({"sub": "bob"}, 3500), ({"sub": "alice", "exp": 1}, 3005)):
            client = self.connect(seconds=10)
            client.send(refresh={"token": self.server.token(**claims)})
            self.assertEqual(self.closed(client), code)
        client = self.connect(seconds=10)
        client.send(refresh={"token": "x"})
        self.assertEqual(self.closed(client), 3500)


class ServerSubscriptionTests(CentrifugeCase):
    """The server subscribes a client by its token (W-67)."""

    def test_in_the_reply(self) -> None:
        client = self.server.open()
        token = self.server.token(sub="alice", subs={"a": {"data": {"n": 1}}, "b": None})
        reply = client.connect(token=token)["connect"]
        self.assertEqual(set(reply["subs"]), {"a", "b"})
        self.assertEqual(reply["subs"]["a"]["data"], {"n": 1})
        self.publish("a", 1)
        self.assertEqual(self.received(client), [1])

    def test_recovered(self) -> None:
        self.publish("a", 1, 2)
        client = self.server.open()
        subs = {"a": {"recover": True, "offset": 1, "epoch": "epoch1"}}
        token = self.server.token(sub="alice", channels=["a"])
        reply = client.connect(token=token, subs=subs)["connect"]["subs"]["a"]
        self.assertEqual(reply["publications"], [{"data": 2, "offset": 2}])
        self.assertTrue(reply["recovered"])

    def test_a_channel_that_is_unknown(self) -> None:
        client = self.server.open()
        reply = client.connect(token=self.server.token(sub="alice", channels=["none:a"]))
        self.assertEqual(self.error(reply), 102)
        self.assertEqual(self.live.service.clients, 0)

    def test_later(self) -> None:
        from kupool.live.centrifuge.tokens import ServerSubscription

        client = self.server.client()
        adding = client.client.subscriptions.add("a", ServerSubscription(data=b"1"), 0.0)
        self.live.turns()
        self.successResultOf(adding)
        self.publish("a", 2)
        subscribe, publication = client.taken()
        self.assertEqual(subscribe["push"]["channel"], "a")
        self.assertEqual(subscribe["push"]["subscribe"]["data"], 1)
        self.assertEqual(publication["push"]["pub"]["data"], 2)
        client.client.subscriptions.remove("a")
        [message] = client.taken()
        self.assertEqual(message["push"]["unsubscribe"]["code"], 2000)


class PublishTests(CentrifugeCase):
    """Clients publish where they may (W-72)."""

    def test_own_publication_comes_first(self) -> None:
        client = self.server.client(token=self.server.token(sub="alice", info=1))
        client.ask(subscribe={"channel": "a"})
        client.send(publish={"channel": "a", "data": {"n": 1}})
        push, reply = client.taken()
        info = {"user": "alice", "client": "client1", "conn_info": 1}
        self.assertEqual(push["push"]["pub"], {"data": {"n": 1}, "info": info, "offset": 1})
        self.assertEqual(reply, {"id": 3, "publish": {}})

    def test_refused(self) -> None:
        self.denied.add(("publish", "a"))
        client = self.server.client()
        for request, code in (
            ({"channel": "a", "data": 1}, 103),
            ({"channel": "b"}, 107),
            ({"channel": "b", "data": None}, 107),
            ({"channel": "b", "data": 1, "type": 1}, 108),
            ({"channel": "plain:a", "data": 1}, 103),
            ({"channel": "b", "data": "x" * 70_000}, 107),
        ):
            self.assertEqual(self.error(client.ask(publish=request)), code, request)


class PresenceTests(CentrifugeCase):
    """Who is there (W-76)."""

    def test_who(self) -> None:
        alice = self.server.client(token=self.server.token(sub="alice", info={"n": 1}))
        other = self.server.client()
        alice.ask(subscribe={"channel": "a"})
        found = other.ask(presence={"channel": "a"})["presence"]["presence"]
        expected = {"client1": {"user": "alice", "client": "client1", "conn_info": {"n": 1}}}
        self.assertEqual(found, expected)
        stats = other.ask(presence_stats={"channel": "a"})["presence_stats"]
        self.assertEqual(stats, {"num_clients": 1, "num_users": 1})

    def test_not_available(self) -> None:
        client = self.server.client()
        for command in ("presence", "presence_stats", "history"):
            self.assertEqual(self.error(client.ask(**{command: {"channel": "plain:a"}})), 108)

    def test_forbidden(self) -> None:
        self.denied.update((action, "a") for action in ("presence", "history"))
        client = self.server.client()
        for command in ("presence", "presence_stats", "history"):
            self.assertEqual(self.error(client.ask(**{command: {"channel": "a"}})), 103)

    def test_joins_and_leaves(self) -> None:
        first = self.server.client()
        first.send(subscribe={"channel": "a", "join_leave": True})
        reply, own = first.taken()
        self.assertEqual((reply["id"], own["push"]["join"]["info"]["client"]), (2, "client1"))
        second = self.server.client(token=self.server.token(sub="bob"))
        second.ask(subscribe={"channel": "a"})
        info = {"user": "bob", "client": "client2"}
        self.assertIn({"push": {"channel": "a", "join": {"info": info}}}, first.taken())
        second.cut()
        self.assertEqual(first.taken(), [{"push": {"channel": "a", "leave": {"info": info}}}])


class HistoryTests(CentrifugeCase):
    """The history of a channel (W-75)."""

    def setUp(self) -> None:
        super().setUp()
        self.publish("a", *range(1, 6))
        self.client = self.server.client()

    def history(self, **request: Any) -> tuple[list[Any], int]:
        reply = self.client.ask(history={"channel": "a", **request})["history"]
        return [each["data"] for each in reply["publications"]], reply["offset"]

    def test_parts(self) -> None:
        since = {"offset": 3, "epoch": "epoch1"}
        self.assertEqual(self.history(), ([], 5))
        self.assertEqual(self.history(limit=-1), ([1, 2, 3, 4, 5], 5))
        self.assertEqual(self.history(limit=2, reverse=True), ([5, 4], 5))
        self.assertEqual(self.history(limit=10, since=since), ([4, 5], 5))
        self.assertEqual(self.history(limit=10, since=since, reverse=True), ([2, 1], 5))

    def test_another_epoch(self) -> None:
        since = {"offset": 3, "epoch": "other"}
        reply = self.client.ask(history={"channel": "a", "limit": 1, "since": since})
        self.assertEqual(self.error(reply), 112)


class RpcTests(CentrifugeCase):
    """Calls of the server's methods (W-25)."""

    def test_called(self) -> None:
        self.server.results["stats"] = succeed(b'{"n":1}')
        client = self.server.client(token=self.server.token(sub="alice"))
        reply = client.ask(rpc={"method": "stats", "data": {"of": 1}})
        self.assertEqual(reply, {"rpc": {"data": {"n": 1}}})
        self.assertEqual(self.server.called, [("alice", "stats", b'{"of": 1}')])

    def test_unknown(self) -> None:
        client = self.server.client()
        self.assertEqual(self.error(client.ask(rpc={"method": "none"})), 108)
        self.assertEqual(self.error(client.ask(rpc={})), 108)

    def test_queued_before_connect(self) -> None:
        client = self.server.open()
        client.raw('{"connect":{},"id":1}\n{"rpc":{"method":"none"},"id":2}')
        self.assertEqual(client.taken()[1]["error"]["code"], 108)

    def test_an_error_of_the_method(self) -> None:
        self.server.results["bad"] = fail(RpcFailed(432, "bad params"))
        reply = self.server.client().ask(rpc={"method": "bad"})
        self.assertEqual(reply["error"], {"code": 432, "message": "bad params"})

    def test_an_unexpected_error(self) -> None:
        self.server.results["bad"] = fail(ZeroDivisionError("secret"))
        reply = self.server.client().ask(rpc={"method": "bad"})
        self.assertEqual(self.error(reply), 100)
        self.assertNotIn("secret", json.dumps(reply))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_others_need_not_wait(self) -> None:
        slow = self.server.results["slow"] = Deferred()
        client = self.server.client()
        number = client.send(rpc={"method": "slow"})
        client.ask(subscribe={"channel": "a"})
        slow.callback(b"1")
        self.assertEqual(client.taken(), [{"id": number, "rpc": {"data": 1}}])

    def test_too_many_at_once(self) -> None:
        cancelled: list[object] = []
        client = self.server.client()
        for _ in range(64):
            self.server.results["slow"] = Deferred(cancelled.append)
            client.send(rpc={"method": "slow"})
        self.assertEqual(self.error(client.ask(rpc={"method": "slow"})), 111)
        client.cut()
        self.assertEqual(len(cancelled), 64)

    def test_send_has_no_use(self) -> None:
        client = self.server.client()
        client.raw('{"send":{"data":1}}')
        self.assertEqual(self.closed(client), 3508)
