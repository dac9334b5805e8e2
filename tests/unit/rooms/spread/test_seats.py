"""Connections whose room is on another host: what they hear, and when they are read."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import BAD_PARAMS, TIMEOUT, RequestError
from kupool.rooms.spread.entries import Hold, Out, RoomReply
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.seats import LEFT, MOVED
from kupool.rooms.spread.settings import SpreadSettings
from tests.unit.rooms.spread.test_lobby import Peer, World


class SeatsCase(SynchronousTestCase):
    """Ann is connected to host ``a``; her room is on host ``b``."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.code = self.world.code_of("b")
        self.ann = Peer(self.a)
        self.ann.ask(room=self.code, user="ann")
        seat = self.a.lobby.seats.of(self.ann.connection)
        assert seat is not None
        self.seat = seat

    def lost(self) -> list[Any]:
        """What rooms told of that are gone."""
        return [told["data"] for told in self.ann.news() if told.get("event") == "lost"]


class MovingTests(SeatsCase):
    """A-51: a room moves to another host, and its members follow."""

    def test_what_waits_for_an_answer(self) -> None:
        """It is refused at once: nobody is left who could answer."""
        self.b.hooks.slow = Deferred()
        numbers = [self.ann.tell(say=n) for n in range(3)]
        self.world.advance(0.1)
        self.assertEqual(self.ann.messages(), [])
        self.a.lobby.seats.out("b", Out(self.seat.number, self.code, True, MOVED))
        self.world.advance(0.1)
        answers = self.ann.messages()
        self.assertEqual([answer["id"] for answer in answers], numbers)
        self.assertEqual({answer["error"] for answer in answers}, {"Temporarily unavailable"})

    def test_the_ring_has_not_changed_yet(self) -> None:
        """The room's host knew before us: after a moment it is looked for again."""
        seats = self.a.lobby.seats
        seats.out("b", Out(self.seat.number, self.code, True, MOVED))
        self.world.advance(0.15)
        self.assertFalse(self.ann.transport.reading)
        self.world.advance(0.1)
        self.assertTrue(self.ann.transport.reading)
        self.assertEqual(self.ann.ask(say="here")[:2], ["b", ["ann"]])
        self.assertEqual(self.lost(), [])

    def test_it_is_not_found(self) -> None:
        """The member is told that the room is gone, when the time for a move is over."""
        seats, spread = self.a.lobby.seats, self.a.lobby.spread
        self.patch(self.a.lobby, "owner", lambda code: None)
        seats.out("b", Out(self.seat.number, self.code, True, MOVED))
        self.world.advance(spread.move_timeout - 0.5)
        self.assertEqual((self.lost(), len(seats)), ([], 1))
        self.world.advance(1)
        self.assertEqual((self.lost(), len(seats)), ([MOVED], 0))
        self.assertTrue(self.ann.transport.reading)

    def test_refused_where_it_has_moved_to(self) -> None:
        """It is lost; one that was sent away before anything moved is told nothing."""
        seats = self.a.lobby.seats
        seats.out("b", Out(self.seat.number, self.code, False, "refused"))
        self.assertEqual((self.lost(), len(seats)), ([], 0))
        self.ann.ask(room=self.code, user="ann")
        for reason, told in (("too many members", ["too many members"]), (LEFT, [])):
            seat = seats.of(self.ann.connection) or seats.take(
                self.ann.connection, self.code, "ann", "b"
            )
            seat.until = self.world.clock.seconds() + 20
            seats.out("b", Out(seat.number, self.code, False, reason))
            self.assertEqual((self.lost(), len(seats)), (told, 0))

    def test_who_disconnects_meanwhile(self) -> None:
        self.a.lobby.seats.out("b", Out(self.seat.number, self.code, True, MOVED))
        self.ann.lost()
        self.world.advance(1)
        self.assertEqual(len(self.a.lobby.seats), 0)

    def test_the_last_moment(self) -> None:
        self.seat.until = self.world.clock.seconds()
        self.a.lobby.seats._look(self.seat)
        self.assertEqual(self.lost(), [MOVED])

    def test_it_moves_here_and_refuses_the_member(self) -> None:
        self.patch(self.a.lobby.hosts, "ring", Ring("a"))
        self.patch(self.a.lobby.handover, "_former", lambda code: set())
        self.patch(self.a.lobby, "enter", raising(RequestError(BAD_PARAMS)))
        self.a.lobby.seats.out("b", Out(self.seat.number, self.code, True, MOVED))
        self.assertEqual((self.lost(), len(self.a.lobby.seats)), ([BAD_PARAMS.text], 0))

    def test_no_other_host_can_be_reached(self) -> None:
        """Who is in a room of another host is told, also while the room moves."""
        self.patch(self.a.lobby, "owner", lambda code: None)
        self.a.lobby.seats.out("b", Out(self.seat.number, self.code, True, MOVED))
        self.a.lobby._cut_off()
        self.assertEqual((self.lost(), len(self.a.lobby.seats)), (["cut off"], 0))
        self.assertTrue(self.ann.transport.reading)


class SayingTests(SeatsCase):
    """A-51: what is sent to a room of another host."""

    def setUp(self) -> None:
        super().setUp()
        self.sent: list[Any] = []
        self.patch(self.a.lobby.exchange, "send", lambda host, entry: self.sent.append(entry))
        self.packed = b"data"
        self.patch(self.a.lobby.seats._packing, "pack", lambda body: self.packed)

    def say(self) -> Deferred[object]:
        answer: Deferred[object] = Deferred()
        self.a.lobby.seats.say(self.seat, "body", answer)
        return answer

    def refused(self) -> str:
        return str(self.failureResultOf(self.say(), RequestError).value.error.text)

    def test_with_and_without_an_answer(self) -> None:
        self.say()
        self.a.lobby.seats.say(self.seat, "body", None)
        (number,) = self.seat.pending
        self.assertEqual([entry.number for entry in self.sent], [number, 0])
        self.assertEqual({entry.peer for entry in self.sent}, {self.seat.number})
        self.assertTrue(number and self.seat.number)

    def test_the_largest(self) -> None:
        most = self.a.lobby.spread.max_entry
        self.packed = b"x" * most
        self.say()
        self.packed = b"x" * (most + 1)
        self.assertRegex(self.refused(), "too large for a room of another host")
        self.assertEqual(len(self.sent), 1)

    def test_too_much_waits_for_the_host(self) -> None:
        self.patch(self.a.lobby.exchange, "full", lambda host: True)
        self.assertEqual(self.refused(), "Temporarily unavailable")

    def test_the_room_is_moving(self) -> None:
        self.seat.moving = True
        self.assertEqual(self.refused(), "Temporarily unavailable")

    def test_too_many_unanswered(self) -> None:
        """K-44: twice the number at which it is read no more."""
        most = 2 * self.a.lobby.spread.sender_limit
        for _ in range(most):
            self.assertNoResult(self.say())
        self.assertRegex(self.refused(), "too many requests")

    def test_an_answer_that_never_comes(self) -> None:
        """It has an end, whatever timers the application has."""
        self.a.lobby.spread = SpreadSettings(answer_timeout=1.0)
        timers = self.a.lobby.timers
        timers.limit = 1
        timers.once("a room of the application", "turn", 1000, lambda timer: None)
        answer = self.say()
        self.world.advance(0.9)
        self.assertNoResult(answer)
        self.world.advance(0.2)
        self.assertEqual(self.failureResultOf(answer, RequestError).value.error, TIMEOUT)
        self.assertEqual(self.a.lobby.tasks.snapshot()["answer"].runs, 1)

    def test_the_end_of_the_host(self) -> None:
        answer = self.say()
        self.a.lobby.seats.close()
        self.assertEqual(len(self.a.lobby.seats), 0)
        self.failureResultOf(answer, RequestError)


class WordsOfOthersTests(SeatsCase):
    """A-51: only the host of a connection's room says anything to it."""

    def test_another_host(self) -> None:
        seats, number = self.a.lobby.seats, self.seat.number
        self.b.hooks.slow = Deferred()
        self.ann.tell()
        self.world.advance(0.1)
        (pending,) = self.seat.pending
        seats.out("c", Out(number, self.code, False, LEFT))
        seats.hold("c", Hold(number, True))
        seats.reply("c", RoomReply(number, pending, b"", 24, "no"))
        seats.reply("b", RoomReply(number + 1, pending, b"", 24, "no"))
        seats.reply("b", RoomReply(number, pending + 1, b"", 24, "no"))
        self.world.advance(0.01)
        self.assertEqual((len(seats), self.ann.messages()), (1, []))
        self.assertTrue(self.ann.transport.reading)
        seats.reply("b", RoomReply(number, pending, b"", 24, "no"))
        self.world.advance(0.01)
        (answer,) = self.ann.messages()
        self.assertEqual((answer["code"], answer["error"]), (24, "no"))

    def test_another_room(self) -> None:
        """What a room says that the connection was in before does not count."""
        self.a.lobby.seats.out("b", Out(self.seat.number, "other", False, LEFT))
        self.assertEqual(len(self.a.lobby.seats), 1)


class ReadingTests(SeatsCase):
    """A-48: a connection that says too much is not read, for as long as that is so."""

    def hold(self, on: bool) -> bool:
        self.a.lobby.seats.hold("b", Hold(self.seat.number, on))
        self.world.advance(0.01)
        return bool(self.ann.transport.reading)

    def test_the_room_has_enough(self) -> None:
        """However often the room says so: once is enough to go on."""
        self.assertTrue(self.hold(False))
        self.assertFalse(self.hold(True))
        self.assertFalse(self.hold(True))
        self.assertTrue(self.hold(False))

    def test_the_room_is_left_meanwhile(self) -> None:
        """The connection is read again: it is in no room."""
        self.hold(True)
        self.a.lobby.seats.out("b", Out(self.seat.number, self.code, False, LEFT))
        self.world.advance(0.01)
        self.assertTrue(self.ann.transport.reading)
        self.assertEqual(self.ann.ask(say="hello"), "forbidden")

    def test_held_by_the_application(self) -> None:
        """Whatever the room does, only the application lets it go."""
        self.ann.connection.hold()
        self.hold(True)
        self.a.lobby.seats.out("b", Out(self.seat.number, self.code, False, LEFT))
        self.world.advance(0.01)
        self.assertFalse(self.ann.transport.reading)
        self.ann.connection.release()
        self.assertTrue(self.ann.transport.reading)

    def test_unanswered_messages(self) -> None:
        """So many may be under way; it goes on when half of them are answered."""
        limit = self.a.lobby.spread.sender_limit
        self.b.hooks.slow = Deferred()
        for _ in range(limit - 1):
            self.ann.tell()
        self.world.advance(0.05)
        self.assertTrue(self.ann.transport.reading)
        self.ann.tell()
        self.world.advance(0.05)
        self.assertFalse(self.ann.transport.reading)
        pending = list(self.seat.pending)
        for number in pending[: limit // 2 - 1]:
            self.a.lobby.seats.reply("b", RoomReply(self.seat.number, number, b"", 24, "no"))
        self.world.advance(0.01)
        self.assertFalse(self.ann.transport.reading)
        number = pending[limit // 2 - 1]
        self.a.lobby.seats.reply("b", RoomReply(self.seat.number, number, b"", 24, "no"))
        self.world.advance(0.01)
        self.assertTrue(self.ann.transport.reading)
        for _ in range(limit // 2):
            self.assertTrue(self.ann.transport.reading)
            self.ann.tell()
        self.assertFalse(self.ann.transport.reading, "there are too many again")

    def test_an_answer_that_never_comes_leaves_no_timer(self) -> None:
        """A-47: neither does one that comes."""
        timers = len(self.a.lobby.timers)
        self.b.hooks.slow = Deferred()
        self.ann.tell()
        self.assertEqual(len(self.a.lobby.timers), timers + 1)
        (pending,) = self.seat.pending
        self.a.lobby.seats.reply("b", RoomReply(self.seat.number, pending, b"", 24, "no"))
        self.assertEqual(len(self.a.lobby.timers), timers)


class AnswerTests(SeatsCase):
    """A-51: answers come from the room, as if it were here."""

    def test_what_a_handler_refuses(self) -> None:
        """Its error reaches the sender as it is, where the room is not on its way."""
        refuse = raising(RequestError(BAD_PARAMS))
        for peer in (self.ann, Peer(self.b)):
            peer.ask(room=self.code, user="ann")
            patch = self.patch(self.b.hooks, "on_dispatch_message", refuse)
            self.assertEqual(peer.ask(say="hello"), "bad params")
            patch.restore()


def raising(error: Exception) -> Any:
    """Return what raises an error, whatever it is called with."""

    def call(*arguments: object) -> None:
        raise error

    return call
