"""Live channels in the daemon: what it publishes, who may do what, and what the settings do."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.checks import check
from kupool.daemon.live_channels import PoolSnapshots, channels_of
from kupool.daemon.live_rules import channel_rules
from kupool.live.rules import ChannelKind, ChannelRule, ChannelRules
from kupool.live.wishes import SubscribeWishes
from kupool.net.testing import MemoryPeer
from kupool.settings import SettingError, load
from tests.fakes.daemon_case import PORT, DaemonCase, PasswordCase
from tests.fakes.live import LiveWorld


def notifications(peer: MemoryPeer, *methods: str) -> list[Any]:
    """Return the params of the notifications of some methods that a session got since then."""
    return [m["params"] for m in peer.messages() if m.get("method") in methods]


class LiveCase(DaemonCase):
    """A daemon whose sessions use live channels."""

    settings = {
        "live_rules": ["chat.* history_size=10 presence=on join_leave=on publish_by_clients=on"],
        "permissions": [
            "* channel.subscribe chat.*",
            "* channel.publish chat.*",
            "* channel.presence chat.*",
            "* channel.history chat.*",
        ],
    }

    def answer(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        reply = peer.ask(method, params)
        return reply["result"] if "error" not in reply else reply["code"]


class SessionTests(LiveCase):
    """Issue 17, build 4: our own protocol's methods."""

    def test_a_conversation(self) -> None:
        """W-25, W-67: subscribe, publish, unsubscribe; the next publication counts."""
        reader, writer = self.session("reader"), self.session("writer")
        begun = self.answer(reader, "subscribe", channel="chat.tea")
        self.assertEqual((begun["channel"], begun["offset"]), ("chat.tea", 0))
        self.assertEqual(
            self.answer(
                writer, "publish", channel="chat.tea", data={"text": "hi"}, priority=2, key="k"
            ),
            {"offset": 1},
        )
        (found,) = notifications(reader, "publication")
        client = found.pop("client")
        self.assertTrue(client)
        found.pop("time")
        self.assertEqual(
            found,
            {
                "channel": "chat.tea",
                "offset": 1,
                "data": {"text": "hi"},
                "priority": 2,
                "key": "k",
                "user": "writer",
            },
        )
        self.assertEqual(self.answer(reader, "unsubscribe", channel="chat.tea"), True)
        self.assertEqual(self.answer(reader, "unsubscribe", channel="chat.tea"), 35)
        self.answer(writer, "publish", channel="chat.tea", data=1)
        self.assertEqual(notifications(reader, "publication"), [])

    def test_a_session_that_comes_back(self) -> None:
        """W-75: it goes on where it was, or is told how many it has missed."""
        writer = self.session("writer")
        first = self.answer(self.session("r"), "subscribe", channel="chat.a")
        for number in range(14):
            self.answer(writer, "publish", channel="chat.a", data=number)
        reader = self.session("r2")
        found = self.answer(reader, "subscribe", channel="chat.a", offset=11, epoch=first["epoch"])
        self.assertEqual((found["recovered"], found["offset"]), (True, 11))
        self.network.settle()
        self.assertEqual([p["data"] for p in notifications(reader, "publication")], [11, 12, 13])
        late = self.session("r3")
        found = self.answer(late, "subscribe", channel="chat.a", offset=1, epoch=first["epoch"])
        self.assertEqual((found["recovered"], found["missed"]), (False, 3))
        self.network.settle()
        self.assertEqual(len(notifications(late, "publication")), 10)
        other = self.session("r4")
        found = self.answer(other, "subscribe", channel="chat.a", offset=1, epoch="another")
        self.assertEqual((found["recovered"], "missed" in found), (False, False))

    def test_from_a_time(self) -> None:
        """W-75: what was published from a time on."""
        writer = self.session("writer")
        for number in range(4):
            self.answer(writer, "publish", channel="chat.t", data=number)
            self.network.advance(1.0)
        at = (1.8e9 + self.network.seconds() - 2.5) * 1000
        reader = self.session("r")
        self.answer(reader, "subscribe", channel="chat.t", at=at)
        self.network.settle()
        self.assertEqual([p["data"] for p in notifications(reader, "publication")], [2, 3])

    def test_wishes(self) -> None:
        """W-66: priority, devices, types and tags; a wrong wish is refused by name."""
        reader, writer = self.session("reader"), self.session("writer")
        tags = {"key": "region", "cmp": "eq", "val": "eu"}
        self.answer(
            reader,
            "subscribe",
            channel="chat.w",
            min_priority=2,
            devices=["d1"],
            types=["hot"],
            tags=tags,
        )
        wanted = {"priority": 3, "device": "d1", "type": "hot", "tags": {"region": "eu"}}
        for change in ({}, {"priority": 1}, {"device": "d2"}, {"type": "cold"}, {"tags": {}}):
            fields = {**wanted, **change}
            self.answer(writer, "publish", channel="chat.w", data=fields, **fields)
        self.assertEqual([each["data"] for each in notifications(reader, "publication")], [wanted])
        for wrong in (
            {"policy": "none"},
            {"queue": "huge"},
            {"max_rate": -1},
            {"min_priority": 9},
            {"offset": 1, "at": 5},
            {"offset": -1},
            {"tags": {"op": "xor"}},
        ):
            self.assertEqual(self.answer(reader, "subscribe", channel="chat.x", **wrong), 32, wrong)

    def test_presence_and_history(self) -> None:
        """W-76: who is there; others learn who comes and goes."""
        one, two = self.session("one"), self.session("two")
        self.answer(one, "subscribe", channel="chat.p", join_leave=True)
        self.answer(two, "subscribe", channel="chat.p")
        found = self.answer(one, "presence", channel="chat.p")
        self.assertEqual((found["client_count"], found["user_count"]), (2, 2))
        self.assertEqual({each["user"] for each in found["clients"]}, {"one", "two"})
        two.close()
        self.network.settle()
        events = [(e["event"], e["user"]) for e in notifications(one, "presence")]
        self.assertEqual(events, [("joined", "one"), ("joined", "two"), ("left", "two")])
        for number in range(3):
            self.answer(one, "publish", channel="chat.p", data=number)
        found = self.answer(one, "history", channel="chat.p", limit=2, reverse=True)
        self.assertEqual([each["data"] for each in found["publications"]], [2, 1])
        self.assertEqual(found["offset"], 3)
        self.assertEqual(self.answer(one, "history", channel="chat.p", offset=1, epoch="other"), 40)

    def test_what_is_refused(self) -> None:
        """W-72: nothing is permitted by itself; names, limits and data are checked."""
        peer = self.session("alice")
        self.answer(peer, "subscribe", channel="chat.a")
        for method, params, code in (
            ("subscribe", {"channel": "chat.a"}, 36),
            ("subscribe", {"channel": "unknown"}, 35),
            ("subscribe", {"channel": "submissions"}, 33),
            ("subscribe", {"channel": "server"}, 33),
            ("subscribe", {"channel": "users.alice"}, 33),
            ("subscribe", {"channel": ""}, 32),
            ("subscribe", {"channel": "ü"}, 32),
            ("subscribe", {}, 32),
            ("publish", {"channel": "pool", "data": 1}, 33),
            ("publish", {"channel": "chat.a"}, 32),
            ("publish", {"channel": "chat.a", "data": 1, "priority": 7}, 32),
            ("presence", {"channel": "pool"}, 33),
            ("history", {"channel": "chat.a", "limit": -1}, 32),
        ):
            self.assertEqual(self.answer(peer, method, **params), code, (method, params))
        for number in range(127):
            self.answer(peer, "subscribe", channel=f"chat.{number}")
        self.assertEqual(self.answer(peer, "subscribe", channel="chat.more"), 34)

    def test_too_fast(self) -> None:
        """W-32: a session may ask only so often."""
        peer = self.session("alice")
        codes = [self.answer(peer, "unsubscribe", channel="a") for _ in range(150)]
        self.assertIn(34, codes)

    def test_nothing_is_left_of_a_session(self) -> None:
        """W-12: its subscriptions and its place end with the connection."""
        live = self.daemon.parts.live
        assert live is not None
        for _ in range(20):
            peer = self.session("alice")
            self.answer(peer, "subscribe", channel="chat.a")
            self.assertEqual(live.service.clients, 1)
            peer.abort()
            self.network.settle()
            self.assertEqual(live.service.clients, 0)
        self.assertEqual(live.service.channels(), [])


class ProductChannelTests(LiveCase):
    """Issue 17, build 5: the channels of the product."""

    def test_snapshots_while_somebody_listens(self) -> None:
        """W-01: anybody hears of the pool at once, and then every few seconds."""
        self.assertEqual(len(self.daemon.parts.live.service.channels()), 0)
        peer = self.session("alice")
        self.answer(peer, "subscribe", channel="pool")
        self.network.advance(11.0)
        found = notifications(peer, "publication")
        self.assertEqual(len(found), 3)
        self.assertEqual(found[0]["data"]["sessions"], 1)
        self.assertEqual(set(found[0]["data"]["last_minute"]), {"users", "accepted"})
        second = self.session("bob")
        self.answer(second, "subscribe", channel="pool")
        self.assertEqual(len(notifications(second, "publication")), 1, "the newest one, at once")
        for each in (peer, second):
            self.answer(each, "unsubscribe", channel="pool")
        before = self.daemon.parts.live.service.publications
        self.network.advance(30.0)
        jobs = 1
        self.assertLessEqual(self.daemon.parts.live.service.publications, before + jobs)

    def test_jobs(self) -> None:
        """W-35: each new job, with the id that the bus gives it."""
        peer = self.session("alice")
        self.answer(peer, "subscribe", channel="jobs")
        self.network.advance(31.0)
        (found,) = notifications(peer, "publication")
        self.assertEqual(found["event_id"], f"job/{found['data']['job_id']}")

    def test_nothing_is_made_for_nobody(self) -> None:
        """X-05: submissions cost nothing while no channel of a user or worker has subscribers."""
        self.assertFalse(self.told())


class BrokenReceiverTests(DaemonCase):
    """X-05: who consumes events of the pool never affects submissions."""

    def submit(self, peer: MemoryPeer, job: Any, nonce: str) -> Any:
        text = job["server_nonce"] + nonce
        params = {
            "job_id": job["job_id"],
            "client_nonce": nonce,
            "result": sha256(text.encode()).hexdigest(),
        }
        request = peer.request("submit", params)
        self.network.advance(0.1)
        (answer,) = [each for each in peer.messages() if each.get("id") == request]
        return answer

    def test_live_channels_that_fail(self) -> None:
        """Whatever they raise, sessions come, get jobs, submit and go, and the bus hears of it."""
        live = self.daemon.parts.live
        assert live is not None
        listener = self.session("listener")
        self.ask(listener, "subscribe", topics=["kupool.job"])

        def fail(*_: object) -> None:
            raise RuntimeError("live channels are broken")

        live.events.wants_accepted = True
        for name in ("job", "accepted", "opened", "closed"):
            self.patch(live.events, name, fail)
        peer = self.network.connect(PORT, "line")
        self.assertIs(peer.ask("authorize", {"username": "alice"})["result"], True)
        (job,) = [each["params"] for each in peer.messages() if each.get("method") == "job"]
        self.assertIs(self.submit(peer, job, "n")["result"], True)
        self.assertEqual(self.submit(peer, job, "n")["error"], "Duplicate submission")
        self.network.advance(31.0)
        (later,) = [each["params"] for each in peer.messages() if each.get("method") == "job"]
        self.assertIs(self.submit(peer, later, "m")["result"], True)
        peer.close()
        self.network.settle()
        self.assertEqual([m["method"] for m in listener.messages()].count("call"), 1)
        errors = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(len(errors), 5, "opened, accepted, job, accepted, closed")

    def test_watchers_that_are_cut(self) -> None:
        """A dashboard that reads nothing, and one that is cut while it gets something."""
        watchers = [self.session(f"w{number}") for number in range(2)]
        for watcher in watchers:
            self.assertNotIn("code", watcher.ask("subscribe", {"channel": "pool"}))
        peer = self.network.connect(PORT, "line")
        peer.ask("authorize", {"username": "alice"})
        (job,) = [each["params"] for each in peer.messages() if each.get("method") == "job"]
        watchers[0].stop_reading()
        for number in range(20):
            if number == 10:
                watchers[1].abort()
            self.assertIs(self.submit(peer, job, str(number))["result"], True)
            self.network.advance(5.0) if number < 3 else None


class OwnChannelTests(PasswordCase):
    """W-29, W-72: a user's channels are for that user and operators."""

    users = ("alice", "bob", "root")
    settings = {
        "permissions": [
            "root channel.subscribe >",
            "root channel.history >",
        ],
        "live_rules": ["news history_size=5"],
    }

    def reload(self, **settings: Any) -> None:
        super().reload(**settings)
        self.network.settle()

    def subscribe(self, peer: MemoryPeer, channel: str) -> int:
        return self.code(peer, "subscribe", channel=channel)

    def test_of_a_user(self) -> None:
        """W-33, W-35: a worker comes, submits and goes; its user hears it on both channels."""
        alice = self.user("alice")
        self.assertEqual(self.subscribe(alice, "users.alice"), 0)
        self.assertEqual(self.subscribe(alice, "workers.alice.rig1"), 0)
        self.assertEqual(self.subscribe(alice, "users.bob"), 33)
        self.assertEqual(self.subscribe(alice, "workers.bob.rig1"), 33)
        self.assertTrue(self.told())
        rig = self.session("alice.rig1", password="secret")
        self.network.settle()
        rig.close()
        self.network.settle()
        found = [(p["channel"], p["type"]) for p in notifications(alice, "publication")]
        self.assertEqual(
            found,
            [
                ("users.alice", "online"),
                ("workers.alice.rig1", "online"),
                ("users.alice", "offline"),
                ("workers.alice.rig1", "offline"),
            ],
        )
        alice.close()
        self.network.settle()
        self.assertFalse(self.told())

    def test_from_timed_to_events(self) -> None:
        """W-91, W-68: a client that had snapshots, and now wants the events of all its workers,
        only subscribes to another channel, on the same connection.
        """
        alice = self.user("alice")
        self.assertEqual(self.subscribe(alice, "pool"), 0)
        self.network.advance(6.0)
        self.assertEqual({p["channel"] for p in notifications(alice, "publication")}, {"pool"})
        self.assertEqual(self.code(alice, "unsubscribe", channel="pool"), 0)
        self.assertEqual(self.subscribe(alice, "users.alice"), 0)
        for rig in ("rig1", "rig2"):
            self.session(f"alice.{rig}", password="secret")
        self.network.advance(6.0)
        found = [(p["channel"], p["data"]["username"]) for p in notifications(alice, "publication")]
        self.assertEqual(found, [("users.alice", "alice.rig1"), ("users.alice", "alice.rig2")])

    def test_names_that_could_be_those_of_others(self) -> None:
        """W-72: nothing is published under a name that others may subscribe to."""
        self.assertEqual(channels_of("alice"), ("users.alice",))
        self.assertEqual(channels_of("alice.rig"), ("users.alice", "workers.alice.rig"))
        for name in ("alice.x.rig", "a b.rig", "a*.rig", "x:y", "ü.rig", "a" * 255):
            self.assertEqual(channels_of(name), (), name)

    def test_the_server_tells_of_itself(self) -> None:
        """W-35: reloads, and what is wrong."""
        root = self.user("root")
        self.assertEqual(self.subscribe(root, "server"), 0)
        self.reload(live_rate="50")
        (found,) = notifications(root, "publication")
        self.assertEqual(found["data"]["type"], "reloaded")
        self.assertIn("live_rate", found["data"]["changed"])

    def test_a_reload_of_rules_and_permissions(self) -> None:
        """W-03, W-72: subscriptions end that are not allowed any more; others stay."""
        root = self.user("root")
        for channel in ("news", "pool", "server"):
            self.assertEqual(self.subscribe(root, channel), 0)
        self.reload(permissions=["root channel.subscribe news"])
        ended = notifications(root, "unsubscribed")
        self.assertEqual(ended, [{"channel": "server", "reason": "forbidden"}])
        self.reload(permissions=["root channel.subscribe news"], live_rules=["news history_size=9"])
        ended = notifications(root, "unsubscribed")
        self.assertEqual(ended, [{"channel": "news", "reason": "insufficient"}])
        self.assertEqual(self.subscribe(root, "news"), 0)
        self.reload(permissions=["root channel.subscribe news"], live_rules=[])
        ended = notifications(root, "unsubscribed")
        self.assertEqual(ended, [{"channel": "news", "reason": "forbidden"}])
        self.assertEqual(self.subscribe(root, "news"), 35)

    def test_the_defaults_of_rules(self) -> None:
        """W-75: what a rule does not say about its history, the settings say."""
        rules = ["a", "b history_size=0"]
        self.reload(live_rules=rules, live_history_size="7", live_history_time="9s")
        rules = ChannelRules(channel_rules(self.daemon.settings))
        self.assertEqual((rules.of("a").history_size, rules.of("a").history_time), (7, 9.0))
        self.assertEqual(rules.of("b").history_size, 0)


class SweepOfDaemonTests(LiveCase):
    """W-11: the daemon sweeps, also without an HTTP API."""

    settings = {**LiveCase.settings, "live_sweep_interval": "5m", "idle_timeout": "0"}

    def test_what_a_session_has_left(self) -> None:
        """It has ended, and the methods of sessions were not told."""
        live = self.daemon.parts.live
        assert live is not None
        peer = self.session("reader")
        self.answer(peer, "subscribe", channel="chat.a")
        (work,) = live.methods._work.values()
        work.session.disconnect()
        for _ in range(2):
            self.assertEqual(len(live.methods._work), 1)
            self.network.advance(300.0)
        self.network.settle()
        self.assertEqual((live.methods._work, live.sweep.found), ({}, {"calls": 1}))
        self.assertEqual(live.service.clients, 0)
        self.assertEqual(self.answer(peer, "subscribe", channel="chat.a")["offset"], 0)

    def test_the_audit_runs_too(self) -> None:
        """W-60: each ten minutes, by default."""
        live = self.daemon.parts.live
        assert live is not None
        assert live.audit is not None
        self.network.advance(600.0)
        self.network.settle()
        self.assertEqual((live.audit.audits, live.sweep.sweeps), (1, 2))
        self.assertEqual(live.audit._found, {}, "the daemon's own topics have no event ids")


class SequenceOfSessionTests(LiveCase):
    """W-52: a session gives the sequence of its device, and who listens gets it."""

    def test_on_the_wire(self) -> None:
        reader, writer = self.session("reader"), self.session("writer")
        self.answer(reader, "subscribe", channel="chat.a")
        event = {"channel": "chat.a", "data": 1, "device": "d"}
        self.answer(writer, "publish", **event)
        self.answer(writer, "publish", **event, sequence=4)
        found = [each["sequence"] for each in notifications(reader, "publication")]
        self.assertEqual(found, [1, 4])
        shown = self.answer(reader, "history", channel="chat.a")["publications"]
        self.assertEqual([each["sequence"] for each in shown], [1, 4])
        live = self.daemon.parts.live
        assert live is not None
        self.assertEqual(live.service.sequences.shown()["missing"], 2)

    def test_numbers_that_are_none(self) -> None:
        writer = self.session("writer")
        for more in (
            {"sequence": -1, "device": "d"},
            {"sequence": 2**63, "device": "d"},
            {"sequence": 1},
        ):
            refused = writer.ask("publish", {"channel": "chat.a", "data": 1, **more})
            self.assertEqual(refused["code"], 32)
            self.assertIn("sequence: expected 1 or more", refused["error"])


class OffTests(DaemonCase):
    """X-02: each part can be turned off."""

    settings = {"live": "off"}

    def test_off(self) -> None:
        self.assertIsNone(self.daemon.parts.live)
        self.assertEqual(self.session().ask("subscribe", {"channel": "pool"})["code"], 31)


class SnapshotTests(SynchronousTestCase):
    """W-02, W-04, W-05: snapshots that are read slowly, fail, or come at another pace."""

    def setUp(self) -> None:
        self.world = LiveWorld(ChannelRule(pattern="pool", kind=ChannelKind.LATEST))
        self.answers: list[Deferred[object]] = []
        self.answer: Any = lambda: succeed({"n": 1})
        self.snapshots = PoolSnapshots(
            self.world.service, self.world.clock, lambda: self.answer(), 6.0
        )
        self.client, self.session = self.world.client()

    def listen(self) -> None:
        outcome = self.successResultOf(self.session.subscribe("pool", SubscribeWishes()))
        outcome.subscription.start()
        self.world.turns()

    def test_late_ones_are_skipped(self) -> None:
        """W-02, W-05: one at a time is read; ticks meanwhile are counted, and do not pile up."""
        waiting: Deferred[object] = Deferred()
        self.answer = lambda: waiting
        self.listen()
        self.world.clock.pump([6.0] * 3)
        self.assertEqual((self.snapshots.skipped, self.client.data()), (3, []))
        waiting.callback({"n": 2})
        self.assertEqual(self.client.data(), [{"n": 2}])
        self.answer = lambda: fail(ValueError("no store"))
        self.world.clock.pump([6.0])
        self.assertEqual((self.snapshots.skipped, self.client.data()), (4, []))
        self.answer = lambda: succeed({"n": 3})
        self.world.clock.pump([6.0])
        self.assertEqual(self.client.data(), [{"n": 3}])

    def test_another_pace(self) -> None:
        """W-04: it changes at once, whether somebody listens or not."""
        self.snapshots.interval = 100.0
        self.listen()
        self.assertEqual(len(self.client.data()), 1)
        self.world.clock.pump([50.0])
        self.assertEqual(self.client.data(), [])
        self.snapshots.interval = 2.0
        self.world.clock.pump([2.0, 2.0])
        self.assertEqual(len(self.client.data()), 2)
        self.session.disconnect()
        self.assertEqual([c for c in self.world.clock.calls if c.func == self.snapshots._tick], [])


class CheckTests(SynchronousTestCase):
    """Issue 17: settings that no channel can go by are refused with the reason."""

    def test_refused(self) -> None:
        for settings, said in (
            ({"live_rules": ["a b=1"]}, "live_rules: rule 1: 'a b=1': 'b=1' is no option"),
            ({"live_rules": ["a presence=maybe"]}, "presence: expected on or off"),
            ({"live_rules": ["a kind=durable"]}, "topic: a durable channel needs one"),
            ({"live_rules": ["a kind=durable topic=t"], "topics": "off"}, "needs --topics"),
            ({"live_rules": ["x=1"]}, "expected a pattern"),
            ({"live_rules": ["a queue=huge"]}, "queue: expected one of"),
            ({"live_token_secret": "short"}, "live_token_secret: a secret for tokens has"),
        ):
            with self.assertRaises(SettingError) as caught:
                check(load(settings, {}))
            self.assertIn(said, str(caught.exception))

    def test_a_rule_as_a_mapping(self) -> None:
        """Issue 17: in a file a rule may be a mapping."""
        path = self.mktemp()
        with open(path, "w") as file:
            json.dump(
                {"live_rules": [{"pattern": "news.*", "history_size": 10, "presence": True}]}, file
            )
        loaded = load({"config": path}, {})
        self.assertEqual(loaded.settings.live.rules, ("news.* history_size=10 presence=on",))
        check(loaded)
