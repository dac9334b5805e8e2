"""Rooms spread over hosts, in any order of things."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.settings import RoomSettings
from tests.unit.rooms.spread.test_lobby import BadBus, Host, Peer, World


class Life:
    """Hosts that come, go and die on a bus that loses and repeats, and members that talk."""

    def __init__(self, test: SynchronousTestCase, seed: int, *, deaths: bool) -> None:
        self.test = test
        self.deaths = deaths
        self.random = Random(seed)
        self.world = World()
        self.buses: dict[str, BadBus] = {}
        self.names = iter("abcdefghijklmnopqrstuvwxyz")
        self.users = 0
        self.peers: dict[Peer, tuple[str, str, str]] = {}
        self.open: dict[Peer, set[int]] = {}
        for _ in range(2):
            self.come()
            self.world.advance(1.2)

    @property
    def hosts(self) -> dict[str, Host]:
        return self.world.hosts

    def come(self) -> None:
        name = next(self.names)
        bus = self.buses[name] = BadBus(self.world.bus, self.world.clock)
        bus.lose_every, bus.repeat_every = self.random.choice([0, 7]), self.random.choice([0, 3])
        linger = self.random.choice([None, 0.0, 0.0, 0.0])
        self.hosts[name] = Host(self.world, name, RoomSettings(linger=linger), bus)

    def go(self) -> None:
        name = self.random.choice(list(self.hosts))
        ended = Deferred.fromCoroutine(self.hosts[name].lobby.close())
        self.world.advance(26)
        self.test.assertTrue(ended.called, name)
        self.forget(name)

    def die(self) -> None:
        name = self.random.choice(list(self.hosts))
        self.buses[name].cut = True
        self.forget(name)

    def forget(self, name: str) -> None:
        del self.hosts[name]
        for peer in [peer for peer, (host, _, _) in self.peers.items() if host == name]:
            peer.lost()
            del self.peers[peer]

    def join(self) -> None:
        name = self.random.choice(list(self.hosts))
        peer = Peer(self.hosts[name])
        user, room = f"user {self.users}", f"room {self.random.randrange(8)}"
        self.users += 1
        self.peers[peer] = (name, user, room)
        self.open[peer] = {peer.tell(room=room, user=user)}

    def talk(self) -> None:
        peer = self.random.choice(list(self.peers))
        _, user, room = self.peers[peer]
        said = {"say": "hello"} if self.random.random() < 0.8 else {"room": room, "user": user}
        self.open[peer].add(peer.tell(**said))

    def part(self) -> None:
        peer = self.random.choice(list(self.peers))
        peer.lost()
        del self.peers[peer]

    def step(self) -> None:
        chance = self.random.random()
        if chance < 0.25 or not self.peers:
            self.join()
        elif chance < 0.75:
            self.talk()
        elif chance < 0.82:
            if len(self.hosts) < 5:
                self.come()
        elif chance < 0.92:
            if len(self.hosts) > 2:
                self.die() if self.deaths and chance < 0.87 else self.go()
        else:
            self.part()
        self.world.advance(self.random.choice([0, 0.01, 0.05, 0.3, 1]))
        self.hear()
        if not self.deaths:
            self.one_place()

    def hear(self) -> None:
        """Each message has one answer at most."""
        for peer in self.peers:
            for message in peer.messages():
                if message["id"] is not None:
                    self.open[peer].remove(message["id"])

    def one_place(self) -> None:
        places = Counter(code for host in self.hosts.values() for code in host.codes)
        self.test.assertEqual([code for code, number in places.items() if number > 1], [])

    def end(self) -> None:
        self.world.advance(60)
        self.hear()
        self.one_place()
        ring = next(iter(self.hosts.values())).lobby.hosts.ring
        for name, host in self.hosts.items():
            self.test.assertEqual(host.lobby.hosts.ring.hosts, set(self.hosts))
            self.test.assertEqual({ring.owner(code) for code in host.codes} - {name}, set())
        for peer, (_, user, room) in self.peers.items():
            self.test.assertEqual(self.open[peer], set(), "each message has an answer")
            self.test.assertIn(user, peer.ask(5, room=room, user=user)[1])
            self.test.assertTrue(peer.transport.reading)
            peer.lost()
        self.world.advance(35)
        for host in self.hosts.values():
            lobby: Any = host.lobby
            left = (lobby.members, lobby.seats, lobby.remote_peers)
            self.test.assertEqual([len(part) for part in left], [0, 0, 0])
            self.test.assertEqual(lobby.exchange.waiting(), 0)


class AnyOrderTests(SynchronousTestCase):
    """A-51: whatever the order, one answer for each message and one place for each room."""

    def live(self, seed: int, *, deaths: bool) -> None:
        life = Life(self, seed, deaths=deaths)
        for _ in range(50):
            life.step()
        life.end()

    def test_hosts_that_come_and_go(self) -> None:
        for seed in range(3):
            self.live(seed, deaths=False)

    def test_hosts_that_die_as_well(self) -> None:
        for seed in range(3):
            self.live(seed, deaths=True)
