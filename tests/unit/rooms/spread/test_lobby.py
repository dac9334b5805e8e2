"""Rooms spread over hosts: one bus, several lobbies, a fake clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.bus import SILENCE, BusError, ChannelSettings, Kind, Message, Model, Outcome
from kupool.bus.channels import IncomingChannels
from kupool.bus.local import LocalBus
from kupool.bus.members import STEP_DOWN
from kupool.errors import RequestError
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.routing.router import Router
from kupool.rooms.events import Closing, TakenOver
from kupool.rooms.matchmaking import MatchRequest
from kupool.rooms.membership import Disconnected, Joined, Left, Returned
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.settings import RoomSettings
from kupool.rooms.spread import ISpreadHooks
from kupool.rooms.spread.entries import AnyEntry, Ask, Everyone
from kupool.rooms.spread.hosts import HostExists
from kupool.rooms.spread.lobby import SpreadLobby
from kupool.rooms.spread.packing import RequestPacking
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.settings import SpreadSettings
from kupool.session.outbox import EventPolicy
from kupool.wire.framing import LINE
from tests.fakes.peers import PeerTransport
from tests.fakes.raising import ENDINGS, raising
from tests.servers.rooms_host import Hooks


class Peer:
    """A client of one host; speaks lines."""

    def __init__(self, host: Host, address: str = "192.0.2.1") -> None:
        self.host = host
        self.transport = PeerTransport()
        self.connection = host.manager.admit(self.transport, address, LINE)
        self.number = 0

    def tell(self, **params: Any) -> int:
        self.number += 1
        request = {"id": self.number, "method": "do", "params": params}
        self.connection.feed(json.dumps(request).encode() + b"\n")
        return self.number

    def messages(self) -> list[Any]:
        return [json.loads(line) for line in self.transport.taken().splitlines()]

    def ask(self, patience: float = 0.1, **params: Any) -> Any:
        """Tell something; returns the answer, or its error's text."""
        number = self.tell(**params)
        self.host.world.advance(patience)
        (answer,) = [m for m in self.messages() if m["id"] == number]
        return answer.get("error", answer["result"])

    def news(self) -> list[Any]:
        self.host.world.advance(0.1)
        return [m["params"] for m in self.messages() if m["id"] is None]

    def lost(self) -> None:
        self.connection.lost(Failure(ConnectionDone()))


class BadBus:
    """A bus that can be cut off, lose what it is given, and repeat it.

    As every bus does, it tells who is cut off so before it tells the others.
    """

    def __init__(self, bus: LocalBus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._cut = self._deaf = False
        self.lose_every = self.repeat_every = 0
        self.calls = 0
        self._handlers: dict[Any, Any] = {}
        #: How to subscribe each handler again after it was dropped.
        self._wanted: dict[Any, Any] = {}
        self._watches: dict[Any, Any] = {}
        self._timers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    @property
    def cut(self) -> bool:
        return self._cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self._cut = cut
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        if cut:
            steps = (STEP_DOWN, self.step_down), (SILENCE, self._drop)
            self._timers = [self._clock.callLater(seconds, call) for seconds, call in steps]
        else:
            self._deaf = False
            for again in self._wanted.values():
                again()
            for tell in self._watches.values():
                tell()

    def step_down(self) -> None:
        self._deaf = True
        for tell in list(self._watches.values()):
            tell()

    def _drop(self) -> None:
        for handler in self._handlers.values():
            self._bus.unsubscribe(handler)

    def publish_reliable_random(
        self, data: bytes, topic: Any, timeout: float | None = None, **options: Any
    ) -> Any:
        self.calls += 1
        if self.cut or (self.lose_every and self.calls % self.lose_every == 0):
            late: Deferred[Outcome] = Deferred()
            call = self._clock.callLater(timeout or 3, late.callback, Outcome(Kind.TIMEOUT))
            late.addErrback(lambda cancelled: call.cancel())
            return late
        if self.repeat_every and self.calls % self.repeat_every == 0:
            self._bus.publish_reliable_random(data, topic, timeout, **options)
        return self._bus.publish_reliable_random(data, topic, timeout, **options)

    def subscribe(self, topics: Any, handler: Any, **options: Any) -> Any:
        def unless_cut(message: Any) -> Any:
            return Deferred() if self.cut else handler(message)

        self._handlers[handler] = unless_cut
        self._wanted[handler] = lambda: self._bus.subscribe(topics, unless_cut, **options)
        return succeed(None) if self._deaf else self._wanted[handler]()

    def unsubscribe(self, handler: Any, topics: Any = None) -> Any:
        self._wanted.pop(handler, None)
        if self.cut:
            return Deferred()
        return self._bus.unsubscribe(self._handlers.pop(handler), topics)

    def watch(self, topic: Any, told: Any) -> Any:
        members: list[Any] = [None]

        def tell(*changed: Any) -> None:
            members[:] = changed or members
            told(None if self._deaf else members[0])

        self._watches[told] = tell
        return self._bus.watch(topic, tell)

    def unwatch(self, told: Any) -> Any:
        return self._bus.unwatch(self._watches.pop(told))


class Host:
    def __init__(self, world: World, name: str, settings: RoomSettings, bus: Any = None) -> None:
        self.world = world
        self.hooks = Hooks()
        router = Router()
        self.lobby = SpreadLobby(
            world.clock,
            bus or world.bus,
            self.hooks,
            RequestPacking(router),
            settings=settings,
            host=name,
            wall=world.clock.seconds,
        )
        router.add("do", self.lobby.request, dict)
        observer = LobbyObserver(router, self.lobby)
        self.manager = ConnectionManager(
            world.clock, observer, ServerSettings(max_connections=0, idle_timeout=0)
        )
        self.started = Deferred.fromCoroutine(self.lobby.start())

    @property
    def codes(self) -> set[str]:
        return {room.code for room in self.lobby}


class World:
    """Hosts on one bus; ``kill`` lets one hear and say nothing more."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bus = LocalBus(self.clock, wall=self.clock.seconds)
        self.hosts: dict[str, Host] = {}

    def add(self, name: str, settings: RoomSettings | None = None, bus: Any = None) -> Host:
        host = self.hosts[name] = Host(self, name, settings or RoomSettings(), bus)
        self.advance(1.2)
        return host

    def cuttable(self, name: str, **trouble: int) -> tuple[Host, BadBus]:
        bus = BadBus(self.bus, self.clock)
        host = self.add(name, bus=bus)
        bus.__dict__.update(trouble)
        return host, bus

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))
        self.clock.pump([0] * 20)

    def code_of(self, name: str, *, then: str = "", of: str = "") -> str:
        """A code that belongs to a host; and to ``then`` as soon as only ``of`` are there."""
        now, later = Ring(self.hosts), Ring(of or self.hosts)
        codes = (f"room {n}" for n in range(10_000))
        return next(c for c in codes if now.owner(c) == name and later.owner(c) == (then or name))


class RingTests(SynchronousTestCase):
    """A-51: only its share moves when a host comes or goes."""

    codes = [f"room {n}" for n in range(20_000)]

    def test_shares_are_even(self) -> None:
        ring = Ring(["a", "b", "c", "d"])
        shares = Counter(ring.owner(code) for code in self.codes)
        for share in shares.values():
            self.assertLess(abs(share / len(self.codes) - 0.25), 0.06)

    def test_only_a_share_moves(self) -> None:
        before, after = Ring("abcd"), Ring("abcde")
        moved = [c for c in self.codes if before.owner(c) != after.owner(c)]
        self.assertEqual({after.owner(code) for code in moved}, {"e"})
        self.assertLess(abs(len(moved) / len(self.codes) - 0.2), 0.06)

    @given(st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=6), st.text(max_size=9))
    def test_taking_a_host_away_moves_nothing_else(self, hosts: set[str], code: str) -> None:
        ring = Ring(hosts, 16)
        owner = ring.owner(code)
        for host in hosts - {owner}:
            self.assertEqual(Ring(hosts - {host}, 16).owner(code), owner)

    def test_it_is_the_same_in_every_process(self) -> None:
        """The hash is no Python's: these owners stay what they are."""
        ring = Ring(["a", "b", "c"])
        self.assertEqual([ring.owner(c) for c in ("tea", "coffee", "")], ["b", "a", "a"])
        self.assertIsNone(Ring().owner("tea"))


class SpreadTests(SynchronousTestCase):
    """A-51: rooms of all hosts are one, wherever the connection is."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.there = self.world.code_of("b")

    def test_hooks_fit_their_interface(self) -> None:
        self.assertTrue(verifyObject(ISpreadHooks, Hooks()))

    def test_members_of_one_room_at_several_hosts(self) -> None:
        self.assertEqual(self.a.lobby.hosts.ring.hosts, {"a", "b"})
        ann, bob = Peer(self.a), Peer(self.b)
        self.assertEqual(ann.ask(room=self.there, user="ann"), ["b", ["ann"], []])
        self.assertEqual(bob.ask(room=self.there, user="bob"), ["b", ["ann", "bob"], []])
        self.assertEqual(ann.ask(say="hello")[2], ["hello"])
        self.assertEqual((bob.news(), ann.news()), (["hello"], []))
        bob.ask(say="hi")
        self.assertEqual(ann.news(), ["hi"])
        self.assertEqual((self.a.codes, self.b.codes), (set(), {self.there}))

    def test_in_order_and_each_once(self) -> None:
        ann, bob = Peer(self.a), Peer(self.b)
        bob.ask(room=self.there, user="bob")
        ann.ask(room=self.there, user="ann")
        numbers = [ann.tell(say=n) for n in range(200)]
        self.world.advance(1)
        self.assertEqual([m["id"] for m in ann.messages()], numbers)
        self.assertEqual(bob.news(), list(range(200)))

    def test_answers_of_every_kind(self) -> None:
        ann = Peer(self.a)
        self.assertEqual(ann.ask(say="hello"), "forbidden")
        self.assertEqual(
            ann.ask(room="x" * 256, user="ann"), "bad params: a name has 1 to 255 characters"
        )
        ann.ask(room=self.there, user="ann")
        self.assertRegex(ann.ask(fail=True), "internal error, reference [0-9a-f]{16}")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(ann.ask(say="fine")[2], ["fine"])
        ann.connection.feed(b'{"id":null,"method":"do","params":{"say":"no answer"}}\n')
        self.assertEqual(ann.ask()[2], ["fine", "no answer"])

    def test_a_packing_that_fails(self) -> None:
        """Issue 12: it is the application's; whatever it raises, the sender is told of it."""
        for error in ENDINGS:
            for name in ("pack", "unpack", "pack_result"):
                ann = Peer(self.a)
                ann.ask(room=self.there, user="ann")
                patch = self.patch(RequestPacking, name, raising(error)[0])
                self.assertRegex(str(ann.ask(say="x")), "internal error, reference", name)
                patch.restore()
                self.assertEqual(len(self.flushLoggedErrors(error)), 1, name)
                self.assertEqual(ann.ask(say=name)[2][-1], name)
                ann.lost()

    def test_a_first_message_that_cannot_be_packed(self) -> None:
        """Issue 12: whoever it was of is in no room then."""
        for error in ENDINGS:
            ann = Peer(self.a)
            patch = self.patch(RequestPacking, "pack", raising(error)[0])
            self.assertRegex(ann.ask(room=self.there, user="ann"), "internal error, reference")
            patch.restore()
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.assertEqual(ann.ask(say="hello"), "forbidden")
            ann.lost()

    def test_one_who_is_sent_away_is_in_no_room(self) -> None:
        ann, bob = Peer(self.a), Peer(self.b)
        ann.ask(room=self.there, user="ann")
        bob.ask(room=self.there, user="bob")
        under_way = [ann.tell(say=n) for n in range(3)]
        bob.ask(kick="ann")
        late = [m for m in ann.messages() if m["id"] in under_way]
        self.assertEqual(len(late), 3, "each has an answer")
        self.assertEqual(bob.ask()[1], ["bob"], "and does not bring her back")
        self.assertEqual(ann.ask(say="hello"), "forbidden")
        self.assertEqual(ann.ask(room=self.there, user="ann")[1], ["bob", "ann"])
        self.assertEqual((len(self.a.lobby.seats), len(self.b.lobby.remote_peers)), (1, 1))

    def test_away_and_back_at_another_host(self) -> None:
        """A-46: the grace period, and the return, from wherever."""
        ann, bob = Peer(self.a), Peer(self.b)
        bob.ask(room=self.there, user="bob")
        ann.ask(room=self.there, user="ann")
        member = self.b.lobby.members.get("ann")
        ann.lost()
        self.world.advance(20)
        self.assertEqual(self.b.hooks.events[-1], Disconnected(member))
        again = Peer(self.b)
        again.ask(room=self.there, user="ann")
        self.assertEqual(self.b.hooks.events[-1], Returned(member))
        again.lost()
        self.world.advance(31)
        self.assertEqual(self.b.hooks.events[-1], Left(member, "gone"))

    def test_a_match_of_who_is_in_a_room_of_another_host(self) -> None:
        """A-50, issue 13: they come to the match, and are in one room."""
        ann, bob = Peer(self.a), Peer(self.b)
        bob.ask(room=self.there, user="bob")
        ann.ask(room=self.there, user="ann")
        request = MatchRequest("ann", "solo", 1, 10.0)
        self.patch(self.a.hooks, "on_parse_match", lambda connection, body: request)
        self.patch(
            self.a.hooks,
            "on_match_players",
            lambda lobby, outcome: lobby.gather(lobby.code_here("solo "), outcome),
        )
        self.a.lobby.match(ann.connection, None)
        self.world.advance(1)
        self.assertEqual(self.a.lobby.members.get("ann").connections, [ann.connection])
        self.assertEqual(len(self.a.lobby.seats), 0)
        self.assertFalse(self.b.lobby.members.get("ann").online)
        self.assertEqual(ann.ask()[0], "a")
        self.world.advance(31)
        self.assertIsNone(self.b.lobby.members.find("ann"))

    def test_a_move_of_who_is_at_another_host(self) -> None:
        """A-46: the connection does not follow; the member is away, and gone after a while."""
        ann, bob = Peer(self.a), Peer(self.b)
        bob.ask(room=self.there, user="bob")
        ann.ask(room=self.there, user="ann")
        code = self.b.lobby.code_here("other ")
        self.assertEqual(self.b.lobby.move("ann", code).connections, [])
        self.world.advance(1)
        self.assertEqual((len(self.a.lobby.seats), len(self.b.lobby.remote_peers)), (0, 0))
        self.world.advance(31)
        self.assertIsNone(self.b.lobby.members.find("ann"))
        self.assertIsNone(self.b.lobby.find(code))

    def test_two_connections_of_one_user(self) -> None:
        bob, here, there = Peer(self.b), Peer(self.a), Peer(self.b)
        bob.ask(room=self.there, user="bob")
        for peer in (here, there):
            peer.ask(room=self.there, user="ann")
        bob.ask(say="hello")
        self.assertEqual((here.news(), there.news()), (["hello"], ["hello"]))
        here.lost()
        bob.ask(say="again")
        self.assertEqual(there.news(), ["again"])
        self.assertEqual(self.b.lobby.send_user("ann", b"{}"), 1)

    def test_to_all_rooms_and_to_one_user_of_any_host(self) -> None:
        """A-45: over all hosts."""
        ann, bob = Peer(self.a), Peer(self.b)
        ann.ask(room=self.there, user="ann")
        bob.ask(room=self.world.code_of("a"), user="bob")
        self.a.lobby.notify("news", 1)
        self.assertEqual((ann.news(), bob.news()), ([1], [1]))
        payload = b'{"id":null,"method":"news","params":2}'
        self.assertEqual(self.a.lobby.send_user("ann", payload), 0)
        self.assertEqual((ann.news(), bob.news()), ([2], []))

    def test_a_room_belongs_to_one_host(self) -> None:
        self.assertRaises(RequestError, self.a.lobby.create, self.there)
        code = self.a.lobby.code_here("duel ")
        self.assertEqual(self.a.lobby.create(code).code, code)
        self.assertNotEqual(self.a.lobby.code_here("duel "), code)

    def test_a_flood_from_another_host_is_not_read(self) -> None:
        """A-48: as if the member were here; the others are answered."""
        ann, bob = Peer(self.a), Peer(self.a)
        bob.ask(room=self.world.code_of("b", then="b"), user="bob")
        ann.ask(room=self.there, user="ann")
        self.b.hooks.slow = gate = Deferred()
        for n in range(500):
            ann.tell(say=n)
        self.world.advance(0.5)
        self.assertFalse(ann.transport.reading)
        room = self.b.lobby.get(self.there)
        self.assertLessEqual(room.waiting, 2 * 64)
        self.b.hooks.slow = None
        gate.callback(None)
        self.world.advance(1)
        self.assertTrue(ann.transport.reading)
        self.assertEqual(room.data, list(range(500)))
        self.assertEqual(len(ann.messages()), 500)

    def test_an_answer_that_never_comes_is_a_timeout(self) -> None:
        ann = Peer(self.a)
        ann.ask(room=self.there, user="ann")
        self.b.hooks.slow = Deferred()
        ann.tell()
        self.world.advance(31)
        self.assertEqual(ann.messages()[0]["error"], "timeout")

    def test_nothing_is_left(self) -> None:
        """A-47, A-51: when everybody has gone no host remembers anybody."""
        for n in range(40):
            peers = [Peer(self.a), Peer(self.b)]
            for at, peer in enumerate(peers):
                peer.tell(room=f"room {n % 7}", user=f"user {n}.{at}")
            self.world.advance(0.1)
            for peer in peers:
                peer.lost()
        self.world.advance(32)
        for host in (self.a, self.b):
            lobby = host.lobby
            counts = (len(lobby), len(lobby.members), len(lobby.seats), len(lobby.remote_peers))
            self.assertEqual(counts, (0, 0, 0, 0))
            self.assertEqual((len(lobby.timers), lobby.exchange.waiting()), (0, 0))


class MovingTests(SynchronousTestCase):
    """A-51: hosts that come, go and die."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")

    def fill(self, number: int = 30) -> dict[str, Peer]:
        peers = {}
        for n in range(number):
            peer = peers[f"room {n}"] = Peer(self.a if n % 2 else self.b)
            peer.ask(room=f"room {n}", user=f"user {n}")
            peer.ask(say=n)
        return peers

    def at(self) -> dict[str, str]:
        """Where each room is; fails when one is in two places."""
        found = [(code, name) for name, host in self.world.hosts.items() for code in host.codes]
        self.assertEqual(len(found), len(dict(found)), sorted(found))
        return dict(found)

    def test_a_host_that_comes_gets_its_share_with_state_and_members(self) -> None:
        peers = self.fill()
        before = self.at()
        c = self.world.add("c")
        self.world.advance(1)
        after = self.at()
        ring = Ring("abc")
        self.assertEqual(after, {code: ring.owner(code) for code in before})
        moved = {code for code in before if before[code] != after[code]}
        self.assertEqual(moved, c.codes)
        self.assertTrue(0 < len(moved) < 20)
        for n, (code, peer) in enumerate(peers.items()):
            self.assertEqual(peer.ask(say="still"), [after[code], [f"user {n}"], [n, "still"]])
        closings = [e for host in (self.a, self.b) for e in host.hooks.events if type(e) is Closing]
        self.assertEqual(closings, [Closing("moved")] * len(moved))
        told = [e for e in c.hooks.events if type(e) is TakenOver]
        self.assertEqual(len(told), len(moved))
        self.assertEqual(type(c.hooks.events[c.hooks.events.index(told[0]) + 1]), Joined)

    def test_a_host_that_goes_hands_over_what_it_has(self) -> None:
        peers = self.fill()
        ended = Deferred.fromCoroutine(self.b.lobby.close())
        self.world.advance(2)
        self.assertEqual(self.successResultOf(ended), [])
        del self.world.hosts["b"]
        self.assertEqual(set(self.at().values()), {"a"})
        for n, (code, peer) in enumerate(peers.items()):
            if n % 2:  # those of the other host have lost their connections with it
                self.assertEqual(peer.ask(), ["a", [f"user {n}"], [n]], code)

    def test_messages_while_a_room_moves_have_an_answer(self) -> None:
        """Each is handled in the room, once, or refused; none is lost."""
        code = self.world.code_of("a", then="c", of="abc")
        ann, bob = Peer(self.a), Peer(self.b)
        ann.ask(room=code, user="ann")
        bob.ask(room=code, user="bob")
        self.world.hosts["c"] = c = Host(self.world, "c", RoomSettings())
        sent: dict[int, int] = {}
        answers: list[Any] = []
        for n in range(200):
            sent[bob.tell(say=n)] = n
            self.world.advance(0.01)
            answers += [m for m in bob.messages() if m["id"] in sent]
        self.world.advance(2)
        answers += [m for m in bob.messages() if m["id"] in sent]
        self.assertEqual(sorted(m["id"] for m in answers), sorted(sent))
        done = [sent[m["id"]] for m in answers if "error" not in m]
        refused = {m["error"] for m in answers if "error" in m}
        self.assertEqual(refused - {"Temporarily unavailable"}, set())
        self.assertEqual(ann.ask()[:2], ["c", ["ann", "bob"]])
        self.assertEqual(c.lobby.get(code).data, done)

    def test_who_joins_while_a_room_moves_finds_its_state(self) -> None:
        code = self.world.code_of("a", then="c", of="abc")
        ann = Peer(self.a)
        ann.ask(room=code, user="ann")
        ann.ask(say="before")
        self.a.hooks.slow = gate = Deferred()
        ann.tell(say="slow")
        self.world.advance(0.1)
        c = self.world.add("c")
        bob = Peer(c)
        bob.tell(room=code, user="bob")
        self.world.advance(2)
        self.assertEqual((bob.messages(), c.codes), ([], set()), "it waits")
        gate.callback("done")
        self.world.advance(0.5)
        (answer,) = [m for m in bob.messages() if m["id"]]
        self.assertEqual(answer["result"][2], ["before", "slow"])
        self.assertEqual(set(bob.ask()[1]), {"ann", "bob"})

    def test_members_of_a_dead_hosts_rooms_are_told(self) -> None:
        c, bus = self.world.cuttable("c")
        theirs, mine = self.world.code_of("c"), self.world.code_of("a")
        ann, eve = Peer(self.a), Peer(c)
        ann.ask(room=theirs, user="ann")
        eve.ask(room=mine, user="eve")
        bus.cut = True
        del self.world.hosts["c"]
        number = ann.tell(say="hello")
        self.world.advance(7)
        answer, lost = sorted(ann.messages(), key=lambda m: m["id"] is None)
        self.assertEqual((answer["id"], answer["code"]), (number, 35))
        told = {"room": theirs, "event": "lost", "user": "ann", "data": "host lost"}
        self.assertEqual(lost["params"], told)
        self.assertEqual(ann.ask(room=theirs, user="ann")[0], Ring("ab").owner(theirs))
        self.assertFalse(self.a.lobby.members.get("eve").online)
        self.world.advance(30)
        self.assertIsNone(self.a.lobby.members.find("eve"), "the grace period is over")
        self.assertEqual(len(self.a.lobby.remote_peers), 0)

    def test_a_host_that_is_cut_off_ends_its_rooms_before_the_others_have_them(self) -> None:
        c, bus = self.world.cuttable("c")
        code = self.world.code_of("c")
        eve, ann = Peer(c), Peer(self.a)
        eve.ask(room=code, user="eve")
        bus.cut = True
        ended = again = 0.0
        for _ in range(80):
            ann.tell(room=code, user="ann")
            self.world.advance(0.1)
            now = self.world.clock.seconds()
            self.at()
            ended = ended or (0 if c.codes else now)
            again = again or (now if self.a.codes | self.b.codes else 0)
        self.assertLess(ended, again)
        self.assertEqual([m["params"]["data"] for m in eve.messages()], ["cut off"])
        self.assertEqual(eve.ask(room=code, user="eve"), "Temporarily unavailable")
        bus.cut = False
        self.world.advance(4)
        self.assertEqual(self.a.lobby.hosts.ring.hosts, {"a", "b", "c"})
        self.assertEqual(self.at()[code], "c", "it has come back, with who is in it now")
        self.assertEqual(set(eve.ask(room=code, user="eve")[1]), {"ann", "eve"})

    def test_a_host_that_is_cut_off_hands_nothing_over(self) -> None:
        """Issue 13, acceptance 3: it is `cut off` for everybody there, whoever else it knew."""
        c, bus = self.world.cuttable("c")
        told: dict[str, Peer] = {}
        for n in range(30):
            peer = told[f"room {n}"] = Peer(c)
            peer.ask(room=f"room {n}", user=f"user {n}")
        self.assertEqual(set(self.at().values()), {"a", "b", "c"})
        handed: list[str] = []
        self.patch(c.hooks, "on_hand_over", lambda room: handed.append(room.code))
        bus.cut = True
        self.world.advance(STEP_DOWN + 1)
        self.assertEqual((c.codes, handed), (set(), []))
        closings = {e.reason for e in c.hooks.events if type(e) is Closing}
        self.assertEqual(closings, {"cut off"})
        for code, peer in told.items():
            (lost,) = [m["params"] for m in peer.messages() if m["id"] is None]
            self.assertEqual((lost["room"], lost["data"]), (code, "cut off"))

    def test_who_waits_for_a_room_at_a_host_that_is_cut_off(self) -> None:
        """Issue 13, acceptance 3: no room is made there any more, not even for a moment."""
        c, bus = self.world.cuttable("c")
        eve = Peer(c)
        no_answer = {**self.a.lobby._receivers, Ask: lambda host, entry: None}
        self.patch(self.a.lobby, "_receivers", no_answer)
        number = eve.tell(room=self.world.code_of("c", then="a", of="ab"), user="eve")
        self.world.advance(1)
        made: list[str] = []
        self.patch(c.hooks, "on_create_room", lambda room: made.append(room.code))
        bus.cut = True
        self.world.advance(STEP_DOWN + 1)
        (answer,) = [m for m in eve.messages() if m["id"] == number]
        self.assertEqual((answer["error"], made), ("Temporarily unavailable", []))

    def late(self, host: Host) -> Callable[[], object]:
        """Let a host hear no more who is there, until what this returns is called."""
        waiting: list[Any] = []
        told = host.lobby.hosts._told
        self.world.bus.unwatch(told)
        self.world.bus.watch(f"{host.lobby.spread.name}.members", waiting.append)
        return lambda: told(waiting[-1])

    def test_a_host_that_asks_before_it_is_known_to_serve(self) -> None:
        """Issue 13, acceptance 3: who has told it that there is no room makes none."""
        code = self.world.code_of("a", then="c", of="abc")
        self.world.hosts["c"] = c = Host(self.world, "c", RoomSettings())
        self.world.advance(0.5)
        self.assertIn("c", self.a.lobby.hosts)
        tell = self.late(self.a)
        self.world.advance(0.7)
        self.assertEqual(c.lobby.owner(code), "c")
        eve, ann = Peer(c), Peer(self.a)
        eve.tell(room=code, user="eve")
        self.world.advance(0.1)
        self.assertEqual(ann.ask(room=code, user="ann", say="early")[0], "c")
        self.assertEqual((self.a.codes, c.codes), (set(), {code}))
        self.assertEqual(self.a.lobby.hosts.ring.hosts, {"a", "b"})
        tell()
        self.world.advance(1)
        self.assertEqual(self.at(), {code: "c"})
        self.assertEqual(ann.ask(), ["c", ["eve", "ann"], ["early"]])

    def test_a_room_that_was_asked_for_early_is_not_made_again(self) -> None:
        """Issue 13, acceptance 3: nor where it was, and has been handed over."""
        code = self.world.code_of("a", then="c", of="abc")
        ann, bob = Peer(self.a), Peer(self.a)
        ann.ask(room=code, user="ann", say="before")
        self.world.hosts["c"] = c = Host(self.world, "c", RoomSettings())
        self.world.advance(0.5)
        tell = self.late(self.a)
        self.world.advance(0.7)
        eve = Peer(c)
        eve.tell(room=code, user="eve")
        self.world.advance(0.1)
        self.assertEqual(bob.ask(room=code, user="bob")[::2], ["c", ["before"]])
        tell()
        self.world.advance(1)
        self.assertEqual(self.at(), {code: "c"})
        self.assertEqual(set(eve.ask()[1]), {"ann", "bob", "eve"})

    def test_two_hosts_that_begin_to_serve_at_the_same_time(self) -> None:
        """Issue 13, acceptance 3: the room that one of them has had alone is not made anew."""
        world = self.world = World()
        self.a = world.hosts["a"] = Host(world, "a", RoomSettings())
        c = world.hosts["c"] = Host(world, "c", RoomSettings())
        world.advance(0.5)
        tell_a, tell_c = self.late(self.a), self.late(c)
        world.advance(0.7)
        code = next(n for n in map("room {}".format, range(99)) if Ring("ac").owner(n) == "c")
        ann, eve = Peer(self.a), Peer(c)
        self.assertEqual(ann.ask(room=code, user="ann", say="first")[0], "a")
        tell_c()
        eve.tell(room=code, user="eve")
        world.advance(0.1)
        tell_a()
        world.advance(1)
        self.assertEqual(self.at(), {code: "c"})
        self.assertEqual(set(eve.ask()[1]), {"ann", "eve"})
        self.assertEqual(eve.ask()[2], ["first"])

    def test_a_host_that_is_not_known_to_serve_yet_has_the_room(self) -> None:
        """Issue 13, acceptance 3: it is asked as well."""
        world = self.world = World()
        self.a = world.hosts["a"] = Host(world, "a", RoomSettings())
        c = world.hosts["c"] = Host(world, "c", RoomSettings())
        world.advance(0.5)
        tells = [self.late(self.a), self.late(c)]
        world.advance(0.7)
        code = next(n for n in map("room {}".format, range(99)) if Ring("ac").owner(n) == "a")
        ann, eve = Peer(self.a), Peer(c)
        self.assertEqual(eve.ask(room=code, user="eve", say="first")[0], "c")
        self.assertEqual(self.a.lobby.hosts.ring.hosts, {"a"})
        self.assertEqual(ann.ask(room=code, user="ann")[2], ["first"])
        for tell in tells:
            tell()
        world.advance(1)
        self.assertEqual(self.at(), {code: "a"})
        self.assertEqual(set(ann.ask()[1]), {"ann", "eve"})

    def test_a_host_that_asked_and_is_gone(self) -> None:
        """Issue 13, acceptance 3: what it asked for is here again, also where it never served."""
        code = self.world.code_of("a", then="c", of="abc")
        for way in ("it says so", "time is up"):
            c = Host(self.world, "c", RoomSettings())
            self.world.advance(0.5)
            self.late(self.a)
            self.world.advance(0.7)
            Peer(c).tell(room=code, user="eve")
            self.world.advance(0.1)
            self.assertEqual(self.a.lobby.owner(code), "c", way)
            if way == "it says so":
                self.a.lobby.handover.lost("c")
            else:
                self.world.advance(self.a.lobby.spread.move_timeout)
            self.assertEqual(self.a.lobby.owner(code), "a", way)
            self.world = World()
            self.a, self.b = self.world.add("a"), self.world.add("b")

    def test_a_bus_that_loses_and_repeats(self) -> None:
        """What hosts say to each other arrives in order and once all the same."""
        c, _ = self.world.cuttable("c", lose_every=3, repeat_every=2)
        here = self.world.code_of("a")
        ann, bob = Peer(c), Peer(self.a)
        ann.tell(room=here, user="ann")
        self.world.advance(5)
        bob.ask(room=here, user="bob")
        for n in range(20):
            ann.tell(say=n)
            self.world.advance(0.3)
        self.world.advance(10)
        self.assertEqual(self.a.lobby.get(here).data, list(range(20)))
        self.assertEqual(bob.news(), list(range(20)))

    def test_a_host_that_begins_anew(self) -> None:
        """One process is killed, and another has its name at once."""
        _, bus = self.world.cuttable("c")
        code = self.world.code_of("c")
        ann = Peer(self.a)
        ann.ask(room=code, user="ann")
        bus.cut = True
        new = self.world.add("c")
        self.world.advance(SILENCE + 2)  # until then it might be there still
        self.assertEqual([m["params"]["data"] for m in ann.messages()], ["host lost"])
        self.assertEqual(ann.ask(2, room=code, user="ann"), ["c", ["ann"], []])
        self.assertEqual(new.codes, {code})

    def test_a_host_goes_that_cannot_say_so(self) -> None:
        """The bus is away: its rooms end, and nothing is waited for without an end."""
        c, bus = self.world.cuttable("c")
        eve = Peer(c)
        eve.ask(room=self.world.code_of("c"), user="eve")
        bus.cut = True
        ended = Deferred.fromCoroutine(c.lobby.close())
        self.world.advance(45)
        self.assertEqual(self.successResultOf(ended), [])
        self.assertEqual((len(c.lobby), len(c.lobby.seats), len(c.lobby.timers)), (0, 0, 0))

    def test_a_bus_that_brings_nothing_back(self) -> None:
        bus = BadBus(self.world.bus, self.world.clock)
        bus.cut = True
        bus.step_down()
        deaf = Host(self.world, "c", RoomSettings(), bus)
        self.world.advance(4)
        self.assertNoResult(deaf.started)  # a new server of the bus reports nobody for so long
        self.world.advance(6)
        self.failureResultOf(deaf.started, BusError)
        self.assertEqual(self.a.lobby.hosts.ring.hosts, {"a", "b"})

    def test_a_name_that_is_taken(self) -> None:
        before = len(self.successResultOf(self.world.bus.status()).subscribers)
        twin = Host(self.world, "a", RoomSettings())
        self.world.advance(SILENCE + 2)
        self.failureResultOf(twin.started, HostExists)
        after = self.successResultOf(self.world.bus.status()).subscribers
        self.assertEqual(len(after), before, "it has left nothing on the bus")
        self.assertEqual(self.b.lobby.hosts.ring.hosts, {"a", "b"})

    def test_alone_it_is_an_ordinary_lobby(self) -> None:
        world = World()
        host = world.add("a")
        ann = Peer(host)
        self.assertEqual(ann.ask(room="tea", user="ann"), ["a", ["ann"], []])
        ended = Deferred.fromCoroutine(host.lobby.close())
        world.advance(2)
        self.successResultOf(ended)
        self.assertEqual(len(host.lobby), 0)
        host.manager.stop_sweeping() if hasattr(host.manager, "stop_sweeping") else None
        left = [call for call in world.clock.getDelayedCalls() if "sweep" not in str(call)]
        self.assertEqual(left, [])


class HostLobbyTests(SynchronousTestCase):
    """A-51: what an application calls on the lobby of one of two hosts."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.here, self.there = self.world.code_of("a"), self.world.code_of("b")
        self.ann = Peer(self.a)

    def lost(self) -> list[Any]:
        return [told["data"] for told in self.ann.news() if told.get("event") == "lost"]

    def test_its_name(self) -> None:
        """It is one that no other process has, unless the application gives one."""
        names = [SpreadLobby(self.world.clock, self.world.bus, Hooks()).host for _ in range(2)]
        self.assertRegex(names[0], "^[0-9a-f]{16}$")
        self.assertNotEqual(*names)

    def test_how_late_a_timer_may_be(self) -> None:
        """A-49: 50 ms, unless told otherwise."""
        self.assertEqual(self.a.lobby.timers.tick, 0.05)

    def test_an_old_name(self) -> None:
        text = "SpreadLobby.visitors is called remote_peers now"
        found = self.assertWarns(DeprecationWarning, text, __file__, lambda: self.a.lobby.visitors)
        self.assertIs(found, self.a.lobby.remote_peers)

    def test_the_room_of_a_connection(self) -> None:
        self.assertIsNone(self.a.lobby.code_of(self.ann.connection))
        for code in (self.there, self.here):
            self.ann = Peer(self.a)
            self.ann.ask(room=code, user=code)
            self.assertEqual(self.a.lobby.code_of(self.ann.connection), code)

    def test_codes_for_rooms_here(self) -> None:
        lobby = self.a.lobby
        first = next(code for code in map("game {}".format, range(1, 99)) if lobby.owns(code))
        self.assertEqual(lobby.code_here("game "), first)
        lobby.create(first)
        self.assertNotEqual(lobby.code_here("game "), first)
        code = lobby.new_code("game ")
        self.assertRegex(code, "^game [0-9a-f]{16}$")
        self.assertTrue(lobby.owns(code))
        self.assertEqual(World().add("alone").lobby.code_here("game "), "game 1")

    def test_a_host_that_serves_no_rooms(self) -> None:
        """Nobody is in its rooms, and none is made, as long as there is no other host."""
        self.patch(self.a.lobby.hosts, "ring", Ring())
        for make in (self.a.lobby.new_code, self.a.lobby.code_here, self.a.lobby.create):
            error = self.assertRaises(RequestError, make, self.here)
            self.assertEqual(error.error.text, "Temporarily unavailable")
        self.assertEqual(self.ann.ask(room=self.here, user="ann"), "Temporarily unavailable")
        self.assertEqual(len(self.a.lobby.seats), 0)

    def test_a_connection_of_another_host_and_a_room_of_another_host(self) -> None:
        """Its own host is to send the message there."""
        self.ann.ask(room=self.there, user="ann")
        (peer,) = self.b.lobby.members.get("ann").connections
        self.b.lobby.members.leave("ann")
        answer: Deferred[object] = Deferred()
        self.b.lobby.place(peer, self.here, "ann", "body", answer=answer)
        self.failureResultOf(answer, RequestError)

    def test_a_room_of_the_application_counts_for_nobody(self) -> None:
        self.a.lobby.create(self.here)
        self.assertEqual(self.a.lobby.maker(self.here), ("", ""))

    def test_a_room_that_has_moved_and_nobody_comes(self) -> None:
        """It ends when no member can be on the way any more."""
        self.a.lobby.spread = SpreadSettings(window=2.0)
        self.a.lobby.create_for_members(self.here, "ann", "192.0.2.1")
        self.world.advance(1.9)
        self.assertEqual(self.a.codes, {self.here})
        self.world.advance(0.2)
        self.assertEqual(self.a.codes, set())

    def test_a_connection_that_has_ended_follows_no_room(self) -> None:
        self.ann.lost()
        self.a.lobby.follow(self.ann.connection, self.there, "ann", "b")
        self.assertEqual(len(self.a.lobby.seats), 0)

    def test_a_room_that_ends_for_good(self) -> None:
        """Nothing is lost, and its members are told what the room tells them."""
        self.ann.ask(room=self.here, user="ann")
        self.a.lobby.get(self.here).close()
        self.assertEqual((self.lost(), self.a.codes), ([], set()))

    def test_cut_off_from_the_bus(self) -> None:
        """Its rooms end at once, with what waits there; and that is over with them."""
        self.a.hooks.slow = slow = Deferred()
        self.ann.tell(room=self.here, user="ann", say="first")
        self.world.advance(0.1)
        room = self.a.lobby.get(self.here)
        self.ann.tell(say="second")
        self.a.lobby._cut_off()
        slow.callback("done")
        self.world.advance(0.1)
        self.assertEqual((room.data, self.a.codes), (["first"], set()))
        self.assertEqual(self.lost(), ["cut off"])
        self.a.hooks.slow = None
        self.ann.ask(room=self.here, user="ann")
        self.a.lobby.get(self.here).close()
        self.assertEqual(self.lost(), [])

    def test_how_what_is_for_everyone_may_be_dropped(self) -> None:
        sent: list[Any] = []
        self.patch(self.a.lobby.exchange, "send", lambda host, entry: sent.append(entry))
        self.a.lobby.send_user("ann", b"1", policy=None)
        self.a.lobby.broadcast(b"2", key="score", policy=EventPolicy.DROP_OLDEST)
        told = [Everyone("ann", b"1", None, None), Everyone(None, b"2", "score", "drop-oldest")]
        self.assertEqual(sent, told)

    def test_too_much_waits_for_another_host(self) -> None:
        """What is for everyone is dropped there, unless it must not be."""
        sent: list[Any] = []
        self.patch(self.a.lobby.exchange, "send", lambda host, entry: sent.append(entry.data))
        self.patch(self.a.lobby.exchange, "full", lambda host: True)
        self.a.lobby.send_user("ann", b"1", policy=None)
        self.a.lobby.send_user("ann", b"2")
        self.a.lobby.send_user("ann", b"3", key="score", policy=None)
        self.assertEqual(sent, [b"1"])

    def test_what_is_said_in_the_last_moment(self) -> None:
        """A-47: it leaves no timer."""
        gone: Deferred[None] = Deferred()
        self.patch(self.a.lobby.hosts, "stop", lambda: gone)
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.world.advance(0.5)
        self.ann.tell(room=self.there, user="ann")
        self.assertEqual(len(self.a.lobby.timers), 1)
        gone.callback(None)
        self.world.advance(3)
        self.successResultOf(ended)
        self.assertEqual(len(self.a.lobby.timers), 0)

    def test_the_end(self) -> None:
        """What waits in its rooms is handled; nothing of it is left on the bus."""
        before = len(self.successResultOf(self.world.bus.status()).subscribers)
        host = self.world.add("c")
        ann, bob = Peer(host), Peer(host)
        code = self.world.code_of("c")
        ann.ask(room=self.world.code_of("a"), user="ann")
        self.assertEqual((len(host.lobby.seats), host.lobby._moves), (1, []))
        bob.ask(room=code, user="bob")
        host.hooks.slow = slow = Deferred()
        bob.tell(say="first")
        number = bob.tell(say="second")
        ended = Deferred.fromCoroutine(host.lobby.close())
        slow.callback("done")
        host.hooks.slow = None
        self.world.advance(2)
        self.successResultOf(ended)
        (answer,) = [m for m in bob.messages() if m["id"] == number]
        self.assertEqual(answer["result"][2], ["first", "second"])
        self.assertEqual(len(host.lobby.seats), 0)
        after = len(self.successResultOf(self.world.bus.status()).subscribers)
        self.assertEqual(after, before)

    def test_the_end_of_the_only_host(self) -> None:
        world = World()
        host = world.add("a")
        ann = Peer(host)
        host.hooks.slow = slow = Deferred()
        ann.tell(room="tea", user="ann", say="first")
        world.advance(0.1)
        room = host.lobby.get("tea")
        ann.tell(say="second")
        ended = Deferred.fromCoroutine(host.lobby.close())
        slow.callback("done")
        world.advance(0.1)
        self.assertEqual(self.successResultOf(ended), [])
        self.assertEqual(room.data, ["first", "second"])
        self.assertIn(Closing("closed"), host.hooks.events)


class ExchangeTests(SynchronousTestCase):
    def test_a_message_that_cannot_be_handled(self) -> None:
        """Issue 12: whatever is raised, those behind it are handled."""
        for error in ENDINGS:
            received: list[bytes] = []

            def take(member: str, data: bytes, error: Any = error, to: Any = received) -> None:
                to.append(data)
                raise error

            incoming = IncomingChannels(
                ChannelSettings(),
                lambda message: True,
                lambda member: "",
                received=take,
                renewed=lambda member: None,
            )
            data = b"".join(len(text).to_bytes(4, "big") + text for text in (b"one", b"two"))
            headers = {"from": "b", "stream": "s", "n": "0"}
            incoming.handle(Message("1", "t", data, Model.RELIABLE_RANDOM, headers))
            self.assertEqual(received, [b"one", b"two"])
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)


class EntryTests(SynchronousTestCase):
    """Hosts of two versions stand side by side while one is replaced."""

    def test_an_entry_is_known_by_the_same_name_in_every_version(self) -> None:
        tags = {kind.__struct_config__.tag for kind in get_args(AnyEntry)}
        self.assertEqual(
            tags,
            {"Say", "Enter", "Gone", "Reply", "Push", "Out", "Hold", "Ask", "Handed", "Everyone"},
        )
