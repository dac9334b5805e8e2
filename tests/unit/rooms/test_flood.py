"""Senders that are faster than their room."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.failures import RoomBusy
from kupool.rooms.flood import Flood
from kupool.rooms.peers import Peer
from kupool.rooms.settings import FloodPolicy, RoomSettings


class SomePeer:
    """A connection; counts how many hold it."""

    def __init__(self) -> None:
        self.holds = 0

    def hold(self) -> None:
        self.holds += 1

    def release(self) -> None:
        self.holds -= 1


class Member:
    """Sends messages to a room on its connections."""

    def __init__(self, connections: int = 1) -> None:
        self.peers = [SomePeer() for _ in range(connections)]
        self.connections = cast(list[Peer], self.peers)
        self.waiting = 0


class FloodTests(SynchronousTestCase):
    """A-48: who sends too much is not read, and nobody else is held back."""

    def setUp(self) -> None:
        self.clock = Clock()
        #: Messages that wait in the room.
        self.waiting = 0
        self.flood = self.make()

    def make(self, policy: FloodPolicy = FloodPolicy.PAUSE, **limits: Any) -> Flood:
        settings = {"queue_limit": 10, "sender_limit": 4, **limits}
        return Flood(self.clock, RoomSettings(flood=policy, **settings))

    def send(self, member: Member, times: int = 1, at: int | None = 0) -> None:
        for _ in range(times):
            connection = None if at is None else member.connections[at]
            self.flood.admit("tea", member, connection, self.waiting)
            self.waiting += 1

    def handle(self, member: Member, times: int = 1) -> None:
        for _ in range(times):
            self.waiting -= 1
            self.flood.taken(member, self.waiting)
        self.clock.advance(0)

    def test_a_member_with_too_much(self) -> None:
        """Not read from the limit on, until half of it is left."""
        ann, bob = Member(), Member()
        self.send(ann, 3)
        self.assertEqual(ann.peers[0].holds, 0)
        self.send(ann)
        self.send(bob)
        self.assertEqual((ann.peers[0].holds, bob.peers[0].holds), (1, 0))
        self.handle(ann)
        self.assertEqual(ann.peers[0].holds, 1)
        self.handle(ann)
        self.assertEqual((ann.peers[0].holds, ann.waiting), (0, 2))

    def test_what_comes_nevertheless(self) -> None:
        """It was read already: it waits, too, and the connection is held once."""
        ann = Member()
        self.send(ann, 6)
        self.assertEqual((ann.peers[0].holds, ann.waiting), (1, 6))
        self.handle(ann, 4)
        self.assertEqual(ann.peers[0].holds, 0)

    def test_each_connection_that_sends(self) -> None:
        ann = Member(3)
        self.send(ann, 4, at=0)
        self.send(ann, 1, at=1)
        self.assertEqual([peer.holds for peer in ann.peers], [1, 1, 0])
        self.handle(ann, 3)
        self.assertEqual([peer.holds for peer in ann.peers], [0, 0, 0])

    def test_a_room_with_too_much(self) -> None:
        """Whoever sends then is not read, until half of the limit is left in the room."""
        members = [Member() for _ in range(4)]
        for member in members[:3]:
            self.send(member, 3)
        self.assertEqual([member.peers[0].holds for member in members], [0, 0, 0, 0])
        self.send(members[3])
        self.assertEqual([member.peers[0].holds for member in members], [0, 0, 0, 1])
        self.handle(members[0], 3)
        self.handle(members[1])
        self.assertEqual(members[3].peers[0].holds, 1)
        self.handle(members[1])
        self.assertEqual((self.waiting, members[3].peers[0].holds), (5, 0))

    def test_a_room_with_too_much_of_others(self) -> None:
        """It waits for the room, also when its own messages are handled."""
        members = [Member() for _ in range(4)]
        for member in members[:3]:
            self.send(member, 3)
        self.send(members[3])
        self.handle(members[3])
        self.assertEqual((members[3].waiting, members[3].peers[0].holds), (0, 1))
        self.handle(members[0], 3)
        self.handle(members[1])
        self.assertEqual((self.waiting, members[3].peers[0].holds), (5, 0))

    def test_half_of_both_limits(self) -> None:
        """It is read again with half of its own messages left, and half of the room's."""
        members = [Member() for _ in range(4)]
        for member, times in zip(members, (3, 3, 2, 2), strict=True):
            self.send(member, times)
        self.handle(members[0], 3)
        self.handle(members[1])
        self.assertEqual(members[3].peers[0].holds, 1)
        self.handle(members[1])
        self.assertEqual((members[3].waiting, members[3].peers[0].holds), (2, 0))

    def test_twice_the_limit_is_never_exceeded(self) -> None:
        self.flood = self.make(sender_limit=100)
        ann = Member()
        self.send(ann, 20)
        with self.assertRaises(RoomBusy):
            self.send(ann)
        self.assertEqual((self.flood.refused, ann.waiting), (1, 20))

    def test_the_application(self) -> None:
        """What it sends itself is refused at the limit: there is nothing to hold."""
        ann = Member()
        self.send(ann, 4, at=None)
        with self.assertRaises(RoomBusy):
            self.send(ann, at=None)
        self.assertEqual((self.flood.refused, ann.peers[0].holds), (1, 0))

    def test_the_names_of_the_policies(self) -> None:
        """An application may take one from its own settings."""
        self.assertIs(FloodPolicy("pause"), RoomSettings().flood)
        self.assertIs(FloodPolicy("refuse"), FloodPolicy.REFUSE)

    def test_refusing(self) -> None:
        """A message over a limit is refused, and nobody is held."""
        self.flood = self.make(FloodPolicy.REFUSE)
        members = [Member() for _ in range(4)]
        for member in members[:2]:
            self.send(member, 4)
            with self.assertRaises(RoomBusy):
                self.send(member)
        self.send(members[2], 2)
        with self.assertRaises(RoomBusy):
            self.send(members[3])
        self.assertEqual((self.flood.refused, self.waiting), (3, 10))
        self.assertEqual([member.peers[0].holds for member in members], [0, 0, 0, 0])

    def test_who_leaves(self) -> None:
        """They are read again, once; the others are not."""
        ann, bob = Member(), Member()
        for member in (ann, bob):
            self.send(member, 4)
        for _ in range(2):
            self.flood.let_go(ann.connections[0])
            self.clock.advance(0)
        self.assertEqual((ann.peers[0].holds, bob.peers[0].holds), (0, 1))
        self.flood.let_all_go()
        self.clock.advance(0)
        self.assertEqual((ann.peers[0].holds, bob.peers[0].holds), (0, 0))

    def test_not_within_a_handler(self) -> None:
        """What a connection had to say is handled in a later turn."""
        ann = Member()
        self.send(ann, 4)
        self.flood.let_all_go()
        self.assertEqual(ann.peers[0].holds, 1)
        self.clock.advance(0)
        self.assertEqual(ann.peers[0].holds, 0)
