"""Connections of other hosts in rooms of this host, by what is said back to their host."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import MALFORMED, TOO_MANY_REQUESTS, UNAVAILABLE, RequestError
from kupool.rooms.spread.entries import Enter, Gone, Hold, Out, RoomReply, Say
from kupool.rooms.spread.remote_peers import RemotePeer
from kupool.rooms.spread.ring import Ring
from kupool.session.outbox import EventPolicy
from tests.unit.rooms.spread.test_lobby import World


class Pushes:
    """An exchange that notes what it is given, and takes it or not."""

    def __init__(self) -> None:
        self.pushed: list[Any] = []
        self.sent: list[Any] = []
        self.takes = True

    def push(self, host: str, peer: int, data: bytes, *, key: Any, policy: Any) -> bool:
        self.pushed.append((host, peer, data, key, policy))
        return self.takes

    def send(self, host: str, entry: Any) -> None:
        self.sent.append((host, entry))


class RemotePeerTests(SynchronousTestCase):
    """A-51: a room sends to a connection of another host as to any other."""

    def setUp(self) -> None:
        self.exchange: Any = Pushes()
        self.peer = RemotePeer(self.exchange, "a", 7, "192.0.2.1")

    def test_what_is_sent_and_whether_it_may_be_dropped(self) -> None:
        self.peer.send_encoded(b"always")
        self.peer.send_latest("score", b"latest")
        self.assertTrue(self.peer.send_event(b"event", EventPolicy.DROP_OLDEST))
        self.exchange.takes = False
        self.assertFalse(self.peer.send_event(b"dropped"))
        self.assertEqual(
            self.exchange.pushed,
            [
                ("a", 7, b"always", None, None),
                ("a", 7, b"latest", "score", None),
                ("a", 7, b"event", None, EventPolicy.DROP_OLDEST.value),
                ("a", 7, b"dropped", None, EventPolicy.DROP_NEW.value),
            ],
        )

    def test_one_that_has_ended(self) -> None:
        self.peer.sends = False
        self.assertFalse(self.peer.send_event(b"event"))
        self.assertEqual(self.exchange.pushed, [])

    def test_it_is_paused_and_read_again(self) -> None:
        """A-48: by its own host, which reads from it."""
        self.peer.hold()
        self.peer.release()
        self.assertEqual(self.exchange.sent, [("a", Hold(7, True)), ("a", Hold(7, False))])


class RemotePeersTests(SynchronousTestCase):
    """A-51: what host ``b`` says to host ``a``, where connection 7 is."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.code = self.world.code_of("b")
        self.peers = self.b.lobby.remote_peers
        self.patch(self.b.lobby.handover, "_former", lambda code: set())
        self.sent: list[Any] = []
        self.patch(self.b.lobby.exchange, "send", lambda host, entry: self.sent.append(entry))

    def body(self, **params: Any) -> bytes:
        return b'{"id":1,"method":"do","params":%s}' % str(params).replace("'", '"').encode()

    def say(self, number: int = 0, *, first: bool = False, body: bytes | None = None) -> None:
        body = self.body(say=number) if body is None else body
        self.peers.say("a", Say(7, self.code, "ann", number, body, first, "192.0.2.1"))

    def settled(self) -> list[Any]:
        """Return what was said since the last call, when everything has happened."""
        self.world.advance(0.05)
        sent, self.sent[:] = list(self.sent), []
        return sent

    def test_an_answer(self) -> None:
        self.say(3, first=True)
        self.assertEqual(self.settled(), [RoomReply(7, 3, b'["b",["ann"],[3]]')])
        self.say()
        self.assertEqual(self.settled(), [], "none was asked for")

    def test_an_error(self) -> None:
        self.patch(self.b.hooks, "on_dispatch_message", self.refuse)
        self.say(3, first=True)
        self.assertEqual(self.settled(), [RoomReply(7, 3, b"", UNAVAILABLE.code, UNAVAILABLE.text)])

    def refuse(self, *arguments: object) -> None:
        raise RequestError(UNAVAILABLE)

    def test_the_largest_answer(self) -> None:
        most = self.b.lobby.spread.max_entry
        for size in (most, most + 1):
            answer = "x" * (size - 2)
            self.patch(self.b.hooks, "on_dispatch_message", lambda *_, answer=answer: answer)
            self.say(3, first=True)
            (reply,) = self.settled()
            self.assertEqual(len(reply.data), size if size == most else 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_message_that_is_malformed(self) -> None:
        """It is refused; if it was the first one, the connection is in no room."""
        malformed = RoomReply(7, 3, b"", MALFORMED.code, MALFORMED.text)
        self.say(3, first=True, body=b"{")
        self.assertEqual(self.settled(), [malformed, Out(7, self.code, False, "malformed message")])
        self.assertEqual(len(self.peers), 0)
        self.say(first=True)
        self.say(3, body=b"{")
        self.assertEqual(self.settled(), [malformed])

    def test_a_room_that_refuses_the_user(self) -> None:
        self.patch(self.b.lobby, "_admit", self.refuse)
        self.say(3, first=True)
        refused = RoomReply(7, 3, b"", UNAVAILABLE.code, UNAVAILABLE.text)
        self.assertEqual(self.settled(), [refused, Out(7, self.code, False, "refused")])

    def test_a_message_of_who_is_no_member_any_more(self) -> None:
        self.say(3)
        reply, out = self.settled()
        self.assertRegex(reply.text, "not found: room")
        self.assertEqual(out, Out(7, self.code, False, "refused"))

    def test_a_room_of_another_host(self) -> None:
        self.code = self.world.code_of("a")
        self.say(3, first=True)
        refused = RoomReply(7, 3, b"", UNAVAILABLE.code, UNAVAILABLE.text)
        self.assertEqual(self.settled(), [refused, Out(7, self.code, False, "refused")])
        self.enter()
        self.assertEqual(self.settled(), [Out(7, self.code, True, "moved")])

    def enter(self) -> None:
        self.peers.enter("a", Enter(7, self.code, "ann", "192.0.2.1"))

    def test_who_follows_a_room_and_is_refused(self) -> None:
        self.patch(self.b.lobby, "enter", self.refuse)
        self.enter()
        self.assertEqual(self.settled(), [Out(7, self.code, False, UNAVAILABLE.text)])

    def test_who_leaves_and_whose_room_moves(self) -> None:
        for moved, reason in ((False, "left"), (True, "moved")):
            self.enter()
            self.settled()
            (peer,) = self.b.lobby.members.get("ann").connections
            self.peers.detached(peer, self.code, moved=moved)
            self.assertEqual(self.settled(), [Out(7, self.code, moved, reason)])
            self.b.lobby.members.disconnected(peer)

    def test_a_member_says_more_while_the_room_moves_on(self) -> None:
        """It is a member here: whose the room is does not matter to its messages."""
        self.say(3, first=True)
        self.settled()
        self.patch(self.b.lobby.hosts, "ring", Ring("a"))
        self.say(4)
        self.assertEqual(self.settled(), [RoomReply(7, 4, b'["b",["ann"],[3,4]]')])

    def test_too_many_messages_for_a_room_that_is_not_here_yet(self) -> None:
        """K-44: four times the limit of one sender wait, in order; the next one is refused."""
        most = 4 * self.b.lobby.spread.sender_limit
        coming: Deferred[None] = Deferred()
        self.patch(self.b.lobby, "ready", lambda code: coming)
        self.patch(self.b.hooks, "on_dispatch_message", lambda room, incoming: incoming.body.params)
        self.say(1, first=True)
        for number in range(2, most + 2):
            self.say(number)
        self.assertEqual(self.settled(), [])
        self.say(most + 2)
        (refused,) = self.settled()
        self.assertEqual((refused.number, refused.code), (most + 2, TOO_MANY_REQUESTS.code))
        self.say(0)
        self.assertEqual(self.settled(), [], "no answer was asked for")
        coming.callback(None)
        numbers = [entry.number for entry in self.settled() if isinstance(entry, RoomReply)]
        self.assertEqual(numbers, list(range(1, most + 2)))

    def test_who_waits_for_one_room_after_the_other(self) -> None:
        """The first one refuses it; what it says after that waits for the second one."""
        rooms: list[Deferred[None]] = [Deferred(), Deferred()]
        waiting = list(rooms)
        self.patch(self.b.lobby, "ready", lambda code: waiting.pop(0))
        admit = self.patch(self.b.lobby, "_admit", self.refuse)
        self.enter()
        self.say(1, first=True)
        self.say(2)
        enter = self.patch(self.b.lobby, "enter", lambda code, user, peer: None)
        rooms[0].callback(None)
        self.assertEqual(self.settled(), [], "it is in no room yet, and waits for one again")
        admit.restore()
        enter.restore()
        rooms[1].callback(None)
        self.assertEqual([reply.number for reply in self.settled()], [1, 2])

    def test_who_goes_while_the_room_is_awaited(self) -> None:
        coming: Deferred[None] = Deferred()
        self.patch(self.b.lobby, "ready", lambda code: coming)
        self.say(1, first=True)
        self.peers.lost("a")
        coming.callback(None)
        self.settled()
        self.assertEqual((self.b.codes, len(self.peers)), (set(), 0))

    def test_whose_connection_ends_while_the_room_is_awaited(self) -> None:
        """It has said something before: that is done first."""
        coming: Deferred[None] = Deferred()
        self.patch(self.b.lobby, "ready", lambda code: coming)
        self.say(1, first=True)
        self.peers.gone("a", Gone(7))
        self.assertEqual(len(self.peers), 1)
        coming.callback(None)
        self.settled()
        self.assertEqual((self.b.codes, len(self.peers)), ({self.code}, 0))
        self.assertFalse(self.b.lobby.members.get("ann").online)

    def test_what_comes_after_the_end_of_a_connection(self) -> None:
        """It is refused, and its host is not told that the connection is in no room."""
        coming: Deferred[None] = Deferred()
        self.patch(self.b.lobby, "ready", lambda code: coming)
        self.say(1, first=True)
        self.peers.gone("a", Gone(7))
        self.say(2)
        coming.callback(None)
        self.assertEqual(
            [(type(e), e.number) for e in self.settled()], [(RoomReply, 2), (RoomReply, 1)]
        )
